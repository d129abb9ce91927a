"""Images in a folder for each class, without a table: `train/NORMAL/*.jpeg`, or `NORMAL/*.jpeg`; or with metadata.csv.

The layout is that of torchvision's and Keras's image folders, in which Kermany's radiographs and many others are given
away, and of Hugging Face's `imagefolder` (imagefolder_metadata.py).
"""

import collections
import dataclasses
import os
import pathlib
import unicodedata
from collections.abc import Collection, Sequence
from typing import NoReturn

import numpy as np

from tfrecords_builder import csv_files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import finding
from tfrecords_builder.labels.label_sets import DEFAULT, LabelSet
from tfrecords_builder.readers import folder, imagefolder_metadata, table
from tfrecords_builder.readers.folder_columns import FOLDER_CLASS, FolderColumns
from tfrecords_builder.splits.lists import SPLIT_NAMES

# Folders of a class in which are no radiographs.
_NO_IMAGES = frozenset({"mask", "masks"})


class _Listing(csv_files.RawTable):
    """A folder's images as the rows of a table that nobody has written; messages name the image."""

    def fail(self, row: int, column: str, problem: str) -> NoReturn:
        image = self.texts["path"][int(self.codes["path"][row])]
        raise InputError(f"{self.path / image}: {problem}")


def read(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    columns: FolderColumns | None = None,
    label_set: LabelSet = DEFAULT,
) -> table.Table:
    """Lists the images of a folder, or reads the metadata.csv, .jsonl or .parquet that describe them.

    The class is the name of the upper folder, but for one of the splits above it or below it, which is the fold. Deeper
    folders mean nothing; those of masks are left out. Folders that hold nothing but one folder are passed over.

    Args:
        data_dir: the folder.
        labels_csv: a metadata.csv, .jsonl or .parquet that is not called so.
        official: whether the folders must name splits; `fold` is filled wherever they do.
        columns: for its `class_values`, `patient_pattern` and `label_set`; the rest is for metadata.csv.
        label_set: the labels that there are, if there is no `columns`.
    """
    columns = columns or FolderColumns(class_column=FOLDER_CLASS, label_set=label_set)
    _check_folder(data_dir)
    if tables := imagefolder_metadata.find_tables(data_dir, labels_csv):
        return imagefolder_metadata.read(data_dir, tables, official, columns)
    root, rows, warnings = _list(data_dir, columns)
    if official and not any(row.fold for row in rows):
        raise InputError(
            f"--split_policy=official: {root} has no folders train, val or test; choose --split_policy=patient"
        )
    raw = _make_raw(root, rows)
    made = folder.make_table("imagefolder", raw, dataclasses.replace(columns, split="split"), root)
    made.frame["table"], made.frame["line"] = "", 0
    return dataclasses.replace(made, paths=(), search=None, warnings=(*made.warnings, *warnings))


def check_header(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    columns: FolderColumns | None = None,
    label_set: LabelSet = DEFAULT,
) -> None:
    """Raises InputError, as `read`, for a folder without images, with unknown classes, or a table without a column."""
    columns = columns or FolderColumns(class_column=FOLDER_CLASS, label_set=label_set)
    _check_folder(data_dir)
    if tables := imagefolder_metadata.find_tables(data_dir, labels_csv):
        imagefolder_metadata.check_header(data_dir, tables, official, columns)
    else:
        _list(data_dir, columns)


def _check_folder(data_dir: pathlib.Path) -> None:
    if not data_dir.is_dir():
        raise InputError(f"--data_dir={data_dir}: there is no such folder")


@dataclasses.dataclass(frozen=True)
class _Row:
    path: str  # from the root, with "/"
    label: str
    fold: str


