"""The faster convolution equals the plain one, with gradients of both orders, and is used only where it pays."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfcxr.gan import loading
from tfcxr.gan.networks import build_networks, convolutions, network_config
from tfcxr.gan.training import losses
from tfcxr.serving import export_generator

# The smallest for which the faster way is taken.
IMAGES, KERNEL = (2, 32, 5, 64), (3, 3, 64, 66)


def plain(x, kernel):
    return tf.nn.conv2d(x, kernel, 1, "SAME")


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in shapes]


def error(found, expected):
    return np.abs(found - np.asarray(expected)).max() / np.abs(expected).max()


def is_compiled(function, *arguments):
    """Whether the graph of a function holds parts for XLA."""
    graph = tf.function(function).get_concrete_function(*arguments).graph.as_graph_def()
    return any("_XlaMustCompile" in function.attr for function in graph.library.function)


def with_gradients(conv, x, kernel, weights):
    """Outputs; gradients in both of Σ weights · outputs²; gradients in both of the squares of the gradient in x."""
    with tf.GradientTape(persistent=True) as outer:
        outer.watch([x, kernel])
        with tf.GradientTape() as inner:
            inner.watch([x, kernel])
            outputs = conv(x, kernel)
            total = tf.reduce_sum(weights * tf.square(outputs))
        first = inner.gradient(total, [x, kernel])
        squares, kernel_squares = (tf.reduce_sum(tf.square(gradient)) for gradient in first)
    return [outputs, *first, *outer.gradient(squares, [x, kernel]), *outer.gradient(kernel_squares, [x, kernel])]


def test_equals_the_plain_convolution_with_gradients_of_both_orders():
    x, kernel, weights = arrays(IMAGES, KERNEL, (*IMAGES[:3], KERNEL[3]))
    singles = [array.astype(np.float32) for array in (x, kernel, weights)]
    assert is_compiled(convolutions.conv, *map(tf.constant, singles[:2]))
    found = tf.function(with_gradients)(convolutions.conv, *map(tf.constant, singles))
    expected = with_gradients(plain, *map(tf.constant, (x, kernel, weights)))  # float64
    assert [error(*pair) < 5e-5 for pair in zip(found, expected, strict=True)] == [True] * 7


@pytest.mark.parametrize(
    ("images", "kernel", "dtype", "compiled"),
    [
        (IMAGES, KERNEL, tf.float32, True),
        ((2, 16, 16, 128), (3, 3, 128, 128), tf.float32, True),
        ((2, 16, 16, 127), (3, 3, 127, 128), tf.float32, False),
        ((2, 64, 8, 63), (3, 3, 63, 128), tf.float32, False),
        ((2, 34, 8, 64), (3, 3, 64, 64), tf.float32, False),
        (IMAGES, (1, 1, 64, 66), tf.float32, False),
        (IMAGES, KERNEL, tf.bfloat16, False),
    ],
)
def test_where_it_pays_only(images, kernel, dtype, compiled):
    specs = [tf.TensorSpec(shape, dtype) for shape in (images, kernel)]
    assert is_compiled(convolutions.conv, *specs) == compiled


def test_portable_holds_for_what_is_traced_inside_even_after_an_error():
    specs = [tf.TensorSpec(shape) for shape in (IMAGES, KERNEL)]
    with convolutions.portable():
        assert not is_compiled(convolutions.conv, *specs)
    with pytest.raises(ValueError, match="inside"), convolutions.portable():
        raise ValueError("inside")
    assert is_compiled(convolutions.conv, *specs)


@pytest.fixture(scope="module")
def wide():
    """A generator and a discriminator with one layer or more that are wide enough."""
    config = network_config.NetworkConfig(resolution=16, fmap_base=2048, fmap_max=128)
    return build_networks.build_generator(config), build_networks.build_discriminator(config)


def wgan_gp(generator, discriminator):
    """Losses and the gradients of both networks, the penalty's included."""
    labels, latents = tf.eye(14)[:4], tf.random.stateless_normal([4, 128], [0, 0])
    reals = tf.random.stateless_uniform([4, 16, 16, 1], [0, 1], -1, 1)
    with tf.GradientTape(persistent=True) as tape:
        fakes = generator([latents, labels])
        values = losses.wgan_discriminator(discriminator([reals, labels]), discriminator([fakes, labels]))
        points = losses.interpolate(reals, fakes, tf.fill([4, 1, 1, 1], 0.5))
        penalty, _ = losses.gradient_penalty(lambda images: discriminator([images, labels]), points)
        loss = tf.reduce_mean(values + penalty)
    return [loss, *(g for m in (generator, discriminator) for g in tape.gradient(loss, m.trainable_variables))]


def test_networks_with_and_without_are_the_same(wide):
    assert is_compiled(wgan_gp, *wide)
    found = tf.function(wgan_gp)(*wide)
    with convolutions.portable():
        expected = tf.function(wgan_gp)(*wide)
    largest = max(np.abs(gradient).max() for gradient in expected[1:])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * largest)


def test_saved_models_hold_tensorflows_own_operations_only(wide, tmp_path):
    network = network_config.NetworkConfig(resolution=16, fmap_base=2048, fmap_max=128)
    generator = loading.Generator(wide[0], "wide", network, kimg=0, records={}, combinations=[])
    export_generator.save_generator(generator, tmp_path)
    saved = saved_model_pb2.SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    assert graph.library.function
    assert not any("_XlaMustCompile" in function.attr for function in graph.library.function)
