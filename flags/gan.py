"""Flags of the GAN's networks and training."""

from absl import flags

from flags import common, fidelity
from tfcxr import zoo
from tfcxr.fidelity import feature_names
from tfcxr.gan import choices
from tfcxr.gan.networks import network_config
from tfcxr.training import choices as training_choices


def define_network(fv: flags.FlagValues) -> None:
    """What decides the shape and the start of the networks."""
    flags.DEFINE_enum(
        "arch", "cpd", list(network_config.ARCHS),
        "cpd: class-conditional GAN of the benchmark; prog: progressive growing with label losses", flag_values=fv,
    )  # fmt: skip
    for name, default, what in (("g_arch", "skip", "generator"), ("d_arch", "resnet", "discriminator")):
        flags.DEFINE_enum(name, default, network_config.ARCHITECTURES, f"cpd: {what}'s architecture", flag_values=fv)
    flags.DEFINE_integer(
        "fmap_base", None, "feature maps at stage s are fmap_base / 2^(s·fmap_decay); default 16384, prog 8192",
        lower_bound=1, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer("fmap_max", 512, "most feature maps of a layer", lower_bound=1, flag_values=fv)
    flags.DEFINE_integer("fmap_min", 1, "fewest feature maps of a layer", lower_bound=1, flag_values=fv)
    flags.DEFINE_float("fmap_decay", 1.0, "see fmap_base", lower_bound=0.0, flag_values=fv)
    flags.DEFINE_enum(
        "init", "reference", network_config.INITS,
        "start of the conditional pixel norm: as the reference, or calm (image-like much sooner)", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_list(
        "condition_labels", [],
        "labels the GAN sees, comma-separated; empty: all of the records. Images without any are left out",
        flag_values=fv,
    )  # fmt: skip
    flags.register_validator(
        "condition_labels",
        lambda names: len(set(names)) == len(names),
        "must be distinct labels",
        flag_values=fv,
    )


def define_training(fv: flags.FlagValues) -> None:
    """Loss and optimizer."""
    flags.DEFINE_enum(
        "loss", "wgan_gp", choices.LOSSES,
        "logistic_r1: logistic loss with a penalty on the gradient at real images", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float(
        "learning_rate", None, "of Adam, both networks; default 0.005, prog 0.001", lower_bound=1e-8, flag_values=fv
    )
    flags.DEFINE_float(
        "d_learning_rate", None, "of the discriminator, where it has its own", lower_bound=1e-8, flag_values=fv
    )
    flags.DEFINE_float(
        "lr_decay_kimg", None,
        "learning rates fall to 1/2 after so many thousand images, 1/3 after twice as many, ...; default: they stay",
        lower_bound=0.001, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "d_steps", 1, "discriminator steps per step of the generator, each with images of its own",
        lower_bound=1, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "passes", 1, "compute each batch in so many parts, one after another: the same step in less memory",
        lower_bound=1, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_enum(
        "precision", "float32", choices.PRECISIONS,
        "what networks compute in; weights and losses are float32. Mixed precision needs hardware that has it",
        flag_values=fv,
    )  # fmt: skip
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


def define_augmentation(fv: flags.FlagValues) -> None:
    """What the discriminator sees of images."""
    flags.DEFINE_string(
        "augment", "",
        "for small data, what the discriminator's images go through at random: diffaugment (Zhao 2020), ada (Karras "
        f"2020), color, or names from {', '.join(choices.AUGMENT_POLICIES)}", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float(
        "augment_probability", 1.0, "of each policy, for each image, where --ada_target does not set it",
        lower_bound=0.0, upper_bound=1.0, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float(
        "ada_target", None,
        "adapt the probability so that the mean of sign(D(real)) stays at this value (0.6 in ADA's paper); default off",
        lower_bound=-0.999, upper_bound=0.999, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float(
        "ada_kimg", 500.0, "thousands of images in which the probability can go from 0 to 1",
        lower_bound=0.001, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_boolean(
        "mirror", False, "flip real images left to right at random (a heart then lies on either side)", flag_values=fv
    )


def define_schedule(fv: flags.FlagValues) -> None:
    """Length, ticks, and what a run starts from."""
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


def define_snapshot(fv: flags.FlagValues) -> None:
    """Which of a run's generators."""
    flags.DEFINE_enum(
        "snapshot", "best", choices.SNAPSHOTS,
        "of a GAN's run: the generator with the least fid while it was trained, or the newest", flag_values=fv,
    )  # fmt: skip


def define_generator(fv: flags.FlagValues) -> None:
    """--generator: the folder of an export, or a name of the zoo."""
    names = tuple(zoo.folders())
    what = f"exported generator (folder of export-model), or one that comes with tfcxr: {', '.join(names)}"
    common.define_path(fv, "generator", what, words=names)

    def is_there(value: str | None) -> bool:
        try:
            return not value or zoo.find(value).is_dir()
        except (OSError, ValueError) as error:  # InputError; a name too long; a NUL byte
            raise flags.ValidationError(getattr(error, "strerror", None) or str(error)) from error

    flags.register_validator("generator", is_there, "is no folder", flag_values=fv)


def define_allow_untrained(fv: flags.FlagValues) -> None:
    """--allow_untrained."""
    flags.DEFINE_boolean(
        "allow_untrained",
        False,
        "also take a GAN that has been shown fewer than 1000 real images; its images are noise",
        flag_values=fv,
    )


def define_growth(fv: flags.FlagValues) -> None:
    """prog-GAN's schedule."""
    flags.DEFINE_float(
        "train_kimg", None, "prog: training at each resolution; default 1400 at 32 px, 1000 at 64 and 128, else 600",
        lower_bound=0.001, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float(
        "fade_kimg", None, "prog: fade of each new layer; default as train_kimg", lower_bound=0.0, flag_values=fv
    )
    flags.DEFINE_string(
        "batch_sizes", "", "prog: by resolution, such as 8:256,16:128; default halves from 256 at 8 px", flag_values=fv
    )
    flags.DEFINE_string(
        "learning_rates", "", "prog: by resolution, such as 64:0.0005, where not --learning_rate", flag_values=fv
    )


def define_progress(fv: flags.FlagValues) -> None:
    """Fidelity while training, and what is shown."""
    fidelity.define_features(fv)
    fidelity.define_cache_dir(fv)
    flags.DEFINE_integer(
        "fid_images", 10_000, "real and generated images of each measurement, at most all training images",
        lower_bound=2, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer("fid_ticks", 4, "measure every so many ticks, and at the end", lower_bound=1, flag_values=fv)
    flags.DEFINE_integer(
        "patience", 2, "stop after so many measurements without a better fid; 0: never", lower_bound=0, flag_values=fv
    )
    flags.DEFINE_float(
        "min_kimg", None, "do not stop before; default by resolution (32 px: 7000)", lower_bound=0.0, flag_values=fv
    )
    flags.DEFINE_boolean("histograms", False, "TensorBoard: histograms of all weights at every tick", flag_values=fv)
    flags.DEFINE_list(
        "profile", [], "TensorBoard: first and last step of a window of the profiler, such as 20,30", flag_values=fv
    )
    flags.register_validator(
        "profile",
        lambda ends: not ends or (len(ends) == 2 and all(map(str.isdecimal, ends)) and int(ends[0]) <= int(ends[1])),
        "must be two steps, such as 20,30", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_enum(
        "strategy", "default", training_choices.STRATEGIES,
        "mirrored: all GPUs of this machine; multiworker: the machines of TF_CONFIG, each runs this command",
        flag_values=fv,
    )  # fmt: skip


def define_curation(fv: flags.FlagValues) -> None:
    """--curate and what belongs to it."""
    common.define_folder(
        fv,
        "curate",
        "run folder or export of a classifier of the set's classes, or of labels that do not exclude each other, best "
        "trained on the patients that the GAN learned from: keep only images in which it sees the label; default: all "
        "images are kept",
        required=False,
    )
    common.define_folder(
        fv,
        "curate_thresholds",
        "output folder of evaluate of that classifier, best on the validation fold: from which probability on it sees "
        "each label (Youden's J); default: those of an export's calibration, else 0.5. For labels that do not exclude "
        "each other",
        required=False,
    )
    flags.DEFINE_enum(
        "curate_labels",
        "asked",
        ["asked", "exactly"],
        "of labels that do not exclude each other: keep an image if each label that was asked for is seen, or if "
        "exactly these are seen",
        flag_values=fv,
    )
    common.define_folder(
        fv,
        "curate_train",
        "record set that the GAN learned from: with --curate, keep only images that are not nearer to one of its "
        "training images than --curate_quantile of its held-out images are",
        required=False,
    )
    flags.DEFINE_enum(
        "curate_holdout_split",
        "validation",
        ["validation", "test"],
        "fold of --curate_train with the held-out images",
        flag_values=fv,
    )
    flags.DEFINE_float("curate_quantile", 0.01, "of the held-out images' distances to training images", flag_values=fv)
    flags.register_validator(
        "curate_quantile", lambda value: 0 < value < 1, "must be above 0 and below 1", flag_values=fv
    )
    common.define_path(
        fv,
        "curate_features",
        f"in what images are near, as --features of neighbours: {', '.join(feature_names.WITHOUT_FIT)}, or the path of "
        "a classifier. Audit in another one than this",
        default=feature_names.PIXELS,
        words=feature_names.WITHOUT_FIT,
    )
    flags.DEFINE_integer(
        "max_draws",
        20,
        "with --curate, at most so many draws for each image of a class or label combination",
        lower_bound=1,
        flag_values=fv,
    )
