"""A user's own images: any folder, with a table whose columns `FolderColumns` names."""

import collections
import dataclasses
import difflib
import itertools
import pathlib
import re
import types
import unicodedata
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from tfrecords_builder import csv_files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import finding
from tfrecords_builder.labels.canonical import EXTRA_SEPARATOR
from tfrecords_builder.labels.label_sets import DEFAULT, LabelSet, fold_word
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
    path = labels_csv or _find_table(data_dir)
    used, label_columns, patient = choose_columns(path, csv_files.read_header(path), official, columns)
    raw = csv_files.read_table(path, used)
    made = make_table("folder", raw, columns, data_dir, patient=patient, label_columns=label_columns)
    return dataclasses.replace(made, warnings=(*made.warnings, *suspect_unused(path, used)))


def make_table(
    dataset: str,
    raw: csv_files.RawTable,
    columns: FolderColumns,
    data_dir: pathlib.Path,
    *,
    patient: str | None = None,
    label_columns: Mapping[str, Sequence[str]] | None = None,
) -> table.Table:
    """Makes the table of a user's own images.

    Args:
        dataset: one of `choices.DATASETS`.
        raw: the cells.
        columns: what its columns mean.
        data_dir: folder of the images, at any depth.
        patient: its column of patients, if it has one.
        label_columns: label or extra finding -> its columns, where there is no column of classes.
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
        patients = raw.convert(patient, table.to_patient)
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
    else:
        findings = _add_label_columns(frame, raw, label_columns or {}, warnings, labels)
    warnings += _suspect_typos(columns)
    findings = _derive_no_finding(frame, raw, columns, label_columns or {}, findings, warnings)
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
    path = labels_csv or _find_table(data_dir)
    choose_columns(path, csv_files.read_header(path), official, columns or FolderColumns(label_set=label_set))


def choose_columns(
    path: pathlib.Path, header: Sequence[str], official: bool, columns: FolderColumns
) -> tuple[list[str], dict[str, tuple[str, ...]], str | None]:
    """All columns of a table to read, label or extra finding -> its columns, and the column of patients.

    Raises InputError, as `read`, for a column that is absent.
    """
    if official and not columns.split:
        raise InputError("--split_policy=official: give the column of the splits by --columns=split:COLUMN")
    patient = columns.patient or ("patient" if "patient" in header and not columns.patient_pattern else None)
    label_columns: dict[str, tuple[str, ...]] = {name: (column,) for name, column in columns.labels.items()}
    if not label_columns and not columns.class_column:
        label_columns = find_labels(path, header, columns)
    _refuse_second_rule(
        path, columns, label_columns or {name for names in columns.class_values.values() for name in names}
    )
    named = [columns.path, patient, columns.class_column, columns.view, columns.sex, columns.age, columns.split]
    used = list(dict.fromkeys([*filter(None, named), *itertools.chain(*label_columns.values())]))
    table.check_columns(path, header, used, "folder")
    return used, label_columns, patient


def suspect_unused(path: pathlib.Path, used: Sequence[str], reader: types.ModuleType = csv_files) -> list[str]:
    """A warning of columns of 0 and 1 that nothing reads: an image with such a finding would count as without it.

    Args:
        path: the table.
        used: the columns that are read.
        reader: csv_files, or another module with its `read_header` and `read_table`.
    """
    header = reader.read_header(path)
    others = [name for name in header if name and name not in used and header.count(name) == 1]
    if not others:
        return []
    texts = reader.read_table(path, others).texts
    found = [
        name
        for name in others
        if all(text in table.LABEL_VALUES for text in texts[name])
        and any(table.LABEL_VALUES[text] == 1 for text in texts[name])
    ]
    if not found:
        return []
    return [
        f"{path.name}: the columns {', '.join(map(csv_files.shorten, found))} hold 0 and 1 and are not used; an image "
        "with such a finding counts as without it: name those that are findings by --columns=FINDING:COLUMN"
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


def find_labels(path: pathlib.Path, header: Sequence[str], columns: FolderColumns) -> dict[str, tuple[str, ...]]:
    """Label -> the columns whose names mean it."""
    found: dict[str, tuple[str, ...]] = {}
    for column in header:
        label = columns.label_set.match(column)
        if label:
            found[label] = (*found.get(label, ()), column)
    if not found and not columns.unlabelled:
        hint = table.guess_dataset(header, but="folder") or (
            "give --columns=class:COLUMN or --columns=Pneumonia:COLUMN, or --unlabelled_images=keep if there are no "
            f"labels; it has {csv_files.shorten(', '.join(filter(None, header)))}"
        )
        raise InputError(f"{path}: has no column named as one of the {len(columns.label_set)} labels; {hint}")
    return found


def _refuse_second_rule(path: pathlib.Path, columns: FolderColumns, findings: Collection[str]) -> None:
    """Raises InputError if the table itself says of which images --no_finding is to say it."""
    if columns.no_finding != "column" and columns.label_set.no_finding in findings:
        raise InputError(
            f"--no_finding={columns.no_finding}: {path} says itself which images are "
            f"{columns.label_set.no_finding!r}; leave the flag out, or name the columns to use by --columns"
        )


def _to_fold(text: str) -> str:
    if text and text.casefold() not in SPLIT_NAMES:
        meant = csv_files.did_you_mean(text, SPLIT_NAMES)
        raise ValueError(f"unknown split {csv_files.shorten(text)}, expected train, validation or test{meant}")
    return SPLIT_NAMES.get(text.casefold(), "")


def _add_classes(frame: pd.DataFrame, raw: csv_files.RawTable, columns: FolderColumns) -> list[str]:
    """Adds labels and `extra` by the class column; returns all findings that it can name."""
    column, values = str(columns.class_column), columns.class_values
    labels = columns.label_set.labels
    folded = set(map(fold_word, values))  # `normal` beside NORMAL is a slip, whatever NORMAL stands for

    def to_findings(text: str) -> tuple[str, ...]:
        text = unicodedata.normalize("NFC", text)  # Macs may write an accent as a character of its own
        if text in values:  # one that holds "|" can be given as a whole
            return tuple(values[text])
        found: list[str] = []
        for name in table.to_list(text):
            if name in values:
                found += values[name]
            elif (label := columns.label_set.match(name)) and fold_word(name) not in folded:
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
    """Warnings of extra findings in --columns and --class_values that are spelled almost as a label."""
    found, labels = [], columns.label_set.labels
    classes = itertools.chain(*columns.class_values.values())
    given = [("--columns", name) for name in columns.labels] + [("--class_values", name) for name in classes]
    for flag, name in dict.fromkeys(given):
        near = () if name in labels else difflib.get_close_matches(name, labels, n=1, cutoff=0.8)
        if near:
            found.append(f"{flag}: {name!r} is a finding outside the {len(labels)} labels; did you mean {near[0]!r}?")
    return found


def _add_label_columns(
    frame: pd.DataFrame,
    raw: csv_files.RawTable,
    columns: Mapping[str, Sequence[str]],
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
        values = _read_label(raw, name, columns[name])
        if len(columns[name]) > 1:
            warnings.append(f"the columns {' and '.join(map(repr, columns[name]))} mean {name!r} and are used as one")
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


def _read_label(raw: csv_files.RawTable, label: str, columns: Sequence[str]) -> np.ndarray:
    """float32 [N] of the columns of a label, NaN where all are blank. Raises InputError for a row where two differ."""
    first, *others = columns
    values = raw.choose(first, table.LABEL_VALUES, np.float32, "1, 0, -1 or blank")
    for column in others:
        other = raw.choose(column, table.LABEL_VALUES, np.float32, "1, 0, -1 or blank")
        differs = ~np.isnan(values) & ~np.isnan(other) & (values != other)
        if differs.any():
            row = int(np.argmax(differs))
            raw.fail(
                row,
                column,
                f"is {other[row]:g}, and column {first} is {values[row]:g}; both mean {label!r}: choose by "
                f"--columns={label}:COLUMN",
            )
        values = np.where(np.isnan(values), other, values)
    return values


def _derive_no_finding(
    frame: pd.DataFrame,
    raw: csv_files.RawTable,
    columns: FolderColumns,
    label_columns: Mapping[str, Sequence[str]],
    findings: Sequence[str],
    warnings: list[str],
) -> list[str]:
    """Adds the label of images in which nothing was found, if `columns.no_finding` derives it; returns all findings.

    Devices are no finding, as in CheXpert (Irvin et al. 2019).
    """
    nothing, rule = columns.label_set.no_finding, columns.no_finding
    if not nothing or not findings:
        return list(findings)
    _refuse_second_rule(raw.path, columns, findings)
    if nothing in findings:
        return list(findings)
    if label_columns:
        values = np.column_stack(
            [_read_label(raw, name, label_columns[name]) for name in findings if name != SUPPORT_DEVICES]
            or [np.full(len(frame), np.nan, np.float32)]
        )
    else:
        others = [label for label in columns.label_set.labels if label not in (nothing, SUPPORT_DEVICES)]
        extra = np.where(frame["extra"] != "", np.float32(1), np.float32(np.nan))
        values = np.column_stack([frame[others].to_numpy(), extra])
    positive = (values == 1).any(axis=1)
    unclear = positive | (values == -1).any(axis=1)
    if rule == "column":
        blank = int((~unclear).sum())
        if blank and label_columns:
            warnings.append(
                f"{blank} images without a positive finding have no label, as no column says {nothing!r}; "
                "--no_finding=no_positive or all_negative counts them as such"
            )
        return list(findings)
    normal = ~unclear if rule == "no_positive" else (values == 0).all(axis=1)
    frame[nothing] = np.select([normal, positive], [1.0, 0.0], np.nan).astype(np.float32)
    warnings.append(f"--no_finding={rule}: {int(normal.sum())} of {len(frame)} images count as {nothing!r}")
    return [*findings, nothing]


def _warn_of_contradictions(frame: pd.DataFrame, warnings: list[str], label_set: LabelSet) -> None:
    nothing = label_set.no_finding
    if not nothing:
        return
    others = [label for label in label_set.labels if label not in (nothing, SUPPORT_DEVICES)]
    finding = (frame[others].to_numpy() == 1).any(axis=1) | (frame["extra"] != "").to_numpy()
    count = int((finding & (frame[nothing] == 1).to_numpy()).sum())
    if count:
        warnings.append(f"{count} images are labelled {nothing!r} together with a finding")
