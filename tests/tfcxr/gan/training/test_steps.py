"""One step: every loss, passes, discriminator steps, precisions, augmentation, the averaged generator, and ranges."""

import numpy as np
import pytest
import tensorflow as tf

from tfcxr import data
from tfcxr.gan import choices
from tfcxr.gan.networks import build_networks, network_config
from tfcxr.gan.training import augment, losses, steps
from tfrecords_builder.images import pixel_ranges

NETWORK = network_config.NetworkConfig(resolution=8, fmap_base=32, fmap_max=4)
LABELS = np.eye(14, dtype=np.float32)


@pytest.fixture(autouse=True)
def eager():
    """Tracing the step takes longer than a few steps of a tiny network."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def stream(count, size=4):
    """Batches of `size` images, without end."""
    images = tf.cast(tf.random.stateless_uniform([size * count, 8, 8, 1], [0, 0], 0, 256, tf.int32), tf.uint8)
    vectors = tf.constant(LABELS[np.arange(size * count) % 14])
    return tf.data.Dataset.from_tensor_slices({"image": images, "vector": vectors}).batch(size)


def run(count, *, size=4, network=NETWORK, prepare=None, **settings):
    """`count` steps; `prepare(state)` comes before."""
    config = steps.StepConfig(batch_size=size, **settings)
    state = steps.make_state(network, config)
    if prepare:
        prepare(state)
    batches = iter(stream(count * config.d_steps, size))
    runner = steps.StepRunner(state, config, LABELS)
    return state, runner.run(batches, tf.constant(count))


def measure(sums, name):
    return float(sums[0][steps.MEASURES.index(name)])


def gradients(model, optimizer):
    """What the first Adam step saw: the first moment, β1 being 0."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return [inner.get_slot(variable, "m").numpy() for variable in model.trainable_variables]


def flat_gradient(state):
    """Of the discriminator."""
    return np.concatenate([part.ravel() for part in gradients(state.discriminator, state.discriminator_optimizer)])


def assert_same(state, other, atol=1e-5):
    for name in ("discriminator", "generator", "ema"):
        for a, b in zip(getattr(state, name).weights, getattr(other, name).weights, strict=True):
            np.testing.assert_allclose(a, b, atol=atol, err_msg=f"{name}/{a.name}")


