"""Shapes, layers against their definitions, serialisation, and bad settings."""

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.gan.networks import build_networks, layers, network_config
from tfcxr.gan.training import losses

TINY = {"resolution": 16, "fmap_base": 64, "fmap_max": 8}


def inputs(count, config):
    rng = np.random.default_rng(0)
    labels = np.eye(14, dtype=np.float32)[rng.integers(0, 14, count)]
    return rng.normal(size=[count, config.latent_size]).astype(np.float32), labels


@pytest.mark.parametrize("arch", network_config.ARCHITECTURES)
def test_every_architecture_builds_and_learns_in_all_variables(arch):
    config = network_config.NetworkConfig(**TINY, g_arch=arch, d_arch=arch)
    generator, discriminator = build_networks.build_generator(config), build_networks.build_discriminator(config)
    latents, labels = inputs(8, config)
    with tf.GradientTape() as tape:
        images = generator([latents, labels])
        scores = discriminator([images, labels])
        loss = tf.reduce_sum(scores)
    assert images.shape == [8, 16, 16, 1]
    assert scores.shape == [8, 1]
    gradients = tape.gradient(loss, generator.trainable_variables + discriminator.trainable_variables)
    assert all(gradient is not None and np.isfinite(gradient.numpy()).all() for gradient in gradients)


@pytest.mark.parametrize("build", [build_networks.build_generator, build_networks.build_discriminator])
def test_models_serialise_and_save_like_any_keras_model(build, tmp_path):
    model = build(**TINY)
    copy = type(model).from_config(model.get_config())
    values = [tf.random.stateless_normal([4, *shape[1:]], [1, i]) for i, shape in enumerate(model.input_shape)]
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(copy(values), model(values))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(tf.keras.models.load_model(tmp_path / "model.keras")(values), model(values))
    model.summary(print_fn=lambda line: None)


