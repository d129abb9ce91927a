# The Keras methods build, call and get_config are what they are in every Keras layer.
# ruff: noqa: D102
"""prog-GAN: progressive growing (Karras et al. 2018), conditional as an AC-GAN (Odena et al. 2017).

Notation: R = 2^n is the final resolution; block r works at 2^r. The level of detail, `lod`, says which resolution is
shown: n - r while 2^r is trained, n - r + alpha while block r is faded in (alpha falls from 1, only the old layers, to
0, only the new). It falls from n - 3 (8x8) to 0 (fully grown).

A full model holds all layers and one float32 scalar variable `lod`, not trainable, 0 at first. It mixes the outputs of
all resolutions by lod (Karras 2018, figure 2), so that it gives the right images and scores at any time, is saved and
loaded as it is, and computes everything always. The models of `stage_generator` and `stage_discriminator` share its
layers and compute only what one resolution needs: training uses these.

Weights: equalized learning rate (section 4.1) everywhere. He et al.'s gain sqrt(2) before a leaky ReLU, 1 for linear
outputs, sqrt(2)/4 for the generator's dense layer, which fans out to 16 pixels. Names, shapes and layouts of the
variables are the reference's (see `layers`).
"""

import math
from collections.abc import Callable

import tensorflow as tf

from tfcxr.gan.networks import layers
from tfcxr.gan.networks.network_config import NetworkConfig

FIRST_STAGE = 3
_GAIN = math.sqrt(2)


