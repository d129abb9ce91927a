"""Flags of neighbours and audit-privacy."""

from absl import flags

from flags import common, fidelity
from tfcxr.classifiers import choices
from tfcxr.fidelity import feature_names


def define_sets(fv: flags.FlagValues, real: str) -> None:
    """--synthetic and --synthetic_split, and a record set of reals named `real` with --split."""
    common.define_records(fv, "synthetic", "record set of synthetic images")
    flags.DEFINE_enum(
        "synthetic_split", "train", ["train", "validation", "test"], "which fold of --synthetic to read", flag_values=fv
    )
    common.define_records(fv, real, "record set of real images, those that the generator learned from")
    common.define_split(fv, "train")


def define_features(fv: flags.FlagValues) -> None:
    """--features and --features_weights."""
    common.define_path(
        fv,
        "features",
        f"in what images are near: {feature_names.PIXELS} (grey values, of images shrunk to at most 64 px), "
        f"{feature_names.INCEPTION}, {choices.EFFICIENTNET_LITE0} (ImageNet weights from a package), a run folder of a "
        "classifier or of pretrain, an export of a classifier, or a Keras model of images in [0, 1]. Features of "
        "networks are scaled to length 1, so that the order is that of the cosine distance",
        default=feature_names.PIXELS,
        words=feature_names.WITHOUT_FIT,
    )
    fidelity.define_features_weights(fv)


def define_feature_spaces(fv: flags.FlagValues) -> None:
    """--features, of which there may be several."""
    common.define_paths(
        fv,
        "features",
        f"feature spaces, separated by commas: each one of {', '.join(feature_names.WITHOUT_FIT)}, or the path of a "
        f"classifier; default: {feature_names.PIXELS}, and {choices.EFFICIENTNET_LITE0} if its package is installed",
    )
