"""Hugging Face's `imagefolder` with metadata.csv, .jsonl or .parquet, for --dataset=imagefolder.

The table lies beside the images, or one in each folder of a split, and names each image in `file_name`, from its own
folder. Source: https://huggingface.co/docs/datasets/image_dataset.
"""

import dataclasses
import pathlib
import types
from collections.abc import Sequence

import numpy as np
import pandas as pd

from tfrecords_builder import csv_files, json_lines, parquet_files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import finding
from tfrecords_builder.readers import folder, table
from tfrecords_builder.readers.folder_columns import FOLDER_CLASS, FolderColumns
from tfrecords_builder.splits.lists import SPLIT_NAMES

_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_PATH = "file_name"
_CLASSES = ("label", "labels")
_PATIENTS = ("patient", "patient_id", "subject_id")


def find_tables(data_dir: pathlib.Path, labels_csv: pathlib.Path | None) -> list[pathlib.Path]:
    """The tables: `labels_csv`, or those in the folder or two folders below it; none if there is none.

    Raises InputError if a folder has one of each kind.
    """
    if labels_csv:
        return [labels_csv]
    found: list[pathlib.Path] = []
    for place, folders, names in finding.walk(data_dir):
        if len(pathlib.Path(place).relative_to(data_dir).parts) >= 2:
            folders.clear()
        here = [pathlib.Path(place, name) for name in names if name in _NAMES]
        if len(here) > 1:
            names = [path.name for path in sorted(here)]
            raise InputError(f"{place}: holds {' and '.join(names)}; name one of them by --labels_csv")
        found += here
    return found


def split_folders(path: str) -> tuple[str, list[str]]:
    """The split that one of the two upper folders of an image's path names, or "", and its other folders."""
    folders = path.split("/")[:-1]
    place = next((i for i, name in enumerate(folders[:2]) if name.casefold() in SPLIT_NAMES), None)
    fold = "" if place is None else SPLIT_NAMES[folders.pop(place).casefold()]
    return fold, folders


def read(data_dir: pathlib.Path, tables: Sequence[pathlib.Path], official: bool, columns: FolderColumns) -> table.Table:
    """Reads the tables. Labels are the columns named as labels, else `label` or `labels`, else the folders.

    Args:
        data_dir: the folder.
        tables: as of `find_tables`.
        official: whether the folders, or a column of splits, must name splits; `fold` is filled wherever they do.
        columns: what the columns mean, where it is not as above.
    """
    root = _find_root(tables)
    made = [_read_table(path, root, official, columns) for path in tables]
    frame = pd.concat([each.frame for each in made], ignore_index=True) if len(made) > 1 else made[0].frame
    if official and not (frame["fold"] != "").any():
        raise InputError(
            f"--split_policy=official: {root} has no folders train, val or test; choose --split_policy=patient"
        )
    warnings = list(dict.fromkeys(warning for each in made for warning in each.warnings))
    listed = set(frame["id"])
    unlisted = sum(path.relative_to(root).as_posix() not in listed for path in finding.find_images(root))
    if unlisted:
        warnings.append(f"{unlisted} images have no row in {tables[0].name} and are left out")
    labels = columns.label_set.labels
    findings = dict.fromkeys(name for each in made for name in each.findings)
    labelled = {name for each in made for name in each.labelled}
    return dataclasses.replace(
        made[0],
        frame=frame,
        paths=tuple(tables),
        bases=((root, 0),),
        search=None,
        findings=tuple(findings),
        labelled=tuple(label for label in labels if label in labelled),
        warnings=tuple(warnings),
    )


def check_header(
    data_dir: pathlib.Path, tables: Sequence[pathlib.Path], official: bool, columns: FolderColumns
) -> None:
    """Raises InputError, as `read`, for a table that lacks a column; looks at first lines only."""
    del data_dir, official  # whether there are splits only the rows say
    for path in tables:
        _choose_columns(path, columns)


