"""Flags of the GAN's networks and training."""

from absl import flags

from flags import common
from tfrecords_builder import labels


def define_network(fv: flags.FlagValues) -> None:
    """What decides the shape and the start of the networks."""
    flags.DEFINE_enum(
        "arch", "cpd", ["cpd"], "cpd: class-conditional skip generator, residual discriminator", flag_values=fv
    )
    flags.DEFINE_integer(
        "fmap_base",
        16384,
        "feature maps at stage s are fmap_base / 2^s, at most fmap_max",
        lower_bound=1,
        flag_values=fv,
    )
    flags.DEFINE_integer("fmap_max", 512, "most feature maps of a layer", lower_bound=1, flag_values=fv)
    flags.DEFINE_enum(
        "init", "reference", ["reference", "calm"],
        "start of the conditional pixel norm: as the reference, or calm (image-like much sooner)", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_list(
        "condition_labels", [],
        "labels the GAN sees, comma-separated; empty: all 14. Images without any are left out", flag_values=fv,
    )  # fmt: skip
    flags.register_validator(
        "condition_labels",
        lambda names: all(name in labels.LABELS for name in names) and len(set(names)) == len(names),
        f"must be distinct labels of: {', '.join(labels.LABELS)}",
        flag_values=fv,
    )


def define_training(fv: flags.FlagValues) -> None:
    """Loss, optimizer and schedule."""
    flags.DEFINE_enum(
        "loss", "wgan_gp", ["wgan_gp", "logistic_ns", "logistic_r1", "hinge", "hinge_gp"],
        "logistic_r1: logistic loss with a penalty on the gradient at real images", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float("learning_rate", 0.005, "of Adam, both networks", lower_bound=1e-8, flag_values=fv)
    flags.DEFINE_float("r1_gamma", 10.0, "logistic_r1: weight at real images", lower_bound=0.0, flag_values=fv)
    flags.DEFINE_float("r2_gamma", 0.0, "logistic_r1: weight at generated images", lower_bound=0.0, flag_values=fv)
    flags.DEFINE_integer(
        "reg_interval",
        1,
        "apply the gradient penalty in each so many-th step only, times that number",
        lower_bound=1,
        flag_values=fv,
    )
    flags.DEFINE_float(
        "ema_decay", 0.999, "per step, of the averaged generator, which makes all samples",
        lower_bound=0.0, upper_bound=0.999999, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float(
        "ema_rampup", None, "average over at most this fraction of the steps so far (short runs: 0.1); default off",
        lower_bound=1e-6, upper_bound=1.0, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_boolean(
        "mirror", False, "flip real images left to right at random (a heart then lies on either side)", flag_values=fv
    )
    flags.DEFINE_float(
        "total_kimg", None, "thousands of real images to show; default by resolution (32 px: 12000); may grow later",
        lower_bound=0.001, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float(
        "tick_kimg",
        None,
        "report and samples so often; default by resolution (32 px: 100)",
        lower_bound=0.001,
        flag_values=fv,
    )
    flags.DEFINE_float(
        "checkpoint_kimg", None, "checkpoint so often; default: every tick", lower_bound=0.001, flag_values=fv
    )
    common.define_folder(
        fv,
        "warm_start",
        "run folder of a GAN (trained or imported) to start from: its weights only, nothing else of it",
        required=False,
    )
