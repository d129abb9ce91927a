"""A user's own images: any folder, with a table whose columns `FolderColumns` names."""

import collections
import dataclasses
import difflib
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from tfrecords_builder import csv_files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import finding
from tfrecords_builder.labels.canonical import EXTRA_SEPARATOR
from tfrecords_builder.labels.label_sets import DEFAULT, LabelSet
from tfrecords_builder.readers import table
from tfrecords_builder.readers.folder_columns import FolderColumns
from tfrecords_builder.splits.lists import SPLIT_NAMES

SUPPORT_DEVICES = "Support Devices"


def read(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    columns: FolderColumns | None = None,
    label_set: LabelSet = DEFAULT,
) -> table.Table:
    """Reads a user's own table.

    Args:
        data_dir: folder of the images, at any depth.
        labels_csv: the table; None: the only CSV file in `data_dir`.
        official: whether the table must have a column of splits; `fold` is filled wherever there is one.
        columns: what the columns mean; None: their default names.
        label_set: the labels that there are, unless `columns` says so.
    """
    columns = columns or FolderColumns(label_set=label_set)
    path, used, label_columns, patient = _choose_columns(data_dir, labels_csv, official, columns)
    raw = csv_files.read_table(path, used)
    made = make_table("folder", raw, columns, data_dir, patient=patient, label_columns=label_columns)
    return dataclasses.replace(made, warnings=(*made.warnings, *_suspect_unused(path, used)))


def make_table(
    dataset: str,
    raw: csv_files.RawTable,
    columns: FolderColumns,
    data_dir: pathlib.Path,
    *,
    patient: str | None = None,
    label_columns: Mapping[str, str] | None = None,
) -> table.Table:
    """Makes the table of a user's own images.

    Args:
        dataset: one of `choices.DATASETS`.
        raw: the cells.
        columns: what its columns mean.
        data_dir: folder of the images, at any depth.
        patient: its column of patients, if it has one.
        label_columns: label or extra finding -> column, where there is no column of classes.
    """
    warnings: list[str] = []
    labels = columns.label_set.labels
    frame = table.make_frame(
        raw,
        id_column=columns.path,
        view=columns.view or "",
        sex=columns.sex or "",
        age=columns.age or "",
        data_dir=data_dir,
    )
    if patient:
        patients = raw.convert(patient, table.to_filled)
        warnings += table.suspect_spreadsheet(raw, patient)
        warnings += _suspect_lost_zeros(frame["id"], patients)
    elif columns.patient_pattern:
        patients = raw.convert(columns.path, lambda text: columns.find_patient(text.replace("\\", "/")))
    else:
        patients = np.full(len(frame), "", object)
        warnings.append(_no_patients(dataset))
    frame["patient"] = table.to_texts(patients, len(frame))
    if columns.split:
        frame["fold"] = table.to_texts(raw.convert(columns.split, _to_fold), len(frame))
    if columns.class_column:
        findings = _add_classes(frame, raw, columns)
        warnings += _suspect_typos(columns)
    else:
        findings = _add_label_columns(frame, raw, label_columns or {}, warnings, labels)
    _warn_of_contradictions(frame, warnings, columns.label_set)
    beside = raw.path if raw.path.is_dir() else raw.path.parent
    source, dataset_name = table.find_source(
        data_dir, beside, default=f"folder:{data_dir.resolve().name}", name=table.name_folder(data_dir)
    )
    return table.Table(
        dataset=dataset,
        source=source,
        dataset_name=dataset_name,
        frame=frame,
        skipped=table.no_rows(),
        num_rows=len(frame),
        paths=(raw.path,),
        bases=((data_dir, 0),) if beside == data_dir else ((data_dir, 0), (beside, 0)),
        findings=tuple(name for name in findings if name not in labels),
        labelled=tuple(label for label in labels if label in findings),
        label_set=columns.label_set,
        search=data_dir,
        warnings=tuple(warnings),
    )


def check_header(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    columns: FolderColumns | None = None,
    label_set: LabelSet = DEFAULT,
) -> None:
    """Raises InputError, as `read`, for a table that is absent or lacks a column; looks at its first line only."""
    _choose_columns(data_dir, labels_csv, official, columns or FolderColumns(label_set=label_set))