@pytest.mark.parametrize("loss", choices.LOSSES)
def test_every_loss_changes_both_networks_and_stays_finite(loss):
    state, (sums, penalties, number) = run(1, loss=loss, mirror=True, r2_gamma=1.0)
    assert np.isfinite(sums).all()
    assert np.isfinite(penalties).all()
    assert int(number) == (loss in ("wgan_gp", "hinge_gp", "logistic_r1"))
    assert int(state.step) == 1
    for model, build in (
        (state.generator, build_networks.build_generator),
        (state.discriminator, build_networks.build_discriminator),
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
    start = build_networks.build_generator(NETWORK).get_weights()
    state, _ = run(1, loss="hinge", ema_decay=0.75)
    for before, now, average in zip(start, state.generator.get_weights(), state.ema.get_weights(), strict=True):
        np.testing.assert_allclose(average, 0.75 * before + 0.25 * now, atol=1e-6)


def test_a_ramp_lets_the_average_forget_the_start():
    # In the first step the average may look back over at most one step: it equals the generator.
    state, _ = run(1, loss="hinge", ema_decay=0.999, ema_rampup=0.1)
    for now, average in zip(state.generator.get_weights(), state.ema.get_weights(), strict=True):
        np.testing.assert_allclose(average, now, atol=1e-6)


@pytest.mark.parametrize(("passes", "loss"), [(2, "wgan_gp"), (4, "wgan_gp"), (4, "logistic_r1")])
def test_passes_make_the_step_of_the_whole_batch(passes, loss):
    settings = {"size": 16, "loss": loss, "mirror": True, "augment": ("noise", "cutout"), "learning_rate": 0.001}
    (whole, expected), (parts, found) = run(1, **settings), run(1, passes=passes, **settings)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for name in ("discriminator", "generator"):
        pairs = [gradients(getattr(state, name), getattr(state, f"{name}_optimizer")) for state in (whole, parts)]
        for a, b in zip(*pairs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5 * max(1, np.abs(a).max()))
    assert_same(whole, parts)


def test_passes_need_whole_groups_of_the_minibatch_deviation(monkeypatch):
    settings = {"size": 16, "loss": "hinge"}
    whole, _ = run(1, **settings)
    monkeypatch.setattr(data, "share_rows", lambda size, shares: np.arange(size).reshape(shares, -1))
    parts, _ = run(1, passes=2, **settings)
    expected, found = (flat_gradient(state) for state in (whole, parts))
    assert np.abs(expected - found).max() > 1e-3


def test_more_discriminator_steps_see_images_of_their_own():
    state, _ = run(2, d_steps=3, loss="hinge")
    assert int(state.images_shown) == 2 * 3 * 4
    assert int(state.step) == 2
    assert int(state.generator_optimizer.iterations) == 2
    assert int(state.discriminator_optimizer.iterations) == 6
    # The measures are the means of the discriminator steps, here of batches that one unchanging discriminator sees.
    slow = {"learning_rate": 1e-12, "loss": "logistic_r1"}
    _, (sums, penalties, number) = run(1, d_steps=2, **slow)
    expected = [
        float(tf.reduce_mean(losses.zero_centred_penalty(*scored(batch), gamma=10.0)[0])) for batch in stream(2)
    ]
    assert abs(expected[0] - expected[1]) > 1e-4 * expected[0]
    assert int(number) == 1
    np.testing.assert_allclose(penalties[0], np.mean(expected), rtol=1e-4)
    scores = [float(tf.reduce_mean(score(images))) for score, images in map(scored, stream(2))]
    np.testing.assert_allclose(measure((sums,), "scores/real"), np.mean(scores), rtol=1e-4, atol=1e-6)


def scored(batch):
    """The untrained discriminator as a function of images, and the reals of a batch."""
    model = build_networks.build_discriminator(NETWORK)
    return lambda images: tf.reshape(model([images, batch["vector"]]), [-1]), pixel_ranges.uint8_to_signed(
        batch["image"]
    )


def test_r1_by_hand():
    batch = next(iter(stream(1)))
    _, (_, penalties, _) = run(1, loss="logistic_r1", r1_gamma=3.0, reg_interval=4)
    score, reals = scored(batch)
    with tf.GradientTape() as tape:
        tape.watch(reals)
        total = tf.reduce_sum(score(reals))
    squares = np.sum(np.square(tape.gradient(total, reals)), axis=(1, 2, 3))
    # The value is that of the penalty, not of its multiple in the lazy step.
    np.testing.assert_allclose(penalties, [1.5 * squares.mean(), np.sqrt(squares).mean()], rtol=1e-4)


def test_gradient_penalty_by_hand():
    batch = next(iter(stream(1)))
    _, (_, penalties, _) = run(1, loss="wgan_gp", seed=3)
    latents = tf.random.stateless_normal([4, NETWORK.latent_size], [3 * 1024 + steps._D_LATENTS, 0])
    mix = tf.random.stateless_uniform([4, 1, 1, 1], [3 * 1024 + steps._MIX, 0])
    score, reals = scored(batch)
    fakes = build_networks.build_generator(NETWORK)([latents, batch["vector"]])
    images = mix * fakes + (1 - mix) * reals
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(score(images))
    norms = np.sqrt(np.sum(np.square(tape.gradient(total, images)), axis=(1, 2, 3)))
    np.testing.assert_allclose(penalties, [10 * np.square(norms - 1).mean(), norms.mean()], rtol=1e-4)


def test_the_lazy_penalty_weighs_its_interval():
    def gradient(**settings):
        return flat_gradient(run(1, loss="logistic_r1", **settings)[0])

    # Of the first step: the loss's own, plus that of the penalty times weight times interval.
    plain = gradient(r1_gamma=0.0)
    once, lazy = gradient(r1_gamma=1.0) - plain, gradient(r1_gamma=1.0, reg_interval=8) - plain
    assert np.abs(once).max() > 1e-4
    np.testing.assert_allclose(lazy, 8 * once, atol=1e-4 * np.abs(lazy).max())


def test_the_discriminator_has_its_own_learning_rate():
    start = build_networks.build_discriminator(NETWORK).get_weights()
    state, _ = run(1, loss="hinge", learning_rate=0.01, d_learning_rate=1e-9)
    assert max(np.abs(a - b).max() for a, b in zip(start, state.discriminator.get_weights(), strict=True)) < 1e-7
    start = build_networks.build_generator(NETWORK).get_weights()
    moved = [np.abs(a - b).max() for a, b in zip(start, state.generator.get_weights(), strict=True)]
    np.testing.assert_allclose(max(moved), 0.01, rtol=1e-3)  # of Adam's first step


def test_learning_rates_decay_with_the_images_shown():
    settings = {"loss": "hinge", "learning_rate": 0.01, "d_learning_rate": 1e-9}
    first, _ = run(1, **settings)
    ends = [run(2, **settings, lr_decay_kimg=kimg)[0] for kimg in (None, 0.004)]
    weights = [state.generator.get_weights() for state in (first, *ends)]
    start, whole, half = (np.concatenate([weight.ravel() for weight in values]) for values in weights)
    # The second step follows a batch of 4.
    np.testing.assert_allclose(half - start, (whole - start) / 2, atol=1e-6)
    assert ends[0].learning_rates() == (0.01, 1e-9)
    # Both networks' rates belong to the images shown, of which a step of the discriminator shows half here.
    settings = {"loss": "hinge", "learning_rate": 0.01, "d_learning_rate": 0.02, "d_steps": 2, "lr_decay_kimg": 0.008}
    for precision in ("float32", "mixed_float16"):
        state, _ = run(3, **settings, precision=precision)
        assert state.learning_rates() == pytest.approx((0.01 / 4, 0.02 / 4))


def set_loss_scale(scale):
    def prepare(state):
        for optimizer in (state.generator_optimizer, state.discriminator_optimizer):
            optimizer._loss_scale.current_loss_scale.assign(scale)

    return prepare


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("loss", ["wgan_gp", "logistic_r1"])
def test_mixed_precision_follows_float32(precision, loss):
    _, (expected, expected_penalties, _) = run(1, loss=loss)
    settled = set_loss_scale(2.0**8) if precision == "mixed_float16" else None
    state, (sums, penalties, _) = run(1, loss=loss, precision=precision, prepare=settled)
    assert all(variable.dtype == tf.float32 for variable in state.discriminator.trainable_variables)
    assert all(np.isfinite(variable).all() for variable in state.generator.trainable_variables)
    np.testing.assert_allclose(penalties, expected_penalties, rtol=0.1)
    for name in ("loss/D", "scores/real", "norm/D", "norm/G"):
        assert measure((sums,), name) == pytest.approx(measure((expected,), name), rel=0.1, abs=0.02), name


def test_an_overflowing_step_is_left_out_and_the_loss_scale_halves():
    state, (sums, _, _) = run(1, loss="logistic_r1", precision="mixed_float16", prepare=set_loss_scale(2.0**60))
    for model, build, optimizer in (
        (state.generator, build_networks.build_generator, state.generator_optimizer),
        (state.discriminator, build_networks.build_discriminator, state.discriminator_optimizer),
    ):
        for a, b in zip(model.get_weights(), build(NETWORK).get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert float(optimizer.loss_scale) == 2.0**59
    assert int(state.step) == 1
    assert np.isfinite(sums).all()


def test_augmentation_of_probability_0_is_none():
    settings = {"loss": "logistic_r1", "mirror": True}
    (plain, _), (never, _) = run(1, **settings), run(1, augment=augment.parse("ada"), ada_target=0.6, **settings)
    for a, b in zip(plain.discriminator.get_weights(), never.discriminator.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    always, _ = run(1, augment=augment.parse("ada"), **settings)
    assert np.abs(flat_gradient(plain) - flat_gradient(always)).max() > 1e-3


def ada(step, signs, bias, probability=0.0, **settings):
    """The state after step number `step` (from 0), before which `signs` were summed, of a discriminator's bias."""

    def prepare(state):
        state.step.assign(step)
        state.sign_sum.assign(signs)
        state.augment_probability.assign(probability)
        variable = [variable for variable in state.discriminator.trainable_variables if "bias" in variable.name][-1]
        variable.assign(tf.fill(variable.shape, bias))

    settings = {"ada_target": 0.6, "ada_kimg": 0.1, "learning_rate": 1e-9, **settings}
    return run(1, loss="hinge", augment=("brightness",), prepare=prepare, **settings)


def test_ada_moves_the_probability_every_four_steps():
    # 4 steps of 4 images, of the 100 that lead from 0 to 1.
    for signs, bias, start, expected in [(3.0, 1e4, 0.0, 0.16), (-3.0, -1e4, 0.5, 0.34), (-3.0, -1e4, 0.1, 0.0)]:
        state, sums = ada(3, signs, bias, start)
        assert measure(sums, "signs/real") == np.sign(bias)
        assert float(state.augment_probability) == pytest.approx(expected)
        assert float(state.sign_sum) == 0
    # The mean of the four is what counts: (0.4 + 1) / 4 < 0.6.
    state, _ = ada(7, 0.4, 1e4, 0.5)
    assert float(state.augment_probability) == pytest.approx(0.34)


def test_ada_waits_between():
    state, _ = ada(2, 2.0, 1e4, 0.5)
    assert float(state.augment_probability) == 0.5
    assert float(state.sign_sum) == 3


def test_ada_counts_the_images_of_all_discriminator_steps():
    state, _ = ada(3, 3.0, 1e4, d_steps=2)
    assert float(state.augment_probability) == pytest.approx(0.32)


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
        ("d_steps", 0),
        ("passes", 3),
        ("passes", 32),
        ("precision", "float64"),
        ("d_learning_rate", -1.0),
        ("lr_decay_kimg", 0.0),
        ("augment_probability", 1.5),
        ("ada_target", 0.6),
        ("ada_kimg", 0.0),
    ],
)
def test_bad_settings_are_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        steps.StepConfig(**{setting: value})
