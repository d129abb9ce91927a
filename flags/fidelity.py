"""Flags of the programs that measure how much images resemble others."""

from absl import flags


def define_features(fv: flags.FlagValues) -> None:
    """--features and --features_weights."""
    flags.DEFINE_string(
        "features",
        "pixels_pca64",
        "what is compared: pixels_pca64 (64 principal components of the pixels; offline), inception, a run folder or "
        "export of a classifier, or a Keras model of images in [0, 1]. Part of every metric's name",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "features_weights",
        None,
        "of --features=inception: imagenet (default; from the Keras cache, nothing is downloaded) or an .h5 file",
        flag_values=fv,
    )


def define_cache_dir(fv: flags.FlagValues) -> None:
    """--cache_dir."""
    flags.DEFINE_string(
        "cache_dir",
        None,
        "folder that keeps the real images' features for later calls; default: train-gan in the run, else nowhere",
        flag_values=fv,
    )
