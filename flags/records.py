"""Flags of the programs that read label tables and build records."""

from absl import flags

from flags import common
from tfrecords_builder import choices, labels


def define_build(fv: flags.FlagValues) -> None:
    """The flags of build-records."""
    define_data_set(fv)
    common.define_label_version(fv)
    common.define_resolution(fv)
    define_dataset_name(fv)
    define_selection(fv)
    define_amounts(fv)
    define_split_policy(fv)
    define_pictures(fv)
    define_unlabelled(fv)
    define_privacy(fv)
    define_running(fv)
    common.define_seed(fv)
    common.define_output_dir(fv)


def define_data_set(fv: flags.FlagValues) -> None:
    """--dataset, --data_dir, --labels_csv, and what its table means: --label_set, --label_map, --columns and others."""
    flags.DEFINE_enum(
        "dataset",
        None,
        list(choices.DATASETS),
        "layout of the data set: of CheXpert, ChestX-ray8/14 and others by their names (docs/guides/data.md says which "
        "files they need), a folder of images with a CSV, one with a folder "
        "for each class (imagefolder: train/NORMAL/1.jpeg or NORMAL/1.jpeg, no CSV needed; or with metadata.csv), or a "
        "record set",
        flag_values=fv,
    )
    common.define_required(fv, "dataset", f"one of {', '.join(choices.DATASETS)}")
    common.define_folder(fv, "data_dir", "folder of the data set: its tables, lists and images")
    common.define_file(fv, "labels_csv", "label table to read instead of the one in --data_dir")
    names = tuple(labels.LABEL_SETS)
    common.define_path(
        fv,
        "label_set",
        f"the labels that images can have: {', '.join(names)}, or a JSON file of your own. Default: "
        f"{labels.DEFAULT.name}, of a record set its own",
        words=names,
    )
    common.define_file(
        fv,
        "label_map",
        "JSON file that says which labels of --label_set those of records, CheXpert, MIMIC-CXR and others are, such as "
        '{"Lung Opacity": "Infiltration", "Fracture": null}: null stays a finding outside the labels; labels that the '
        "other set knows by their names or synonyms need not be named",
    )
    flags.DEFINE_enum(
        "agreement",
        choices.AGREEMENTS[0],
        choices.AGREEMENTS,
        "--dataset=vindr_cxr: a finding is there if more than half of the radiologists who read the image see it, if "
        "any does, or if all do",
        flag_values=fv,
    )
    flags.DEFINE_enum(
        "labelled_by",
        choices.LABELLED_BY[0],
        choices.LABELLED_BY,
        "--dataset=padchest: images whose reports anyone labelled, or physicians only and not the network that "
        "labelled most of them",
        flag_values=fv,
    )
    flags.DEFINE_list(
        "columns",
        [],
        "--dataset=folder, imagefolder with metadata.csv: what is in which column, such as "
        "path:file,patient:pid,class:finding or path:file,Pneumonia:pneu,Edema:edema; keys: path, patient, class, "
        "view, sex, age, split, or a finding. "
        "Default: path, patient, and columns named as the labels, or by other words for them (Effusion, "
        "Lung_Opacity)",
        flag_values=fv,
    )
    flags.DEFINE_enum(
        "no_finding",
        "column",
        choices.NO_FINDING,
        "--dataset=folder, imagefolder: which images count as No Finding: those of which a column says so; those "
        "without a positive or uncertain finding (no_positive: blanks are negative); or those of which every finding "
        "is 0 (all_negative)",
        flag_values=fv,
    )
    flags.DEFINE_list(
        "class_values",
        [],
        "--dataset=folder, imagefolder: findings of each value of the class column, or of each folder of a class, such "
        "as NORMAL:No Finding,TB:Tuberculosis,"
        "BOTH:Pneumonia+Edema; a finding outside the label set is an extra one. A cell may hold several values joined "
        "by |",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "patient_pattern",
        "",
        "--dataset=folder, imagefolder: regular expression that finds the patient in the name of an image's file, or "
        "else in its path; its first group in parentheses, or all of it. Such as 'patient_(\\d+)' or, for Kermany's "
        "radiographs, '(person\\d+|(NORMAL2-)?IM-\\d+)'",
        flag_values=fv,
    )


def define_dataset_name(fv: flags.FlagValues) -> None:
    """--dataset_name."""
    flags.DEFINE_string(
        "dataset_name",
        None,
        "name of the data set whose patients these are: a patient id that two record sets of one name share is one "
        "person, and a warning follows where such a person is trained and tested on. Default: the data set's, the "
        "phantom and its seed, or for a folder its name and a hash of its path; a record set keeps its name",
        flag_values=fv,
    )
    flags.register_validator(
        "dataset_name",
        lambda name: name is None or (name == name.strip() and name.isprintable() and bool(name)),
        "must be a name without line breaks or blanks at its ends",
        flag_values=fv,
    )


def define_selection(fv: flags.FlagValues) -> None:
    """--uncertain, --view, --frontal_only."""
    flags.DEFINE_string(
        "uncertain",
        None,
        "what becomes of uncertain labels: zeros (negative), ones (positive) or drop (leave the image out if the label "
        "version looks at the label), and per label, such as zeros,Edema:ones,Pneumonia:drop; default zeros, in "
        "benchmark settings ones",
        flag_values=fv,
    )
    flags.DEFINE_enum("view", "any", choices.VIEWS, "frontal view to use", flag_values=fv)
    flags.DEFINE_boolean("frontal_only", True, "leave out lateral views, of data sets that have them", flag_values=fv)


