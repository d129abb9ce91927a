"""SIIM-ACR's pneumothoraces. Source: https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation."""

import pathlib
import re

from tfrecords_builder import csv_files
from tfrecords_builder.labels.label_sets import DEFAULT, LabelSet
from tfrecords_builder.readers import dicom_headers, table
from tfrecords_builder.readers.folder_columns import FolderColumns

_TABLES = ("train-rle.csv", "stage_2_train.csv")
_REQUIRED = ("ImageId", "EncodedPixels")
_FINDINGS = {"Pneumothorax": ()}
_WITHOUT = re.compile(r"-1(?:\.0*)?")  # a mask of nothing; pandas may have made it a decimal number
_MASK = re.compile(r"(?:\d+\s+\d+\s*)+")  # starts and lengths of runs


def read(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = DEFAULT,
) -> table.Table:
    """Reads train-rle.csv, or stage_2_train.csv: a row for each mask of a pneumothorax, or one of -1.

    The table knows of no other finding: an image without a pneumothorax may have any, and is no `No Finding`. Patients,
    sex, age and view are those of the DICOM headers.

    Args:
        data_dir: the folder of the table; the images may lie at any depth.
        labels_csv: instead of the table.
        official: must be false: the test images have no labels.
        label_set: the labels.
    """
    path = _find_table(data_dir, labels_csv, official)
    mapping = table.map_words("siim_acr", _FINDINGS, label_set)
    raw = csv_files.read_table(path, _REQUIRED)
    frame = table.make_frame(raw, id_column="ImageId", view="", sex="", age="")
    positive = raw.convert("EncodedPixels", _has_mask, bool)
    labelled, findings = table.add_findings(frame, {"Pneumothorax": positive}, mapping, label_set)
    frame["patient"] = table.to_texts("", len(frame))
    made = table.Table(
        dataset="siim_acr",
        source="siim_acr",
        dataset_name="siim_acr",
        frame=frame,
        paths=(path,),
        bases=((data_dir, 0),),
        search=data_dir,
        label_set=label_set,
        labelled=labelled,
        findings=findings,
    )
    return dicom_headers.fill(made, patients=True)


def check_header(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = DEFAULT,
) -> None:
    """Raises InputError, as `read`, for a table that is absent or lacks a column; looks at its first line only."""
    table.map_words("siim_acr", _FINDINGS, label_set)
    _find_table(data_dir, labels_csv, official)


def _find_table(data_dir: pathlib.Path, labels_csv: pathlib.Path | None, official: bool) -> pathlib.Path:
    return table.require_table("siim_acr", data_dir, labels_csv, official, _TABLES, _REQUIRED)


def _has_mask(text: str) -> bool:
    if _WITHOUT.fullmatch(table.to_filled(text)):
        return False
    if not _MASK.fullmatch(text):
        raise ValueError(f"{csv_files.shorten(text)} is neither -1 nor a mask, which is pairs of whole numbers")
    return True
