"""prog-GAN: full models against those of a stage, gains, what is trained when, serialisation."""

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.gan.networks import layers, network_config, prog_gan
from tfcxr.gan.training import losses

# Feature maps 8, 8, 8, 8, 4 from the 4x4 block on: one number changes on the way.
CONFIG = network_config.NetworkConfig(resolution=32, num_labels=5, fmap_base=64, fmap_max=8, seed=1)
# (stage, lod): trained, fading, and both ends of a fade.
LODS = [(3, 2.0), (4, 2.0), (4, 1.75), (4, 1.25), (4, 1.0), (5, 1.0), (5, 0.6), (5, 0.1), (5, 0.0)]


@pytest.fixture(scope="module")
def generator():
    return randomised(prog_gan.build_generator(CONFIG))


@pytest.fixture(scope="module")
def discriminator():
    return randomised(prog_gan.build_discriminator(CONFIG))


def randomised(model):
    """Biases start at 0, where a missing one would not be seen."""
    for i, variable in enumerate(model.trainable_variables):
        variable.assign_add(0.1 * tf.random.stateless_normal(variable.shape, [2, i]))
    return model


def inputs(count=4):
    rng = np.random.default_rng(0)
    labels = np.eye(CONFIG.num_labels, dtype=np.float32)[rng.integers(0, CONFIG.num_labels, count)]
    return [rng.normal(size=[count, CONFIG.latent_size]).astype(np.float32), labels]


def random_images(side, count=4):
    return tf.random.stateless_uniform([count, side, side, 1], [3, side], -1, 1)


def enlarged(images, factor):
    return tf.repeat(tf.repeat(images, factor, axis=1), factor, axis=2)


def set_lod(model, lod):
    model.get_layer("lod").lod.assign(lod)


def names(model):
    return {variable.name.removesuffix(":0"): tuple(variable.shape) for variable in model.variables}


def test_variables_have_the_references_names_and_shapes(generator, discriminator):
    assert names(generator) == {
        "lod": (),
        "4x4/Dense/weight": (13, 128),
        "4x4/Dense/bias": (8,),
        "4x4/Conv/weight": (3, 3, 8, 8),
        "4x4/Conv/bias": (8,),
        "8x8/Conv0_up/weight": (3, 3, 8, 8),
        "8x8/Conv0_up/bias": (8,),
        "8x8/Conv1/weight": (3, 3, 8, 8),
        "8x8/Conv1/bias": (8,),
        "16x16/Conv0_up/weight": (3, 3, 8, 8),
        "16x16/Conv0_up/bias": (8,),
        "16x16/Conv1/weight": (3, 3, 8, 8),
        "16x16/Conv1/bias": (8,),
        "32x32/Conv0_up/weight": (3, 3, 4, 8),
        "32x32/Conv0_up/bias": (4,),
        "32x32/Conv1/weight": (3, 3, 4, 4),
        "32x32/Conv1/bias": (4,),
        **{f"ToRGB_lod{k}/weight": (1, 1, 4 if k == 0 else 8, 1) for k in range(4)},
        **{f"ToRGB_lod{k}/bias": (1,) for k in range(4)},
    }
    assert names(discriminator) == {
        "lod": (),
        **{f"FromRGB_lod{k}/weight": (1, 1, 1, 4 if k == 0 else 8) for k in range(4)},
        **{f"FromRGB_lod{k}/bias": (4 if k == 0 else 8,) for k in range(4)},
        "32x32/Conv0/weight": (3, 3, 4, 4),
        "32x32/Conv0/bias": (4,),
        "32x32/Conv1_down/weight": (3, 3, 4, 8),
        "32x32/Conv1_down/bias": (8,),
        "16x16/Conv0/weight": (3, 3, 8, 8),
        "16x16/Conv0/bias": (8,),
        "16x16/Conv1_down/weight": (3, 3, 8, 8),
        "16x16/Conv1_down/bias": (8,),
        "8x8/Conv0/weight": (3, 3, 8, 8),
        "8x8/Conv0/bias": (8,),
        "8x8/Conv1_down/weight": (3, 3, 8, 8),
        "8x8/Conv1_down/bias": (8,),
        "4x4/Conv/weight": (3, 3, 9, 8),
        "4x4/Conv/bias": (8,),
        "4x4/Dense0/weight": (128, 8),
        "4x4/Dense0/bias": (8,),
        "4x4/Dense1/weight": (8, 6),
        "4x4/Dense1/bias": (6,),
    }
    assert "lod:0" not in [variable.name for variable in generator.trainable_variables]


