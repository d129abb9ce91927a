"""The networks of cpD-GAN as Keras models (Schütte et al. 2021; Karras et al. 2018, 2019 and 2020).

Images are [N, R, R, 1] float32 in [-1, 1]; labels [N, num_labels] float32 in {0, 1} with at least one 1 per row among
those that the network is conditioned on; latents [N, latent_size] float32 from N(0, I).
"""

import dataclasses

import tensorflow as tf

from tfcxr.gan import layers

ARCHITECTURES = ("skip", "resnet", "orig")
INITS = ("reference", "calm")


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Everything that decides the shape and the initial values of both networks.

    Attributes:
      resolution: side of the images, a power of two of at least 8.
      num_labels: columns of the label matrix.
      condition_labels: the columns the networks see; empty means all.
      fmap_base, fmap_decay, fmap_min, fmap_max: feature maps at stage s are clip(fmap_base / 2^(s·decay), min, max).
      g_arch, d_arch: 'skip', 'resnet' or 'orig'; cpD-GAN is a 'skip' generator with a 'resnet' discriminator.
      init: 'reference' or 'calm' (see `layers.ConditionalPixelNorm`).
      seed: of the initial weights.
    """

    resolution: int
    num_labels: int = 14
    condition_labels: tuple[int, ...] = ()
    fmap_base: int = 16384
    fmap_max: int = 512
    fmap_min: int = 1
    fmap_decay: float = 1.0
    g_arch: str = "skip"
    d_arch: str = "resnet"
    init: str = "reference"
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "condition_labels", tuple(int(index) for index in self.condition_labels))
        if self.resolution < 8 or self.resolution & (self.resolution - 1):
            raise ValueError(f"resolution={self.resolution}: must be a power of two of at least 8")
        for name in ("num_labels", "fmap_base", "fmap_max", "fmap_min"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.fmap_min > self.fmap_max:
            raise ValueError(f"fmap_min={self.fmap_min}: must not exceed fmap_max={self.fmap_max}")
        bad = [index for index in self.condition_labels if not 0 <= index < self.num_labels]
        if bad or len(set(self.condition_labels)) != len(self.condition_labels):
            raise ValueError(f"condition_labels={self.condition_labels}: must be distinct and below {self.num_labels}")
        for name in ("g_arch", "d_arch"):
            if getattr(self, name) not in ARCHITECTURES:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be one of {', '.join(ARCHITECTURES)}")
        if self.init not in INITS:
            raise ValueError(f"init={self.init!r}: must be one of {', '.join(INITS)}")

    def feature_maps(self, stage: int) -> int:
        """Feature maps at a stage; the block of resolution 2^r uses stage r - 1, the latent stage 0."""
        return min(max(int(self.fmap_base / 2.0 ** (stage * self.fmap_decay)), self.fmap_min), self.fmap_max)

    @property
    def latent_size(self) -> int:
        """Length of a latent vector."""
        return self.feature_maps(0)

    @property
    def stages(self) -> int:
        """n of resolution 2^n."""
        return self.resolution.bit_length() - 1

    @classmethod
    def from_dict(cls, values: dict) -> "NetworkConfig":
        """Builds from a mapping, leaving out keys that do not belong to a network."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names})


