"""The networks of cpD-GAN as Keras models (Schütte et al. 2021; Karras et al. 2018, 2019 and 2020); prog-GAN's by name.

Images are [N, R, R, 1] float32 in [-1, 1]; labels [N, num_labels] float32 in {0, 1} with at least one 1 per row among
those that the network is conditioned on; latents [N, latent_size] float32 from N(0, I).
"""

import dataclasses
from typing import Any

import tensorflow as tf

from tfcxr.gan import layers

ARCHS = ("cpd", "prog")
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
      arch: 'cpd' or 'prog' (see `prog`).
      g_arch, d_arch: 'skip', 'resnet' or 'orig'; cpD-GAN is a 'skip' generator with a 'resnet' discriminator. Of no
        meaning to 'prog'.
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
    arch: str = "cpd"

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
        known = {"arch": ARCHS, "g_arch": ARCHITECTURES, "d_arch": ARCHITECTURES, "init": INITS}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be one of {', '.join(values)}")

    def feature_maps(self, stage: int) -> int:
        """Feature maps at a stage; the block of resolution 2^r uses stage r - 1, the latent stage 0."""
        return min(max(int(self.fmap_base / 2.0 ** (stage * self.fmap_decay)), self.fmap_min), self.fmap_max)

    @property
    def latent_size(self) -> int:
        """Length of a latent vector."""
        return self.feature_maps(0)

    @property
    def seen_labels(self) -> list[int]:
        """The columns of the label matrix that the networks see."""
        return list(self.condition_labels or range(self.num_labels))

    @property
    def stages(self) -> int:
        """n of resolution 2^n."""
        return self.resolution.bit_length() - 1

    @classmethod
    def from_dict(cls, values: dict) -> "NetworkConfig":
        """Builds from a mapping, leaving out keys that do not belong to a network."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names})


def build_generator(config: NetworkConfig | None = None, policy: str = "float32", **settings) -> tf.keras.Model:
    """The generator: (latents [N, nf(0)], labels [N, num_labels]) -> images [N, R, R, 1], nominally in [-1, 1], not
    clipped.

    Takes a `NetworkConfig` or its fields as keywords. `policy` is a Keras dtype policy, such as 'mixed_bfloat16' or
    'mixed_float16': what the layers compute in. Variables, the scales and shifts of the norms, and images are float32
    always. Raises ValueError naming a bad field.
    """
    config = config or NetworkConfig(**settings)
    if config.arch == "prog":
        from tfcxr.gan import prog

        return prog.build_generator(config, policy)
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


def build_discriminator(config: NetworkConfig | None = None, policy: str = "float32", **settings) -> tf.keras.Model:
    """The discriminator: (images [N, R, R, 1] in [-1, 1], labels [N, num_labels]) -> scores [N, 1] (high: real).

    N must be at most 4 or divisible by 4 (the groups of the minibatch standard deviation). Arguments as
    `build_generator`; variables, the minibatch standard deviation, the last dense layer and scores are float32 always.
    With arch 'prog' inputs and outputs are those of `prog.build_discriminator`.
    """
    config = config or NetworkConfig(**settings)
    if config.arch == "prog":
        from tfcxr.gan import prog

        return prog.build_discriminator(config, policy)
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
