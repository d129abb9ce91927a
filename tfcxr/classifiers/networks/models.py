"""The encoder: normalise -> backbone (with channel attention). The classifier: with a dense head and DCAN's correction.

Li et al., "Domain Conditioned Adaptation Network", AAAI 2020, arXiv 2005.06717, sections 3.2 and 3.3.
"""

import dataclasses
import errno
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfcxr.classifiers import choices
from tfcxr.classifiers.networks import attention, backbones, preprocessing, seeding
from tfcxr.training import digests
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import pictures

_HEAD_STDDEV = 0.01
_CORRECTION_STDDEV = 0.005
_CORRECTION_BIAS = 0.1
_CORRECTION_WIDTH = 128
_HDF5_OVERHEAD = 4096  # bytes for each variable, about


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What decides a network's shape and what its output means.

    Attributes:
        classes: names, in the order of the outputs: of classes that exclude each other, or of labels (`multilabel`);
            none of an encoder alone.
        label_version: of the records it was trained on.
        resolution: side of those records' images in pixels.
        aspect, contrast: how those images were made, see tfrecords_builder.pictures; empty where nobody knows, as of
            synthetic ones.
        multilabel: whether each output is a label with a probability of its own (sigmoid), or the outputs are classes
            whose probabilities sum to 1 (softmax).
        image_size: side of what the backbone sees.
        framing: one of choices.FRAMINGS: what part of an image that is.
        backbone: one of choices.BACKBONES.
        stem: one of choices.STEMS.
        attention: whether blocks end in domain conditioned channel attention. Without, those of an SE backbone have
            channel attention that is the same for both domains.
        reduction: of the attention.
        correction: whether there are feature corrections (DCAN, with its regulariser or without).
        dtype: float32 or mixed_bfloat16 (computation in bfloat16, weights in float32).
    """

    classes: tuple[str, ...]
    label_version: str
    resolution: int
    image_size: int
    backbone: str = "resnet50"
    stem: str = "imagenet"
    attention: bool = False
    reduction: int = 16
    correction: bool = False
    dtype: str = "float32"
    aspect: str = ""
    contrast: str = ""
    multilabel: bool = False
    framing: str = "crop"

    def __post_init__(self):
        """Raises InputError naming a value that cannot be used."""
        choices.check_backbone(self.backbone, self.image_size, attention=self.attention)
        if self.framing not in choices.FRAMINGS:
            raise InputError(f"--framing={self.framing}: must be one of {', '.join(choices.FRAMINGS)}")
        if self.dtype not in choices.DTYPES:
            raise InputError(f"--dtype={self.dtype}: must be one of {', '.join(choices.DTYPES)}")

    @property
    def picture(self) -> pictures.PictureOptions:
        """How a file becomes an image like those it was trained on; stretched and without contrast if unknown."""
        return pictures.PictureOptions(self.resolution, self.aspect or "stretch", self.contrast or "none")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Picks its fields out of a run's configuration. Raises InputError if one is missing."""
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if name not in values]
        if missing:
            raise InputError(f"config.json: is not of a classifier (it has no {missing[0]})")
        return cls(**{name: values[name] for name in names} | {"classes": tuple(values["classes"])})


