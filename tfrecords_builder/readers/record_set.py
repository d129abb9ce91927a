"""Record sets as a data set: to make a set of another label version, resolution or split out of an existing one."""

import pathlib

import numpy as np

from tfrecords_builder import csv_files
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import combinations
from tfrecords_builder.labels.canonical import EXTRA_SEPARATOR, SPLITS
from tfrecords_builder.labels.label_sets import LabelSet
from tfrecords_builder.readers import shards, table
from tfrecords_builder.readers.folder_columns import FolderColumns

_COLUMNS = ("id", "patient", "split", "view", "sex", "age", "extra", "shard", "position")


def read(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool = False,
    _: FolderColumns | None = None,
    label_set: LabelSet | None = None,
) -> table.Table:
    """Reads the manifest of a record set, built or synthetic; its classes are ignored.

    The labels are 0 or 1, as the uncertain policy of the set left them; `fold` is the set's split. Labels that no image
    has are not in `labelled`: the set cannot tell whether they were looked for.

    Args:
        data_dir: the record set.
        labels_csv: must be None.
        official: of no meaning here.
        label_set: must be the set's (None: is).

    Raises:
        InputError: another table is given, no record set, or one whose shards do not fit its manifest.
    """
    check_header(data_dir, labels_csv, official)
    from tfrecords_builder import records  # imports TensorFlow, which the other readers do not need

    info = records.load_info(data_dir)
    if label_set and label_set != info.label_set:
        raise InputError(
            f"--label_set={label_set.name}: the records of {data_dir} have the labels of {info.label_set.name}; "
            "leave it out, or say by --label_map what they are in the other set"
        )
    columns = (*_COLUMNS, *info.labels)
    path = data_dir / records.MANIFEST_FILE
    table.check_columns(path, csv_files.read_header(path), columns, "records")
    raw = csv_files.read_table(path, columns)
    frame = table.make_frame(raw, id_column="", view="view", sex="sex", age="age")
    frame["id"] = table.to_texts(raw.convert("id", table.to_filled), len(frame))
    frame["patient"] = table.to_texts(raw.convert("patient", str), len(frame))
    frame["fold"] = table.to_texts(raw.choose("split", {split: split for split in SPLITS}), len(frame))
    frame["extra"] = table.to_texts(raw.convert("extra", str), len(frame))
    for label in info.labels:
        frame[label] = raw.choose(label, {"0": 0, "1": 1}, np.float32)
    frame["combination"] = combinations.encode(frame[list(info.labels)].to_numpy())
    offsets = {shard: shards.index_shard(data_dir / shard) for split in info.splits.values() for shard in split.shards}
    frame["path"] = table.to_texts(raw.choose("shard", {shard: str(data_dir / shard) for shard in offsets}), len(frame))
    frame["offset"] = _find_offsets(raw, offsets)
    findings = {finding for text in raw.texts["extra"] for finding in text.split(EXTRA_SEPARATOR) if finding}
    return table.Table(
        dataset="records",
        source=info.source,
        dataset_name=info.dataset_name,
        frame=frame,
        paths=(path,),
        bases=(),
        findings=tuple(sorted(findings)),
        labelled=tuple(label for label in info.labels if (frame[label] == 1).any()),
        label_set=info.label_set,
    )


def check_header(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet | None = None,
) -> None:
    """Raises InputError if another table is given: a record set has its own, whose columns are always the same."""
    del data_dir, official, label_set
    if labels_csv:
        raise InputError("--labels_csv: a record set has its own table; leave it out with --dataset=records")


def _find_offsets(raw: csv_files.RawTable, offsets: dict[str, np.ndarray]) -> np.ndarray:
    """int64 [N]: the byte offset of each row's record. Raises InputError if rows and records do not match."""
    names = raw.convert("shard", str)
    positions = raw.convert("position", int, np.int64)
    result = np.full(len(names), -1, np.int64)
    for shard, places in offsets.items():
        rows = np.flatnonzero(names == shard)
        if not np.array_equal(np.sort(positions[rows]), np.arange(len(places))):
            raise InputError(
                f"{raw.path}: names {len(rows)} records of {shard}, which holds {len(places)}; build the records again"
            )
        result[rows] = places[positions[rows]]
    return result
