"""Readers of label tables: one pandas frame of CheXpert, ChestX-ray14, a user's own table, or a record set.

`read` looks at tables only; `locate` finds the images; `read_image` reads one.
"""

import dataclasses
import importlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from tfrecords_builder import choices
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels.label_sets import DEFAULT, EXTRA_SEPARATOR, LABEL_SETS, LabelSet, get_label_set
from tfrecords_builder.readers import label_maps
from tfrecords_builder.readers.chestxray import NIH_FINDINGS
from tfrecords_builder.readers.folder_columns import FolderColumns, choose_columns, parse_class_values, parse_columns
from tfrecords_builder.readers.hashing import hash_ids
from tfrecords_builder.readers.locating import explain_missing, locate
from tfrecords_builder.readers.shards import index_shard, read_image, read_record
from tfrecords_builder.readers.table import LATERAL, PHANTOM_MARKER, SKIPPED_COLUMNS, Table

__all__ = [
    "EXTRA_SEPARATOR",
    "LATERAL",
    "NIH_FINDINGS",
    "PHANTOM_MARKER",
    "SKIPPED_COLUMNS",
    "FolderColumns",
    "Table",
    "check_header",
    "choose_columns",
    "choose_label_set",
    "explain_missing",
    "find_label_set",
    "hash_ids",
    "index_shard",
    "locate",
    "parse_class_values",
    "parse_columns",
    "read",
    "read_image",
    "read_record",
]


def read(
    dataset: str,
    data_dir: str | os.PathLike,
    *,
    labels_csv: str | os.PathLike | None = None,
    official: bool = False,
    columns: FolderColumns | None = None,
    frontal_only: bool = True,
    label_set: LabelSet | None = None,
    label_map: str | os.PathLike | None = None,
    agreement: str = choices.AGREEMENTS[0],
    labelled_by: str = choices.LABELLED_BY[0],
) -> Table:
    """Reads a data set's tables.

    Args:
        dataset: one of `choices.DATASETS`.
        data_dir: folder of the data set; records: the record set.
        labels_csv: a table instead of the one in `data_dir` (not for records).
        official: whether to fill `fold` (chexpert: also reads valid.csv, its test rows; without it valid.csv is
            ignored; chestxray: reads the official lists; folder and records have their splits in `fold` without it).
        columns: what the columns of a folder's table mean; None: their default names. Only for folder.
        frontal_only: whether rows of view LL are skipped, with the reason "lateral view".
        label_set: which labels to read (None: that of the data set, see `choose_label_set`); the same as in `columns`.
        label_map: file that maps the labels of the data set to `label_set`, see `label_maps.load`.
        agreement: one of `choices.AGREEMENTS`, for VinDr-CXR, whose images have several readers.
        labelled_by: one of `choices.LABELLED_BY`, for PadChest, most of whose reports a network labelled.

    Raises:
        InputError: a file, column or value is missing or unknown, or rows of one image differ; the message names
            file, line, and column or image.
    """
    data_dir = pathlib.Path(data_dir)
    table_path = pathlib.Path(labels_csv) if labels_csv else None
    if dataset not in choices.DATASETS:
        raise InputError(f"--dataset={dataset}: unknown; choose one of {', '.join(choices.DATASETS)}")
    if not data_dir.is_dir():
        if data_dir.is_file():
            raise InputError(f"--data_dir={data_dir}: is a file; give the images' folder, a table by --labels_csv")
        raise InputError(f"--data_dir={data_dir}: there is no such folder")
    read_set = label_set or choose_label_set(dataset, data_dir)
    mapping = _load_map(dataset, data_dir, read_set, label_map)
    given = {"agreement": agreement, "labelled_by": labelled_by}
    more = {name: given[name] for name in choices.DATASETS[dataset].options}
    own_set = mapping.source if mapping else read_set
    made = _module(dataset).read(data_dir, table_path, official, columns, own_set, **more)
    table = _merge_duplicates(label_maps.apply(made, mapping) if mapping else made)
    return _skip_laterals(table) if frontal_only else table


def check_header(
    dataset: str,
    data_dir: str | os.PathLike,
    *,
    labels_csv: str | os.PathLike | None = None,
    official: bool = False,
    columns: FolderColumns | None = None,
    label_set: LabelSet | None = None,
    label_map: str | os.PathLike | None = None,
) -> None:
    """Checks a data set's tables by their first lines: what `read` would refuse for an absent file or column.

    Args: as of `read`. A record set has columns of its own and is not looked at.

    Raises:
        InputError: a table is missing, cannot be read, or lacks a column; the message names it.
    """
    data_dir = pathlib.Path(data_dir)
    table_path = pathlib.Path(labels_csv) if labels_csv else None
    mapping = _load_map(dataset, data_dir, label_set or DEFAULT, label_map)
    read_set = mapping.source if mapping else label_set or DEFAULT
    _module(dataset).check_header(data_dir, table_path, official, columns, read_set)