class Encoder(tf.keras.Model):
    """Images float [N, S, S, 1] in [0, 1], framed -> pooled features float32 [N, F].

    Attributes:
        config: ModelConfig.
        backbone: the Keras network (with its attention, if any) of normalised images.
    """

    def __init__(self, config: ModelConfig, seed: int = 0, name: str = "encoder"):
        """Makes all weights, at random by `seed`; neither uses nor changes Keras's global seed and policy."""
        super().__init__(name=name, dtype="float32")
        self.config = config
        known = choices.BACKBONES[config.backbone]
        self.normalise = preprocessing.Normalise(known.normalisation)
        base = backbones.build(config.backbone, config.stem, seed=seed, dtype=config.dtype)
        self.backbone = base
        if config.attention or known.squeeze_excite:
            self.backbone = attention.AttendedBackbone(
                base, reduction=config.reduction, per_domain=config.attention, seed=seed, dtype=config.dtype
            )
        self._add_parts(seed)
        self(tf.zeros([2, config.image_size, config.image_size, 1]))

    def _add_parts(self, seed: int) -> None:
        """Makes what a network has besides."""

    @property
    def base(self) -> tf.keras.Model:
        """The backbone as Keras made it, without attention."""
        return self.backbone.base if self.is_attended else self.backbone

    @property
    def is_attended(self) -> bool:
        """Whether the backbone is an attention.AttendedBackbone."""
        return isinstance(self.backbone, attention.AttendedBackbone)

    @property
    def width(self) -> int:
        """F, the number of features."""
        return int(self.base.output_shape[-1])

    def features(self, images: tf.Tensor, path: str = "target", training: bool = False) -> tf.Tensor:
        """Pooled features before correction.

        Args:
            images: float [N, S, S, 1] in [0, 1].
            path: of the attention; see attention.ChannelAttention.
            training: whether BatchNorm uses the batch's statistics and updates the stored ones.

        Returns:
            float32 [N, F].
        """
        normalised = self.normalise(images)
        if self.is_attended:
            features = self.backbone(normalised, path=path, training=training)
        else:
            features = self.backbone(normalised, training=training)
        return tf.cast(features, tf.float32)

    def call(self, images: tf.Tensor, path: str = "target", training: bool = False) -> tf.Tensor:
        """As `features`."""
        return self.features(images, path, training)

    def get_config(self) -> dict:
        """The fields of `config`."""
        return dataclasses.asdict(self.config)


