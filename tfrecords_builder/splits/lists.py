"""Lists that say which patients or images are in which split: a CSV of any tool, or a record set's manifest.csv."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

from tfrecords_builder import csv_files
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels.canonical import SPLITS

NO_SPLIT = ""
MANIFEST = "manifest.csv"
# Words for the splits, in small letters, in tables and names of folders.
SPLIT_NAMES: dict[str, str] = {name: name for name in SPLITS} | {
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "testing": "test",
}


@dataclasses.dataclass(frozen=True)
class Lists:
    """The splits of patients and images."""

    path: pathlib.Path
    patients: Mapping[str, str]
    ids: Mapping[str, str]
    alone: frozenset[str]  # the ids that the lists name without a patient

    def find(self, ids: np.ndarray, patients: np.ndarray, hashed: np.ndarray | None = None) -> np.ndarray:
        """Returns the split of each row (object[N] of str), NO_SPLIT if it is in no list.

        An image goes with its patient. Its id decides where it has no patient, or where the lists name it without one.

        Args:
            ids: object[N] of str, the images' ids.
            patients: object[N] of str, "" unknown.
            hashed: object[N] of str, salted patient ids, looked for where the plain one is not found.
        """
        result = np.full(len(ids), NO_SPLIT, object)
        salted = patients if hashed is None else hashed
        for i, (image, patient, other) in enumerate(zip(ids, patients, salted, strict=True)):
            by_id = self.ids.get(image, NO_SPLIT) if not patient or image in self.alone else NO_SPLIT
            result[i] = self.patients.get(patient) or self.patients.get(other) or by_id
        return result


def read_lists(path: str | os.PathLike) -> Lists:
    """Reads split lists.

    Args:
        path: a CSV, or a record set's folder, which stands for its manifest.csv. Its header names `split`, and
            `patient` or `id` or both; other columns are ignored. A split is train, validation (or val, valid) or
            test. A row with a patient is about the whole patient. What a CSV may be says `csv_files.read_table`.

    Raises:
        InputError: an unreadable file, a missing column, a row without split, patient and id, an unknown split, a
            patient or image in two splits, no row at all; the message names the file, and line or patient.
    """
    path = pathlib.Path(path)
    try:
        path = path / MANIFEST if path.is_dir() else path
    except OSError as error:
        raise InputError(f"--split_lists={path}: cannot be read ({error.strerror})") from error
    where = f"--split_lists={path}"
    found: dict[str, dict[str, str]] = {"patient": {}, "id": {}}
    alone = set()
    twice: dict[tuple[str, str], str] = {}
    for line, row in _read_rows(path):
        split = SPLIT_NAMES.get(row["split"].lower())
        if split is None:
            raise InputError(f"{where}: line {line}: unknown split {row['split']!r}; give one of {', '.join(SPLITS)}")
        named = {key: row[key] for key in found if row.get(key)}
        if not named:
            raise InputError(f"{where}: line {line}: names neither a patient nor an id")
        for key, name in named.items():
            other = found[key].setdefault(name, split)
            if other != split:
                twice.setdefault((key, name), f"line {line}: {key} {name} is in {other} and in {split}")
        if "patient" not in named:
            alone.add(row["id"])
    if twice:
        more = f", and {len(twice) - 1:,} others are in two" if len(twice) > 1 else ""
        raise InputError(
            f"{where}: {next(iter(twice.values()))}{more}; keep each in one split, or let --split_policy=patient make "
            "splits by patient"
        )
    return Lists(path, found["patient"], found["id"], frozenset(alone))


def _read_rows(path: pathlib.Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields line number and cells by column name, of the columns that matter, without blanks at their ends."""
    try:
        header = csv_files.read_header(path)
        names = [name.lower() for name in header]
        columns = {name: header[names.index(name)] for name in ("split", "patient", "id") if name in names}
        twice = next((name for name in columns if names.count(name) > 1), "")
        if twice:
            raise InputError(f"{path}: has two columns {twice!r}; keep one")
        if "split" not in columns or len(columns) < 2:
            raise InputError(f"{path}: its header must name the columns split, and patient or id")
        raw = csv_files.read_table(path, list(columns.values()))
    except InputError as error:
        raise InputError(f"--split_lists={error}") from error
    cells = [raw.convert(column, str) for column in columns.values()]
    for line, *row in zip(raw.lines.tolist(), *cells, strict=True):
        yield line, dict(zip(columns, row, strict=True))