@pytest.mark.parametrize(
    ("model", "name", "scale"),
    [
        # gain / sqrt(fan_in)
        ("generator", "4x4/Dense", np.sqrt(2) / 4 / np.sqrt(13)),
        ("generator", "4x4/Conv", np.sqrt(2 / 72)),
        ("generator", "16x16/Conv0_up", np.sqrt(2 / 72)),
        ("generator", "32x32/Conv1", np.sqrt(2 / 36)),
        ("generator", "ToRGB_lod1", np.sqrt(1 / 8)),
        ("discriminator", "FromRGB_lod0", np.sqrt(2)),
        ("discriminator", "32x32/Conv1_down", np.sqrt(2 / 36)),
        ("discriminator", "4x4/Conv", np.sqrt(2 / 81)),
        ("discriminator", "4x4/Dense0", np.sqrt(2 / 128)),
        ("discriminator", "4x4/Dense1", np.sqrt(1 / 8)),
    ],
)
def test_equalized_gains(model, name, scale, request):
    layer = request.getfixturevalue(model).get_layer(name)
    np.testing.assert_allclose(layer._scaled_weight() / layer.weight, scale, rtol=1e-5)


@pytest.mark.parametrize(("stage", "lod"), LODS)
def test_the_full_generator_enlarges_what_the_stage_generator_makes(generator, stage, lod):
    part = prog_gan.stage_generator(generator, CONFIG, stage)
    set_lod(generator, lod)
    small = part(inputs())
    assert small.shape == [4, 2**stage, 2**stage, 1]
    np.testing.assert_allclose(generator(inputs()), enlarged(small, 2 ** (5 - stage)), atol=1e-5)
    assert np.std(small) > 0.01


@pytest.mark.parametrize(("stage", "lod"), LODS)
def test_the_full_discriminator_scores_enlarged_images_like_the_stage_discriminator(discriminator, stage, lod):
    part = prog_gan.stage_discriminator(discriminator, CONFIG, stage)
    set_lod(discriminator, lod)
    images = random_images(2**stage, 8)
    scores, logits = part(images)
    assert scores.shape == [8, 1]
    assert logits.shape == [8, 5]
    full_scores, full_logits = discriminator(enlarged(images, 2 ** (5 - stage)))
    np.testing.assert_allclose(full_scores, scores, atol=1e-5)
    np.testing.assert_allclose(full_logits, logits, atol=1e-5)


def test_both_sides_of_a_new_stage_agree(generator, discriminator):
    set_lod(generator, 1.0)
    set_lod(discriminator, 1.0)
    old, new = (prog_gan.stage_generator(generator, CONFIG, stage)(inputs()) for stage in (4, 5))
    np.testing.assert_allclose(new, enlarged(old, 2), atol=1e-5)
    old, new = (prog_gan.stage_discriminator(discriminator, CONFIG, stage)(x)[0] for stage, x in ((4, old), (5, new)))
    np.testing.assert_allclose(new, old, atol=1e-5)


def test_lod_decides_which_resolutions_are_mixed(generator):
    # 4x4 alone at n - 2, and beyond.
    set_lod(generator, 3.0)
    images = generator(inputs())
    np.testing.assert_array_equal(images, enlarged(images[:, ::8, ::8], 8))
    set_lod(generator, 4.0)
    np.testing.assert_array_equal(generator(inputs()), images)
    set_lod(generator, 0.5)
    mixed = generator(inputs())
    set_lod(generator, 1.0)
    old = generator(inputs())
    set_lod(generator, 0.0)
    np.testing.assert_allclose(mixed, (old + generator(inputs())) / 2, atol=1e-6)