class Classifier(Encoder):
    """Images float [N, S, S, 1] in [0, 1], framed -> logits float32 [N, K].

    Attributes:
        head: the dense classifier.
        feature_correction, logit_correction: DCAN's correction blocks, or None.
        temperatures: by which `probabilities` divides the logits, one for all or one for each; None for none.
    """

    def __init__(self, config: ModelConfig, seed: int = 0):
        """As an encoder. Raises InputError for less than two classes, of labels less than one."""
        if len(config.classes) < (1 if config.multilabel else 2):
            raise InputError(
                f"label version {config.label_version} has {len(config.classes)} classes; a classifier needs 2"
            )
        super().__init__(config, seed, name="classifier")

    def _add_parts(self, seed: int) -> None:
        config, num_classes = self.config, len(self.config.classes)
        self.temperatures: Sequence[float] | None = None
        self.head = _dense(num_classes, _HEAD_STDDEV, 0.0, "head", seed)
        self.feature_correction: tf.keras.Model | None = None
        self.logit_correction: tf.keras.Model | None = None
        if config.correction:
            self.feature_correction = _correction(_CORRECTION_WIDTH, self.width, "feature_correction", seed)
            self.logit_correction = _correction(num_classes, num_classes, "logit_correction", seed)

    def correct(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Corrected features f' = f + D(f), float32 [N, F], and corrected logits g' = C(f') + D'(C(f')), [N, K].

        Raises ValueError if the classifier has no corrections.
        """
        if self.feature_correction is None or self.logit_correction is None:
            raise ValueError("correct: the classifier was made with correction=False")
        corrected = features + self.feature_correction(features)
        logits = self.head(corrected)
        return corrected, logits + self.logit_correction(logits)

    def classify(self, features: tf.Tensor, path: str = "target") -> tf.Tensor:
        """Logits [N, K] of features [N, F]: corrected on the target path, plain on the source path."""
        if self.config.correction and path == "target":
            return self.correct(features)[1]
        return self.head(features)

    def call(self, images: tf.Tensor, path: str = "target", training: bool = False) -> tf.Tensor:
        """Logits [N, K]; `path` is source or target."""
        return self.classify(self.features(images, path, training), path)

    def probabilities(self, logits: tf.Tensor, *, calibrated: bool = True) -> tf.Tensor:
        """Of logits float32 [N, K]: of each label, or of classes that exclude each other.

        With `calibrated`, they are divided by the temperatures first, if there are any.
        """
        if calibrated and self.temperatures is not None:
            logits = logits / tf.constant(self.temperatures, tf.float32)
        return tf.sigmoid(logits) if self.config.multilabel else tf.nn.softmax(logits)


def trace_features(encoder: Encoder, number: int) -> tf.Graph:
    """The graph of a network's features for so many images."""
    size = encoder.config.image_size
    run = tf.function(lambda images: encoder.features(images), autograph=False)
    return run.get_concrete_function(tf.TensorSpec([number, size, size, 1], tf.float32)).graph


def save_weights(network: Encoder, path: str | os.PathLike) -> None:
    """Writes all weights as one Keras `.weights.h5` file, atomically."""
    with files.atomic_path(path, ending=".weights.h5") as temporary:  # Keras chooses the format by the name's end
        sizes = [weight.shape.num_elements() * weight.dtype.size for weight in network.weights]
        _check_space(temporary, sum(sizes) + len(sizes) * _HDF5_OVERHEAD)
        network.save_weights(str(temporary))
        digests.seal_hdf5(temporary)


def _check_space(path: pathlib.Path, size: int) -> None:
    """Raises OSError if the disk has no room for a file: HDF5 may crash the program if it finds that out itself."""
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot tell
                raise OSError(error.errno, error.strerror, str(path)) from error


def load_weights(network: Encoder, path: str | os.PathLike) -> None:
    """Reads what `save_weights` wrote. Raises InputError naming the file if it is damaged or of another network."""
    if not pathlib.Path(path).is_file():
        raise InputError(f"{path}: there is no such file; the run has no weights yet")
    digests.check_hdf5(path)
    try:
        network.load_weights(str(path))
    except (ValueError, OSError, KeyError) as error:
        raise InputError(f"{path}: does not fit the run's configuration ({str(error).splitlines()[0]})") from error


def copy_weights(source: Encoder, target: Encoder) -> list[str]:
    """Copies what both networks have: backbone always; of classifiers head and corrections if the classes agree.

    Labels that do not exclude each other are not the same as classes of their names.

    Returns:
        Names of the parts copied.

    Raises:
        InputError: the backbones differ.
    """
    copied = copy_backbone(source, target, "--init_from")
    parts: list[tuple[tf.keras.layers.Layer, tf.keras.layers.Layer]] = []
    both = isinstance(source, Classifier) and isinstance(target, Classifier)
    ours, theirs = ((config.classes, config.multilabel) for config in (target.config, source.config))
    if both and ours == theirs:
        parts.append((source.head, target.head))
        copied.append("head")
        if source.config.correction and target.config.correction:
            parts.append((source.feature_correction, target.feature_correction))
            parts.append((source.logit_correction, target.logit_correction))
            copied.append("corrections")
    for a, b in parts:
        b.set_weights(a.get_weights())
    return copied


def copy_backbone(source: Encoder, target: Encoder, flag: str) -> list[str]:
    """Copies the backbone, and its channel attention if both have one of the same reduction.

    Returns:
        Names of the parts copied.

    Raises:
        InputError: the backbones differ, or the reductions where attention is part of the backbone; begins with `flag`.
    """
    ours, theirs = target.config, source.config
    if theirs.backbone != ours.backbone:
        raise InputError(
            f"{flag}: its backbone is {theirs.backbone}, not {ours.backbone}; give --backbone={theirs.backbone}"
        )
    same = theirs.reduction == ours.reduction
    if not same and choices.BACKBONES[ours.backbone].squeeze_excite:
        raise InputError(f"{flag}: its --reduction is {theirs.reduction}, not {ours.reduction}")
    target.base.set_weights(source.base.get_weights())
    if not (source.is_attended and target.is_attended and same):
        return ["backbone"]
    for a, b in zip(source.backbone.attentions, target.backbone.attentions, strict=True):
        b.copy_paths(a)
    return ["backbone", "attention"]


def _dense(
    width: int, stddev: float, bias: float, name: str, seed: int, activation: str | None = None
) -> tf.keras.layers.Dense:
    return tf.keras.layers.Dense(
        width,
        activation,
        kernel_initializer=tf.keras.initializers.RandomNormal(stddev=stddev, seed=seeding.layer_seed(seed, name)),
        bias_initializer=tf.keras.initializers.Constant(bias),
        dtype="float32",
        name=name,
    )


def _correction(hidden: int, width: int, name: str, seed: int) -> tf.keras.Sequential:
    """dense(relu(dense)): [N, width] -> [N, width]."""
    blocks = [
        _dense(hidden, _CORRECTION_STDDEV, _CORRECTION_BIAS, f"{name}_in", seed, "relu"),
        _dense(width, _CORRECTION_STDDEV, _CORRECTION_BIAS, f"{name}_out", seed),
    ]
    return tf.keras.Sequential([tf.keras.Input([width]), *blocks], name=name)
