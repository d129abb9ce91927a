"""Plans from a label table: a CSV file that says row by row what to generate."""

import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from tfcxr.gan import loading
from tfcxr.generation import conditions, plans
from tfrecords_builder import csv_files
from tfrecords_builder import labels as labels_lib
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import LabelVersion, combinations
from tfrecords_builder.labels.canonical import SPLITS

COUNT, CLASS, SPLIT = "count", "class", "split"

_VALUES = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}
_COUNT = re.compile(r"\d{1,12}")


def plan_table(
    generator: loading.Generator, version: LabelVersion, path: str | os.PathLike, *, seed: int
) -> plans.Plan:
    """The rows of a table, in their order.

    Columns, whose names may be in any case of letters: any of the labels (0 or 1; a label without a column is 0);
    `count`, the images of the row (default 1, which may be 0); `split`, one of train, validation and test (default:
    80% of the images of each class, chosen at random, are train, the rest validation); `class`, a name, which must be
    that of the class that the version gives to the row's labels.

    Args:
        generator: decides which labels can be asked for.
        version: the label version; one of its classes must hold each row.
        path: the CSV file; comma, semicolon or tab, plain or gzip.
        seed: of the choice of splits.

    Raises:
        InputError: no table, an unknown column or one given twice, a bad value, a row without any label, labels that
            the generator is not conditioned on, a row in no class, or no image at all; the message names the file, and
            line and column if there is one.
    """
    path = pathlib.Path(path)
    labels = generator.label_set.labels
    names = _match_columns(path, labels)
    raw = csv_files.read_table(path, list(names.values()))
    codes = np.zeros(len(raw.lines), combinations.code_type(len(labels)))
    seen, bits = conditions.seen_labels(generator), combinations.encode(np.eye(len(labels)))
    for index, label in enumerate(labels):
        if label in names:
            positive = raw.choose(names[label], _VALUES, bool, "0 or 1")
            if not seen[index] and positive.any():
                known = conditions.known_names(generator)
                problem = f"the GAN was not conditioned on this label, only on {known}"
                raw.fail(int(np.argmax(positive)), names[label], problem)
            codes[positive] |= bits[index]
    counts = raw.convert(names[COUNT], _to_count, np.int64) if COUNT in names else np.ones(len(codes), np.int64)
    _check_labels(raw, version, codes)
    if CLASS in names:
        _check_classes(raw, names[CLASS], version, codes)
    total = int(counts.sum(dtype=np.float64))
    if not total:
        raise InputError(f"{path}: asks for no image: all counts are 0")
    plans.check_total(str(path), total, total)
    images = np.repeat(codes, counts)
    if SPLIT in names:
        splits = np.repeat(raw.choose(names[SPLIT], {name: i for i, name in enumerate(SPLITS)}, np.uint8), counts)
    else:
        splits = plans.split_by_index(plans.classes_of_codes(version)[images], seed)
    return plans.Plan(version, images, splits, f"the table {path.name}")


def _match_columns(path: pathlib.Path, labels: Sequence[str]) -> dict[str, str]:
    """Our names of the table's columns -> theirs."""
    columns = (*labels, COUNT, CLASS, SPLIT)
    folded = {name.casefold(): name for name in columns}
    names: dict[str, str] = {}
    for column in csv_files.read_header(path):
        name = folded.get(column.casefold())
        if name is None:
            raise InputError(
                f"{path}: line 1, column {column}: is no label, nor {COUNT}, {CLASS} or {SPLIT}; "
                f"{conditions.suggest(column, columns)}"
            )
        if name in names:
            raise InputError(f"{path}: line 1, column {column}: there are two columns of that name")
        names[name] = column
    if not set(names) & set(labels):
        raise InputError(f"{path}: line 1: has no column of a label; the labels are {', '.join(labels)}")
    return names


def _to_count(text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise ValueError(f"{csv_files.shorten(text)} is no count, expected a whole number of 0 or more")
    return int(text)


def _check_labels(raw: csv_files.RawTable, version: LabelVersion, codes: np.ndarray) -> None:
    """Raises InputError if a row has no label, which no GAN is trained on, or is in no class of the version."""
    if not codes.all():
        line = raw.lines[np.argmin(codes)]
        raise InputError(f"{raw.path}: line {line}: all labels are 0; give each row at least one label")
    homeless = plans.classes_of_codes(version)[codes] == labels_lib.NO_CLASS
    if homeless.any() and not version.multilabel:
        row = int(np.argmax(homeless))
        names = combinations.format_code(codes[row], version.label_set.labels)
        raise InputError(f"{raw.path}: line {raw.lines[row]}: {names} is in no class of --label_version={version.name}")


def _check_classes(raw: csv_files.RawTable, column: str, version: LabelVersion, codes: np.ndarray) -> None:
    """Raises InputError if a row is in another class than its cell in `column` says."""
    if version.multilabel:
        raise InputError(f"{raw.path}: line 1, column {column}: --label_version={version.name} has no classes")
    classes = plans.classes_of_codes(version)[codes]
    wanted = raw.choose(column, {name: index for index, name in enumerate(version.class_names)}, np.int64)
    wrong = classes != wanted
    if wrong.any():
        row = int(np.argmax(wrong))
        raw.fail(row, column, f"the labels of this row are class {version.class_names[classes[row]]!r}")
