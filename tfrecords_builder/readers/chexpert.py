"""CheXpert's tables (and phantoms in their layout). Source: Irvin et al. 2019, https://arxiv.org/abs/1901.07031."""

import pathlib
import re

import numpy as np
import pandas as pd

from tfrecords_builder import csv_files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import finding
from tfrecords_builder.labels.canonical import LABELS
from tfrecords_builder.labels.label_sets import CHEXPERT14, LabelSet
from tfrecords_builder.readers import table
from tfrecords_builder.readers.folder_columns import FolderColumns

_REQUIRED = ("Path", "Frontal/Lateral", "AP/PA", *LABELS)
_PATIENT = re.compile(r"patient\d+")
# What `AP/PA` says of some frontal images (in the published train.csv, LL of 16 and RL of 1), which cannot be.
_SIDEWAYS = (table.LATERAL, "RL")


def read(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = CHEXPERT14,
) -> table.Table:
    """Reads CheXpert's train.csv and, if `official`, valid.csv; full and -small layouts.

    Whether an image is frontal is what `Frontal/Lateral` says, as in the published counts. A frontal image whose
    `AP/PA` names a lateral view has no known view: "".

    Args:
        data_dir: the folder of train.csv or its parent.
        labels_csv: instead of train.csv.
        official: whether to read valid.csv too, as the test fold; train.csv is then the `train_val` fold.
        label_set: must be CheXpert's.
    """
    check_label_set(label_set, "chexpert")
    root, paths = _find_paths(data_dir, labels_csv, official)
    frames = [
        _read_frame(path, fold if official else "", data_dir)
        for path, fold in zip(paths, ("train_val", "test"), strict=False)
    ]
    frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    source, dataset_name = table.find_source(data_dir, root, default="chexpert")
    return table.Table(
        dataset="chexpert",
        source=source,
        dataset_name=dataset_name,
        frame=frame,
        paths=tuple(paths),
        # The table's paths start with CheXpert-v1.0[-small]/, whatever the folder is called here.
        bases=((root.parent, 0), (root, 1), (root, 0), *((part, 2) for part in _find_parts(root))),
    )


def check_header(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = CHEXPERT14,
) -> None:
    """Raises InputError, as `read`, for a table that is absent or lacks a column; looks at first lines only."""
    check_label_set(label_set, "chexpert")
    for path in _find_paths(data_dir, labels_csv, official)[1]:
        table.check_columns(path, csv_files.read_header(path), _REQUIRED, "chexpert")


def check_label_set(label_set: LabelSet, dataset: str) -> None:
    """Raises InputError for labels that a data set with CheXpert's has not."""
    if label_set != CHEXPERT14:
        raise InputError(
            f"--label_set={label_set.name}: --dataset={dataset} has the labels of {CHEXPERT14.name}; say by "
            "--label_map what they are in the other set"
        )


def read_labels(raw: csv_files.RawTable) -> pd.DataFrame:
    """The columns of CheXpert's labels, float32, as in `Table.frame`. Raises InputError for another value."""
    return pd.DataFrame(
        {label: raw.choose(label, table.LABEL_VALUES, np.float32, "1, 0, -1 or blank") for label in LABELS}
    )


def read_labels_of(raw: csv_files.RawTable, rows: np.ndarray) -> np.ndarray:
    """As `read_labels`, of some rows: float32 [N, L]; NaN where the row is -1, as of `table.find_rows`."""
    values = read_labels(raw).to_numpy()
    return np.vstack([values, np.full((1, len(LABELS)), np.nan, np.float32)])[rows]


def read_patients(raw: csv_files.RawTable, column: str, ids: pd.Series, *, third: bool = True) -> pd.Series:
    """The patients of images whose paths hold a folder such as patient00001, or else, if `third`, the third part.

    Raises InputError where there is none.
    """
    patients: dict[str, str] = {}  # so that each name is in memory once
    names = np.empty(len(ids), object)
    for row, image in enumerate(ids):
        name = _find_patient(image) or ("".join(image.split("/")[2:3]) if third else "")
        if not name:
            raw.fail(row, column, f"no patient folder in {csv_files.shorten(image)}")
        names[row] = patients.setdefault(name, name)
    return table.to_texts(names, len(ids))


def _find_paths(
    data_dir: pathlib.Path, labels_csv: pathlib.Path | None, official: bool
) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """The folder that paths in the tables are relative to, and the tables."""
    root = data_dir if labels_csv else _find_root(data_dir)
    if official and not (root / "valid.csv").is_file():
        raise InputError(
            f"--split_policy=official: {root / 'valid.csv'}, whose images are for test, is not there; choose "
            "--split_policy=patient"
        )
    return root, [labels_csv or root / "train.csv", *([root / "valid.csv"] if official else [])]


def _find_parts(root: pathlib.Path) -> list[pathlib.Path]:
    """The folders `CheXpert-v1.0 batch 2 (train 1)` ... of the full download, which stand for `CheXpert-v1.0/train`."""
    beside = sorted(path for place in {root, root.parent} for path in place.glob("CheXpert-v1.0 batch *"))
    inside = [path / name for path in beside for name in ("", path.name, "train")]  # unpacked into one of its own name
    return [path for path in inside if path.is_dir()]


def _find_root(data_dir: pathlib.Path) -> pathlib.Path:
    data_dir = finding.skip_wrappers(data_dir, lambda folder: (folder / "train.csv").is_file())
    if (data_dir / "train.csv").is_file():
        return data_dir
    roots = sorted(path.parent for path in data_dir.glob("CheXpert*/train.csv"))
    if len(roots) == 1:
        return roots[0]
    if roots:
        what = "several CheXpert folders"
    else:
        hint = table.suggest_dataset(data_dir, but="chexpert") or table.suggest_folder(data_dir, ["train.csv"])
        what = f"no train.csv ({hint})" if hint else "no train.csv"
    raise InputError(f"--data_dir={data_dir}: holds {what}; give the folder of train.csv")


def _read_frame(path: pathlib.Path, fold: str, data_dir: pathlib.Path) -> pd.DataFrame:
    header = csv_files.read_header(path)
    table.check_columns(path, header, _REQUIRED, "chexpert")
    raw = csv_files.read_table(path, (*_REQUIRED, "Sex", "Age"))
    frame = table.make_frame(raw, id_column="Path", view="AP/PA", sex="Sex", age="Age", data_dir=data_dir)
    frame["patient"] = read_patients(raw, "Path", frame["id"])
    frontal = raw.choose("Frontal/Lateral", {"Frontal": True, "Lateral": False}, bool)
    view = frame["view"].to_numpy(object)
    view = np.where(np.isin(view, _SIDEWAYS), "", view)
    frame["view"] = table.to_texts(np.where(frontal, view, table.LATERAL), len(frame))
    frame[list(LABELS)] = read_labels(raw)
    frame["fold"] = table.to_texts(fold, len(frame))
    return frame


def _find_patient(image: str) -> str:
    """The third part of the path, or by its name another, should the first have been stripped from the table; or ""."""
    parts = image.split("/")
    if len(parts) > 3 and _PATIENT.fullmatch(parts[2]):
        return parts[2]
    named = [part for part in parts[:-1] if _PATIENT.fullmatch(part)]
    return named[0] if named else ""
