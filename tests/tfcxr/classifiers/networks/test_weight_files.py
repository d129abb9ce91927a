"""First weights from files of Keras, in each form, and what is said of files that do not fit."""

import shutil

import h5py
import numpy as np
import pytest
import tensorflow as tf

from tfcxr.classifiers.networks import backbones, weight_files
from tfrecords_builder.errors import InputError


def make_network(stages=((2, 1), (3, 2))):
    return backbones.residual_network("little", 4, stages)


@pytest.fixture(scope="module")
def trained():
    """A network whose BatchNorm statistics are not the initial ones."""
    tf.keras.utils.set_random_seed(5)
    model = make_network()
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.uniform(0, 0.1, w.shape).astype(np.float32) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def with_top(trained):
    outputs = tf.keras.layers.Dense(3, name="predictions")(trained.output)
    return tf.keras.Model(trained.input, outputs)


@pytest.fixture(scope="module")
def nested(trained):
    inputs = tf.keras.Input([32, 32, 3])
    return tf.keras.Model(inputs, tf.keras.layers.Dense(3)(trained(inputs)))


def assert_loads(path, trained):
    fresh = make_network()
    assert any(not np.array_equal(a, b) for a, b in zip(fresh.get_weights(), trained.get_weights(), strict=True))
    weight_files.load(fresh, path)
    for a, b in zip(fresh.weights, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b, err_msg=a.name)


@pytest.fixture(scope="module")
def saved_model(with_top, tmp_path_factory):
    folder = tmp_path_factory.mktemp("with_top") / "saved_model"
    with_top.save(folder)  # slow: Keras traces every layer
    return folder


@pytest.mark.parametrize("name", ["weights.h5", "of.weights.h5", "model.h5", "model.keras"])
@pytest.mark.parametrize("form", ["trained", "with_top", "nested"])
def test_each_form_loads(request, trained, tmp_path, form, name):
    model, path = request.getfixturevalue(form), tmp_path / name
    (model.save_weights if "weights" in name else model.save)(path)
    assert_loads(path, trained)


def test_a_saved_model_loads(saved_model, trained):
    assert_loads(saved_model, trained)


def test_an_export_of_keras_loads(with_top, trained, tmp_path):
    with_top.export(str(tmp_path / "export"))
    assert_loads(tmp_path / "export", trained)


def test_layers_named_as_in_newer_keras_load(with_top, trained, tmp_path):
    """Keras 3 names the groups of `.weights.h5` after the layers."""
    with h5py.File(tmp_path / "new.weights.h5", "w") as file:
        for layer in with_top.layers:
            for i, values in enumerate(layer.get_weights()):
                file[f"layers/{layer.name}/vars/{i}"] = values
    assert_loads(tmp_path / "new.weights.h5", trained)


@pytest.mark.parametrize("name, first", [("DenseNet121", "conv1/conv"), ("ResNet50", "conv1_conv")])
def test_networks_of_keras_load_by_name(tmp_path, name, first):
    """The file has ImageNet's head, the network a stem for small images; DenseNet's layer names hold slashes."""
    tf.keras.utils.set_random_seed(6)
    original = getattr(tf.keras.applications, name)(weights=None)
    original.save_weights(tmp_path / "weights.h5")
    model = backbones.build(name.lower(), stem="small")
    weight_files.load(model, tmp_path / "weights.h5")
    assert model.get_layer(first).strides == (1, 1)
    for a, b in zip(model.get_weights(), original.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(a, b)


def message_of(path):
    fresh = make_network()
    before = fresh.get_weights()
    with pytest.raises(InputError) as caught:
        weight_files.load(fresh, path)
    for a, b in zip(before, fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    text = str(caught.value)
    assert text.startswith(f"--weights={path}: ")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["weights.h5", "of.weights.h5", "model.keras"])
def test_another_architecture_is_named(tmp_path, name):
    other = make_network(((2, 1), (3, 1)))
    (other.save_weights if "weights" in name else other.save)(tmp_path / name)
    assert "is not of little: it lacks 6 of 24 layers, such as conv3_block2_1_conv" in message_of(tmp_path / name)


def test_another_width_is_named(tmp_path):
    make_network(((2, 1), (5, 2))).save_weights(tmp_path / "wide.h5")
    text = message_of(tmp_path / "wide.h5")
    assert "conv3_block1_1_conv has shapes [[1, 1, 8, 5], [5]], not [[1, 1, 8, 3], [3]]" in text


@pytest.mark.parametrize("name", ["weights.h5", "model.keras", "saved_model"])
def test_damaged_files_are_named(trained, saved_model, tmp_path, name):
    path = damaged = tmp_path / name
    if name == "saved_model":
        shutil.copytree(saved_model, path)
        damaged = path / "variables/variables.data-00000-of-00001"
    else:
        (trained.save_weights if "weights" in name else trained.save)(path)
    damaged.write_bytes(damaged.read_bytes()[:2000])
    assert "is damaged, or no file of Keras weights" in message_of(path)


def test_what_holds_no_weights_is_named(tmp_path):
    (tmp_path / "notes.h5").write_text("no weights")
    (tmp_path / "folder").mkdir()
    for name in ("notes.h5", "folder"):
        assert "is damaged, or no file of Keras weights" in message_of(tmp_path / name)


def test_a_value_that_is_not_finite_is_named(trained, tmp_path):
    trained.save_weights(tmp_path / "weights.h5")
    with h5py.File(tmp_path / "weights.h5", "a") as file:
        file["conv3_block2_2_bn/conv3_block2_2_bn/gamma:0"][1] = np.nan
    assert "conv3_block2_2_bn holds a value that is not finite" in message_of(tmp_path / "weights.h5")
