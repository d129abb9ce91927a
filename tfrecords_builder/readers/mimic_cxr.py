"""MIMIC-CXR-JPG's tables. Source: Johnson et al. 2019, https://arxiv.org/abs/1901.07042, and PhysioNet's page."""

import pathlib

import numpy as np
import pandas as pd

from tfrecords_builder import csv_files
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels.canonical import LABELS
from tfrecords_builder.labels.label_sets import CHEXPERT14, LabelSet
from tfrecords_builder.readers import chexpert, table
from tfrecords_builder.readers.folder_columns import FolderColumns
from tfrecords_builder.splits.lists import SPLIT_NAMES

_IMAGES = ("dicom_id", "subject_id", "study_id", "ViewPosition")
_DATE = "StudyDate"
# MIMIC-IV's table of patients: a date of a patient is as far from anchor_year as an age from anchor_age.
_PATIENTS = ("patients.csv.gz", "patients.csv", "hosp/patients.csv.gz", "hosp/patients.csv")
_OF_PATIENTS = ("subject_id", "gender", "anchor_age", "anchor_year")
_LABELS = ("study_id", *LABELS)
_SPLIT = ("dicom_id", "split")
# Views from the side or aslant, which are left out with the lateral ones.
_SIDEWAYS = frozenset({"LATERAL", "LL", "RL", "XTABLE", "SWIMMERS", "LAO", "RAO", "LPO", "RPO"})


def read(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = CHEXPERT14,
) -> table.Table:
    """Reads -metadata.csv, which names the images, and -chexpert.csv, which labels studies; plain or gzipped.

    An image has the labels of its study; a study without a row has none. Sex and age are not in these tables, but in
    MIMIC-IV's patients.csv, if that is beside: `gender`, and `anchor_age` moved by the years from `anchor_year` to the
    study's date (whose years are shifted alike for each patient; ages above 89 are 91 there).

    Args:
        data_dir: the folder of the tables and of files/.
        labels_csv: instead of -chexpert.csv, such as -negbio.csv.
        official: whether to read -split.csv.
        label_set: must be CheXpert's.
    """
    images, labels, split = _find_tables(data_dir, labels_csv, official, label_set)
    raw = csv_files.read_table(images, (*_IMAGES, _DATE))
    frame = table.make_frame(raw, id_column="", view="ViewPosition", sex="", age="")
    patients = raw.convert("subject_id", table.to_filled)
    studies = raw.convert("study_id", table.to_filled)
    names = raw.convert("dicom_id", table.to_filled)
    paths = [
        f"files/p{patient[:2]}/p{patient}/s{study}/{name}.jpg"
        for patient, study, name in zip(patients, studies, names, strict=True)
    ]
    frame["id"] = table.to_texts(np.array(paths, object), len(frame))
    frame["patient"] = table.to_texts(patients, len(frame))
    frame["view"] = table.to_texts(raw.convert("ViewPosition", _to_view), len(frame))

    of_studies = csv_files.read_table(labels, _LABELS)
    rows = table.find_rows(of_studies, "study_id", studies)
    frame[list(LABELS)] = chexpert.read_labels_of(of_studies, rows)
    warnings = []
    if (rows < 0).any():
        warnings.append(
            f"{int((rows < 0).sum())} images are of studies without a row in {labels.name}: they have no label"
        )
    if split:
        listed = csv_files.read_table(split, _SPLIT)
        folds = listed.convert("split", _to_fold)
        frame["fold"] = table.to_texts(np.append(folds, "")[table.find_rows(listed, "dicom_id", names)], len(frame))
    root = images.parent
    people = _find_patients(root)
    if people:
        frame["sex"], frame["age"] = _read_patients(people, patients, raw.convert(_DATE, table.to_year, np.int64))
    return table.Table(
        dataset="mimic_cxr",
        source="mimic_cxr",
        dataset_name="mimic_cxr",
        frame=frame,
        paths=tuple(filter(None, (images, labels, split, people))),
        bases=tuple(dict.fromkeys([(root, 0), (root / "files", 1), (data_dir, 0), (data_dir, 1)])),
        warnings=tuple(warnings),
    )


def check_header(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = CHEXPERT14,
) -> None:
    """Raises InputError, as `read`, for a table that is absent or lacks a column; looks at first lines only."""
    _find_tables(data_dir, labels_csv, official, label_set)


def _find_tables(
    data_dir: pathlib.Path, labels_csv: pathlib.Path | None, official: bool, label_set: LabelSet
) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path | None]:
    """The tables of images, labels and splits. Raises InputError if one is absent or lacks a column."""
    chexpert.check_label_set(label_set, "mimic_cxr")
    root = table.find_root(data_dir, _names("metadata"))
    images = table.require_file("mimic_cxr", data_dir, [root], _names("metadata"), "it names the images")
    labels = labels_csv or table.require_file("mimic_cxr", data_dir, [root], [*_names("chexpert"), *_names("negbio")])
    split = table.find_file([root], _names("split")) if official else None
    if official and split is None:
        raise InputError(
            f"--split_policy=official: {root / _names('split')[0]} is not there; choose --split_policy=patient"
        )
    for path, columns in (
        (images, _IMAGES),
        (labels, _LABELS),
        (split, _SPLIT),
        (_find_patients(root), _OF_PATIENTS),
    ):
        if path:
            table.check_columns(path, csv_files.read_header(path), columns, "mimic_cxr")
    return images, labels, split


def _names(kind: str) -> list[str]:
    return [f"mimic-cxr-2.{minor}.0-{kind}.csv{packed}" for minor in (0, 1) for packed in (".gz", "")]


def _find_patients(root: pathlib.Path) -> pathlib.Path | None:
    return table.find_file([root], _PATIENTS)


def _read_patients(path: pathlib.Path, patients: np.ndarray, years: np.ndarray) -> tuple[pd.Series, np.ndarray]:
    """Sex and age [N] of the patients of images, in the years of their studies; year 0: unknown, the age is anchor_age.

    Both are unknown ("", -1) for a patient without a row.
    """
    raw = csv_files.read_table(path, _OF_PATIENTS)
    rows = table.find_rows(raw, "subject_id", patients)
    sexes = np.append(raw.convert("gender", str), "")[rows]
    anchors = np.append(raw.convert("anchor_age", table.to_age, np.int64), -1)[rows]
    since = np.append(raw.convert("anchor_year", table.to_year, np.int64), 0)[rows]
    ages = anchors + np.where((years > 0) & (since > 0), years - since, 0)
    known = (anchors >= 0) & (ages >= 0)
    return table.to_texts(sexes, len(patients)), np.where(known, np.minimum(ages, table.MAX_AGE), -1)


def _to_view(text: str) -> str:
    words = text.upper().split() or [""]
    return table.LATERAL if _SIDEWAYS.intersection(words) else words[0]  # PA LLD: PA, of a patient who lies


def _to_fold(text: str) -> str:
    known = {**SPLIT_NAMES, "validate": "validation"}
    if text not in known:
        raise ValueError(f"unknown split {csv_files.shorten(text)}, expected train, validate or test")
    return known[text]