def _list(data_dir: pathlib.Path, columns: FolderColumns) -> tuple[pathlib.Path, list[_Row], list[str]]:
    """The folder that holds splits or classes, its images, and warnings."""
    own = ("class_column", "class_values", "patient_pattern", "unlabelled", "label_set")
    if columns != FolderColumns(**{name: getattr(columns, name) for name in own}):
        raise InputError(
            f"--columns, --no_finding: {data_dir} has no metadata.csv, .jsonl or .parquet, and so no columns; leave "
            "them out, or name the table by --labels_csv"
        )
    root = _find_root(data_dir, columns)
    rows, masks, outside = [], 0, collections.Counter[str]()
    has_splits = any(name.casefold() in SPLIT_NAMES for name in finding.list_folder(root)[0])
    for path in finding.find_images(root):
        parts = path.relative_to(root).parts
        if _NO_IMAGES.intersection(map(str.casefold, parts[:-1])):
            masks += 1
            continue
        if has_splits and parts[0].casefold() not in SPLIT_NAMES:
            outside[parts[0]] += 1
            continue
        name = "/".join(parts)
        fold, folders = imagefolder_metadata.split_folders(name)
        if not folders and not columns.unlabelled:
            raise InputError(f"{path}: lies in no folder of a class, such as {path.parent / 'NORMAL' / path.name}")
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{os.fsencode(path)!r}: this name is no UTF-8 text; rename the file") from error
        rows.append(_Row(name, unicodedata.normalize("NFC", folders[0]) if folders else "", fold))
    if not rows:
        raise InputError(f"--data_dir={data_dir}: holds no PNG, JPEG or DICOM file in a folder of a class")
    _check_classes(data_dir, sorted({row.label for row in rows}), columns)
    warnings = [f"{masks} images in folders of masks are left out"] if masks else []
    if outside:
        warnings.append(
            f"{sum(outside.values())} images beside the folders of splits are left out: in {', '.join(sorted(outside))}"
        )
    return root, rows, warnings


def _find_root(data_dir: pathlib.Path, columns: FolderColumns) -> pathlib.Path:
    """Passes over what was unpacked into a folder of its own name."""
    root = data_dir
    for _ in range(finding.MAX_WRAPPERS):
        folders, names = finding.list_folder(root)
        if len(folders) != 1 or any(finding.is_image(root / name) for name in names):
            return root
        (name,) = folders
        if (
            name.casefold() in SPLIT_NAMES
            or unicodedata.normalize("NFC", name) in columns.class_values
            or columns.label_set.match(name)
        ):
            return root
        if not finding.list_folder(root / name)[0]:  # it is a class
            return root
        root /= name
    return data_dir


def _check_classes(data_dir: pathlib.Path, classes: Sequence[str], columns: FolderColumns) -> None:
    known_label = columns.label_set.match
    unknown = [name for name in classes if name and name not in columns.class_values and not known_label(name)]
    if unknown:
        known = f" beside {', '.join(columns.class_values)}" if columns.class_values else ""
        shown = ",".join(f"{name}:{'' if columns.unlabelled else '...'}" for name in unknown[:5])
        raise InputError(
            f"--data_dir={data_dir}: has folders of classes that are none of the {len(columns.label_set)} labels: "
            f"{csv_files.shorten(', '.join(unknown))}; say what they stand for{known}: --class_values={shown}"
        )
    unused = sorted(set(columns.class_values) - set(classes))
    if unused:
        raise InputError(
            f"--class_values={unused[0]}: no folder of {data_dir} is called so; there are {', '.join(classes)}"
        )


def _make_raw(root: pathlib.Path, rows: Collection[_Row]) -> _Listing:
    texts, codes = {}, {}
    for column, values in (
        ("path", [row.path for row in rows]),
        ("class", [row.label for row in rows]),
        ("split", [row.fold for row in rows]),
    ):
        distinct, codes[column] = np.unique(np.array(values, object), return_inverse=True)
        texts[column] = distinct.tolist()
    return _Listing(path=root, lines=np.zeros(len(rows), np.int64), codes=codes, texts=texts)