@layers.register
class Lod(tf.keras.layers.Layer):
    """The level of detail as a scalar float32 tensor, whatever the input (which only ties it to a functional model)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # Here, not in build(), so that the variable is called `lod` as in the reference, not `lod/lod`.
        self.lod = self.add_weight(name="lod", shape=[], dtype="float32", initializer="zeros", trainable=False)

    def call(self, x):
        return tf.identity(self.lod)


@layers.register
class Fade(tf.keras.layers.Layer):
    """(1 - t)·new + t·old with t = lod - level between 0 and 1, of (new, old, lod); new and old of one shape.

    A chain of them over the levels n - r is piecewise linear in lod: resolution r has the weight
    max(0, 1 - |lod - (n - r)|).
    """

    def __init__(self, level: int, **kwargs):
        super().__init__(**kwargs)
        self.level = int(level)

    def call(self, inputs):
        new, old, lod = inputs
        t = tf.clip_by_value(lod - self.level, 0.0, 1.0)
        return (1 - t) * new + t * old

    def get_config(self):
        return {**super().get_config(), "level": self.level}


@layers.register
class ScoreAndLogits(tf.keras.layers.Layer):
    """Splits [N, 1 + K] into scores [N, 1] and logits [N, K]."""

    def call(self, x):
        return x[:, :1], x[:, 1:]


def build_generator(config: NetworkConfig, policy: str = "float32") -> tf.keras.Model:
    """The full generator: (latents [N, nf(0)], labels [N, num_labels]) -> images [N, R, R, 1], not clipped.

    Labels are float32 in {0, 1} with at least one 1 per row among `config.condition_labels`; latents float32 from
    N(0, I); images float32, nominally in [-1, 1]. At lod > 0 they are nearest-neighbour enlargements.

    `policy` is a Keras dtype policy, such as 'mixed_float16': that of the blocks. Variables are float32, and so are
    the mixing by lod and what comes out.
    """
    return _generator(config, config.stages, policy, None)


def build_discriminator(config: NetworkConfig, policy: str = "float32") -> tf.keras.Model:
    """The full discriminator: images [N, R, R, 1] in [-1, 1] -> (scores [N, 1], logits [N, K]), all float32.

    A high score means real; the logits are those of the K labels that the generator sees (all, or
    `config.condition_labels`, in their order). At lod > 0 it sees the 2x2 means of the images only. N must be at most 4
    or divisible by 4 (the groups of the minibatch standard deviation). `policy` as for `build_generator`.
    """
    return _discriminator(config, config.stages, policy, None)


def stage_generator(model: tf.keras.Model, config: NetworkConfig, stage: int) -> tf.keras.Model:
    """The part of the full generator `model` that makes images of 2^stage: (latents, labels) -> [N, 2^s, 2^s, 1].

    It shares layers, and the variable lod, with `model`, whose images are enlargements of its own while lod is in
    [n - stage, n - stage + 1]. Its trainable variables are those in use; at lod = n - stage the gradient of ToRGB of
    stage - 1 is zero.
    """
    return _generator(config, _checked(stage, config), None, model)


def stage_discriminator(model: tf.keras.Model, config: NetworkConfig, stage: int) -> tf.keras.Model:
    """The part of the full discriminator `model` for images [N, 2^stage, 2^stage, 1] -> (scores [N, 1], logits [N, K]).

    It shares layers, and the variable lod, with `model`, which gives the same for these images enlarged, while lod is
    in [n - stage, n - stage + 1]. At lod = n - stage the gradient of FromRGB of stage - 1 is zero.
    """
    return _discriminator(config, _checked(stage, config), None, model)


def at_lod(images, lod, stage: int, stages: int):
    """Real images as they are shown at `lod`: what `stage_discriminator` of `stage` takes.

    2x2 means down to 2^stage, crossfaded with their own version of half the resolution (Karras 2018, figure 2).

    Args:
        images: [N, R, R, 1], a float type, R = 2^stages.
        lod: a number or a scalar tensor in [n - stage, n - stage + 1], n = stages.
        stage: resolution 2^stage of the result.
        stages: n.

    Returns:
        [N, 2^stage, 2^stage, 1] of the images' type and range.
    """
    side = 2 ** (stages - stage)
    images = tf.nn.avg_pool2d(images, side, side, "VALID")
    alpha = tf.cast(tf.cast(lod, tf.float32) - (stages - stage), images.dtype)
    return (1 - alpha) * images + alpha * layers.upsample(layers.downsample(images))


def gradient_scale(stage: int, stages: int) -> float:
    """2^-(stages - stage): norms of the score's gradient at full resolution, as a multiple of those at 2^stage.

    The reference shows images of every stage enlarged to 2^stages, so its gradient penalty is about the gradient with
    respect to the large images X, of f = 2^(stages - stage) times the side. The full discriminator first takes means
    over f·f pixels: D(X) = d(mean(X)), so each pixel's gradient is 1/f² of that of the small pixel that it
    belongs to. f² such pixels make up one small pixel: ‖∇D‖² = f²·‖∇d‖²/f⁴, or ‖∇D‖ = ‖∇d‖/f.
    """
    return 2.0 ** (stage - stages)


def _checked(stage, config):
    if not FIRST_STAGE <= stage <= config.stages:
        raise ValueError(f"stage={stage}: must be from {FIRST_STAGE} to {config.stages}")
    return stage


def _shared(model: tf.keras.Model | None):
    """A function that makes a layer by its name, or, with a full model, finds it there."""

    def layer(make: Callable, *args, name: str, **kwargs) -> tf.keras.layers.Layer:
        return model.get_layer(name) if model else make(*args, name=name, **kwargs)

    return layer


def _generator(config, stage, policy, full):
    """The full generator if `full` is None, with stage = n; otherwise that of a stage, of the layers of `full`."""
    nf, n = config.feature_maps, config.stages
    own = {"seed": config.seed, "dtype": policy}
    layer = _shared(full)
    latents = tf.keras.Input([config.latent_size], name="latents")
    labels = tf.keras.Input([config.num_labels], name="labels")
    lod = layer(Lod, name="lod", dtype="float32")(latents)

    def normed(x, name):
        return layer(layers.PixelNorm, name=f"{name}/PixelNorm", dtype=policy)(x)

    def conv(make, x, units, name):
        return normed(layer(make, units, 3, gain=_GAIN, activate=True, name=name, **own)(x), name)

    x = labels
    if config.condition_labels:
        x = layer(layers.SelectLabels, config.condition_labels, name="SelectLabels", dtype="float32")(x)
    x = layer(tf.keras.layers.Concatenate, name="Condition", dtype="float32")([latents, x])
    x = layer(layers.PixelNorm, name="ConditionNorm", dtype="float32")(x)
    image = None
    for r in range(2, stage + 1):
        size, units = f"{2**r}x{2**r}", nf(r - 1)
        if r == 2:
            x = layer(layers.DenseToImage, units, gain=_GAIN / 4, activate=True, name="4x4/Dense", **own)(x)
            x = conv(layers.Conv, normed(x, "4x4/Dense"), units, "4x4/Conv")
        else:
            x = conv(layers.UpConv, x, units, f"{size}/Conv0_up")
            x = conv(layers.Conv, x, units, f"{size}/Conv1")
        if full is not None and r < stage - 1:
            continue
        rgb = layer(layers.Conv, 1, 1, name=f"ToRGB_lod{n - r}", **own)(x)
        if image is not None:
            image = layer(layers.Upsample, name=f"{size}/Upsample", dtype="float32")(image)
            rgb = layer(Fade, n - r, name=f"{size}/Fade", dtype="float32")([rgb, image, lod])
        image = rgb
    name = "generator" if full is None else f"generator_{2**stage}"
    return tf.keras.Model([latents, labels], image, name=name)


def _discriminator(config, stage, policy, full):
    """The full discriminator if `full` is None, with stage = n; otherwise that of a stage, of the layers of `full`."""
    nf, n = config.feature_maps, config.stages
    own = {"seed": config.seed, "dtype": policy}
    layer = _shared(full)
    images = tf.keras.Input([2**stage, 2**stage, 1], name="images")
    lod = layer(Lod, name="lod", dtype="float32")(images)

    def conv(make, x, units, name, *args):
        return layer(make, units, *args, gain=_GAIN, activate=True, name=name, **own)(x)

    def from_rgb(y, r):
        return conv(layers.Conv, y, nf(r - 1), f"FromRGB_lod{n - r}", 1)

    x, y = from_rgb(images, stage), images
    for r in range(stage, 2, -1):
        size = f"{2**r}x{2**r}"
        x = conv(layers.Conv, x, nf(r - 1), f"{size}/Conv0", 3)
        x = conv(layers.DownConv, x, nf(r - 2), f"{size}/Conv1_down", 3)
        if full is None or r == stage:
            y = layer(layers.Downsample, name=f"{size}/Downsample", dtype="float32")(y)
            x = layer(Fade, n - r, name=f"{size}/Fade", dtype="float32")([x, from_rgb(y, r - 1), lod])
    x = layer(layers.MinibatchStddev, name="4x4/MinibatchStddev", dtype="float32")(x)
    x = conv(layers.Conv, x, nf(1), "4x4/Conv", 3)
    x = conv(layers.DenseFromImage, x, nf(0), "4x4/Dense0")
    # The last layer in float32: scores of WGAN-GP are not bounded, and float16 has three digits.
    seen = len(config.condition_labels) or config.num_labels
    x = layer(layers.Dense, 1 + seen, seed=config.seed, name="4x4/Dense1", dtype="float32")(x)
    name = "discriminator" if full is None else f"discriminator_{2**stage}"
    return tf.keras.Model(images, layer(ScoreAndLogits, name="ScoreAndLogits", dtype="float32")(x), name=name)
