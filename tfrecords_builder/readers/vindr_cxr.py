"""VinDr-CXR's tables, of PhysioNet and of Kaggle. Source: Nguyen et al. 2022, https://doi.org/10.1038/s41597-022-01498-w."""

import pathlib
from collections.abc import Mapping

import numpy as np
import pandas as pd

from tfrecords_builder import csv_files
from tfrecords_builder.choices import AGREEMENTS
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels.label_sets import DEFAULT, LabelSet
from tfrecords_builder.readers import dicom_headers, table
from tfrecords_builder.readers.folder_columns import FolderColumns

_NO_FINDING = "No finding"
# 22 findings with a place and 6 of the whole image, and what they are kinds of.
_FINDINGS: dict[str, tuple[str, ...]] = dict.fromkeys(
    (
        "Aortic enlargement",
        "Atelectasis",
        "Calcification",
        "Cardiomegaly",
        "Clavicle fracture",
        "Consolidation",
        "Edema",
        "Emphysema",
        "Enlarged PA",
        "ILD",
        "Infiltration",
        "Lung Opacity",
        "Lung cavity",
        "Lung cyst",
        "Mediastinal shift",
        "Nodule/Mass",
        "Pleural effusion",
        "Pleural thickening",
        "Pneumothorax",
        "Pulmonary fibrosis",
        "Rib fracture",
        "Other lesion",
        "COPD",
        "Lung tumor",
        "Pneumonia",
        "Tuberculosis",
        "Other diseases",
        _NO_FINDING,
    ),
    (),
) | {"Clavicle fracture": ("Fracture",), "Rib fracture": ("Fracture",)}
_ALIASES = {"Other disease": "Other diseases"}  # of the table of test images
_FOLDERS = ("annotations", ".")
_TABLES = {
    "train": ("image_labels_train.csv", "annotations_train.csv", "train.csv"),
    "test": ("image_labels_test.csv", "annotations_test.csv"),
}


def read(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = DEFAULT,
    *,
    agreement: str = AGREEMENTS[0],
) -> table.Table:
    """Reads image_labels_train.csv, or where it is not there annotations_train.csv, or Kaggle's train.csv.

    Three radiologists read each image of the training part: it has a finding if more than half of them, any or all of
    them say so, and has none in the same way (by `any`, if no one sees a finding). The labels of the test part are
    their consensus. Patients, sex, age and view are those of the DICOM headers.

    Args:
        data_dir: the folder of train/, test/ and annotations/.
        labels_csv: instead of the table of the training part.
        official: whether to read the table of the test part too, as the test fold.
        label_set: the labels.
        agreement: one of `choices.AGREEMENTS`.
    """
    paths = _find_tables(data_dir, labels_csv, official)
    mapping = table.map_words("vindr_cxr", _FINDINGS, label_set)
    frames: list[pd.DataFrame] = []
    findings: dict[str, None] = {}
    for fold, path in paths.items():
        frame, labelled, others = _read_frame(path, mapping, label_set, agreement)
        findings |= dict.fromkeys(others)
        if official:
            frame["fold"] = table.to_texts("train_val" if fold == "train" else fold, len(frame))
        frames.append(frame)
    frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    root = _find_root(data_dir)
    bases = [base / name for base in dict.fromkeys((root, data_dir)) for name in ("train", "test", "images", ".")]
    made = table.Table(
        dataset="vindr_cxr",
        source="vindr_cxr",
        dataset_name="vindr_cxr",
        frame=frame,
        paths=tuple(paths.values()),
        bases=tuple((base, 0) for base in bases if base.is_dir()),
        label_set=label_set,
        labelled=labelled,
        findings=tuple(findings),
    )
    return dicom_headers.fill(made, patients=True)


def check_header(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = DEFAULT,
) -> None:
    """Raises InputError, as `read`, for a table that is absent or lacks a column; looks at first lines only."""
    table.map_words("vindr_cxr", _FINDINGS, label_set)
    for path in _find_tables(data_dir, labels_csv, official).values():
        _check_header(path)


def _find_root(data_dir: pathlib.Path) -> pathlib.Path:
    names = [f"annotations/{name}" for names in _TABLES.values() for name in names]
    return table.find_root(data_dir, [*names, *_TABLES["train"]], below=("1.0.0",))


def _find_tables(data_dir: pathlib.Path, labels_csv: pathlib.Path | None, official: bool) -> dict[str, pathlib.Path]:
    root = _find_root(data_dir)
    folders = [root / name for name in _FOLDERS]
    paths = {"train": labels_csv or table.require_file("vindr_cxr", data_dir, folders, _TABLES["train"])}
    if official:
        test = table.find_file(folders, _TABLES["test"])
        if test is None:
            raise InputError(
                f"--split_policy=official: {folders[0] / _TABLES['test'][0]} is not there; choose "
                "--split_policy=patient"
            )
        paths["test"] = test
    return paths


def _check_header(path: pathlib.Path) -> dict[str, str]:
    """Finding -> its column; empty where a column names the finding."""
    header = csv_files.read_header(path)
    if "class_name" in header:
        table.check_columns(path, header, ("image_id",), "vindr_cxr")
        return {}
    columns = {_ALIASES.get(column, column): column for column in header}
    found = {name: columns[name] for name in _FINDINGS if name in columns}
    table.check_columns(path, header, ("image_id", *(found.values() or ("class_name",))), "vindr_cxr")
    return found


def _read_frame(
    path: pathlib.Path, mapping: Mapping[str, tuple[str, ...]], label_set: LabelSet, agreement: str
) -> tuple[pd.DataFrame, tuple[str, ...], tuple[str, ...]]:
    """The rows of a table, all of an image with its joined labels, and the labels and other findings that they know."""
    columns = _check_header(path)
    raw = csv_files.read_table(path, ("image_id", "rad_id", "class_name", *columns.values()))
    frame = table.make_frame(raw, id_column="image_id", view="", sex="", age="")
    frame["patient"] = table.to_texts("", len(frame))
    _, images = np.unique(frame["id"].to_numpy(object), return_inverse=True)
    _, readers = np.unique(raw.convert("rad_id", str), return_inverse=True)
    readings = images.astype(np.int64) * (int(readers.max()) + 1) + readers  # one for each image and reader
    said: dict[str, np.ndarray] = {}
    if columns:
        for name, column in columns.items():
            said[name] = raw.choose(column, table.LABEL_VALUES, np.float32, "1 or 0") == 1
    else:
        named = raw.convert("class_name", _to_finding)
        said = {name: named == name for name in _FINDINGS}
    count = int(images.max()) + 1
    distinct, first = np.unique(readings, return_index=True)
    read_by = np.bincount(images[first], minlength=count)
    positive = {}
    for name, mask in said.items():
        yes = np.isin(distinct, readings[mask])
        votes = np.bincount(images[first][yes], minlength=count)
        # Where any reader is enough for a finding, one who sees none is not enough for that.
        rule = "all" if agreement == "any" and name == _NO_FINDING else agreement
        agreed = {"majority": 2 * votes > read_by, "any": votes > 0, "all": votes == read_by}[rule]
        positive[name] = agreed[images]
    return frame, *table.add_findings(frame, positive, mapping, label_set, nothing=_NO_FINDING)


def _to_finding(text: str) -> str:
    name = _ALIASES.get(text, text)
    if name not in _FINDINGS:
        meant = csv_files.did_you_mean(text, _FINDINGS) or f"; known are {', '.join(_FINDINGS)}"
        raise ValueError(f"unknown finding {csv_files.shorten(text)}{meant}")
    return name