def define_amounts(fv: flags.FlagValues) -> None:
    """--limit, --images_per_class."""
    flags.DEFINE_integer(
        "limit",
        0,
        "use at most that many images, in the proportions of classes and splits; 0: all",
        lower_bound=0,
        flag_values=fv,
    )
    flags.DEFINE_list(
        "images_per_class",
        [],
        "exactly so many images of each class in train, validation and test, drawn at random, such as 1450,190,170; "
        "default: all, in benchmark settings theirs",
        flag_values=fv,
    )
    flags.register_validator(
        "images_per_class",
        lambda values: not values or (len(values) == 3 and all(value.strip().isdecimal() for value in values)),
        "must be three whole numbers, for train, validation and test",
        flag_values=fv,
    )


def define_split_policy(fv: flags.FlagValues) -> None:
    """--split_policy, --split_fractions, --num_folds, --fold, --kfold_test, --split_lists."""
    flags.DEFINE_enum(
        "split_policy",
        "patient",
        choices.SPLIT_POLICIES,
        "how folds are made: whole patients; the data set's own folds; single images (leaks patients); k-fold "
        "cross-validation by patient; the splits of --split_lists",
        flag_values=fv,
    )
    flags.DEFINE_list(
        "split_fractions",
        [str(share) for share in choices.SPLIT_FRACTIONS],
        "shares of train, validation and test, for the policies patient and image; a share of 0 is an empty fold",
        flag_values=fv,
    )
    flags.register_validator(
        "split_fractions",
        _are_fractions,
        "must be three numbers from 0 to 1 that sum to 1, train above 0",
        flag_values=fv,
    )
    flags.DEFINE_integer("num_folds", 5, "kfold: number of folds", lower_bound=2, flag_values=fv)
    flags.DEFINE_integer("fold", 0, "kfold: the fold to test on, from 0", lower_bound=0, flag_values=fv)
    flags.DEFINE_boolean(
        "kfold_test",
        True,
        "kfold: fold --fold is for test and the next one for validation; without, it is for validation and there is "
        "no test fold",
        flag_values=fv,
    )
    common.define_path(
        fv,
        "split_lists",
        "lists: CSV with the columns split and patient or id, such as the manifest.csv of a record set (or its folder)",
    )


def define_pictures(fv: flags.FlagValues) -> None:
    """--aspect, --contrast, --window, --missing_images, --bad_images."""
    flags.DEFINE_enum(
        "aspect",
        "stretch",
        choices.ASPECTS,
        "how an image that is not square becomes so: stretched, padded with black, or cut to its centre",
        flag_values=fv,
    )
    flags.DEFINE_enum(
        "contrast",
        "none",
        choices.CONTRASTS,
        "grey levels: as they are; scaled so that the brightest pixel is white; the 0.5th to 99.5th percentile "
        "stretched to black and white",
        flag_values=fv,
    )
    flags.DEFINE_enum(
        "window",
        None,
        list(choices.CT_WINDOWS),
        "of CT in DICOM, the window of Hounsfield units that becomes black to white, instead of --contrast: brain "
        "(centre 40, width 80; the default of rsna_brain), subdural (80, 200), bone (600, 2800)",
        flag_values=fv,
    )
    for name, what in (("missing", "are named in the table but not there"), ("bad", "cannot be decoded")):
        flags.DEFINE_enum(
            f"{name}_images",
            "error",
            choices.FAULTS,
            f"what to do about images that {what}: stop, or count them and go on",
            flag_values=fv,
        )


def define_unlabelled(fv: flags.FlagValues) -> None:
    """--unlabelled_images."""
    flags.DEFINE_enum(
        "unlabelled_images",
        "skip",
        choices.UNLABELLED,
        "what to do about images without any label: leave them out, or keep them without a class, as a target for "
        "train-dcan; the table then needs no labels, and classes may have no image",
        flag_values=fv,
    )


def define_privacy(fv: flags.FlagValues) -> None:
    """--hash_patient_ids, --salt_file."""
    flags.DEFINE_boolean(
        "hash_patient_ids",
        False,
        "replace patient ids, in image paths as well, by hashes salted with the content of --salt_file",
        flag_values=fv,
    )
    common.define_file(
        fv,
        "salt_file",
        "file with a secret of at least 16 bytes; the same secret gives the same hashes. Keep it, do not publish it",
    )


def define_running(fv: flags.FlagValues) -> None:
    """--num_shards, --workers, --runner, --beam_options."""
    flags.DEFINE_integer(
        "num_shards",
        0,
        "shards per split; 0: one per 1,024 images, and up to 8 in small splits",
        lower_bound=0,
        flag_values=fv,
    )
    common.define_workers(fv)
    flags.DEFINE_enum(
        "runner", "local", choices.RUNNERS, "threads on this machine, or an Apache Beam pipeline", flag_values=fv
    )
    flags.DEFINE_string(
        "beam_options",
        "",
        "options of the Beam pipeline. On a Dask cluster: '--runner=DaskRunner --dask_client_address=tcp://host:8786', "
        "with the address that `dask scheduler` prints; without an address one is started on this machine. Default: "
        "Beam's DirectRunner, in this process",
        flag_values=fv,
    )


def _are_fractions(values: list[str]) -> bool:
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return False
    return len(numbers) == 3 and min(numbers) >= 0 and numbers[0] > 0 and abs(sum(numbers) - 1) < 1e-6
