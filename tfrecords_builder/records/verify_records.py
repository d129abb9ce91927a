"""Checks a record set against its own description: the library behind `tfcxr verify-records`."""

import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfrecords_builder import files, labels, records
from tfrecords_builder.errors import InputError
from tfrecords_builder.progress import progress
from tfrecords_builder.records import manifest

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NODE = re.compile(r"\{\{.*?\}\}|\[Op:.*|name:\s*$")  # which op failed, in TensorFlow's messages
_GREY_8_BIT = b"\x08\x00"  # bit depth and colour type in the IHDR chunk


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What `verify` found."""

    num_examples: int
    num_shards: int
    digest: str  # recomputed
    faults: tuple[str, ...]  # one line each; none: the set is sound


def verify(folder: str | os.PathLike) -> Verdict:
    """Reads every record of a set and compares all there is to compare.

    Checked: every shard is there, no other lies beside it, its CRCs hold, its length is as described; every record has
    the keys of the schema, an 8-bit grey PNG of the set's resolution that decodes, and a class that its label vector
    has in the set's label version; no patient is in two splits; counts and digest are those described; manifest.csv
    and dataset_info.json describe the same.

    Raises:
        InputError: `folder` is no record set of this schema version.
    """
    folder = pathlib.Path(folder)
    info = records.load_info(folder, check_shards=False)
    checker = _Checker(info)
    with progress(sum(split.num_examples for split in info.splits.values()), "verifying") as bar:
        for split in info.splits:
            checker.check_split(split, bar.update)
    checker.check_whole()
    return Verdict(
        num_examples=sum(summary.num_examples for summary in checker.summaries.values()),
        num_shards=sum(len(split.shards) for split in info.splits.values()),
        digest=checker.digest,
        faults=tuple(checker.faults),
    )


class _Checker:
    def __init__(self, info: records.RecordSetInfo):
        self.faults: list[str] = []
        self.summaries: dict[str, records.Summary] = {}
        self._info = info
        self._keeps_unlabelled = info.provenance.get("unlabelled_images") == "keep"
        self._unread: set[str] = set()  # splits with a shard that cannot be read to its end
        self._version: labels.LabelVersion | None = None
        self._rows = _read_manifest(info.folder / records.MANIFEST_FILE, self.faults)
        listed = next(iter(self._rows.values()), {})
        # Sets written before there was the column `image_digest` are sound.
        self._columns = [c for c in records.manifest_columns(info.labels) if c in listed or c != "image_digest"]
        try:
            self._version = info.version
        except InputError as error:
            self.faults.append(f"{records.INFO_FILE}: label_definition is damaged ({error})")
        known = labels.built_in_versions(info.label_set).get(info.label_version)
        if known is not None and known != self._version:
            self.faults.append(f"{records.INFO_FILE}: label_definition is not that of {info.label_version}")

    @property
    def digest(self) -> str:
        return records.format_digest(sum(summary.digest for summary in self.summaries.values()))

    def check_split(self, split: str, update: Callable[[], object]) -> None:
        """Reads the split's shards."""
        described = self._info.split(split)
        summary = self.summaries[split] = records.Summary(self._info.classes, self._info.labels)
        for shard, length in zip(described.shards, described.shard_lengths, strict=True):
            position = -1
            for position, serialized in enumerate(self._read(shard)):
                self._check_record(split, shard, position, serialized, summary)
                update()
            if position + 1 != length:
                self._unread.add(split)
                self.faults.append(f"{shard}: holds {position + 1} readable records, {length} are described")

    def check_whole(self) -> None:
        """Compares what only the whole set shows."""
        info = self._info
        for split, summary in self.summaries.items():
            if split not in self._unread:  # else its counts differ for a reason that has been told
                self._check_counts(split, summary)
        self._check_patients()
        if not self._unread and self.digest != info.digest:
            self.faults.append(f"digest is {self.digest}, described as {info.digest}")
        shards = {shard for split in info.splits.values() for shard in split.shards}
        strays = {path.name for path in info.folder.glob("*.tfrecord-*")} - shards
        self.faults.extend(f"{name}: lies in the folder but is not described" for name in sorted(strays))
        self.faults.extend(
            f"manifest.csv: names {row['shard']} record {row['position']}, which was not read"
            for row in list(self._rows.values())[:1]
            if row["split"] not in self._unread
        )
        self._check_tfds()

    def _read(self, shard: str) -> Iterator[bytes]:
        path = self._info.folder / shard
        if not path.is_file():
            self.faults.append(f"{shard}: is missing")
            return
        try:
            yield from tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
        except tf.errors.OpError as error:
            what = "may not be read" if isinstance(error, tf.errors.PermissionDeniedError) else "is damaged"
            self.faults.append(f"{shard}: {what} ({_NODE.sub('', error.message).strip()})")

    def _check_record(self, split: str, shard: str, position: int, serialized: bytes, summary: records.Summary) -> None:
        where = f"{shard} record {position}"
        try:
            record = records.read_example(serialized)
            row = records.to_row(record, self._info.classes, self._info.labels)
        except ValueError as error:
            self.faults.append(f"{where}: is no record of schema {records.SCHEMA_VERSION} ({error})")
            return
        summary.add(split, serialized, row)
        side = self._info.resolution
        if (record["image/height"], record["image/width"]) != (side, side):
            self.faults.append(f"{where}: image/height and image/width are not {side}")
        problem = _png_problem(record["image/encoded"], side)
        if problem:
            self.faults.append(f"{where}: image {row['id']} {problem}")
        if record["source"] != self._info.source:
            self.faults.append(f"{where}: source is {record['source']!r}, described as {self._info.source!r}")
        self._check_label(where, row, record)
        self._check_manifest(where, split, shard, position, row)

    def _check_label(self, where: str, row: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        vectors, extra = np.array([record["label/vector"]]), np.array([row["extra"]], object)
        if not np.isin(vectors, (0, 1)).all():
            self.faults.append(f"{where}: label/vector holds values other than 0 and 1")
        elif self._version is not None:
            expected = labels.assign(self._version, vectors, extra)[0]
            unlabelled = self._keeps_unlabelled and not vectors.any() and not row["extra"]
            selected = unlabelled or labels.select(self._version, vectors, extra)[0]
            if expected != record["label/class"] or not selected:
                self.faults.append(
                    f"{where}: label/class {record['label/class']} is not what {self._version.name} gives its "
                    f"label/vector ({', '.join(name for name in self._info.labels if row[name]) or 'no label'})"
                )

    def _check_manifest(self, where: str, split: str, shard: str, position: int, row: Mapping[str, Any]) -> None:
        listed = self._rows.pop((shard, str(position)), None)
        expected = {**row, "split": split, "shard": shard, "position": position}
        if listed is None or listed != {column: str(expected.get(column)) for column in self._columns}:
            self.faults.append(f"{where}: manifest.csv says otherwise or lacks it")

    def _check_counts(self, split: str, summary: records.Summary) -> None:
        described = self._info.split(split)
        found = summary.split_info(described.shards, described.shard_lengths)
        for field in dataclasses.fields(found):
            ours, theirs = getattr(found, field.name), getattr(described, field.name)
            if isinstance(ours, dict) and isinstance(theirs, dict):
                ours = {key: value for key, value in ours.items() if theirs.get(key) != value}
                theirs = {key: theirs.get(key) for key in ours}
            if ours != theirs:
                self.faults.append(f"{split}: {field.name} is {ours}, described as {theirs}")

    def _check_patients(self) -> None:
        if self._info.split_policy == "image":
            return  # the set says of itself that patients are in several splits
        splits = collections.defaultdict(list)
        for split, summary in self.summaries.items():
            for patient in summary.patients:
                splits[patient].append(split)
        twice = sorted(patient for patient, names in splits.items() if len(names) > 1)
        if twice:
            names = " and ".join(splits[twice[0]])
            self.faults.append(f"{len(twice)} patients are in several splits, such as {twice[0]} in {names}")

    def _check_tfds(self) -> None:
        try:
            described = files.read_json(self._info.folder / "dataset_info.json")
            lengths = {part["name"]: tuple(map(int, part["shardLengths"])) for part in described["splits"]}
        except (InputError, KeyError, TypeError, ValueError, OverflowError) as error:
            self.faults.append(f"dataset_info.json: is damaged ({error})")
            return
        if lengths != {name: split.shard_lengths for name, split in self._info.splits.items()}:
            self.faults.append(f"dataset_info.json: its shard lengths are not those of {records.INFO_FILE}")
        if not (self._info.folder / "features.json").is_file():
            self.faults.append("features.json: is missing")


def _read_manifest(path: pathlib.Path, faults: list[str]) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of the manifest by shard and position."""
    try:
        table = manifest.read_file(path)
        if not {"split", "shard", "position"} <= set(table):
            raise InputError(f"{path}: has no columns split, shard and position")
    except InputError as error:
        faults.append(str(error).removeprefix(f"{path.parent}{os.sep}"))
        return {}
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)]
    named = {(row["shard"], row["position"]): row for row in rows}
    if len(named) < len(rows):
        faults.append(f"manifest.csv: names {len(rows) - len(named)} records more than once")
    return named


def _png_problem(encoded: bytes, side: int) -> str:
    """What is wrong with a PNG that should be 8-bit grey, side x side; empty if nothing."""
    if encoded[:8] != _PNG_SIGNATURE or encoded[24:26] != _GREY_8_BIT:
        return "is no 8-bit grey PNG"
    try:
        shape = tuple(tf.io.decode_png(encoded).shape)
    except tf.errors.InvalidArgumentError:
        return "does not decode"
    return "" if shape == (side, side, 1) else f"has {shape[1]}x{shape[0]} pixels, not {side}x{side}"