def choose_label_set(dataset: str, data_dir: str | os.PathLike) -> LabelSet:
    """The label set of a data set where the user names none: of records theirs. Raises InputError as `load_info`."""
    if choices.DATASETS[dataset].label_set:
        return LABEL_SETS[choices.DATASETS[dataset].label_set]
    from tfrecords_builder import records  # imports TensorFlow, which the other readers do not need

    return records.load_info(data_dir).label_set


def find_label_set(name: str | None, dataset: str, data_dir: str | os.PathLike | None) -> LabelSet:
    """The label set of that name or file, else, if there is no name, that of the data set.

    Of records that have yet to be made, which have no folder, it is the default. Raises InputError if there is no such
    set.
    """
    if name:
        return get_label_set(name)
    unknown = data_dir is None and not choices.DATASETS[dataset].label_set
    return DEFAULT if unknown else choose_label_set(dataset, data_dir or "")


def _load_map(
    dataset: str, data_dir: pathlib.Path, label_set: LabelSet, path: str | os.PathLike | None
) -> label_maps.LabelMap | None:
    """The map of a data set's own labels to `label_set`. Raises InputError for one that makes labels of any set."""
    if path is None:
        return None
    if dataset != "records" and dataset not in label_maps.OWN_LABELS:
        raise InputError(
            f"--label_map: --dataset={dataset} has the labels that --label_set says; a map is for "
            f"{', '.join(label_maps.OWN_LABELS)} and records"
        )
    own = choose_label_set(dataset, data_dir) if dataset == "records" else label_maps.OWN_LABELS[dataset]
    if own == label_set:
        raise InputError(
            f"--label_map={path}: the labels of --data_dir={data_dir} are those of {own.name} already; give another "
            "--label_set, or leave the map out"
        )
    return label_maps.load(pathlib.Path(path), own, label_set)


def _module(dataset: str) -> Any:
    return importlib.import_module(f"{__name__}.{choices.DATASETS[dataset].module}")


def _merge_duplicates(table: Table) -> Table:
    """One row for each image: others that say the same of it, such as one for each box, are skipped.

    Raises InputError if rows of one image differ in patient, split or labels.
    """
    again = table.frame["id"].duplicated().to_numpy()
    if not again.any():
        return table
    said = ["patient", "fold", "extra", *table.label_set.labels]
    rows = table.frame[["id", *said]]
    differs = again & ~rows.duplicated().to_numpy()  # from the first row: blanks are equal to each other
    if differs.any():
        _refuse_duplicate(table, int(np.argmax(differs)), said)
    merged = table.frame.loc[again, ["table", "line", "id"]].assign(reason="another row of the same image")
    return _skip(table, again, merged)


def _refuse_duplicate(table: Table, row: int, said: Sequence[str]) -> NoReturn:
    second = table.frame.iloc[row]
    first = table.frame.iloc[int(np.argmax((table.frame["id"] == second["id"]).to_numpy()))]
    path = next((path for path in table.paths if path.name == second["table"]), table.origin)
    if first["table"] == second["table"]:
        lines = f"lines {first['line']} and {second['line']}"
    else:
        lines = f"line {first['line']} of {first['table']} and line {second['line']} of {second['table']}"
    if first["patient"] != second["patient"]:
        raise InputError(
            f"{path}: {second['id']} is listed under patients {first['patient']} and {second['patient']} ({lines})"
        )
    if first["fold"] != second["fold"]:
        raise InputError(f"{path}: line {second['line']}: {second['id']} is listed more than once ({lines})")
    what = next(
        name for name in said if not (first[name] == second[name] or pd.isna(first[name]) & pd.isna(second[name]))
    )
    raise InputError(
        f"{path}: line {second['line']}: {second['id']} is listed more than once ({lines}), with different values of "
        f"{'findings outside the labels' if what == 'extra' else what}; rows of one image must have the same labels"
    )


def _skip(table: Table, rows: np.ndarray, skipped: pd.DataFrame) -> Table:
    return dataclasses.replace(
        table,
        frame=table.frame[~rows].reset_index(drop=True),
        skipped=pd.concat([table.skipped, skipped], ignore_index=True) if len(table.skipped) else skipped,
    )


def _skip_laterals(table: Table) -> Table:
    lateral = (table.frame["view"] == LATERAL).to_numpy()
    if not lateral.any():
        return table
    skipped = table.frame.loc[lateral, ["table", "line", "id"]].assign(reason="lateral view")
    return _skip(table, lateral, skipped)