def _find_root(tables: Sequence[pathlib.Path]) -> pathlib.Path:
    """The folder of the tables, or above those of splits."""
    folders = [path.parent for path in tables]
    if len(folders) > 1 or folders[0].name.casefold() in SPLIT_NAMES:
        folders = [place.parent if place.name.casefold() in SPLIT_NAMES else place for place in folders]
    if len(set(folders)) > 1:
        raise InputError(
            f"{tables[0]} and {tables[1]}: there may be one table, or one in each folder of a split; name one by "
            "--labels_csv"
        )
    return folders[0]


def _reader(path: pathlib.Path) -> types.ModuleType:
    """The module that reads a table by the suffix of its name: each has `read_header` and `read_table`."""
    name = path.name.lower()
    return parquet_files if name.endswith(".parquet") else json_lines if ".jsonl" in name else csv_files


def _choose_columns(
    path: pathlib.Path, columns: FolderColumns
) -> tuple[FolderColumns, list[str], dict[str, tuple[str, ...]], str | None]:
    """What the columns mean, those to read, label or extra finding -> its columns, and the column of patients."""
    header = _reader(path).read_header(path)
    if columns.path not in header and columns.path == FolderColumns.path:
        columns = dataclasses.replace(columns, path=_PATH)
    if not columns.patient and not columns.patient_pattern:
        columns = dataclasses.replace(columns, patient=next((name for name in _PATIENTS if name in header), None))
    by_name = dataclasses.replace(columns, class_column=None, class_values={}, unlabelled=True)
    if columns.class_column == FOLDER_CLASS and FOLDER_CLASS not in header:
        named = next((name for name in _CLASSES if name in header), None)
        labels = () if columns.class_values else folder.find_labels(path, header, by_name)
        if labels:
            columns = by_name
        elif named:
            columns = dataclasses.replace(columns, class_column=named)
    of_folder = columns.class_column == FOLDER_CLASS and FOLDER_CLASS not in header
    used, label_columns, patient = folder.choose_columns(path, header, False, by_name if of_folder else columns)
    return columns, used, {} if of_folder else label_columns, patient


def _read_table(path: pathlib.Path, root: pathlib.Path, official: bool, columns: FolderColumns) -> table.Table:
    columns, used, label_columns, patient = _choose_columns(path, columns)
    raw = _reader(path).read_table(path, used)
    beside = path.parent.relative_to(root).as_posix()
    if beside != ".":  # names are from the table's folder, ids from the root
        texts = [text if text[:1] in ("", "/") else f"{beside}/{text}" for text in raw.texts[columns.path]]
        raw = dataclasses.replace(raw, texts={**raw.texts, columns.path: texts})
    folders = [split_folders(text.replace("\\", "/")) for text in raw.texts[columns.path]]
    if not columns.split:
        columns = dataclasses.replace(columns, split="split")
        raw = _add_column(raw, "split", [fold for fold, _ in folders], columns.path)
    if columns.class_column == FOLDER_CLASS and FOLDER_CLASS not in raw.texts:
        classes = [names[0] if names else "" for _, names in folders]
        if not any(classes) and not columns.unlabelled:
            raise InputError(
                f"{path}: has no column {' or '.join(_CLASSES)}, none named as one of the {len(columns.label_set)} "
                "labels, and its images lie in no folders of classes; give --columns=class:COLUMN"
            )
        raw = _add_column(raw, FOLDER_CLASS, classes, columns.path)
    made = folder.make_table("imagefolder", raw, columns, root, patient=patient, label_columns=label_columns)
    return dataclasses.replace(made, warnings=(*made.warnings, *folder.suspect_unused(path, used, _reader(path))))


def _add_column(raw: csv_files.RawTable, name: str, values: Sequence[str], like: str) -> csv_files.RawTable:
    """Adds a column with a value for each text of the column `like`."""
    distinct, codes = np.unique(np.array(values, object), return_inverse=True)
    return dataclasses.replace(
        raw,
        codes={**raw.codes, name: codes[raw.codes[like]]},
        texts={**raw.texts, name: distinct.tolist()},
    )
