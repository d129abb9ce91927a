"""Extractors: what they compute, what they are called, what they refuse; reading the chosen images of a split."""

import hashlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from scipy.linalg import svd

import tfcxr
from tests import classifier_runs, fakes
from tfcxr import data
from tfcxr.classifiers import loading
from tfcxr.classifiers.networks import models
from tfcxr.fidelity import feature_networks, features
from tfcxr.training import runs
from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.images import image_ops

layers = tf.keras.layers


def draw(number, side=8, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, [number, side, side, 1]).astype(np.float32)


def keras_model(*stack, side=8, channels=1):
    return tf.keras.Sequential([tf.keras.Input([side, side, channels]), *stack])


def save(model, path):
    model.save(path)
    return path


def test_pixels_pca64_is_the_projection_on_the_first_components():
    reals, others = draw(200, 16), draw(10, 16, seed=1)
    extractor = features.make_extractor("pixels_pca64", resolution=16)
    assert extractor.name == "pixels_pca64"
    extractor.fit(reals)
    got = extractor(others)
    assert got.shape == (10, 64)
    assert got.dtype == np.float64
    flat = reals.reshape(200, 256).astype(np.float64)
    components = svd(flat - flat.mean(0))[2][:64]
    expected = (others.reshape(10, 256) - flat.mean(0)) @ components.T
    np.testing.assert_allclose(np.abs(got), np.abs(expected), atol=1e-9)
    again = features.PixelPca(16)
    again.restore(extractor.state())
    np.testing.assert_array_equal(again(others), got)


def test_directions_that_the_reals_do_not_have_are_left_out():
    extractor = features.PixelPca(8)
    extractor.fit(draw(5))
    assert extractor(draw(3)).shape == (3, 4)
    extractor.fit(np.full([9, 8, 8, 1], 0.5))
    np.testing.assert_array_equal(extractor(np.full([2, 8, 8, 1], 0.5)), np.zeros([2, 1]))


def test_pixels_pca64_of_large_images_is_fitted_to_fewer():
    assert [features.PixelPca(side).num_fit_images for side in (8, 64, 128, 256, 512)] == [2000, 2000, 2000, 1024, 256]


def test_images_of_another_shape_or_range_are_refused():
    extractor = features.PixelPca(8)
    for bad, words in [
        (draw(3) * 255, r"values are in \[-\d+.*\], not \[-1, 1\]"),
        (draw(3) * np.nan, "not \\[-1, 1\\]"),
        (draw(3)[..., 0], r"shape \[3, 8, 8\]"),
        (draw(3), "fit comes first"),
    ]:
        with pytest.raises(ValueError, match=words):
            extractor(bad)
    with pytest.raises(ValueError, match="state is of other images"):
        extractor.restore({"centre": np.zeros(256), "components": np.zeros([256, 64])})
    with pytest.raises(ValueError, match="has no state"):
        feature_networks.NetworkFeatures("n", 8, lambda x: x).restore({"centre": np.zeros(3)})


@pytest.mark.parametrize("kind", ["baseline", "dcan"])
def test_a_classifier_of_ours_gives_what_its_last_layer_sees(tmp_path, kind):
    records = classifier_runs.make_records(tmp_path / "records")
    run = classifier_runs.make_classifier_run(tmp_path / "run", records, kind=kind)
    extractor = features.make_extractor(str(run), resolution=16)
    images = draw(5, 16)
    got = extractor(images)
    assert got.shape == (5, 256)
    # From the features follow the probabilities of the model that users load.
    network = loading.load_network(run)
    logits = network.head(got)
    if kind == "dcan":
        logits += network.logit_correction(logits)
    expected = tfcxr.load_classifier(run)((images + 1) / 2)
    np.testing.assert_allclose(tf.nn.softmax(logits), expected, atol=1e-5)
    # Named by network, weights and settings: a copy has the same name, another classifier has not.
    assert extractor.name.startswith("resnet_tiny-")
    other = shutil.copytree(run, tmp_path / "other")
    assert features.make_extractor(str(other), resolution=16).name == extractor.name
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace('"image_size": 32', '"image_size": 48').replace("sha256", "old"))
    assert features.make_extractor(str(other), resolution=16).name != extractor.name
    (other / "config.json").write_text(config)
    network.base.layers[2].set_weights([0.5 * value for value in network.base.layers[2].get_weights()])
    models.save_weights(network, other / loading.WEIGHTS)
    assert features.make_extractor(str(other), resolution=16).name != extractor.name


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "folder"])
def test_a_keras_classifier_gives_the_input_of_its_last_dense_layer(tmp_path, name):
    tf.keras.utils.set_random_seed(0)
    stack = [layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(2), layers.Activation("softmax")]
    model = keras_model(*stack, side=12, channels=3)
    path = save(model, tmp_path / name)
    images = draw(5)
    extractor = features.make_extractor(str(path), resolution=8)
    assert extractor.name.startswith("keras-")
    resized = image_ops.resize((images + 1) / 2, 12, 12)
    expected = stack[1](stack[0](tf.repeat(resized, 3, axis=-1)))
    np.testing.assert_allclose(extractor(images), expected, atol=1e-6)


