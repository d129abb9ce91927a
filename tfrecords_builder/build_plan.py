"""Decides from a label table alone which rows a record set has, in which class and split, before an image is read."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from tfrecords_builder import choices, labels, readers, splits
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import benchmark_settings

MIN_SALT = 16


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides the rows of a record set.

    Attributes:
        dataset: one of `choices.DATASETS`.
        data_dir: folder of the data set.
        label_version: name of a label version or of a benchmark setting.
        labels_csv: a table instead of the one in `data_dir`.
        columns: the columns of a `folder` data set's table.
        label_set: the labels; None: those of the data set, see `readers.choose_label_set`.
        label_map: file that maps the labels of the data set to `label_set`.
        agreement: of several readers of an image, see `readers.read`.
        labelled_by: whose labels count, see `readers.read`.
        label_versions: versions of the user's beside the built-in ones.
        uncertain: policy, see `labels.parse_uncertain`; empty: zeros, in benchmark settings ones.
        split_policy: one of `choices.SPLIT_POLICIES`.
        split_fractions: of train, validation and test, for `patient` and `image`.
        num_folds: of `kfold`.
        fold: of `kfold`.
        kfold_test: of `kfold`.
        split_lists: the file or record set of `lists`.
        view: one of `choices.VIEWS`.
        frontal_only: whether lateral views are left out.
        images_per_class: exactly so many images of each class in train, validation and test; None: all, in benchmark
            settings what they say.
        limit: at most that many images, drawn at random with the proportions of classes and splits; 0: all.
        missing_images: error or skip, for images that the table names and the folder lacks.
        unlabelled_images: skip or keep, for images without any label; keep: with the class -1, and classes may be
            without an image.
        dataset_name: whose patients they are, see `records.RecordSetInfo`; empty: what the reader says.
        patient_salt: replaces patient ids by hashes salted with it; empty: they stay.
        seed: fixes the split, the order of the images and all that is drawn.
    """

    dataset: str
    data_dir: str | os.PathLike
    label_version: str
    labels_csv: str | os.PathLike | None = None
    columns: readers.FolderColumns | None = None
    label_set: labels.LabelSet | None = None
    label_map: str | os.PathLike | None = None
    agreement: str = choices.AGREEMENTS[0]
    labelled_by: str = choices.LABELLED_BY[0]
    label_versions: Mapping[str, labels.LabelVersion] | None = None
    uncertain: str = ""
    split_policy: str = "patient"
    split_fractions: Sequence[float] = choices.SPLIT_FRACTIONS
    num_folds: int = 5
    fold: int = 0
    kfold_test: bool = True
    split_lists: str | os.PathLike | None = None
    view: str = "any"
    frontal_only: bool = True
    images_per_class: Sequence[int] | None = None
    limit: int = 0
    missing_images: str = "error"
    unlabelled_images: str = "skip"
    dataset_name: str = ""
    patient_salt: bytes = b""
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Plan:
    """The selected rows, before an image has been read.

    `frame` is a reader's frame with `path`, `offset`, `class` (int), `split` and `listed` (the `id` in the table, never
    hashed); `vectors` are its label vectors float32 [N, L] in {0, 1}; `skipped` has a row (table, line, id, reason)
    for each row that is not in `frame`.
    """

    table: readers.Table  # its frame is that of all rows
    version: labels.LabelVersion
    uncertain: str
    frame: pd.DataFrame
    vectors: np.ndarray
    skipped: pd.DataFrame
    orphans: dict[str, int]  # see labels.LabelSet.count_orphans
    warnings: list[str]

    @property
    def skipped_counts(self) -> dict[str, int]:
        """Reason -> number of rows."""
        return dict(collections.Counter(self.skipped["reason"]))


