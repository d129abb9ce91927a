"""Flags of the programs that measure how much images resemble others."""

from absl import flags

from flags import common
from tfcxr.classifiers import choices
from tfcxr.fidelity import feature_names


def define_features(fv: flags.FlagValues) -> None:
    """--features and --features_weights."""
    common.define_path(
        fv,
        "features",
        f"what is compared: {feature_names.PIXELS_PCA} (64 principal components of the pixels; offline), "
        f"{feature_names.TEXTURE} (co-occurrence, local patterns, gradients, power spectrum; offline), "
        f"{feature_names.INCEPTION}, {choices.EFFICIENTNET_LITE0} (ImageNet weights from a package), a run folder of a "
        "classifier or of pretrain, an export of a classifier, or a Keras model of images in [0, 1]. Part of every "
        "metric's name",
        default=feature_names.PIXELS_PCA,
        words=feature_names.WITHOUT_PATH,
    )
    define_features_weights(fv)


def define_features_weights(fv: flags.FlagValues) -> None:
    """--features_weights."""
    common.define_path(
        fv,
        "features_weights",
        f"of --features={feature_names.INCEPTION}: imagenet (default; from the Keras cache, nothing is downloaded) or "
        "an .h5 file",
        words=("imagenet",),
    )


def define_classifier(fv: flags.FlagValues) -> None:
    """--classifier."""
    common.define_folder(
        fv,
        "classifier",
        "run folder or export of a classifier of real images, best of other patients than the generator's: how often "
        "it sees the label that was asked for; default: not measured",
        required=False,
    )


def define_cache_dir(fv: flags.FlagValues) -> None:
    """--cache_dir."""
    common.define_place(
        fv,
        "cache_dir",
        "folder that keeps the real images' features for later calls; default: train-gan in the run, else nowhere",
    )
