"""CheXpert Plus's table, and its labels by CheXbert. Source: Chambon et al. 2024, https://arxiv.org/abs/2405.19538."""

import pathlib

import numpy as np

from tfrecords_builder import csv_files, json_lines
from tfrecords_builder.labels.canonical import LABELS
from tfrecords_builder.labels.label_sets import CHEXPERT14, LabelSet
from tfrecords_builder.readers import chexpert, table
from tfrecords_builder.readers.folder_columns import FolderColumns

_TABLES = ("df_chexpert_plus_240401.csv", "df_chexpert_plus_240401.csv.gz")
_REQUIRED = ("path_to_image", "frontal_lateral", "ap_pa", "deid_patient_id", "split")
_LABELS = ("path_to_image", *LABELS)
# CheXpert's own labels are of the impressions, where a report has one.
_LABEL_FILES = tuple(f"{part}_fixed.json" for part in ("impression", "report", "findings"))
# Where images may lie: as the archives make them, in PNG and DICOM.
_IMAGE_FOLDERS = (
    ".",
    "PNG",
    "PNG/PNG",
    "PNGs",
    "*chexpertplus_chunk*",
    "PNG/*chunk*",
    "DICOM",
    "DICOM/*chunk*",
    "images",
)


def read(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = CHEXPERT14,
) -> table.Table:
    """Reads df_chexpert_plus_240401.csv and a file of labels, which has a JSON object a line.

    The table names the images as .jpg; they are given away as PNG and DICOM. So an image's id has no suffix.

    Args:
        data_dir: the folder of the table.
        labels_csv: instead of chexbert_labels/impression_fixed.json.
        official: whether the rows of split `train` are the `train_val` and those of `valid` the test fold, as those of
            CheXpert are.
        label_set: must be CheXpert's.
    """
    path, labels = _find_tables(data_dir, labels_csv, label_set)
    raw = csv_files.read_table(path, (*_REQUIRED, "sex", "age"))
    frame = table.make_frame(raw, id_column="path_to_image", view="ap_pa", sex="sex", age="age", data_dir=data_dir)
    frame["id"] = table.to_texts(np.array([_strip_suffix(name) for name in frame["id"]], object), len(frame))
    frame["patient"] = table.to_texts(raw.convert("deid_patient_id", table.to_filled), len(frame))
    frontal = raw.choose("frontal_lateral", {"Frontal": True, "Lateral": False}, bool)
    view = frame["view"].to_numpy(object)
    view = np.where(np.isin(view, ("AP", "PA")), view, "")
    frame["view"] = table.to_texts(np.where(frontal, view, table.LATERAL), len(frame))

    of_images = json_lines.read_table(labels, _LABELS)
    rows = table.find_rows(of_images, "path_to_image", frame["id"], lambda text: _strip_suffix(table.to_path(text)))
    frame[list(LABELS)] = chexpert.read_labels_of(of_images, rows)
    warnings = []
    if (rows < 0).any():
        warnings.append(f"{int((rows < 0).sum())} images have no line in {labels.name}: they have no label")
    folds = raw.choose("split", {"train": "train_val", "valid": "test"})
    if official:
        frame["fold"] = table.to_texts(folds, len(frame))
    root = path.parent
    bases = dict.fromkeys(base for pattern in _IMAGE_FOLDERS for base in _glob(root, pattern))
    return table.Table(
        dataset="chexpert_plus",
        source="chexpert_plus",
        dataset_name="chexpert",  # whose patients they are
        frame=frame,
        paths=(path, labels),
        bases=tuple((base, 0) for base in bases),
        warnings=tuple(warnings),
    )


def check_header(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = CHEXPERT14,
) -> None:
    """Raises InputError, as `read`, for a table that is absent or lacks a column; looks at its first line only."""
    del official
    _find_tables(data_dir, labels_csv, label_set)


def _find_tables(
    data_dir: pathlib.Path, labels_csv: pathlib.Path | None, label_set: LabelSet
) -> tuple[pathlib.Path, pathlib.Path]:
    chexpert.check_label_set(label_set, "chexpert_plus")
    root = table.find_root(data_dir, _TABLES)
    path = table.require_file("chexpert_plus", data_dir, [root], _TABLES, "it names the images")
    table.check_columns(path, csv_files.read_header(path), _REQUIRED, "chexpert_plus")
    folders = [root / "chexbert_labels", root / "chexbert_labels" / "chexbert_labels", root]
    labels = labels_csv or table.require_file("chexpert_plus", data_dir, folders, _LABEL_FILES)
    table.check_columns(labels, json_lines.read_header(labels), _LABELS, "chexpert_plus")
    return path, labels


def _strip_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and "/" not in suffix else name


def _glob(root: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    return [root] if pattern == "." else sorted(path for path in root.glob(pattern) if path.is_dir())