def make_plan(options: Options) -> Plan:
    """Selects rows, classes and splits.

    Raises:
        InputError: a bad argument, table or value, an image that is not there, a class without images.
    """
    _, setting, uncertain = _find_version(options)  # first: it is quicker than a table
    table = _read(options)
    frame = table.frame
    frame["path"] = readers.locate(table)
    exists = (frame["path"] != "").to_numpy()
    _refuse_shared_files(frame, table)
    used = exists if options.missing_images == "skip" else np.ones(len(frame), bool)
    if not used.any():
        where = readers.explain_missing(table, frame["id"].iloc[0], options.data_dir)
        raise InputError(
            f"--data_dir={options.data_dir}: holds none of the images that {table.origin.name} names, such as "
            f"{frame['id'].iloc[0]}, {where}"
        )
    _assign_splits(frame, used, options, table.label_set)

    version, vectors, certain, frame["class"] = _classify(table, options)
    extra = frame["extra"].to_numpy(object)
    selected = labels.select(version, vectors, extra)
    blank = ~(vectors > 0).any(axis=1)
    if options.unlabelled_images == "keep":
        selected |= blank & (extra == "")
    reason = np.full(len(frame), "", object)

    def leave_out(why: str, mask: np.ndarray) -> None:
        reason[(reason == "") & mask] = why

    if options.view != "any":
        leave_out(f"view is not {options.view}", (frame["view"] != options.view).to_numpy())
    leave_out("uncertain label dropped", ~certain)
    leave_out("no label", ~selected & blank & (extra == ""))
    leave_out("unmapped findings only", ~selected & blank)
    leave_out(f"in no class of {version.name}", ~selected)
    if options.missing_images == "error" and (~exists & (reason == "")).any():
        _raise_missing(table, frame[~exists & (reason == "")], int((reason == "").sum()), options.data_dir)
    leave_out("missing image", ~exists)
    leave_out("in no official list or split list", (frame["split"] == splits.NO_SPLIT).to_numpy())
    per_class = options.images_per_class or (setting.images_per_class if setting else None)
    if per_class:
        if version.multilabel:
            raise InputError("--images_per_class: the label version multilabel has no classes; use --limit")
        kept = np.flatnonzero(reason == "")
        drawn = benchmark_settings.draw(
            frame["split"].to_numpy(object)[kept],
            frame["class"].to_numpy()[kept],
            per_class,
            class_names=version.class_names,
            seed=options.seed,
        )
        reason[kept[~drawn]] = "over --images_per_class"
    if options.limit:
        leave_out("over --limit", ~_limit(frame, reason == "", options.limit, options.seed))

    kept = reason == ""
    skipped = frame.loc[~kept, ["table", "line", "id"]].assign(reason=reason[~kept])
    skipped = pd.concat([table.skipped, skipped], ignore_index=True)[list(readers.SKIPPED_COLUMNS)]
    frame["listed"] = frame["id"]
    plan = Plan(
        table=table,
        version=version,
        uncertain=uncertain,
        frame=frame[kept].reset_index(drop=True),
        vectors=vectors[kept],
        skipped=skipped,
        orphans=table.label_set.count_orphans(vectors[kept], table.labelled),
        warnings=list(table.warnings),
    )
    _check_classes(plan, options)
    if options.patient_salt:
        _hash_patients(plan, options.patient_salt)
    return plan


def check_classes(options: Options) -> None:
    """Looks for rows of each class in the table alone, whatever images are there; `make_plan` would refuse the same.

    Raises:
        InputError: a bad argument, table or value, or a class of which the table has no row that may be used.
    """
    version, _, _ = _find_version(options)
    if version is None or version.multilabel or options.unlabelled_images == "keep":
        return  # the classes of a setting are found in the data
    table = _read(options)
    _, _, used, classes = _classify(table, options)
    if options.view != "any":
        used = used & (table.frame["view"] == options.view).to_numpy()
    for i, name in enumerate(version.class_names):
        if not (used & (classes == i)).any():
            of_view = "" if options.view == "any" else f" of view {options.view}"
            raise InputError(
                f"--label_version={version.name}: no row{of_view} of {table.origin} is in class {name!r}; choose "
                "another label version"
            )


def read_salt(path: str | os.PathLike | None) -> bytes:
    """The secret in a file, without blanks at its ends. Raises InputError if it is absent or too short."""
    if not path:
        raise InputError("--hash_patient_ids needs --salt_file, a file with a secret (openssl rand -hex 32 > salt)")
    try:
        salt = pathlib.Path(path).read_bytes().strip()
    except OSError as error:
        raise InputError(f"--salt_file={path}: cannot be read ({error.strerror})") from error
    if len(salt) < MIN_SALT:
        raise InputError(f"--salt_file={path}: holds {len(salt)} bytes, give at least {MIN_SALT}")
    return salt


def _find_version(
    options: Options,
) -> tuple[labels.LabelVersion | None, benchmark_settings.Setting | None, str]:
    """The label version or else the benchmark setting, and the policy for uncertain labels; both are checked."""
    label_set = options.label_set or readers.choose_label_set(options.dataset, options.data_dir)
    setting = benchmark_settings.settings_of(label_set).get(options.label_version)
    if options.unlabelled_images == "keep" and (setting or options.label_version == "multilabel"):
        raise InputError(
            f"--unlabelled_images=keep: --label_version={options.label_version} has no classes of its own; choose that "
            "of the source, such as v2"
        )
    version = None if setting else labels.get_label_version(options.label_version, options.label_versions, label_set)
    uncertain = options.uncertain or (setting.uncertain if setting else "zeros")
    labels.parse_uncertain(uncertain, label_set)
    return version, setting, uncertain


def _read(options: Options) -> readers.Table:
    table = readers.read(
        options.dataset,
        options.data_dir,
        labels_csv=options.labels_csv,
        official=options.split_policy == "official",
        columns=options.columns,
        frontal_only=options.frontal_only,
        label_set=options.label_set,
        label_map=options.label_map,
        agreement=options.agreement,
        labelled_by=options.labelled_by,
    )
    if not len(table.frame):
        raise InputError(f"{table.origin}: all rows are lateral views; --nofrontal_only uses them")
    return table


