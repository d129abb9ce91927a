"""The channel attention against the reference's numbers; a network with attention starts near the one without."""

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.classifiers.networks import attention, backbones


@pytest.fixture(scope="module")
def golden(shared_dir):
    return np.load(shared_dir / "golden" / "dcan_module.npz")


@pytest.fixture
def layer(golden):
    layer = attention.ChannelAttention(reduction=16)
    layer.build([None, 7, 7, 64])
    for name, dense in (("fc0", layer.source), ("fc1", layer.target), ("fc2", layer.shared)):
        dense.set_weights([golden[f"w/{name}.weight"][:, :, 0, 0].T, golden[f"w/{name}.bias"]])
    return layer


def to_nhwc(array):
    return np.transpose(array, (0, 2, 3, 1))


def assert_close(actual, expected, tolerance):
    assert np.max(np.abs(np.asarray(actual) - expected)) <= tolerance * np.max(np.abs(expected))


def test_outputs_equal_the_reference(golden, layer):
    x = to_nhwc(golden["x"])
    assert_close(layer(x, path="both"), to_nhwc(golden["y_train"]), 1e-5)
    assert_close(layer(x, path="target"), to_nhwc(golden["y_eval"]), 1e-5)
    assert_close(layer(x[:7], path="both"), to_nhwc(golden["y_train_odd7"]), 1e-5)


def test_gradients_equal_the_reference(golden, layer):
    x = tf.constant(to_nhwc(golden["x"]))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.transpose(layer(x, path="both"), (0, 3, 1, 2))
        flat = tf.reshape(y, [-1])
        value = tf.reduce_sum(flat * tf.constant(np.sin(np.arange(flat.shape[0])), tf.float32))
    weights = [layer.source, layer.target, layer.shared]
    gradients = tape.gradient(value, [x, *[v for dense in weights for v in (dense.kernel, dense.bias)]])
    assert_close(gradients[0], to_nhwc(golden["y_train/grad_x"]), 1e-4)
    for i, name in enumerate(("fc0", "fc1", "fc2")):
        assert_close(gradients[1 + 2 * i], golden[f"y_train/grad_{name}.weight"][:, :, 0, 0].T, 1e-4)
        assert_close(gradients[2 + 2 * i], golden[f"y_train/grad_{name}.bias"], 1e-4)


def test_paths_are_named():
    layer = attention.ChannelAttention()
    with pytest.raises(ValueError, match="path='left'"):
        layer(tf.zeros([2, 3, 3, 32]), path="left")


def test_attended_network_starts_near_the_plain_one():
    tf.keras.utils.set_random_seed(0)
    base = backbones.build("resnet_tiny")
    attended = attention.AttendedBackbone(base)
    images = tf.random.stateless_normal([4, 32, 32, 3], [0, 1])
    plain = base(images, training=False).numpy()
    near = attended(images, path="both").numpy()
    assert 0 < np.linalg.norm(near - plain) < 0.1 * np.linalg.norm(plain)
    assert len(attended.attentions) == sum(layer.name.endswith("_add") for layer in base.layers)


def test_fully_open_attention_is_the_plain_network():
    base = backbones.build("resnet_tiny")
    attended = attention.AttendedBackbone(base)
    for layer in attended.attentions:
        layer.shared.bias.assign(tf.fill(layer.shared.bias.shape, 50.0))
    images = tf.random.stateless_normal([2, 32, 32, 3], [0, 1])
    np.testing.assert_allclose(attended(images), base(images, training=False), rtol=1e-5, atol=1e-5)