def test_a_keras_model_that_ends_in_pooling_gives_its_output(tmp_path):
    model = keras_model(layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), side=None)
    path = save(model, tmp_path / "m.keras")
    images = draw(5)
    np.testing.assert_allclose(
        features.make_extractor(str(path), resolution=8)(images), model((images + 1) / 2), atol=1e-6
    )


def trained_norm(scale):
    """A BatchNormalization that has seen a convolution of images in [0, scale]."""
    norm = layers.BatchNormalization(momentum=0.0)
    model = keras_model(layers.Conv2D(4, 3), norm, layers.GlobalAveragePooling2D(), layers.Dense(2))
    images = fakes.draw(("Pneumonia",), 8, 0)[None, ..., None] / 255.0 * scale
    model(np.repeat(images, 4, axis=0), training=True)
    return model


def nested(model):
    inner = tf.keras.Model(model.inputs, model.layers[-2].output)
    return keras_model(inner, layers.Dense(2))


def test_keras_models_of_another_input_range_are_refused(tmp_path):
    def rescaled(*scale):
        return keras_model(layers.Rescaling(*scale), layers.GlobalAveragePooling2D(), layers.Dense(2))

    wrapped = keras_model(layers.Rescaling(255.0), trained_norm(255.0))
    good = [trained_norm(1.0), nested(trained_norm(1.0)), rescaled(2.0, -1.0), wrapped]
    for i, model in enumerate(good):
        path = save(model, tmp_path / f"good{i}.keras")
        width = 1 if i == 2 else 4  # what the last dense layer sees, also where the classifier lies within a model
        assert features.make_extractor(str(path), resolution=8)(draw(2)).shape == (2, width)
    bad = [
        (trained_norm(255.0), "expects another range than .0, 1., probably 0..255"),
        (nested(trained_norm(255.0)), "expects another range"),
        (rescaled(1 / 127.5, -1.0), "expects images in 0..255.*it rescales them by 0.0078"),
        (nested(rescaled(1 / 255)), "expects images in 0..255"),
    ]
    for i, (model, words) in enumerate(bad):
        path = save(model, tmp_path / f"bad{i}.keras")
        with pytest.raises(InputError, match=f"--features={path}: {words}"):
            features.make_extractor(str(path), resolution=8)


