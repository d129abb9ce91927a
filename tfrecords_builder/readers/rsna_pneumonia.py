"""The RSNA's Pneumonia Detection Challenge, whose images are NIH's.

Source: Shih et al. 2019, https://doi.org/10.1148/ryai.2019180041.
"""

import pathlib

import numpy as np

from tfrecords_builder import csv_files, files
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels.label_sets import DEFAULT, LabelSet
from tfrecords_builder.readers import dicom_headers, table
from tfrecords_builder.readers.folder_columns import FolderColumns

_TABLES = ("stage_2_train_labels.csv", "stage_1_train_labels.csv")
_CLASSES = ("stage_2_detailed_class_info.csv", "stage_1_detailed_class_info.csv")
_MAPPINGS = ("pneumonia-challenge-dataset-mappings_2018.json",)
_REQUIRED = ("patientId", "Target")
_OPACITY, _NORMAL, _OTHER = "Lung Opacity", "Normal", "No Lung Opacity / Not Normal"
_TARGET = "Pneumonia-like opacity"
# What the readers marked are opacities that may be a pneumonia.
_FINDINGS = {_TARGET: ("Lung Opacity", "Pneumonia"), _NORMAL: ("No Finding",), _OTHER: ()}
_IMAGE_FOLDERS = ("stage_2_train_images", "stage_1_train_images", "train", "images", ".")


def read(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = DEFAULT,
) -> table.Table:
    """Reads stage_2_train_labels.csv (a row for each box) and, if it is there, stage_2_detailed_class_info.csv.

    A target is an opacity of the lung that may be a pneumonia: both labels. An image of the class "No Lung Opacity /
    Not Normal" has this as a finding outside the labels, so that it is never without a finding. Without the second
    table nothing says which images are normal.

    `patientId` is an image. With the RSNA's file of mappings to NIH's images beside the tables, patients are NIH's, and
    so is the name of the data set; without it, each image is its own patient. Sex, age and view are those of the DICOM
    headers.

    Args:
        data_dir: the folder of the tables.
        labels_csv: instead of stage_2_train_labels.csv.
        official: must be false: the test images have no labels.
        label_set: the labels.
    """
    path, classes = _find_tables(data_dir, labels_csv, official)
    mapping = table.map_words("rsna_pneumonia", _FINDINGS, label_set)
    raw = csv_files.read_table(path, _REQUIRED)
    frame = table.make_frame(raw, id_column="patientId", view="", sex="", age="")
    positive = {_TARGET: raw.choose("Target", {"0": False, "1": True}, bool)}
    warnings = []
    if classes:
        kinds = _read_classes(classes, frame["id"].to_numpy(object))
        differs = (kinds != "") & ((kinds == _OPACITY) != positive[_TARGET])
        if differs.any():
            row = int(np.argmax(differs))
            raw.fail(row, "Target", f"contradicts {classes.name}, where the class is {str(kinds[row])!r}")
        positive |= {_NORMAL: kinds == _NORMAL, _OTHER: kinds == _OTHER}
    else:
        warnings.append(f"{_CLASSES[0]} is not there: nothing says which images are normal, so none is 'No Finding'")
    labelled, findings = table.add_findings(frame, positive, mapping, label_set, nothing=_NORMAL)
    root = path.parent
    mappings = table.find_file([root, data_dir], _MAPPINGS)
    patients = _read_patients(mappings) if mappings else {}
    absent = [image for image in frame["id"] if image not in patients] if mappings else []
    if absent:
        raise InputError(
            f"{mappings}: does not say of which patient {absent[0]} and {len(set(absent)) - 1} other images are; give "
            "the file of these images, or none"
        )
    names = np.array([patients.get(image, image) for image in frame["id"]], object)
    frame["patient"] = table.to_texts(names, len(frame))
    if not mappings:
        warnings.append(
            f"{_MAPPINGS[0]} is not there, which says of which of NIH's patients an image is: each image counts as its "
            "own patient, so that patients are in several splits and scores will be too good"
        )
    bases = dict.fromkeys(base / name for base in (root, data_dir) for name in _IMAGE_FOLDERS)
    made = table.Table(
        dataset="rsna_pneumonia",
        source="rsna_pneumonia",
        dataset_name="chestxray" if mappings else "rsna_pneumonia",
        frame=frame,
        paths=tuple(filter(None, (path, classes, mappings))),
        bases=tuple((base, 0) for base in bases if base.is_dir()),
        warnings=tuple(warnings),
        label_set=label_set,
        labelled=labelled,
        findings=findings,
    )
    return dicom_headers.fill(made, patients=False)


def check_header(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = DEFAULT,
) -> None:
    """Raises InputError, as `read`, for a table that is absent or lacks a column; looks at first lines only."""
    table.map_words("rsna_pneumonia", _FINDINGS, label_set)
    _find_tables(data_dir, labels_csv, official)


def _find_tables(
    data_dir: pathlib.Path, labels_csv: pathlib.Path | None, official: bool
) -> tuple[pathlib.Path, pathlib.Path | None]:
    path = table.require_table("rsna_pneumonia", data_dir, labels_csv, official, _TABLES, _REQUIRED)
    classes = table.find_file([path.parent, table.find_root(data_dir, _TABLES)], _CLASSES)
    if classes:
        table.check_columns(classes, csv_files.read_header(classes), ("patientId", "class"), "rsna_pneumonia")
    return path, classes


def _read_classes(path: pathlib.Path, images: np.ndarray) -> np.ndarray:
    """The class of each image, "" where the table has no row of it; it has one for each box."""
    raw = csv_files.read_table(path, ("patientId", "class"))
    kinds = raw.choose("class", {name: name for name in (_OPACITY, _NORMAL, _OTHER)})
    found: dict[str, str] = {}
    for row, (image, kind) in enumerate(zip(raw.convert("patientId", table.to_filled), kinds, strict=True)):
        if found.setdefault(image, kind) != kind:
            raw.fail(row, "class", f"is {kind!r}, and {found[image]!r} in another row of {image}")
    return np.array([found.get(image, "") for image in images], object)


def _read_patients(path: pathlib.Path) -> dict[str, str]:
    """The RSNA's image -> NIH's patient, as NIH's table writes it."""
    rows = files.read_json(path)
    try:
        return {row["subset_img_id"]: str(int(row["img_id"].split("_")[0])) for row in rows}
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: is no list of objects with subset_img_id and img_id, such as 00000013_005.png"
        ) from error
