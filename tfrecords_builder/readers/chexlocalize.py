"""The labels of CheXpert's test set, and of its validation set, as CheXlocalize gives them away.

Source: Saporta et al. 2022, https://doi.org/10.1038/s42256-022-00536-x.
"""

import pathlib

import numpy as np
import pandas as pd

from tfrecords_builder import csv_files
from tfrecords_builder.labels.canonical import LABELS
from tfrecords_builder.labels.label_sets import CHEXPERT14, LabelSet
from tfrecords_builder.readers import chexpert, table
from tfrecords_builder.readers.folder_columns import FolderColumns

_TABLES = {"test": "test_labels.csv", "validation": "val_labels.csv"}
_REQUIRED = ("Path", *LABELS)
# Folders below the one of the tables; CheXpert's own paths call one of them otherwise.
_FOLDERS = ("test", "val", "valid")


def read(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = CHEXPERT14,
) -> table.Table:
    """Reads test_labels.csv and, if it is there, val_labels.csv, of the columns `Path` and CheXpert's labels alone.

    Whether an image is lateral is what its name says; nothing says whether others are AP or PA.

    Args:
        data_dir: the folder of the tables, or the one above, which has it under the name CheXpert.
        labels_csv: a table of these columns, instead; all of it is for test.
        official: whether test_labels.csv is the test and val_labels.csv the validation fold.
        label_set: must be CheXpert's.
    """
    chexpert.check_label_set(label_set, "chexlocalize")
    root, paths = _find_tables(data_dir, labels_csv)
    frames = [_read_frame(path, fold if official else "", data_dir) for fold, path in paths.items()]
    frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    folders = [root / name for name in _FOLDERS]
    return table.Table(
        dataset="chexlocalize",
        source="chexlocalize",
        dataset_name="chexpert",  # whose patients they are
        frame=frame,
        paths=tuple(paths.values()),
        bases=(
            (root, 0),
            (root, 1),
            (root.parent, 0),
            *((folder, drop) for folder in folders if folder.is_dir() for drop in (1, 2)),
        ),
    )


def check_header(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = CHEXPERT14,
) -> None:
    """Raises InputError, as `read`, for a table that is absent or lacks a column; looks at first lines only."""
    del official
    chexpert.check_label_set(label_set, "chexlocalize")
    for path in _find_tables(data_dir, labels_csv)[1].values():
        table.check_columns(path, csv_files.read_header(path), _REQUIRED, "chexlocalize")


def _find_tables(
    data_dir: pathlib.Path, labels_csv: pathlib.Path | None
) -> tuple[pathlib.Path, dict[str, pathlib.Path]]:
    """The folder of the images' folders, and fold -> table."""
    root = table.find_root(data_dir, list(_TABLES.values()), below=("CheXpert", "CheXpert-v1.0"))
    if labels_csv:
        return root, {"test": labels_csv}
    table.require_file("chexlocalize", data_dir, [root], list(_TABLES.values()))
    return root, {fold: root / name for fold, name in _TABLES.items() if (root / name).is_file()}


def _read_frame(path: pathlib.Path, fold: str, data_dir: pathlib.Path) -> pd.DataFrame:
    table.check_columns(path, csv_files.read_header(path), _REQUIRED, "chexlocalize")
    raw = csv_files.read_table(path, _REQUIRED)
    frame = table.make_frame(raw, id_column="Path", view="", sex="", age="", data_dir=data_dir)
    frame["patient"] = chexpert.read_patients(raw, "Path", frame["id"], third=False)
    lateral = frame["id"].str.rpartition("/")[2].str.contains("lateral").to_numpy(bool)
    frame["view"] = table.to_texts(np.where(lateral, table.LATERAL, ""), len(frame))
    frame[list(LABELS)] = chexpert.read_labels(raw)
    frame["fold"] = table.to_texts(fold, len(frame))
    return frame