def test_initial_weights_depend_on_the_seed_only():
    first, again, other = (build_networks.build_generator(**TINY, seed=seed).get_weights() for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_calm_start_scales_channels_by_about_one():
    config = network_config.NetworkConfig(**TINY, init="calm")
    reference = build_networks.build_generator(**TINY)
    calm = build_networks.build_generator(config)
    assert [v.shape for v in calm.trainable_variables] == [v.shape for v in reference.trainable_variables]
    norm = calm.get_layer("8x8/Conv1/PixelNorm")
    np.testing.assert_array_equal(norm.gamma_bias, np.ones(8))
    assert np.std(norm.gamma_weight) == pytest.approx(0.1, rel=0.3)


def test_a_subset_of_the_labels_is_selected_inside():
    config = network_config.NetworkConfig(**TINY, condition_labels=(0, 9))
    generator, discriminator = build_networks.build_generator(config), build_networks.build_discriminator(config)
    latents, _ = inputs(4, config)
    labels = np.zeros([4, 14], np.float32)
    labels[:, 9] = 1
    more = labels.copy()
    more[:, 3] = 1
    images = generator([latents, labels])
    np.testing.assert_array_equal(generator([latents, more]), images)
    np.testing.assert_array_equal(discriminator([images, more]), discriminator([images, labels]))
    assert generator.get_layer("4x4/Dense/PixelNorm").gamma_weight.shape == [config.latent_size + 2, 8]


@pytest.mark.parametrize("side", [4, 8, 16, 32])
@pytest.mark.parametrize("kernel", [1, 3])
def test_fused_convolutions_equal_their_two_steps(side, kernel):
    x = tf.random.stateless_normal([2, side, side, 3], [0, side])
    up = layers.UpConv(5, kernel, use_bias=False, name="up")
    down = layers.DownConv(5, kernel, use_bias=False, name="down")
    large, small = up(x), down(x)
    scale = np.sqrt(2 / (kernel * kernel * 5))
    flipped = tf.transpose(up.weight[::-1, ::-1], [0, 1, 3, 2]) * scale
    # Enlarging with borders of zeros around the small image is what the transposed convolution sees.
    expected = tf.nn.conv2d(layers.upsample(x), flipped, 1, "SAME")
    np.testing.assert_allclose(large, expected, atol=1e-4)
    plain = tf.nn.conv2d(x, down.weight * np.sqrt(2 / (kernel * kernel * 3)), 1, "SAME")
    np.testing.assert_allclose(small, layers.downsample(plain), atol=1e-4)


@pytest.mark.parametrize("kind", ["conv", "up", "down", "skip_up", "skip_down"])
def test_first_and_second_order_gradients_are_those_of_tensorflow(kind):
    kernel = 1 if kind.startswith("skip") else 3
    make = {"conv": layers.Conv, "up": layers.UpConv, "down": layers.DownConv}[kind.split("_")[-1]]
    layer = make(5, kernel, use_bias=False, gain=1.0, name="layer")
    x = tf.random.stateless_normal([2, 6, 6, 3], [0, 1])
    layer(x)

    def expected(x):
        weight = layer.weight / np.sqrt(np.prod(layer.weight.shape[:-1]))
        padded = tf.pad(weight, [[1, 1], [1, 1], [0, 0], [0, 0]])
        shifts = padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1]
        if "up" in kind:
            return tf.nn.conv2d_transpose(x, shifts, [2, 12, 12, 5], 2, "SAME")
        return tf.nn.conv2d(x, shifts / 4, 2, "SAME") if "down" in kind else tf.nn.conv2d(x, weight, 1, "SAME")

    for ours, theirs in zip(_derivatives(layer, x, layer.weight), _derivatives(expected, x, layer.weight), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def _derivatives(function, x, weight):
    """Outputs, gradients, and the gradients of the gradients' squares, of a sum of squares."""
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = function(x)
            total = tf.reduce_sum(tf.square(y)) / 2
        first = inner.gradient(total, [x, weight])
        squares = sum(tf.reduce_sum(tf.square(gradient)) for gradient in first) / 100
    return [y, *first, *outer.gradient(squares, [x, weight])]


def test_minibatch_stddev_groups_image_i_with_i_mod_n_over_4():
    x = np.zeros([8, 2, 2, 1], np.float32)
    x[[0, 2, 4, 6], :, :, 0] = np.array([0, 1, 2, 3], np.float32)[:, None, None]
    y = layers.MinibatchStddev()(tf.constant(x)).numpy()
    assert y.shape == (8, 2, 2, 2)
    np.testing.assert_allclose(y[::2, ..., 1], np.sqrt(1.25), rtol=1e-6)
    np.testing.assert_allclose(y[1::2, ..., 1], 1e-4, rtol=1e-5)


def test_conditional_pixel_norm_is_affine_in_the_condition():
    x = tf.constant([[[[3.0, 4.0]]]])
    layer = layers.ConditionalPixelNorm(name="norm")
    condition = tf.constant([[2.0, -1.0]])
    y = layer([x, condition]).numpy().ravel()
    gamma = condition.numpy() @ layer.gamma_weight.numpy() / np.sqrt(2)
    beta = condition.numpy() @ layer.beta_weight.numpy() / np.sqrt(2)
    np.testing.assert_allclose(y, (np.array([3, 4]) / np.sqrt(12.5) * gamma + beta).ravel(), rtol=1e-5)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("resolution", 24),
        ("resolution", 4),
        ("fmap_base", 0),
        ("arch", "progressive"),
        ("g_arch", "progressive"),
        ("init", "zeros"),
        ("condition_labels", (3, 3)),
        ("condition_labels", (14,)),
    ],
)
def test_bad_settings_are_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        network_config.NetworkConfig(**{**TINY, setting: value})


def test_feature_maps_of_the_defaults():
    config = network_config.NetworkConfig(resolution=512)
    assert [config.feature_maps(stage) for stage in (0, 4, 5, 6, 8)] == [512, 512, 512, 256, 64]
    assert config.latent_size == 512


@pytest.mark.parametrize("arch", network_config.ARCHITECTURES)
@pytest.mark.parametrize("resolution", [8, 512])
def test_the_smallest_and_the_largest_networks(resolution, arch):
    # 512 px with the feature maps of the paper, divided by 64.
    config = network_config.NetworkConfig(resolution=resolution, fmap_base=256, fmap_max=8, g_arch=arch, d_arch=arch)
    latents, labels = inputs(2, config)
    generator, discriminator = build_networks.build_generator(config), build_networks.build_discriminator(config)
    with tf.GradientTape() as tape:
        images = generator([latents, labels])
        scores = discriminator([images, labels])
    assert images.shape == (2, resolution, resolution, 1)
    assert scores.shape == (2, 1)
    gradients = tape.gradient(scores, generator.trainable_variables + discriminator.trainable_variables)
    assert all(np.isfinite(gradient).all() and np.abs(gradient).max() > 0 for gradient in gradients)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("arch", network_config.ARCHITECTURES)