def build_generator(config: NetworkConfig | None = None, **settings) -> tf.keras.Model:
    """The generator: (latents [N, nf(0)], labels [N, num_labels]) -> images [N, R, R, 1], nominally in [-1, 1], not
    clipped.

    Takes a `NetworkConfig` or its fields as keywords. Raises ValueError naming a bad one.
    """
    config = config or NetworkConfig(**settings)
    nf, seed = config.feature_maps, config.seed
    latents = tf.keras.Input([config.latent_size], name="latents")
    labels = tf.keras.Input([config.num_labels], name="labels")
    condition = tf.keras.layers.Concatenate(name="Condition")([latents, _select(config, labels)])

    def normed(x, name):
        norm = layers.ConditionalPixelNorm(calm=config.init == "calm", seed=seed, name=f"{name}/PixelNorm")
        return norm([x, condition])

    def conv(layer, x, units, name):
        return normed(layer(units, 3, activate=True, seed=seed, name=name)(x), name)

    def to_rgb(x, size):
        return layers.Conv(1, 1, seed=seed, name=f"{size}x{size}/ToRGB")(x)

    x = layers.PixelNorm(name="ConditionNorm")(condition)
    x = layers.DenseToImage(nf(1), activate=True, seed=seed, name="4x4/Dense")(x)
    x = normed(x, "4x4/Dense")
    x = conv(layers.Conv, x, nf(1), "4x4/Conv")
    image = to_rgb(x, 4) if config.g_arch == "skip" else None
    for r in range(3, config.stages + 1):
        size, units, t = 2**r, nf(r - 1), x
        x = conv(layers.UpConv, x, units, f"{size}x{size}/Conv0_up")
        x = conv(layers.Conv, x, units, f"{size}x{size}/Conv1")
        if config.g_arch == "resnet":
            t = layers.UpConv(units, 1, use_bias=False, seed=seed, name=f"{size}x{size}/Skip")(t)
            x = layers.ResidualMean(name=f"{size}x{size}/Sum")([x, t])
        if config.g_arch == "skip":
            image = layers.Upsample(name=f"{size}x{size}/Upsample")(image)
            image = tf.keras.layers.Add(name=f"{size}x{size}/AddRGB")([image, to_rgb(x, size)])
    if config.g_arch != "skip":
        image = to_rgb(x, config.resolution)
    return tf.keras.Model([latents, labels], image, name="generator")


def build_discriminator(config: NetworkConfig | None = None, **settings) -> tf.keras.Model:
    """The discriminator: (images [N, R, R, 1] in [-1, 1], labels [N, num_labels]) -> scores [N, 1] (high: real).

    N must be at most 4 or divisible by 4 (the groups of the minibatch standard deviation). Arguments as
    `build_generator`.
    """
    config = config or NetworkConfig(**settings)
    nf, seed = config.feature_maps, config.seed
    images = tf.keras.Input([config.resolution, config.resolution, 1], name="images")
    labels = tf.keras.Input([config.num_labels], name="labels")

    def from_rgb(y, r):
        return layers.Conv(nf(r - 1), 1, activate=True, seed=seed, name=f"{2**r}x{2**r}/FromRGB")(y)

    x, y = from_rgb(images, config.stages), images
    for r in range(config.stages, 2, -1):
        prefix, t = f"{2**r}x{2**r}", x
        x = layers.Conv(nf(r - 1), 3, activate=True, seed=seed, name=f"{prefix}/Conv0")(x)
        x = layers.DownConv(nf(r - 2), 3, activate=True, seed=seed, name=f"{prefix}/Conv1_down")(x)
        if config.d_arch == "resnet":
            t = layers.DownConv(nf(r - 2), 1, use_bias=False, seed=seed, name=f"{prefix}/Skip")(t)
            x = layers.ResidualMean(name=f"{prefix}/Sum")([x, t])
        if config.d_arch == "skip":
            y = layers.Downsample(name=f"{prefix}/Downsample")(y)
            x = tf.keras.layers.Add(name=f"{prefix}/AddRGB")([x, from_rgb(y, r - 1)])
    x = layers.MinibatchStddev(name="4x4/MinibatchStddev")(x)
    x = layers.Conv(nf(1), 3, activate=True, seed=seed, name="4x4/Conv")(x)
    x = layers.DenseFromImage(nf(0), activate=True, seed=seed, name="4x4/Dense0")(x)
    seen = _select(config, labels)
    outputs = layers.Dense(seen.shape[-1], seed=seed, name="Output")(x)
    return tf.keras.Model([images, labels], layers.LabelScore(name="Score")([outputs, seen]), name="discriminator")


def _select(config: NetworkConfig, labels):
    if not config.condition_labels:
        return labels
    return layers.SelectLabels(config.condition_labels, name="SelectLabels")(labels)