@pytest.mark.parametrize(("stage", "lod"), LODS)
def test_a_stage_trains_all_its_variables(generator, discriminator, stage, lod):
    g = prog_gan.stage_generator(generator, CONFIG, stage)
    d = prog_gan.stage_discriminator(discriminator, CONFIG, stage)
    set_lod(generator, lod)
    set_lod(discriminator, lod)
    _, labels = inputs(8)
    with tf.GradientTape() as tape:
        scores, logits = d(g(inputs(8), training=True), training=True)
        loss = tf.reduce_mean(losses.wgan_generator(scores) + losses.auxiliary_loss(logits, labels))
    variables = g.trainable_variables + d.trainable_variables
    gradients = tape.gradient(loss, variables)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    used = {v.name.rpartition("/")[0] for v in variables}
    idle = {v.name.rpartition("/")[0] for v, x in zip(variables, gradients, strict=True) if not np.any(x)}
    k, size = 5 - stage, f"{2**stage}x{2**stage}"
    to_and_from = {level: {f"ToRGB_lod{level}", f"FromRGB_lod{level}"} for level in range(4)}
    assert {name for name in used if "_lod" in name} == to_and_from[k] | to_and_from[k + 1]
    assert {int(name.split("x")[0]) for name in used if name[0].isdigit()} == {2**r for r in range(2, stage + 1)}
    if lod == k:
        assert idle == to_and_from[k + 1]
    elif lod == k + 1:
        blocks = {f"{size}/{name}" for name in ("Conv0_up", "Conv1", "Conv0", "Conv1_down")}
        assert idle == to_and_from[k] | blocks
    else:
        assert not idle


@pytest.mark.parametrize("stage", [2, 6])
def test_there_are_stages_3_to_n(generator, stage):
    with pytest.raises(ValueError, match="from 3 to 5"):
        prog_gan.stage_generator(generator, CONFIG, stage)


def test_stage_models_share_variables(generator):
    mine = {id(variable) for variable in generator.variables}
    for stage in (3, 4, 5):
        part = prog_gan.stage_generator(generator, CONFIG, stage)
        assert {id(variable) for variable in part.variables} <= mine
        assert part.get_layer("lod").lod is generator.get_layer("lod").lod


@pytest.mark.parametrize("build", [prog_gan.build_generator, prog_gan.build_discriminator])
def test_models_serialise_and_save_like_any_keras_model(build, tmp_path):
    model = build(CONFIG)
    set_lod(model, 1.3)
    stage = prog_gan.stage_generator if build is prog_gan.build_generator else prog_gan.stage_discriminator
    # Sharing layers with another model must leave no trace.
    stage(model, CONFIG, 4)
    copy = type(model).from_config(model.get_config())
    shapes = model.input_shape if isinstance(model.input_shape, list) else [model.input_shape]
    values = [tf.random.stateless_normal([4, *shape[1:]], [1, i]) for i, shape in enumerate(shapes)]
    values = values if len(values) > 1 else values[0]
    expected = tf.nest.flatten(model(values))
    copy.set_weights(model.get_weights())
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("lod").lod.numpy() == np.float32(1.3)
    for other in (copy, loaded):
        assert names(other) == names(model)
        for a, b in zip(tf.nest.flatten(other(values)), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    stage(loaded, CONFIG, 5)
    model.summary(print_fn=lambda line: None)


def test_initial_weights_depend_on_the_seed_only():
    other = network_config.NetworkConfig(**{**CONFIG.__dict__, "seed": 2})
    first, again, third = (prog_gan.build_discriminator(config).get_weights() for config in (CONFIG, CONFIG, other))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, third, strict=True))


def test_a_subset_of_the_labels_is_seen():
    config = network_config.NetworkConfig(**{**CONFIG.__dict__, "condition_labels": (4, 1)})
    generator, discriminator = prog_gan.build_generator(config), prog_gan.build_discriminator(config)
    latents, labels = inputs()
    labels[:] = [0, 1, 0, 0, 0]
    more = labels + np.array([1, 0, 1, 1, 0], np.float32)
    images = generator([latents, labels])
    np.testing.assert_array_equal(generator([latents, more]), images)
    assert np.any(images != generator([latents, labels + np.eye(5, dtype=np.float32)[4]]))
    assert generator.get_layer("4x4/Dense").weight.shape[0] == config.latent_size + 2
    assert discriminator(images)[1].shape == [4, 2]


