"""The settings that decide the shape and the initial values of a GAN's two networks; imports no TensorFlow."""

import dataclasses

from tfrecords_builder.labels.label_sets import DEFAULT

# name: (module here, with `build_generator` and `build_discriminator`; what model cards call it, by the settings)
ARCHS = {
    "cpd": ("cpd_gan", "cpD-GAN ({g_arch} architecture)"),
    "prog": ("prog_gan", "prog-GAN"),
}

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
    num_labels: int = len(DEFAULT)
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
    def kind(self) -> str:
        """The kind of network in words, such as `cpD-GAN (skip architecture)`."""
        return ARCHS[self.arch][1].format(**dataclasses.asdict(self))

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
