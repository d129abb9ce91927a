"""Flags of self-supervised pretraining."""

from absl import flags

from tfcxr.classifiers import choices
from tfrecords_builder.labels.canonical import SPLITS


def define_pretraining(fv: flags.FlagValues) -> None:
    """Method, images, schedule and what is measured."""
    flags.DEFINE_enum(
        "method",
        "simclr",
        list(choices.PRETRAINING_METHODS),
        "; ".join(f"{name}: {known.what}" for name, known in choices.PRETRAINING_METHODS.items()),
        flag_values=fv,
    )
    flags.DEFINE_list(
        "splits",
        ["train"],
        f"whose images to learn from: some of {', '.join(SPLITS)}, separated by commas; with test, evaluations on it "
        "warn of leakage",
        flag_values=fv,
    )
    flags.DEFINE_enum(
        "positives", "image", choices.POSITIVES,
        "image: a pair is two views of one image; patient: views of two images of one patient, where there are two",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer("batch_size", 256, "images per step, two views of each", lower_bound=2, flag_values=fv)
    flags.DEFINE_integer("steps", 10000, "training steps", lower_bound=1, flag_values=fv)
    flags.DEFINE_integer("eval_every", 500, "steps between evaluations", lower_bound=1, flag_values=fv)
    flags.DEFINE_enum(
        "optimizer", None, list(choices.PRETRAINING_OPTIMIZERS),
        "default: the method's (simclr: lars, simsiam: sgd)", flag_values=fv,
    )  # fmt: skip
    rates = ", ".join(f"{name} {known.learning_rate:g}" for name, known in choices.PRETRAINING_OPTIMIZERS.items())
    flags.DEFINE_float(
        "learning_rate", None,
        f"at its peak; default: the optimizer's for 256 images ({rates}); for N images sgd's is N / 256 times as high, "
        "the others' the root of that",
        lower_bound=1e-9, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float("weight_decay", None, "default: the optimizer's", lower_bound=0.0, flag_values=fv)
    flags.DEFINE_integer(
        "warmup_steps", None,
        "steps over which the learning rate rises from 0, before it falls along a cosine; default: a tenth of --steps",
        lower_bound=0, flag_values=fv,
    )  # fmt: skip
    sizes = ", ".join(f"{name} {known.projection}" for name, known in choices.PRETRAINING_METHODS.items())
    flags.DEFINE_integer(
        "projection", None, f"length of the vectors that the loss compares; default: {sizes}",
        lower_bound=2, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float(
        "temperature", 0.1, "of simclr's loss: what cosines are divided by", lower_bound=1e-3, flag_values=fv
    )
    flags.DEFINE_integer(
        "probe_images", 2000,
        "images of the train and of the validation split, at most, on which a linear classifier of the features is "
        "trained and measured at each evaluation; 0: none",
        lower_bound=0, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_enum(
        "select", "last", ["last", "probe"],
        "weights to keep; probe: those best by the linear probe, which uses labels",
        flag_values=fv,
    )  # fmt: skip
    _define_views(fv)


def _define_views(fv: flags.FlagValues) -> None:
    """What changes an image at random into a view."""
    for name, default, low, high, what in (
        ("crop_area", 0.3, 0.01, 1.0, "the smallest part of an image that a view shows"),
        ("rotation", 10.0, 0.0, 180.0, "the most degrees that a view is turned by, either way"),
        ("jitter", 0.4, 0.0, 1.0, "change of the contrast by a factor of 1 ± this, of the brightness by ± half of it"),
        ("blur", 0.5, 0.0, 1.0, "probability that a view is blurred"),
        ("cutout", 0.5, 0.0, 1.0, "probability that a square of a view is black"),
    ):
        flags.DEFINE_float(name, default, what, lower_bound=low, upper_bound=high, flag_values=fv)