def test_real_images_at_a_lod():
    image = np.zeros([1, 8, 8, 1], np.float32)
    image[0, 0, 0, 0] = 16
    image[0, 7, 6:, 0] = [4, 8]
    whole = prog_gan.at_lod(tf.constant(image), 0.0, stage=3, stages=3)
    np.testing.assert_array_equal(whole, image)
    # The means of 2x2 pixels are 4 (top left) and 3 (bottom right); at alpha 1/4 they give a quarter of themselves to
    # the block of four pixels they belong to.
    mixed = prog_gan.at_lod(tf.constant(image), tf.constant(0.25), stage=3, stages=3).numpy()[0, :, :, 0]
    np.testing.assert_allclose(mixed[:2, :2], [[13, 1], [1, 1]])
    np.testing.assert_allclose(mixed[6:, 6:], [[0.75, 0.75], [3.75, 6.75]])
    assert np.count_nonzero(mixed) == 8
    # One stage below: 16x16 to 8x8, each pixel a mean of four.
    large = enlarged(tf.constant(image), 2) + tf.tile([[1.0, -1.0], [2.0, -2.0]], [8, 8])[None, :, :, None]
    np.testing.assert_allclose(prog_gan.at_lod(large, 1.0, stage=3, stages=4), image, atol=1e-6)
    np.testing.assert_allclose(prog_gan.at_lod(large, 1.25, stage=3, stages=4).numpy()[0, :, :, 0], mixed, atol=1e-6)
    half = prog_gan.at_lod(tf.cast(large, tf.float16), tf.constant(1.25), stage=3, stages=4)
    assert half.dtype == tf.float16


@pytest.mark.parametrize(("stage", "lod"), LODS)
def test_gradient_norms_of_enlarged_images(discriminator, stage, lod):
    part = prog_gan.stage_discriminator(discriminator, CONFIG, stage)
    set_lod(discriminator, lod)
    images = random_images(2**stage)

    def norms(model, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            score = tf.reduce_sum(model(x)[0])
        return tf.norm(tf.reshape(tape.gradient(score, x), [4, -1]), axis=1)

    large = norms(discriminator, enlarged(images, 2 ** (5 - stage)))
    np.testing.assert_allclose(large, prog_gan.gradient_scale(stage, 5) * norms(part, images), rtol=1e-4)


@pytest.mark.parametrize(("stage", "lod"), [(3, 2.0), (4, 1.4), (5, 0.0)])
def test_second_order_gradients_through_a_stage(discriminator, stage, lod):
    part = prog_gan.stage_discriminator(discriminator, CONFIG, stage)
    set_lod(discriminator, lod)
    images = random_images(2**stage, 8)
    with tf.GradientTape() as tape:
        penalty, norms = losses.gradient_penalty(
            lambda images: part(images, training=True)[0][:, 0], images, scale=prog_gan.gradient_scale(stage, 5)
        )
        loss = tf.reduce_mean(penalty)
    assert np.all(norms > 0)
    gradients = tape.gradient(loss, part.trainable_variables, unconnected_gradients="zero")
    assert all(np.isfinite(x).all() for x in gradients)
    moving = [v.name for v, x in zip(part.trainable_variables, gradients, strict=True) if np.any(x)]
    assert f"{2**stage}x{2**stage}/Conv0/weight:0" in moving


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_variables_and_outputs_in_float32(policy):
    generator, discriminator = prog_gan.build_generator(CONFIG, policy), prog_gan.build_discriminator(CONFIG, policy)
    set_lod(generator, 0.5)
    set_lod(discriminator, 0.5)
    images = generator(inputs())
    scores, logits = discriminator(images)
    assert {x.dtype for x in (images, scores, logits)} == {tf.float32}
    assert {v.dtype for v in generator.variables + discriminator.variables} == {tf.float32}
    assert generator.get_layer("8x8/Conv1").compute_dtype == policy.removeprefix("mixed_")
    plain_generator, plain = prog_gan.build_generator(CONFIG), prog_gan.build_discriminator(CONFIG)
    set_lod(plain_generator, 0.5)
    set_lod(plain, 0.5)
    np.testing.assert_allclose(images, plain_generator(inputs()), atol=0.15)
    np.testing.assert_allclose(scores, plain(images)[0], atol=0.1)


def test_stage_models_run_compiled(generator):
    part = prog_gan.stage_generator(generator, CONFIG, 4)
    run = tf.function(lambda x: part(x, training=True))
    set_lod(generator, 1.0)
    first = run(inputs())
    set_lod(generator, 1.5)
    # The variable is read at each call, not when traced.
    np.testing.assert_allclose(run(inputs()), part(inputs()), atol=1e-5)
    assert np.any(first != run(inputs()))


def test_fading_is_exact_at_both_ends():
    new, old = tf.constant([1e8]), tf.constant([3.0])
    fade = prog_gan.Fade(1)
    for lod, expected in ((0.5, new), (1.0, new), (2.0, old), (2.5, old)):
        np.testing.assert_array_equal(fade([new, old, tf.constant(lod)]), expected)
    assert layers.upsample(tf.ones([1, 1, 1, 1])).shape == [1, 2, 2, 1]