def _choose_columns(
    data_dir: pathlib.Path, labels_csv: pathlib.Path | None, official: bool, columns: FolderColumns
) -> tuple[pathlib.Path, list[str], dict[str, str], str | None]:
    """The table, all columns to read, label or extra finding -> column, and the column of patients."""
    path = labels_csv or _find_table(data_dir)
    header = csv_files.read_header(path)
    if official and not columns.split:
        raise InputError("--split_policy=official: give the column of the splits by --columns=split:COLUMN")
    patient = columns.patient or ("patient" if "patient" in header and not columns.patient_pattern else None)
    label_columns = dict(columns.labels) or ({} if columns.class_column else _find_labels(path, header, columns))
    named = [columns.path, patient, columns.class_column, columns.view, columns.sex, columns.age, columns.split]
    used = list(dict.fromkeys([*filter(None, named), *label_columns.values()]))
    table.check_columns(path, header, used, "folder")
    return path, used, label_columns, patient


def _suspect_unused(path: pathlib.Path, used: Sequence[str]) -> list[str]:
    """A warning of columns of 0 and 1 that nothing reads: an image with such a finding would count as without it."""
    header = csv_files.read_header(path)
    others = [name for name in header if name and name not in used and header.count(name) == 1]
    if not others:
        return []
    texts = csv_files.read_table(path, others).texts
    found = [
        name
        for name in others
        if all(text in table.LABEL_VALUES for text in texts[name])
        and any(table.LABEL_VALUES[text] == 1 for text in texts[name])
    ]
    if not found:
        return []
    return [
        f"{path.name}: the columns {csv_files.shorten(', '.join(found))} hold 0 and 1 and are not used; an image with "
        "such a finding counts as without it: name those that are findings by --columns=FINDING:COLUMN"
    ]


def _suspect_lost_zeros(ids: pd.Series, patients: np.ndarray) -> list[str]:
    """A warning if patients are numbers which have zeros in front of them in the images' paths."""
    lost = []
    for image, patient in zip(ids, patients, strict=True):
        if not patient.isdecimal() or patient[0] == "0":
            return []
        match = re.search(rf"(?<!\d)0+{patient}(?!\d)", image)
        if not match:
            return []
        lost.append((patient, match[0]))
    return [
        f"patients such as {lost[0][0]!r} are called {lost[0][1]!r} in the images' paths; if a spreadsheet took the "
        "zeros away, other tables of these patients do not fit this one: import the column as text"
    ]


def _no_patients(dataset: str) -> str:
    how = "--columns=patient:COLUMN or --patient_pattern" if dataset == "folder" else "--patient_pattern"
    return (
        f"nothing says which patient an image is of ({how}): each image counts as its own patient; if some are of the "
        "same one, they are in several splits and scores will be too good"
    )


def _find_table(data_dir: pathlib.Path) -> pathlib.Path:
    found = table.find_tables(data_dir)
    if len(found) != 1:
        what = (
            f"holds several tables ({', '.join(path.name for path in found)})"
            if found
            else "holds no *.csv and no *.tsv"
        )
        hint = table.suggest_dataset(data_dir, but="folder") or "give the table by --labels_csv"
        if not found and finding.list_folder(data_dir)[0]:
            hint += "; where each class has a folder, --dataset=imagefolder needs none"
        raise InputError(f"--data_dir={data_dir}: {what}; {hint}")
    return found[0]


def _find_labels(path: pathlib.Path, header: Sequence[str], columns: FolderColumns) -> dict[str, str]:
    """Label -> the column that is named so."""
    found: dict[str, str] = {}
    for column in header:
        label = columns.label_set.find(column)
        if label and label in found:
            raise InputError(f"{path}: columns {found[label]!r} and {column!r} are both {label!r}; choose by --columns")
        if label:
            found[label] = column
    if not found and not columns.unlabelled:
        hint = table.guess_dataset(header, but="folder") or (
            "give --columns=class:COLUMN or --columns=Pneumonia:COLUMN, or --unlabelled_images=keep if there are no "
            f"labels; it has {csv_files.shorten(', '.join(filter(None, header)))}"
        )
        raise InputError(f"{path}: has no column named as one of the {len(columns.label_set)} labels; {hint}")
    return found