def test_keras_models_that_give_no_features_are_refused(tmp_path):
    (tmp_path / "text.keras").write_text("no model")
    (tmp_path / "empty").mkdir()
    tf.saved_model.save(tf.Module(), str(tmp_path / "plain"))
    save(keras_model(layers.Conv2D(4, 3)), tmp_path / "map.keras")
    save(tf.keras.Sequential([tf.keras.Input([5]), layers.Dense(2)]), tmp_path / "vector.keras")
    save(keras_model(layers.GlobalAveragePooling2D(), channels=2), tmp_path / "two.keras")
    for name, words in [
        ("text.keras", "Keras cannot load it"),
        ("empty", "Keras cannot load it"),
        ("plain", "is no Keras model of one image"),
        ("map.keras", r"its features have shape \(None, 6, 6, 4\)"),
        ("vector.keras", r"takes inputs of shape \[None, 5\]"),
        ("two.keras", r"takes inputs of shape \[None, 8, 8, 2\]"),
        ("nothing", "must be pixels_pca64, texture, inception, efficientnet_lite0, or the path of a classifier"),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            features.make_extractor(str(tmp_path / name), resolution=8)
        assert str(caught.value).startswith(f"--features={tmp_path / name}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.large
def test_inception_with_weights_of_a_file(tmp_path, monkeypatch):
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.applications.InceptionV3(include_top=False, weights=None, pooling="avg")
    model.save_weights(tmp_path / "w.h5")
    extractor = features.make_extractor("inception", resolution=16, weights=str(tmp_path / "w.h5"))
    assert extractor.name.startswith("inception-")  # not the ImageNet weights, so not their name
    images = draw(2, 16)
    resized = tf.image.resize(images, [299, 299], antialias=True)
    expected = model(tf.concat([resized] * 3, axis=-1), training=False)
    got = extractor(images)
    assert got.shape == (2, 2048)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    # Were this the file that Keras publishes, found in its cache, the name would be the plain one.
    cached = tmp_path / "models" / "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
    cached.parent.mkdir()
    (tmp_path / "w.h5").rename(cached)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(feature_networks, "_INCEPTION_MD5", hashlib.md5(cached.read_bytes()).hexdigest())
    published = features.make_extractor("inception", resolution=16)
    assert published.name == "inception"
    np.testing.assert_array_equal(published(images), got)


def test_a_run_that_is_no_classifier_is_refused(tmp_path):
    with runs.RunFolder.open(tmp_path / "gan", kind="gan", config={}, records_digests={}):
        pass
    with pytest.raises(InputError, match="gan: is a run of kind gan, not baseline or dcan"):
        features.make_extractor(str(tmp_path / "gan"), resolution=16)


def test_inception_without_its_weights_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    path = tmp_path / "models" / "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
    with pytest.raises(InputError, match=f"--features_weights=imagenet: put https://.*/inception_v3/{path.name} at"):
        features.make_extractor("inception", resolution=16)
    path.parent.mkdir()
    path.write_bytes(b"half a file")
    with pytest.raises(InputError, match="is damaged or another file"):
        features.make_extractor("inception", resolution=16)
    with pytest.raises(InputError, match=f"--features_weights={path}: is no Inception v3"):
        features.make_extractor("inception", resolution=16, weights=str(path))
    with pytest.raises(InputError, match="no such file is there"):
        features.make_extractor("inception", resolution=16, weights="none.h5")
    with pytest.raises(InputError, match="--features_weights=imagenet: is for --features=inception"):
        features.make_extractor("pixels_pca64", resolution=16, weights="imagenet")


def test_the_chosen_images_are_read_in_order(tmp_path):
    record_set = data.RecordSet(fakes.make_records(tmp_path / "r", num_shards=3))
    every = np.concatenate([record["image"][None] for record in record_set.dataset("train").as_numpy_iterator()])
    positions = features.choose(16, 7, seed=3)
    assert len(set(positions)) == 7
    assert not np.array_equal(positions, features.choose(16, 7, seed=4))
    batches = list(features.read_images(record_set, "train", positions, batch_size=3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    expected = every[positions] / np.float32(127.5) - 1
    np.testing.assert_allclose(np.concatenate(batches), expected, atol=1e-6)


def test_features_that_are_not_finite_or_missing_are_named():
    broken = feature_networks.NetworkFeatures("broken", 8, lambda x: x[:, 0, 0] / 0.0)
    with pytest.raises(RunError, match="some/set: features broken are not finite"):
        features.extract(broken, [draw(3)], total=3, what="some/set")
    whole = feature_networks.NetworkFeatures("whole", 8, lambda x: x[:, 0, 0])
    with pytest.raises(RunError, match="has 3 images, 4 were expected"):
        features.extract(whole, [draw(3)], total=4, what="some/set")
    np.testing.assert_array_equal(
        features.extract(whole, [draw(3), draw(2)], total=5, what="s"), np.concatenate([draw(3), draw(2)])[:, 0, 0]
    )
