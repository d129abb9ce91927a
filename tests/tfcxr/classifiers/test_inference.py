"""The one way to run a classifier over images: ten crops, a split, and the Keras model that users load."""

import numpy as np
import pytest
import tensorflow as tf

from tests import fakes
from tfcxr import data
from tfcxr.classifiers import inference
from tfcxr.classifiers.networks import models, preprocessing
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import pixel_ranges


def test_ten_crops_average_probabilities(tmp_path):
    records = data.RecordSet(fakes.make_records(tmp_path, resolution=16, per_class=6))
    classifier = models.Classifier(models.ModelConfig(("a", "b"), "v1_0s", 16, 16, "resnet_tiny"), seed=0)
    kernel, bias = classifier.head.get_weights()
    classifier.head.set_weights([kernel * 100, bias])
    images = np.stack([r["image"] for r in records.dataset("validation").as_numpy_iterator()])
    crops = preprocessing.ten_crops(pixel_ranges.uint8_to_unit(images), 16, "crop")
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
            found, _ = runner.probabilities("evaluate", "the model")
            keras = inference.InferenceModel(classifier, path, ten_crop=ten_crop)(images.astype(np.float32) / 255)
            np.testing.assert_allclose(found, keras, rtol=1e-5)
            np.testing.assert_allclose(found, runner().probabilities, rtol=1e-5)
    assert found.std() > 0.01


@pytest.fixture(scope="module")
def model():
    config = models.ModelConfig(("a", "b"), "v1_0s", 16, 16, "resnet_tiny")
    return inference.InferenceModel(models.Classifier(config, seed=0))


BAD_IMAGES = {
    "rgb": np.zeros([2, 16, 16, 3], np.float32),
    "no channel": np.zeros([2, 16, 16], np.float32),
    "one image": np.zeros([16, 16], np.float32),
    "8-bit": np.zeros([2, 16, 16, 1], np.uint8),
    "0 to 255": np.linspace(0, 255, 512, dtype=np.float32).reshape([2, 16, 16, 1]),
    "not a number": np.full([2, 16, 16, 1], np.nan, np.float32),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_every_call_of_the_keras_model_names_what_is_wrong_with_images_in_the_same_line(model, name):
    images = BAD_IMAGES[name]
    calls = {
        "model": model,
        "predict": lambda x: model.predict(x, verbose=0),
        "predict_on_batch": model.predict_on_batch,
        "predict of a dataset": lambda x: model.predict(tf.data.Dataset.from_tensors(x), verbose=0),
    }
    found = {}
    for way, call in calls.items():
        with pytest.raises(InputError) as raised:
            call(images)
        found[way] = str(raised.value)
    assert set(found.values()) == {found["model"]}, found
    assert found["model"].startswith("images: ") and "[0, 1]" in found["model"] and "\n" not in found["model"]


def test_the_keras_model_says_what_to_do_about_images(model):
    with pytest.raises(InputError, match=r"have shape \[2, 16, 16, 3\], expected grey images .*rgb_to_grayscale"):
        model.predict(BAD_IMAGES["rgb"])
    with pytest.raises(InputError, match=r"images: values are in \[0, 255\], not \[0, 1\]; divide"):
        model.predict(BAD_IMAGES["0 to 255"])
    # Of an array all is checked first: the fault is in its second batch, and the message has the whole range.
    late = np.zeros([64, 16, 16, 1], np.float32)
    late[40] = 2
    with pytest.raises(InputError, match=r"images: values are in \[0, 2\]"):
        model.predict(late, verbose=0)
    with pytest.raises(ValueError, match=r"images: have shape \[2, 16, 16, 3\], expected grey images"):
        tf.function(model)(BAD_IMAGES["rgb"])


def test_predict_gives_what_a_call_gives(model):
    images = np.random.default_rng(0).random([40, 16, 16, 1], np.float32)
    expected = model(images).numpy()
    batches = tf.data.Dataset.from_tensor_slices(images).batch(7)
    for found in (model.predict(images, verbose=0), model.predict(batches, verbose=0), model.predict_on_batch(images)):
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert expected.std() > 0
