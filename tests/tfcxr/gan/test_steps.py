"""One step: every loss, the lazy penalty, the averaged generator, and ranges."""

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.gan import networks, steps

NETWORK = networks.NetworkConfig(resolution=8, fmap_base=32, fmap_max=4)
LABELS = np.eye(14, dtype=np.float32)


@pytest.fixture(autouse=True)
def eager():
    """Tracing the step takes longer than a few steps of a tiny network."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def run(count, **settings):
    config = steps.StepConfig(batch_size=4, **settings)
    state = steps.make_state(NETWORK, config)
    images = tf.cast(tf.random.stateless_uniform([4 * count, 8, 8, 1], [0, 0], 0, 256, tf.int32), tf.uint8)
    vectors = tf.constant(LABELS[np.arange(4 * count) % 14])
    batches = iter(tf.data.Dataset.from_tensor_slices({"image": images, "vector": vectors}).batch(4))
    runner = steps.StepRunner(state, config, LABELS)
    return state, runner.run(batches, tf.constant(count))


@pytest.mark.parametrize("loss", steps.LOSSES)
def test_every_loss_changes_both_networks_and_stays_finite(loss):
    state, (sums, penalties, number) = run(1, loss=loss, mirror=True, r2_gamma=1.0)
    assert np.isfinite(sums).all()
    assert np.isfinite(penalties).all()
    assert int(number) == (loss in ("wgan_gp", "hinge_gp", "logistic_r1"))
    assert int(state.step) == 1
    for model, build in (
        (state.generator, networks.build_generator),
        (state.discriminator, networks.build_discriminator),
    ):
        changed = [
            not np.array_equal(a, b) for a, b in zip(model.get_weights(), build(NETWORK).get_weights(), strict=True)
        ]
        # The bias of the scores of labels that the batch does not hold has no gradient; every variable has some entry.
        assert sum(changed) >= len(changed) - 1


def test_lazy_penalty_counts_only_its_own_steps():
    _, (_, every, number) = run(3, loss="logistic_r1", reg_interval=2)
    assert int(number) == 2
    assert every[0] > 0


def test_averaged_generator_follows_its_definition():
    start = networks.build_generator(NETWORK).get_weights()
    state, _ = run(1, loss="hinge", ema_decay=0.75)
    for before, now, average in zip(start, state.generator.get_weights(), state.ema.get_weights(), strict=True):
        np.testing.assert_allclose(average, 0.75 * before + 0.25 * now, atol=1e-6)


def test_a_ramp_lets_the_average_forget_the_start():
    # In the first step the average may look back over at most one step: it equals the generator.
    state, _ = run(1, loss="hinge", ema_decay=0.999, ema_rampup=0.1)
    for now, average in zip(state.generator.get_weights(), state.ema.get_weights(), strict=True):
        np.testing.assert_allclose(average, now, atol=1e-6)


def test_image_ranges():
    pixels = tf.reshape(tf.range(256), [4, 8, 8, 1])
    floats = steps.to_float(tf.cast(pixels, tf.uint8))
    assert float(tf.reduce_min(floats)) == -1
    assert float(tf.reduce_max(floats)) == 1
    np.testing.assert_array_equal(steps.to_uint8(floats), pixels)
    np.testing.assert_array_equal(steps.to_uint8(tf.constant([-1.5, 0.0, 3.0])), [0, 128, 255])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("batch_size", 6),
        ("loss", "mse"),
        ("learning_rate", 0.0),
        ("ema_decay", 1.0),
        ("ema_rampup", 2.0),
        ("reg_interval", 0),
        ("r1_gamma", -1.0),
    ],
)
def test_bad_settings_are_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        steps.StepConfig(**{setting: value})