def _classify(table: readers.Table, options: Options) -> tuple[labels.LabelVersion, np.ndarray, np.ndarray, np.ndarray]:
    """Of all rows: the version, the label vectors [N, L], whether a row is certain [N], and the class [N]."""
    version, _, uncertain = _find_version(options)
    extra = table.frame["extra"].to_numpy(object)
    values = table.frame[list(table.label_set.labels)].to_numpy()
    if version:
        labels.check_vocabulary(version, table.findings)
        vectors, certain = labels.apply_uncertain(version, values, uncertain)
    else:  # the classes of a setting are found in the data
        vectors, certain = labels.apply_uncertain(
            labels.get_label_version("multilabel", label_set=table.label_set), values, uncertain
        )
        version = benchmark_settings.make_version(
            options.label_version, vectors[certain], extra[certain], table.label_set
        )
    return version, vectors, certain, labels.assign(version, vectors, extra)


def _assign_splits(frame: pd.DataFrame, used: np.ndarray, options: Options, label_set: labels.LabelSet) -> None:
    """Adds `split`: before any choice of rows, so that no later choice moves a patient (see splits)."""
    policy = options.split_policy
    if (policy == "lists") != bool(options.split_lists):
        raise InputError("--split_policy=lists and --split_lists need each other; give both or neither")
    hashed = None
    if policy == "lists" and options.patient_salt:
        _, hashed = readers.hash_ids(frame.loc[used, "id"], frame.loc[used, "patient"], options.patient_salt)
    frame["split"] = splits.NO_SPLIT
    frame.loc[used, "split"] = splits.assign_splits(
        frame[used],
        policy,
        fractions=options.split_fractions,
        seed=options.seed,
        num_folds=options.num_folds,
        fold=options.fold,
        kfold_test=options.kfold_test,
        lists=splits.read_lists(options.split_lists) if options.split_lists else None,
        hashed=hashed,
        labels=label_set.labels,
    )


def _hash_patients(plan: Plan, salt: bytes) -> None:
    """Replaces the patient ids of the plan, in place; rows that are left out lose their ids."""
    plan.frame["id"], plan.frame["patient"] = readers.hash_ids(plan.frame["id"], plan.frame["patient"], salt)
    plan.skipped["id"] = ""


def _refuse_shared_files(frame: pd.DataFrame, table: readers.Table) -> None:
    """Raises InputError if two rows name one image file by different paths."""
    again = (frame["path"].duplicated() & (frame["path"] != "") & (frame["offset"] < 0)).to_numpy()
    if again.any():
        second = frame.iloc[int(np.argmax(again))]
        first = frame.iloc[int(np.argmax((frame["path"] == second["path"]).to_numpy()))]
        raise InputError(
            f"{table.origin}: {first['id']} (line {first['line']}) and {second['id']} (line {second['line']}) are "
            f"both {second['path']}; list each image once"
        )


def _raise_missing(table: readers.Table, absent: pd.DataFrame, count: int, data_dir: str | os.PathLike) -> None:
    first = absent.iloc[0]
    where = readers.explain_missing(table, first["id"], data_dir)
    raise InputError(
        f"--data_dir={data_dir}: {len(absent)} of the {count} images to be used are not there; the first is "
        f"{first['id']} (line {first['line']} of the table), {where}; --missing_images=skip counts such images and "
        "leaves them out"
    )


def _limit(frame: pd.DataFrame, kept: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """bool[N]: `limit` of the kept rows, in the proportions of (split, class), the first of each before all others."""
    rows = np.flatnonzero(kept)
    rows = np.random.default_rng([seed, 1]).permutation(rows)
    groups = frame.iloc[rows].groupby(["split", "class"])["id"]
    place = groups.cumcount().to_numpy() / groups.transform("size").to_numpy()
    chosen = np.zeros(len(frame), bool)
    chosen[rows[np.argsort(place, kind="stable")[:limit]]] = True
    return chosen


def _check_classes(plan: Plan, options: Options) -> None:
    """Raises InputError if a class has no image at all; notes classes that only a split lacks."""
    if not len(plan.frame):
        raise InputError(f"--label_version={plan.version.name}: no image is left after selection ({_tell(plan)})")
    counts = pd.crosstab(plan.frame["split"], plan.frame["class"])
    for i, name in enumerate(plan.version.class_names):
        if i not in counts.columns and options.unlabelled_images == "keep":
            plan.warnings.append(f"no image is of class {name!r}")
            continue
        if i not in counts.columns:
            raise InputError(
                f"--label_version={plan.version.name}: class {name!r} has no image after selection ({_tell(plan)})"
            )
        plan.warnings.extend(f"the {s} split has no image of class {name!r}" for s in counts.index if not counts[i][s])
    unlabelled = int((plan.frame["class"] == labels.NO_CLASS).sum())
    if unlabelled and not plan.version.multilabel:
        plan.warnings.append(
            f"{unlabelled} images have no label: the set is a target for train-dcan, and nothing for what needs labels"
        )
    if options.split_policy == "image":
        plan.warnings.append(
            "--split_policy=image: images of one patient are in several splits; scores will be too good"
        )


def _tell(plan: Plan) -> str:
    left_out = ", ".join(f"{count} {reason}" for reason, count in plan.skipped_counts.items())
    return f"{plan.table.num_rows} rows, left out: {left_out or 'none'}"
