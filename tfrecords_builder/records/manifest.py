"""Reads what a record set says of its images but for their pixels: from manifest.csv, else from the shards."""

import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import tensorflow as tf

from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.records.examples import read_example, to_row
from tfrecords_builder.records.info import MANIFEST_FILE, RecordSetInfo

_RECORD_OVERHEAD = 16  # bytes of a shard beside the record: its length and two CRCs
_NEW_COLUMNS = {"image_digest"}  # sets written before lack them


def read_rows(info: RecordSetInfo, split: str, columns: Sequence[str]) -> pd.DataFrame:
    """Returns columns of the manifest, a row per image of a split, in the order of the shards and of their records.

    They are read from manifest.csv after it has been held against the set's description and the size of its shards. A
    set without the file, and columns that older sets did not write, are read from the shards, which takes longer.

    Args:
        info: the record set.
        split: one of its splits.
        columns: of `info.manifest_columns`.

    Returns:
        Frame [N, columns]: age and position int64, the labels int8, all others objects (str).

    Raises:
        InputError: no such split, or a manifest that cannot be read or is not of these shards.
        RunError: shards that are not as long as described or damaged.
    """
    _check_size(info, split)
    path = info.folder / MANIFEST_FILE
    if not path.is_file():
        return _read_shards(info, split, columns)
    if _NEW_COLUMNS.intersection(columns) - set(read_file(path, num_rows=0)):
        return _read_shards(info, split, columns)
    needed = [*columns, "split", "shard", "position", *(["class"] if info.classes else []), *info.labels]
    table = read_file(path, list(dict.fromkeys(needed)))
    table = table[table["split"] == split]
    try:
        table = table.astype({name: dtype for name, dtype in _numbers(info).items() if name in table})
    except (ValueError, OverflowError) as error:
        raise _unreadable(path, error) from error
    return _order(info, split, path, table)[list(columns)]


def read_file(path: pathlib.Path, columns: list[str] | None = None, num_rows: int | None = None) -> pd.DataFrame:
    """The first `num_rows` (None: all) rows of a manifest as they stand there: objects (str) [N, columns].

    Raises InputError if the file cannot be read or lacks one of `columns` (None: all that there are).
    """
    try:
        return pd.read_csv(path, usecols=columns, nrows=num_rows, dtype=object, na_filter=False)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise _unreadable(path, error) from error


def _numbers(info: RecordSetInfo) -> dict[str, type]:
    return {**dict.fromkeys(info.labels, np.int8), "age": np.int64, "position": np.int64}


def _order(info: RecordSetInfo, split: str, path: pathlib.Path, table: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order of the records. Raises InputError if they are not those that the description counts."""
    described = info.split(split)
    number = {shard: i for i, shard in enumerate(described.shards)}
    table = table.assign(place=table["shard"].map(number).fillna(-1)).sort_values(["place", "position"], kind="stable")
    lengths = described.shard_lengths
    places = np.repeat(np.arange(len(lengths)), lengths)
    positions = np.concatenate([np.arange(length) for length in lengths]) if lengths else np.zeros(0, np.int64)
    if not (np.array_equal(table["place"], places) and np.array_equal(table["position"], positions)):
        raise _refuse(path, f"does not name each record of the {split} split once ({len(table)} rows)")
    counts = {label: int((table[label] == 1).sum()) for label in info.labels}
    classes = table.loc[table["class"] != "", "class"].value_counts().to_dict() if info.classes else {}
    if counts != described.label_counts or classes != {k: n for k, n in described.class_counts.items() if n}:
        raise _refuse(path, f"counts other labels or classes in the {split} split than the set's description")
    return table.reset_index(drop=True)


def _refuse(path: pathlib.Path, problem: str) -> InputError:
    return InputError(f"{path}: {problem}; copy or build the records again, or delete the file to do without it")


def _unreadable(path: pathlib.Path, error: Exception) -> InputError:
    return _refuse(path, f"cannot be read ({' '.join(str(error).split())})")


def _check_size(info: RecordSetInfo, split: str) -> None:
    """Raises RunError if the shards are shorter or longer than described, which tells most damaged copies at once."""
    described = info.split(split)
    try:
        size = sum(pathlib.Path(path).stat().st_size for path in info.shard_paths(split))
    except OSError as error:
        raise RunError(f"{error.filename}: cannot be read ({error.strerror})") from error
    expected = described.num_bytes + _RECORD_OVERHEAD * described.num_examples
    if size != expected:
        raise RunError(
            f"{info.folder}: damaged records (the shards of {split} have {size:,} bytes, described are {expected:,}); "
            "see verify-records"
        )


def _read_shards(info: RecordSetInfo, split: str, columns: Sequence[str]) -> pd.DataFrame:
    rows = []
    for shard, path in zip(info.split(split).shards, info.shard_paths(split), strict=True):
        try:
            for position, serialized in enumerate(tf.data.TFRecordDataset(path).as_numpy_iterator()):
                row = to_row(read_example(serialized), info.classes, info.labels)
                row.update(split=split, shard=shard, position=position)
                rows.append([row[column] for column in columns])
        except (tf.errors.OpError, ValueError) as error:
            reason = (error.message if isinstance(error, tf.errors.OpError) else str(error)).splitlines()[0]
            raise RunError(f"{path}: damaged records ({reason}); see verify-records") from error
    if len(rows) != info.split(split).num_examples:
        raise RunError(f"{info.folder}: damaged records (the {split} split holds {len(rows)}); see verify-records")
    table = pd.DataFrame(rows, columns=list(columns), dtype=object)
    return table.astype({name: dtype for name, dtype in _numbers(info).items() if name in table})