def _to_fold(text: str) -> str:
    if text and text.casefold() not in SPLIT_NAMES:
        meant = csv_files.did_you_mean(text, SPLIT_NAMES)
        raise ValueError(f"unknown split {csv_files.shorten(text)}, expected train, validation or test{meant}")
    return SPLIT_NAMES.get(text.casefold(), "")


def _add_classes(frame: pd.DataFrame, raw: csv_files.RawTable, columns: FolderColumns) -> list[str]:
    """Adds labels and `extra` by the class column; returns all findings that it can name."""
    column, values = str(columns.class_column), columns.class_values
    labels = columns.label_set.labels

    def to_findings(text: str) -> tuple[str, ...]:
        if text in values:  # one that holds "|" can be given as a whole
            return tuple(values[text])
        found: list[str] = []
        for name in [name.strip() for name in text.split("|")] if text else []:
            if name in values:
                found += values[name]
            elif label := columns.label_set.find(name):
                found.append(label)
            elif values:
                meant = csv_files.did_you_mean(name, (*values, *labels))
                raise ValueError(f"{csv_files.shorten(name)} is not in --class_values ({', '.join(values)}){meant}")
            else:
                meant = csv_files.did_you_mean(name, labels)
                what = f"none of the {len(labels)} labels; map it by --class_values{meant}"
                raise ValueError(f"{csv_files.shorten(name)} is {what}")
        return tuple(dict.fromkeys(found))

    raw.convert(column, to_findings)  # refuses unknown values before anything is looked up
    distinct = [to_findings(text) for text in raw.texts[column]]
    named = list(dict.fromkeys(name for names in (*values.values(), *distinct) for name in names))
    for label in labels:
        known = [float(label in names) if names and label in named else np.nan for names in distinct]
        frame[label] = np.array(known, np.float32)[raw.codes[column]]
    extra = [EXTRA_SEPARATOR.join(name for name in names if name not in labels) for names in distinct]
    frame["extra"] = table.to_texts(np.array(extra, object)[raw.codes[column]], len(frame))
    return named


def _suspect_typos(columns: FolderColumns) -> list[str]:
    """Warnings of extra findings in --class_values that are spelled almost as a label."""
    found, labels = [], columns.label_set.labels
    for name in dict.fromkeys(name for names in columns.class_values.values() for name in names if name not in labels):
        near = difflib.get_close_matches(name, labels, n=1, cutoff=0.8)
        if near:
            found.append(
                f"--class_values: {name!r} is a finding outside the {len(labels)} labels; did you mean {near[0]!r}?"
            )
    return found


def _add_label_columns(
    frame: pd.DataFrame,
    raw: csv_files.RawTable,
    columns: Mapping[str, str],
    warnings: list[str],
    labels: Sequence[str],
) -> list[str]:
    """Adds labels and `extra` by the columns of each finding; returns the findings."""
    extra = [""] * len(frame)
    uncertain: collections.Counter[str] = collections.Counter()
    for name in (*labels, *(name for name in columns if name not in labels)):
        if name not in columns:
            frame[name] = np.full(len(frame), np.nan, np.float32)
            continue
        values = raw.choose(columns[name], table.LABEL_VALUES, np.float32, "1, 0, -1 or blank")
        if name in labels:
            frame[name] = values
            continue
        uncertain[name] = int((values == -1).sum())
        for row in np.flatnonzero(values == 1):
            extra[row] += f"{EXTRA_SEPARATOR}{name}" if extra[row] else name
    frame["extra"] = table.to_texts(np.array(extra, object), len(frame))
    warnings.extend(
        f"{count} images are uncertain about {name!r}, which counts as absent: policies are for the {len(labels)} "
        "labels"
        for name, count in uncertain.items()
        if count
    )
    return list(columns)


def _warn_of_contradictions(frame: pd.DataFrame, warnings: list[str], label_set: LabelSet) -> None:
    nothing = label_set.no_finding
    if not nothing:
        return
    others = [label for label in label_set.labels if label not in (nothing, SUPPORT_DEVICES)]
    finding = (frame[others].to_numpy() == 1).any(axis=1) | (frame["extra"] != "").to_numpy()
    count = int((finding & (frame[nothing] == 1).to_numpy()).sum())
    if count:
        warnings.append(f"{count} images are labelled {nothing!r} together with a finding")
