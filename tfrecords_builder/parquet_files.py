"""Reads Parquet files as csv_files reads CSV: codes of distinct texts; a row's line is its number. Needs pyarrow."""

import pathlib
from collections.abc import Collection
from typing import Any

import numpy as np

from tfrecords_builder import csv_files, json_lines
from tfrecords_builder.errors import InputError


def read_header(path: pathlib.Path) -> list[str]:
    """The names of the columns. Raises InputError if the file cannot be read, or pyarrow is not installed."""
    return list(_open(path).schema_arrow.names)


def read_table(path: pathlib.Path, columns: Collection[str]) -> csv_files.RawTable:
    """Reads those of `columns` that the file has; values become texts as those of JSON lines do.

    Raises InputError if the file cannot be read or has no rows, or pyarrow is not installed.
    """
    import pyarrow

    stream = _open(path)
    if not stream.metadata.num_rows:
        raise InputError(f"{path}: has no rows")
    codes, texts = {}, {}
    try:
        for column in dict.fromkeys(columns):
            if column not in stream.schema_arrow.names:
                continue
            values = stream.read(columns=[column]).column(0).to_pylist()
            known: dict[str, int] = {}
            places = (known.setdefault(json_lines.to_text(value), len(known)) for value in values)
            codes[column] = np.fromiter(places, np.int32, len(values))
            texts[column] = list(known)
    except TypeError as error:  # of json: structures that hold bytes or dates
        raise InputError(
            f"{path}: column {column} holds structures that are no text ({error}); leave it out"
        ) from error
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    return csv_files.RawTable(path=path, lines=np.arange(1, stream.metadata.num_rows + 1), codes=codes, texts=texts)


def _open(path: pathlib.Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(f"{path}: is Parquet; install the extra: pip install tfcxr[parquet]") from error
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: is no Parquet file that can be read ({' '.join(str(error).split())})") from error
