"""The networks of cpD-GAN as Keras models (Schütte et al. 2021; Karras et al. 2018, 2019 and 2020).

Images are [N, R, R, 1] float32 in [-1, 1]; labels [N, num_labels] float32 in {0, 1} with at least one 1 per row among
those that the network is conditioned on; latents [N, latent_size] float32 from N(0, I).
"""

from typing import Any

import tensorflow as tf

from tfcxr.gan.networks import layers
from tfcxr.gan.networks.network_config import NetworkConfig


def build_generator(config: NetworkConfig, policy: str) -> tf.keras.Model:
    """cpD-GAN's generator; see `build_networks.build_generator`."""
    nf = config.feature_maps
    own: dict[str, Any] = {"seed": config.seed, "dtype": policy}
    latents = tf.keras.Input([config.latent_size], name="latents")
    labels = tf.keras.Input([config.num_labels], name="labels")
    condition = tf.keras.layers.Concatenate(name="Condition", dtype="float32")([latents, _select(config, labels)])

    def normed(x, name):
        norm = layers.ConditionalPixelNorm(calm=config.init == "calm", name=f"{name}/PixelNorm", **own)
        return norm([x, condition])

    def conv(layer, x, units, name):
        return normed(layer(units, 3, activate=True, name=name, **own)(x), name)

    def to_rgb(x, size):
        return layers.Conv(1, 1, seed=config.seed, name=f"{size}x{size}/ToRGB", dtype="float32")(x)

    x = layers.PixelNorm(name="ConditionNorm", dtype="float32")(condition)
    x = layers.DenseToImage(nf(1), activate=True, name="4x4/Dense", **own)(x)
    x = normed(x, "4x4/Dense")
    x = conv(layers.Conv, x, nf(1), "4x4/Conv")
    image = to_rgb(x, 4) if config.g_arch == "skip" else None
    for r in range(3, config.stages + 1):
        size, units, t = 2**r, nf(r - 1), x
        x = conv(layers.UpConv, x, units, f"{size}x{size}/Conv0_up")
        x = conv(layers.Conv, x, units, f"{size}x{size}/Conv1")
        if config.g_arch == "resnet":
            t = layers.UpConv(units, 1, use_bias=False, name=f"{size}x{size}/Skip", **own)(t)
            x = layers.ResidualMean(name=f"{size}x{size}/Sum", dtype=policy)([x, t])
        if config.g_arch == "skip":
            image = layers.Upsample(name=f"{size}x{size}/Upsample", dtype="float32")(image)
            image = tf.keras.layers.Add(name=f"{size}x{size}/AddRGB", dtype="float32")([image, to_rgb(x, size)])
    if config.g_arch != "skip":
        image = to_rgb(x, config.resolution)
    return tf.keras.Model([latents, labels], image, name="generator")


def build_discriminator(config: NetworkConfig, policy: str) -> tf.keras.Model:
    """cpD-GAN's discriminator; see `build_networks.build_discriminator`."""
    nf = config.feature_maps
    own: dict[str, Any] = {"seed": config.seed, "dtype": policy}
    images = tf.keras.Input([config.resolution, config.resolution, 1], name="images")
    labels = tf.keras.Input([config.num_labels], name="labels")

    def from_rgb(y, r):
        return layers.Conv(nf(r - 1), 1, activate=True, name=f"{2**r}x{2**r}/FromRGB", **own)(y)

    x, y = from_rgb(images, config.stages), images
    for r in range(config.stages, 2, -1):
        prefix, t = f"{2**r}x{2**r}", x
        x = layers.Conv(nf(r - 1), 3, activate=True, name=f"{prefix}/Conv0", **own)(x)
        x = layers.DownConv(nf(r - 2), 3, activate=True, name=f"{prefix}/Conv1_down", **own)(x)
        if config.d_arch == "resnet":
            t = layers.DownConv(nf(r - 2), 1, use_bias=False, name=f"{prefix}/Skip", **own)(t)
            x = layers.ResidualMean(name=f"{prefix}/Sum", dtype=policy)([x, t])
        if config.d_arch == "skip":
            y = layers.Downsample(name=f"{prefix}/Downsample", dtype="float32")(y)
            x = tf.keras.layers.Add(name=f"{prefix}/AddRGB", dtype=policy)([x, from_rgb(y, r - 1)])
    x = layers.MinibatchStddev(name="4x4/MinibatchStddev", dtype=policy)(x)
    x = layers.Conv(nf(1), 3, activate=True, name="4x4/Conv", **own)(x)
    x = layers.DenseFromImage(nf(0), activate=True, name="4x4/Dense0", **own)(x)
    seen = _select(config, labels)
    outputs = layers.Dense(seen.shape[-1], seed=config.seed, name="Output", dtype="float32")(x)
    score = layers.LabelScore(name="Score", dtype="float32")([outputs, seen])
    return tf.keras.Model([images, labels], score, name="discriminator")


def _select(config: NetworkConfig, labels):
    if not config.condition_labels:
        return labels
    return layers.SelectLabels(config.condition_labels, name="SelectLabels", dtype="float32")(labels)
