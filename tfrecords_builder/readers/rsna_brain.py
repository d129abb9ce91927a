"""The RSNA's table of brain haemorrhages on CT (and phantom heads in its layout).

Source: Flanders et al. 2020, https://doi.org/10.1148/ryai.2020190211.
"""

import pathlib

import numpy as np

from tfrecords_builder import csv_files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import dicom, finding
from tfrecords_builder.labels.label_sets import BRAIN6, LabelSet
from tfrecords_builder.readers import dicom_headers, table
from tfrecords_builder.readers.folder_columns import FolderColumns

_TABLES = ("stage_2_train.csv", "stage_2_train.csv.gz", "stage_1_train.csv")
_IMAGE_FOLDERS = ("stage_2_train", "stage_2_train_images", "stage_1_train_images", ".")
_REQUIRED = ("ID", "Label")
# A further column, or a table of its own beside it, which has one row for each slice.
_PATIENT = "PatientID"
_PATIENTS = "patients.csv"
_ANY = "any"
_TYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", _ANY)
_VALUES = {"0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0}


def read(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = BRAIN6,
) -> table.Table:
    """Reads stage_2_train.csv, whose rows are `ID_<slice>_<type>,0|1`: six rows for each slice.

    The patient of a slice is in a column PatientID of the table, else in a file patients.csv beside it (columns ID, the
    slice as ID_<slice>, and PatientID), else in the header of its DICOM file. A label set that has a label for "nothing
    found" has it where `any` is 0.

    Args:
        data_dir: folder of the table and of `stage_2_train/ID_<slice>.dcm`.
        labels_csv: another table.
        official: must be false; the set has no folds with labels.
        label_set: whose labels the six types are.

    Raises:
        InputError: as the other readers; an unknown type, a slice without its six rows, or a bleed without `any`.
    """
    root, path = _find_table(data_dir, labels_csv, official)
    header = csv_files.read_header(path)
    raw = csv_files.read_table(path, (*_REQUIRED, *([_PATIENT] if _PATIENT in header else [])))
    slices, values, codes = _gather(raw)
    rows = np.unique(codes, return_index=True)[1]
    found = {label_set.match(kind): values[:, i] for i, kind in enumerate(_TYPES)}
    if label_set.no_finding and label_set.no_finding not in found:
        found[label_set.no_finding] = 1 - values[:, _TYPES.index(_ANY)]
    labelled = tuple(label for label in label_set.labels if label in found)
    if len(labelled) < len(_TYPES) - 1:
        raise InputError(f"--label_set={label_set.name}: has not the labels of --dataset=rsna_brain; choose brain6")
    folder, suffix = _find_images(root, slices)
    frame = table.make_frame(_of_rows(raw, rows, slices, suffix), id_column="image", view="", sex="", age="")
    frame["patient"] = table.to_texts(_find_patients(raw, rows, codes, slices, root, folder, suffix), len(frame))
    for label in label_set.labels:
        frame[label] = np.asarray(found.get(label, np.full(len(frame), np.nan)), np.float32)
    source, dataset_name = table.find_source(root, path.parent, default="rsna_brain")
    return table.Table(
        dataset="rsna_brain",
        source=source,
        dataset_name=dataset_name,
        frame=frame,
        paths=(path,),
        bases=((folder, 0),),
        labelled=labelled,
        label_set=label_set,
    )


def check_header(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = BRAIN6,
) -> None:
    """Raises InputError, as `read`, for a table that is absent or lacks a column; looks at its first line only."""
    del label_set
    _find_table(data_dir, labels_csv, official)


def _find_table(
    data_dir: pathlib.Path, labels_csv: pathlib.Path | None, official: bool
) -> tuple[pathlib.Path, pathlib.Path]:
    if official:
        raise InputError("--split_policy=official: the RSNA's set has no folds; choose --split_policy=patient")
    root = finding.skip_wrappers(data_dir, lambda folder: any((folder / name).is_file() for name in _TABLES))
    path = labels_csv or next((root / name for name in _TABLES if (root / name).is_file()), None)
    if path is None:
        hint = table.suggest_dataset(data_dir, but="rsna_brain") or table.suggest_folder(data_dir, _TABLES)
        raise InputError(f"--data_dir={data_dir}: holds no {_TABLES[0]}; {hint or 'give the table by --labels_csv'}")
    table.check_columns(path, csv_files.read_header(path), _REQUIRED, "rsna_brain")
    return root, path


def _gather(raw: csv_files.RawTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slices object [S] in the order of the table, their values float32 [S, 6], and each row's slice, int64 [R]."""

    def split(text: str) -> tuple[str, int]:
        image, _, kind = text.rpartition("_")
        if not image or kind not in _TYPES:
            raise ValueError(f"{csv_files.shorten(text)} is no ID_<slice>_<type>; the types are {', '.join(_TYPES)}")
        return image, _TYPES.index(kind)

    pairs = raw.convert("ID", split)
    given = raw.choose("Label", _VALUES, np.float32, "0 or 1")
    numbers: dict[str, int] = {}
    codes = np.fromiter((numbers.setdefault(image, len(numbers)) for image, _ in pairs), np.int64, len(pairs))
    kinds = np.fromiter((kind for _, kind in pairs), np.int64, len(pairs))
    values = np.full((len(numbers), len(_TYPES)), np.nan, np.float32)
    values[codes, kinds] = given
    # The published table has some rows twice, which say the same.
    differs = values[codes, kinds] != given
    if differs.any():
        raw.fail(int(np.argmax(differs)), "ID", f"{''.join(pairs[int(np.argmax(differs))][0])} is given as 0 and as 1")
    rows = np.unique(codes, return_index=True)[1]
    lacks = np.isnan(values).any(axis=1)
    if lacks.any():
        slice_ = int(np.argmax(lacks))
        absent = ", ".join(kind for kind, value in zip(_TYPES, values[slice_], strict=True) if np.isnan(value))
        raw.fail(int(rows[slice_]), "ID", f"{list(numbers)[slice_]} has no row of {absent}")
    any_ = values[:, _TYPES.index(_ANY)]
    wrong = any_ != values[:, : _TYPES.index(_ANY)].max(axis=1)
    if wrong.any():
        slice_ = int(np.argmax(wrong))
        raw.fail(int(rows[slice_]), "ID", f"{list(numbers)[slice_]}: `any` is not 1 exactly where one of the others is")
    return np.array(list(numbers), object), values, codes


def _find_images(root: pathlib.Path, slices: np.ndarray) -> tuple[pathlib.Path, str]:
    """The folder that holds the first slices, and the suffix of their files."""
    for name in _IMAGE_FOLDERS:
        for suffix in (".dcm", ".png"):
            if any((root / name / f"{image}{suffix}").is_file() for image in slices[:100]):
                return root / name, suffix
    return root / _IMAGE_FOLDERS[0], ".dcm"


def _of_rows(raw: csv_files.RawTable, rows: np.ndarray, slices: np.ndarray, suffix: str) -> csv_files.RawTable:
    """A table of one row for each slice."""
    names = [f"{image}{suffix}" for image in slices]
    return csv_files.RawTable(
        path=raw.path, lines=raw.lines[rows], codes={"image": np.arange(len(names))}, texts={"image": names}
    )


def _find_patients(
    raw: csv_files.RawTable,
    rows: np.ndarray,
    codes: np.ndarray,
    slices: np.ndarray,
    root: pathlib.Path,
    folder: pathlib.Path,
    suffix: str,
) -> np.ndarray:
    """The patient of each slice, object [S] of str."""
    if _PATIENT in raw.texts:
        given = raw.convert(_PATIENT, table.to_patient)
        expected = given[rows][codes]
        if (given != expected).any():
            row = int(np.argmax(given != expected))
            raw.fail(row, _PATIENT, f"is {given[row]}, and {expected[row]} in another row of {slices[codes[row]]}")
        return given[rows]
    listed = table.find_file([raw.path.parent, root], [_PATIENTS])
    if listed:
        table.check_columns(listed, csv_files.read_header(listed), ("ID", _PATIENT), "rsna_brain")
        other = csv_files.read_table(listed, ("ID", _PATIENT))
        places = table.find_rows(other, "ID", slices)
        absent = slices[places < 0]
        if len(absent):
            raise InputError(f"{listed}: has no row of {absent[0]} and {len(absent) - 1} other slices")
        return other.convert(_PATIENT, table.to_patient)[places]
    if suffix != ".dcm":
        raise InputError(
            f"{root}: who the patients are is neither in a column {_PATIENT} of {raw.path.name} nor in {_PATIENTS}, "
            "and PNG files do not say it; give one of them"
        )
    patients = np.array([_read_patient(folder / f"{image}.dcm") for image in slices], object)
    doubted = dicom_headers.trust(patients)[0] != patients
    if doubted.any():
        raise InputError(
            f"{folder}: {int(doubted.sum())} headers, such as that of {slices[doubted][0]}.dcm, call their patient "
            f"{patients[doubted][0]!r}, which tells no patients apart; give a table {_PATIENTS} with the columns ID, "
            f"{_PATIENT}"
        )
    return patients


def _read_patient(path: pathlib.Path) -> str:
    """The patient in a file's header; "" if the file is not there, which `locate` tells of."""
    if not dicom.is_installed():
        raise InputError("--dataset=rsna_brain: install the extra: pip install tfcxr[dicom]")
    if not path.is_file():
        return ""
    header = dicom.read_header(path)
    if not header:
        raise InputError(f"{path}: is no DICOM file that can be read")
    patient = header["PatientID"]
    if not patient:
        raise InputError(
            f"{path}: its header names no patient; give a table {_PATIENTS} with the columns ID, {_PATIENT}"
        )
    return patient
