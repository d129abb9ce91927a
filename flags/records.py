"""Flags of the programs that build and check records."""

from absl import flags

from flags import common


def define_build(fv: flags.FlagValues) -> None:
    """The flags of build-records."""
    define_data_set(fv)
    common.define_label_version(fv)
    common.define_resolution(fv)
    define_selection(fv)
    define_split_policy(fv)
    define_image_faults(fv)
    flags.DEFINE_integer("num_shards", 0, "shards per split; 0: one per 1,024 images", lower_bound=0, flag_values=fv)
    common.define_workers(fv)
    common.define_seed(fv)
    common.define_output_dir(fv)


def define_data_set(fv: flags.FlagValues) -> None:
    """--dataset, --data_dir, --labels_csv."""
    flags.DEFINE_enum("dataset", None, ["chexpert", "chestxray"], "layout of the data set", flag_values=fv)
    common.define_required(fv, "dataset", "chexpert or chestxray")
    common.define_folder(fv, "data_dir", "folder of the data set: its tables, lists and images")
    common.define_file(fv, "labels_csv", "label table to read instead of the one in --data_dir")


def define_selection(fv: flags.FlagValues) -> None:
    """--uncertain, --view, --limit."""
    flags.DEFINE_enum(
        "uncertain",
        "zeros",
        ["zeros", "ones", "drop"],
        "uncertain labels become negative, positive, or drop the image if the label version looks at them",
        flag_values=fv,
    )
    flags.DEFINE_enum("view", "any", ["PA", "AP", "any"], "frontal view to use", flag_values=fv)
    flags.DEFINE_integer(
        "limit",
        0,
        "use at most that many images, in the proportions of classes and splits; 0: all",
        lower_bound=0,
        flag_values=fv,
    )


def define_split_policy(fv: flags.FlagValues) -> None:
    """--split_policy, --split_fractions."""
    flags.DEFINE_enum(
        "split_policy",
        "patient",
        ["patient", "official", "image"],
        "how folds are made: whole patients; the data set's own test fold; single images (leaks patients)",
        flag_values=fv,
    )
    flags.DEFINE_list(
        "split_fractions",
        ["0.8", "0.1", "0.1"],
        "shares of train, validation and test; the official policy has its own",
        flag_values=fv,
    )
    flags.register_validator(
        "split_fractions",
        _are_fractions,
        "must be three numbers from 0 to 1 that sum to 1, train above 0",
        flag_values=fv,
    )


def define_image_faults(fv: flags.FlagValues) -> None:
    """--missing_images, --bad_images."""
    for name, what in (("missing", "are named in the table but not there"), ("bad", "cannot be decoded")):
        flags.DEFINE_enum(
            f"{name}_images",
            "error",
            ["error", "skip"],
            f"what to do about images that {what}: stop, or count them and go on",
            flag_values=fv,
        )


def _are_fractions(values: list[str]) -> bool:
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return False
    return len(numbers) == 3 and min(numbers) >= 0 and numbers[0] > 0 and abs(sum(numbers) - 1) < 1e-6
