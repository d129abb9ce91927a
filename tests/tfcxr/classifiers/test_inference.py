"""The one way to run a classifier over images: ten crops, a split, and the Keras model that users load."""

import numpy as np
import pytest
import tensorflow as tf

from tests import fakes
from tfcxr import data
from tfcxr.classifiers import inference
from tfcxr.classifiers.networks import models, preprocessing
from tfrecords_builder.images import pixel_ranges


def test_ten_crops_average_probabilities(tmp_path):
    records = data.RecordSet(fakes.make_records(tmp_path, resolution=16, per_class=6))
    classifier = models.Classifier(models.ModelConfig(("a", "b"), "v1_0s", 16, 16, "resnet_tiny"), seed=0)
    kernel, bias = classifier.head.get_weights()
    classifier.head.set_weights([kernel * 100, bias])
    images = np.stack([r["image"] for r in records.dataset("validation").as_numpy_iterator()])
    crops = preprocessing.ten_crops(pixel_ranges.uint8_to_unit(images), 16)
    by_crop = tf.nn.softmax(classifier(crops)).numpy().reshape(12, 10, 2)
    arguments = {"path": "source", "batch_size": 50}
    outputs = inference.SplitRunner(classifier, records, "validation", ten_crop=True, **arguments)()
    np.testing.assert_allclose(outputs.probabilities, by_crop.mean(axis=1), rtol=1e-4)
    centre = inference.SplitRunner(classifier, records, "validation", **arguments)()
    np.testing.assert_allclose(centre.probabilities, by_crop[:, 4], rtol=1e-4)
    assert np.abs(centre.probabilities - outputs.probabilities).max() > 1e-3


def test_a_split_and_the_keras_model_give_the_same_probabilities(tmp_path):
    records = data.RecordSet(fakes.make_records(tmp_path, resolution=16, per_class=6))
    config = models.ModelConfig(("a", "b"), "v1_0s", 16, 16, "resnet_tiny", attention=True, correction=True)
    classifier = models.Classifier(config, seed=0)
    kernel, bias = classifier.head.get_weights()
    classifier.head.set_weights([kernel * 100, bias])
    images = np.stack([r["image"] for r in records.dataset("validation").as_numpy_iterator()])
    for path in ("source", "target"):
        for ten_crop in (False, True):
            runner = inference.SplitRunner(
                classifier, records, "validation", path=path, batch_size=64, ten_crop=ten_crop
            )
            found = runner.probabilities("evaluate", "the model")
            keras = inference.InferenceModel(classifier, path, ten_crop=ten_crop)(images.astype(np.float32) / 255)
            np.testing.assert_allclose(found, keras, rtol=1e-5)
            np.testing.assert_allclose(found, runner().probabilities, rtol=1e-5)
    assert found.std() > 0.01


def test_the_keras_model_names_what_is_wrong_with_images():
    classifier = models.Classifier(models.ModelConfig(("a", "b"), "v1_0s", 16, 16, "resnet_tiny"), seed=0)
    model = inference.InferenceModel(classifier)
    words = r"images: have shape \[(2|None), 16, 16, 3\], expected grey images \[N, H, W, 1\] with values in \[0, 1\]"
    for call in (model, tf.function(model), lambda images: model.predict(images, verbose=0)):
        with pytest.raises(ValueError, match=words):
            call(np.zeros([2, 16, 16, 3], np.float32))
    with pytest.raises(ValueError, match=r"images: values are in \[0, 255\], not \[0, 1\]; divide"):
        model(np.linspace(0, 255, 256, dtype=np.float32).reshape([1, 16, 16, 1]))
