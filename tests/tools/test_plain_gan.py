"""The yardstick computes what tfcxr.gan computes."""

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.gan.networks import build_networks
from tfcxr.gan.reference import variable_names
from tfcxr.gan.training import losses
from tools import plain_gan

SIZES = {"resolution": 16, "fmap_base": 128, "fmap_max": 24}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = (rng.random([2, 8, 14]) < 0.2).astype(np.float32)
    labels[..., 3] = 1
    normal = lambda *shape: tf.constant(rng.normal(size=shape), tf.float32)  # noqa: E731
    return {
        "reals": tf.tanh(normal(8, 16, 16, 1)),
        "labels": tf.constant(labels[0]),
        "d_latents": normal(8, 24),
        "mix": tf.constant(rng.random([8, 1, 1, 1]), tf.float32),
        "g_latents": normal(8, 24),
        "g_labels": tf.constant(labels[1]),
    }


def copies():
    """The plain GAN and our two networks with the same weights."""
    plain = plain_gan.PlainGan(plain_gan.PlainConfig(**SIZES))
    models = build_networks.build_generator(**SIZES), build_networks.build_discriminator(**SIZES)
    for model, variables in zip(models, (plain.g, plain.d), strict=True):
        arrays = {name: variable.numpy() for name, variable in variables.by_name.items()}
        variable_names.load_reference_variables(model, arrays)
    return plain, *models


def error(a, b):
    return np.max(np.abs(np.asarray(a) - np.asarray(b))) / np.max(np.abs(b))


def test_outputs_are_equal(data):
    plain, generator, discriminator = copies()
    images = plain_gan.generator(plain.g, plain.config, data["d_latents"], data["labels"])
    assert error(images, generator([data["d_latents"], data["labels"]])) < 1e-5
    scores = plain_gan.discriminator(plain.d, plain.config, data["reals"], data["labels"])
    assert error(scores[:, None], discriminator([data["reals"], data["labels"]])) < 1e-5


def test_a_step_is_equal(data):
    plain, generator, discriminator = copies()
    d_loss, g_loss = tf.function(plain.update)(**data)

    labels = data["labels"]
    fakes = generator([data["d_latents"], labels])
    with tf.GradientTape() as tape:
        scores = discriminator([data["reals"], labels]), discriminator([fakes, labels])
        mixed = losses.interpolate(data["reals"], fakes, data["mix"])
        penalty, _ = losses.gradient_penalty(lambda x: discriminator([x, labels]), mixed)
        loss = tf.reduce_mean(losses.wgan_discriminator(*scores) + penalty)
    assert float(d_loss) == pytest.approx(float(loss), rel=1e-5)
    apply(tape, loss, discriminator)
    with tf.GradientTape() as tape:
        fakes = generator([data["g_latents"], data["g_labels"]])
        loss = tf.reduce_mean(losses.wgan_generator(discriminator([fakes, data["g_labels"]])))
    assert float(g_loss) == pytest.approx(float(loss), rel=1e-3)
    apply(tape, loss, generator)
    for model, variables in ((generator, plain.g), (discriminator, plain.d)):
        for name, variable in variable_names.reference_variables(model).items():
            # Adam's first step is the learning rate times the gradient's sign, whose rounding decides it near zero.
            far = np.abs(variables.by_name[name].numpy() - variable.numpy()) > 1e-4
            assert far.mean() < 0.02, name


def apply(tape, loss, model):
    optimizer = tf.keras.optimizers.legacy.Adam(0.005, beta_1=0.0, beta_2=0.99, epsilon=1e-8)
    variables = model.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))


def test_fresh_random_numbers_and_the_average(data):
    plain = plain_gan.PlainGan(plain_gan.PlainConfig(**SIZES))
    name = "16x16/Conv1/weight"
    start = plain.g.by_name[name].numpy()
    images = tf.cast((data["reals"] + 1) * 127.5, tf.uint8)
    losses = plain.step(images, data["labels"], data["g_labels"])
    assert all(np.isfinite(loss) for loss in losses)
    moved = plain.g.by_name[name].numpy() - start
    assert np.abs(moved).max() > 0.004
    np.testing.assert_allclose(plain.ema.by_name[name].numpy() - start, 0.001 * moved, atol=1e-6)
