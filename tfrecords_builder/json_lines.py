"""Reads tables of JSON lines, one object a line, as csv_files reads CSV: codes of distinct texts, with line numbers."""

import array
import json
import pathlib
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from tfrecords_builder import csv_files
from tfrecords_builder.errors import InputError


def read_header(path: pathlib.Path) -> list[str]:
    """The keys of all objects, any of which may lack some. Raises InputError as `read_table`."""
    header: dict[str, None] = {}
    for _, row in _read_rows(path):
        header.update(dict.fromkeys(row))
    if not header:
        raise InputError(f"{path}: is empty")
    return list(header)


def read_table(path: pathlib.Path, columns: Collection[str]) -> csv_files.RawTable:
    """Reads those of `columns` that any object has.

    An absent key, null and NaN are a blank, a list is its values joined by "|", and 3.0 is 3.

    Raises:
        InputError: the file cannot be read, is empty, or a line is no JSON object; the message names the line.
    """
    index: dict[str, dict[str, int]] = {}
    codes: dict[str, array.array] = {}
    lines = array.array("q")
    for line, row in _read_rows(path):
        for column in columns:
            if column in row and column not in index:
                index[column] = {"": 0} if lines else {}
                codes[column] = array.array("i", bytes(array.array("i").itemsize * len(lines)))
        for column, known in index.items():
            text = to_text(row.get(column))
            codes[column].append(known.setdefault(text, len(known)))
        lines.append(line)
    if not lines:
        raise InputError(f"{path}: is empty")
    return csv_files.RawTable(
        path=path,
        lines=np.frombuffer(lines, np.int64),
        codes={column: np.frombuffer(values, np.int32) for column, values in codes.items()},
        texts={column: list(known) for column, known in index.items()},
    )


def _read_rows(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in csv_files.read_numbered_lines(path):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: line {line}: is no JSON ({error})") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}: line {line}: is no JSON object with a key for each column")
        yield line, row


def to_text(value: Any) -> str:
    """The text of a value, as `read_table` says."""
    if value is None or value != value:  # JSON has no NaN, but Python writes it
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # 3.0 and 3 are one number, and so one patient
    if isinstance(value, list):
        return "|".join(map(to_text, value))
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value).strip()
