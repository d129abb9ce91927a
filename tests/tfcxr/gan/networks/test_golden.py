"""Networks, losses and gradients against what the reference computed (shared/golden)."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.gan.networks import build_networks
from tfcxr.gan.reference import variable_names
from tfcxr.gan.training import losses

OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4


class Golden:
    """The recorded arrays and both networks with the recorded weights; images as NHWC."""

    def __init__(self, folder):
        self.g = dict(np.load(folder / "gan_r16_fb1024_fm64_G.npz"))
        self.d = dict(np.load(folder / "gan_r16_fb1024_fm64_D.npz"))
        self.meta = json.loads(str(self.d["meta"]))
        settings = {"resolution": 16, "fmap_base": 1024, "fmap_max": 64}
        self.generator = build_networks.build_generator(**settings)
        self.discriminator = build_networks.build_discriminator(**settings)
        variable_names.load_reference_variables(self.generator, under(self.g, "var/"))
        variable_names.load_reference_variables(self.discriminator, under(self.d, "var/"))
        self.labels = tf.constant(self.g["labels"])
        self.latents = tf.constant(self.g["latents"])


@pytest.fixture(scope="module")
def golden(shared_dir):
    return Golden(shared_dir / "golden")


def under(arrays, prefix):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def nhwc(array):
    return np.transpose(array, [0, 2, 3, 1])


def error(a, b):
    return np.max(np.abs(np.asarray(a) - b)) / np.max(np.abs(b))


def assert_gradients(gradients, recorded, statistics):
    for name, array in recorded.items():
        assert error(gradients[name], array) < GRADIENT_TOLERANCE, name
    # Of the large gradients only norm and sum were recorded.
    assert set(statistics) <= set(gradients)
    for name, (norm, total) in statistics.items():
        assert float(tf.norm(gradients[name])) == pytest.approx(norm, rel=GRADIENT_TOLERANCE), name
        magnitude = float(tf.reduce_sum(tf.abs(gradients[name])))
        assert abs(float(tf.reduce_sum(gradients[name])) - total) < GRADIENT_TOLERANCE * magnitude, name


def test_generator_makes_the_recorded_images(golden):
    images = golden.generator([golden.latents, golden.labels])
    assert error(images, nhwc(golden.g["fake_images"])) < OUTPUT_TOLERANCE


def test_discriminator_gives_the_recorded_scores(golden):
    for kind in ("fake", "real"):
        images = nhwc(golden.d["fake_images" if kind == "fake" else "reals"])
        scores = golden.discriminator([images, golden.labels])
        assert error(scores, golden.d[f"{kind}_scores"]) < OUTPUT_TOLERANCE, kind


def test_generator_gradients(golden):
    with tf.GradientTape() as tape:
        images = golden.generator([golden.latents, golden.labels])
        values = losses.wgan_generator(golden.discriminator([images, golden.labels]))
        loss = tf.reduce_mean(values)
    assert error(values, golden.g["G_loss"][:, 0]) < OUTPUT_TOLERANCE
    variables = variable_names.reference_variables(golden.generator)
    gradients = dict(zip(variables, tape.gradient(loss, list(variables.values())), strict=True))
    assert_gradients(gradients, under(golden.g, "grad/"), golden.meta["G_grad_stats"])


def test_discriminator_gradients_with_the_second_order_penalty(golden):
    reals, fakes = tf.constant(nhwc(golden.d["reals"])), tf.constant(nhwc(golden.d["fake_images"]))
    with tf.GradientTape() as tape:
        real_scores = golden.discriminator([reals, golden.labels])
        fake_scores = golden.discriminator([fakes, golden.labels])
        mixed = losses.interpolate(reals, fakes, golden.d["mix"])
        penalty, norms = losses.gradient_penalty(lambda x: golden.discriminator([x, golden.labels]), mixed)
        loss = tf.reduce_mean(losses.wgan_discriminator(real_scores, fake_scores) + penalty)
    assert error(mixed, nhwc(golden.d["mixed_images"])) < OUTPUT_TOLERANCE
    assert error(norms, golden.d["mixed_norms"]) < OUTPUT_TOLERANCE
    # The reference's loss is [N, N] by an accidental broadcast; its mean is the mean of the per-image form.
    assert float(loss) == pytest.approx(golden.d["D_loss"].mean(), rel=OUTPUT_TOLERANCE)
    variables = variable_names.reference_variables(golden.discriminator)
    gradients = dict(zip(variables, tape.gradient(loss, list(variables.values())), strict=True))
    assert_gradients(gradients, under(golden.d, "grad/"), golden.meta["D_grad_stats"])
    with tf.GradientTape() as tape:
        tape.watch(mixed)
        score = tf.reduce_sum(golden.discriminator([mixed, golden.labels]))
    assert error(tape.gradient(score, mixed), nhwc(golden.d["mixed_grads"])) < GRADIENT_TOLERANCE


def test_loading_refuses_other_variables_and_assigns_nothing(golden):
    model = build_networks.build_generator(resolution=16, fmap_base=1024, fmap_max=64)
    before = [variable.numpy() for variable in model.trainable_variables]
    arrays = under(golden.g, "var/")
    with pytest.raises(ValueError, match="'4x4/ToRGB/bias'"):
        variable_names.load_reference_variables(model, {k: v for k, v in arrays.items() if k != "4x4/ToRGB/bias"})
    with pytest.raises(ValueError, match="8x8/Conv1/bias has shape"):
        variable_names.load_reference_variables(model, {**arrays, "8x8/Conv1/bias": np.zeros(3, np.float32)})
    for old, variable in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
