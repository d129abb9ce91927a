"""NIH's ChestX-ray8/14 tables (and phantoms in their layout). Source: Wang et al. 2017, https://arxiv.org/abs/1705.02315."""

import functools
import pathlib
from collections.abc import Mapping

import numpy as np
import pandas as pd

from tfrecords_builder import csv_files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import finding
from tfrecords_builder.labels.label_sets import CHEXPERT14, EXTRA_SEPARATOR, LabelSet
from tfrecords_builder.readers import table
from tfrecords_builder.readers.folder_columns import FolderColumns

_NO_FINDING = "No Finding"
# What NIH's table calls the findings.
_FINDINGS = (
    _NO_FINDING,
    "Cardiomegaly",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
_TABLES = (
    "Data_Entry_2017_v2020.csv",
    "Data_Entry_2017_v2020.csv.gz",
    "Data_Entry_2017.csv",
    "Data_Entry_2017.csv.gz",
    "sample_labels.csv",  # of Kaggle's sample
)
_LISTS = {
    "train_val": ("train_val_list.txt", "train_val_list_NIH.txt"),
    "test": ("test_list.txt", "test_list_NIH.txt"),
}
# Where images may lie: NIH's archives, and what Kaggle's copies of another size make of them.
_IMAGE_FOLDERS = ("images", "images_*/images", "images_*", "images-*/images-*", "images-*", "sample/images")


def map_findings(label_set: LabelSet) -> dict[str, str | None]:
    """NIH's findings -> labels; those mapped to None have no counterpart in the set and stay extra findings."""
    return {finding: label_set.match(finding) for finding in _FINDINGS}


# Of CheXpert's labels.
NIH_FINDINGS = map_findings(CHEXPERT14)
_REQUIRED = ("Image Index", "Finding Labels", "Patient ID", "View Position")


def read(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = CHEXPERT14,
) -> table.Table:
    """Reads NIH's Data_Entry_2017.csv or _v2020.csv, plain or gzipped, and, if `official`, its lists.

    Images may lie in `images/`, `images_001/images/` ... `images_012/images/`, `images_*/`, `images-224/images-224/` or
    `data_dir` itself; the table in `data_dir` or the folder above.
    """
    data_dir = _find_root(data_dir)
    path = _find_table(data_dir, labels_csv)
    mapping = map_findings(label_set)
    names = {label: finding for finding, label in mapping.items() if label}
    if not names:
        raise InputError(
            f"--label_set={label_set.name}: has none of the findings of --dataset=chestxray; choose another"
        )
    raw = csv_files.read_table(path, (*_REQUIRED, "Patient Gender", "Patient Age"))
    frame = table.make_frame(
        raw, id_column="Image Index", view="View Position", sex="Patient Gender", age="Patient Age", data_dir=data_dir
    )
    frame["patient"] = table.to_texts(raw.convert("Patient ID", table.to_filled), len(frame))
    # The first to look at this column, so it meets the unknown findings.
    frame["extra"] = table.to_texts(raw.convert("Finding Labels", functools.partial(_to_extra, mapping)), len(frame))
    for label in label_set.labels:
        if label in names:
            frame[label] = raw.convert("Finding Labels", functools.partial(_has, names[label]), np.float32)
        else:
            frame[label] = np.full(len(frame), np.nan, np.float32)
    if official:
        frame["fold"] = table.to_texts(_read_folds(frame["id"], data_dir, path), len(frame))
    bases = dict.fromkeys([*(base for pattern in _IMAGE_FOLDERS for base in sorted(data_dir.glob(pattern))), data_dir])
    source, dataset_name = table.find_source(data_dir, path.parent, default="chestxray")
    return table.Table(
        dataset="chestxray",
        source=source,
        dataset_name=dataset_name,
        frame=frame,
        paths=(path,),
        bases=tuple((base, 0) for base in bases if base.is_dir()),
        findings=tuple(name for name, label in mapping.items() if label is None),
        labelled=tuple(label for label in label_set.labels if label in names),
        warnings=tuple(table.suspect_spreadsheet(raw, "Patient ID")),
        label_set=label_set,
    )


def check_header(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = CHEXPERT14,
) -> None:
    """Raises InputError, as `read`, for a table that is absent or lacks a column; looks at its first line only."""
    del official, label_set  # the lists have no columns
    _find_table(_find_root(data_dir), labels_csv)


def _find_root(data_dir: pathlib.Path) -> pathlib.Path:
    return finding.skip_wrappers(data_dir, lambda folder: any((folder / name).is_file() for name in _TABLES))


def _find_table(data_dir: pathlib.Path, labels_csv: pathlib.Path | None) -> pathlib.Path:
    """The table; raises InputError, as `read`, if it is absent or lacks a column, by its first line."""
    above = data_dir if table.find_tables(data_dir) else data_dir.resolve().parent
    path = labels_csv or table.find_file((data_dir, above), _TABLES)
    if path is None:
        hint = table.suggest_dataset(data_dir, but="chestxray") or table.suggest_folder(data_dir, _TABLES)
        hint = hint or "give the table by --labels_csv"
        raise InputError(f"--data_dir={data_dir}: holds no {_TABLES[2]}; {hint}")
    table.check_columns(path, csv_files.read_header(path), _REQUIRED, "chestxray")
    return path


def _split(text: str) -> list[str]:
    return [finding.strip() for finding in text.split("|")]


def _has(finding: str, text: str) -> float:
    return float(finding in _split(text))


def _to_extra(mapping: Mapping[str, str | None], text: str) -> str:
    """The unmapped findings of a cell. Raises ValueError if a finding is unknown or contradicts "No Finding"."""
    findings = _split(text)
    for name in findings:
        if name not in mapping:
            meant = csv_files.did_you_mean(name, mapping) or f"; known are {', '.join(mapping)}"
            raise ValueError(f"unknown finding {csv_files.shorten(name)}{meant}")
    if _NO_FINDING in findings and len(findings) > 1:
        raise ValueError(f"{_NO_FINDING!r} beside findings in {csv_files.shorten(text)}")
    return EXTRA_SEPARATOR.join(name for name in findings if mapping[name] is None)


def _read_folds(ids: pd.Series, data_dir: pathlib.Path, path: pathlib.Path) -> np.ndarray:
    """The fold of each image by the official lists, "" for those in neither."""
    folds = np.full(len(ids), "", object)
    for fold, names in _LISTS.items():
        found = table.find_file((data_dir, path.parent), names)
        if found is None:
            raise InputError(
                f"--split_policy=official: {data_dir / names[0]} is not there; choose --split_policy=patient"
            )
        listed = ids.isin(csv_files.read_lines(found)).to_numpy()
        both = listed & (folds != "")
        if both.any():
            raise InputError(f"{found}: {ids[both].iloc[0]} is in train_val_list.txt as well")
        folds[listed] = fold
    return folds