def test_mixed_precision_computes_nearly_the_same_with_float32_variables_and_outputs(policy, arch):
    config = network_config.NetworkConfig(resolution=16, fmap_base=256, fmap_max=16, g_arch=arch, d_arch=arch)
    latents, labels = inputs(16, config)
    plain, mixed = build_networks.build_generator(config), build_networks.build_generator(config, policy)
    images = plain([latents, labels])
    assert mixed.compute_dtype == "float32" or mixed.get_layer("8x8/Conv1").compute_dtype == policy.removeprefix(
        "mixed_"
    )
    assert off(mixed([latents, labels]), images) < 0.05
    judge, mixed_judge = build_networks.build_discriminator(config), build_networks.build_discriminator(config, policy)
    assert off(mixed_judge([images, labels]), judge([images, labels])) < 0.05
    for model in (mixed, mixed_judge):
        assert {output.dtype for output in model.outputs} == {tf.float32}
        assert {variable.dtype for variable in model.trainable_variables} == {tf.float32}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_penalties_of_second_order_in_mixed_precision(policy):
    config = network_config.NetworkConfig(resolution=16, fmap_base=256, fmap_max=16)
    _, labels = inputs(16, config)
    images = tf.tanh(tf.random.stateless_normal([16, 16, 16, 1], [0, 0]))
    norms, gradients = [], []
    for model in (build_networks.build_discriminator(config), build_networks.build_discriminator(config, policy)):

        def score(images, model=model):
            return model([images, labels], training=True)

        with tf.GradientTape() as tape:
            penalty, own = losses.gradient_penalty(score, images)
            zero_centred, _ = losses.zero_centred_penalty(score, images, gamma=10.0)
            loss = tf.reduce_mean(penalty + zero_centred)
        found = tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")
        norms.append(own)
        gradients.append(tf.concat([tf.reshape(gradient, [-1]) for gradient in found], axis=0))
    assert off(norms[1], norms[0]) < 0.05
    assert off(gradients[1], gradients[0]) < 0.1
    assert np.isfinite(gradients[1]).all()


def off(values, expected):
    """Root mean square difference relative to the root mean square."""
    return float(tf.norm(tf.cast(values, tf.float32) - expected) / tf.norm(expected))


def test_activations_beyond_256_do_not_overflow_a_float16():
    x = tf.constant([[[[3000.0, 4000.0]]]], tf.float16)
    expected = np.array([3, 4]) / np.sqrt(12.5)
    np.testing.assert_allclose(layers.PixelNorm(dtype="mixed_float16")(x).numpy().ravel(), expected, rtol=1e-3)
    norm = layers.ConditionalPixelNorm(calm=True, dtype="mixed_float16", name="norm")
    y = norm([x, tf.zeros([1, 2])])
    assert y.dtype == tf.float16
    np.testing.assert_allclose(y.numpy().ravel(), expected, rtol=1e-3)
    y = layers.MinibatchStddev(dtype="mixed_float16")(tf.constant([[[[-3000.0]]], [[[3000.0]]]], tf.float16))
    np.testing.assert_allclose(y.numpy()[..., 1].ravel(), 3000, rtol=1e-3)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("build", [build_networks.build_generator, build_networks.build_discriminator])
def test_a_saved_model_keeps_its_precision(build, policy, tmp_path):
    model = build(network_config.NetworkConfig(**TINY), policy)
    model.save(tmp_path / "model.keras")
    copy = tf.keras.models.load_model(tmp_path / "model.keras")
    assert [layer.dtype_policy.name for layer in copy.layers] == [layer.dtype_policy.name for layer in model.layers]
    values = [tf.random.stateless_normal([4, *shape[1:]], [1, i]) for i, shape in enumerate(model.input_shape)]
    np.testing.assert_array_equal(copy(values), model(values))


def test_prog_networks_are_built_by_name():
    config = network_config.NetworkConfig(**TINY, arch="prog")
    latents, labels = inputs(4, config)
    images = build_networks.build_generator(config)([latents, labels])
    scores, logits = build_networks.build_discriminator(config, policy="mixed_bfloat16")(images)
    assert (images.shape, scores.shape, logits.shape) == ([4, 16, 16, 1], [4, 1], [4, 14])
