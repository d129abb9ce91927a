"""The record and the record set: make, parse, write, describe and load.

A record is a `tf.train.Example`; its keys are those of `FEATURES`. A record set is a folder of TFRecord shards

    <name>-<split>.tfrecord-00000-of-000NN     splits train, validation, test; an empty split has no shard
    dataset_info.json, features.json           the description that `tfds.builder_from_directory` reads
    tfcxr_info.json                            what TFDS cannot hold: `RecordSetInfo`
    manifest.csv                               a row per image: id, patient, split, class, labels, shard, position
    build_report.json                          where the images came from and what was left out, and why

TFRecord and its CRCs: https://www.tensorflow.org/tutorials/load_data/tfrecord; folder format: tensorflow-datasets 4.9.
"""

import csv
import dataclasses
import hashlib
import io
import os
import pathlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf import message

from tfrecords_builder import files, tfds_format
from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.labels import LABELS, LabelVersion
from tfrecords_builder.progress import Progress, progress

SCHEMA_VERSION = 1
SPLITS: tuple[str, ...] = ("train", "validation", "test")
INFO_FILE = "tfcxr_info.json"
EXTRA_SEPARATOR = "|"

# Key of the record -> its dtype and shape. `label/extra` joins findings outside the 14 labels by "|" (empty: none).
FEATURES: dict[str, tuple[tf.DType, tuple[int, ...]]] = {
    "image/encoded": (tf.string, ()),
    "image/id": (tf.string, ()),
    "image/height": (tf.int64, ()),
    "image/width": (tf.int64, ()),
    "image/view": (tf.string, ()),
    "patient/id": (tf.string, ()),
    "patient/sex": (tf.string, ()),
    "patient/age": (tf.int64, ()),
    "label/vector": (tf.float32, (len(LABELS),)),
    "label/class": (tf.int64, ()),
    "label/extra": (tf.string, ()),
    "source": (tf.string, ()),
}
MANIFEST_COLUMNS = ("id", "patient", "split", "class", "view", "sex", "age", *LABELS, "extra", "shard", "position")

# Yields the serialized Examples of one shard, lazily.
ShardFn = Callable[[], Iterable[bytes]]


@dataclasses.dataclass(frozen=True)
class SplitInfo:
    """One split of a record set."""

    num_examples: int
    num_patients: int | None  # None: the images belong to no patients (synthetic)
    num_bytes: int
    shards: tuple[str, ...]  # file names
    shard_lengths: tuple[int, ...]
    class_counts: dict[str, int]  # empty if multi-label
    label_counts: dict[str, int]  # images with the label


@dataclasses.dataclass(frozen=True)
class RecordSetInfo:
    """What a record set holds and how it was made."""

    name: str
    dataset: str  # chexpert, chestxray, synthetic
    source: str  # `source` of its records: chexpert, chestxray, phantom-a, synthetic:<run>
    label_version: str
    classes: tuple[str, ...]
    resolution: int
    uncertain: str
    split_policy: str
    view: str
    seed: int
    labels: tuple[str, ...]
    digest: str  # of the records and their splits, whatever their order
    splits: dict[str, SplitInfo]
    provenance: dict[str, Any]
    schema_version: int
    folder: pathlib.Path  # where it was loaded from

    def split(self, name: str) -> SplitInfo:
        """The split called `name`. Raises InputError listing those there are."""
        if name not in self.splits:
            raise InputError(f"{self.folder}: has no split {name!r}; it has {', '.join(self.splits)}")
        return self.splits[name]

    def shard_paths(self, split: str) -> list[str]:
        """Paths of the split's shards, in order. Raises InputError if there is no such split."""
        return [str(self.folder / shard) for shard in self.split(split).shards]

    @property
    def multilabel(self) -> bool:
        """Whether the set has label vectors but no classes."""
        return not self.classes


def make_example(
    *,
    encoded: bytes,
    image_id: str,
    resolution: int,
    vector: Sequence[float] | np.ndarray,
    class_index: int,
    source: str,
    patient_id: str = "",
    view: str = "",
    sex: str = "",
    age: int = -1,
    extra: Sequence[str] = (),
) -> bytes:
    """Serializes one record, deterministically.

    Args:
        encoded: 8-bit grey PNG of resolution x resolution pixels.
        image_id: path in the source's table, or synthetic-000123.
        resolution: side of the image in pixels.
        vector: 14 values in {0, 1}, canonical order.
        class_index: index into the set's classes; -1 if multi-label.
        source: chexpert, chestxray, phantom-a, synthetic:<run>, ...
        patient_id: empty for synthetic images.
        view: PA, AP, LL or empty.
        sex: as in the source's table, or empty.
        age: years; -1 unknown.
        extra: findings outside the 14 labels.
    """
    vector = np.asarray(vector, np.float32)
    if vector.shape != (len(LABELS),) or not np.isin(vector, (0, 1)).all():
        raise ValueError(f"vector must be 14 values in {{0, 1}}, got {vector}")
    values: dict[str, Any] = {
        "image/encoded": encoded,
        "image/id": image_id,
        "image/height": resolution,
        "image/width": resolution,
        "image/view": view,
        "patient/id": patient_id,
        "patient/sex": sex,
        "patient/age": int(age),
        "label/vector": vector,
        "label/class": int(class_index),
        "label/extra": EXTRA_SEPARATOR.join(extra),
        "source": source,
    }
    features = {}
    for key, value in values.items():
        dtype = FEATURES[key][0]
        if dtype == tf.string:
            value = value if isinstance(value, bytes) else value.encode()
            features[key] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        elif dtype == tf.int64:
            features[key] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        else:
            features[key] = tf.train.Feature(float_list=tf.train.FloatList(value=value))
    # Protobuf maps have no order of their own; byte-identical rebuilds need one.
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def parse_example(serialized: tf.Tensor, *, decode: bool = True) -> dict[str, tf.Tensor]:
    """Parses one record (TensorFlow ops, for `Dataset.map`).

    Args:
        serialized: string scalar.
        decode: whether to add `image`.

    Returns:
        The keys of FEATURES with their dtypes and shapes, and `image`: uint8 [R, R, 1], static shape [None, None, 1].
    """
    spec = {key: tf.io.FixedLenFeature(shape, dtype) for key, (dtype, shape) in FEATURES.items()}
    record = tf.io.parse_single_example(serialized, spec)
    if decode:
        record["image"] = tf.io.decode_png(record["image/encoded"], channels=1)
    return record


def load_info(folder: str | os.PathLike, *, check_shards: bool = True) -> RecordSetInfo:
    """Loads the description of a record set.

    Raises:
        InputError: the folder is absent, no record set, of another schema version or damaged; with `check_shards`
            also if a shard file is absent. The message is one line and names the folder.
    """
    folder = pathlib.Path(folder)
    if not (folder / INFO_FILE).is_file():
        what = f"has no {INFO_FILE}" if folder.is_dir() else "is not there"
        raise InputError(f"{folder}: {what}; expected a record set written by build-records or generate")
    value = files.read_json(folder / INFO_FILE)
    schema = value.get("schema_version") if isinstance(value, dict) else None
    if schema != SCHEMA_VERSION:
        raise InputError(
            f"{folder}: schema version {schema}, this program reads {SCHEMA_VERSION}; build the records again"
        )
    try:
        splits = {name: SplitInfo(**_tuples(split)) for name, split in value.pop("splits").items()}
        info = RecordSetInfo(**_tuples(value), splits=splits, folder=folder)
    except (TypeError, AttributeError, KeyError) as error:
        raise InputError(f"{folder}: {INFO_FILE} is damaged ({error}); build the records again") from error
    if info.labels != LABELS:
        raise InputError(f"{folder}: its labels are not the 14 canonical ones; build the records again")
    absent = [shard for split in splits.values() for shard in split.shards if not (folder / shard).is_file()]
    if check_shards and absent:
        raise InputError(f"{folder}: shard {absent[0]} is missing; build the records again")
    return info


def _tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}


class Summary:
    """Counts and digest over records; sums of summaries do not depend on the order of the records."""

    def __init__(self, classes: Sequence[str]):
        self._classes = classes
        self.num_examples = 0
        self.num_bytes = 0
        self.patients: set[str] = set()
        self.has_anonymous = False
        self.class_counts: Counter[str] = Counter()
        self.label_counts: Counter[str] = Counter()
        self.digest = 0

    def add(self, split: str, serialized: bytes, row: Mapping[str, Any]) -> None:
        """Adds one record; `row` is what `to_row` made of it."""
        self.num_examples += 1
        self.num_bytes += len(serialized)
        if row["patient"]:
            self.patients.add(row["patient"])
        else:
            self.has_anonymous = True
        if row["class"]:
            self.class_counts[row["class"]] += 1
        self.label_counts.update(label for label in LABELS if row[label])
        self.digest += int.from_bytes(hashlib.sha256(split.encode() + b"\0" + serialized).digest(), "big")

    def merge(self, other: "Summary") -> None:
        """Adds all that `other` saw."""
        self.num_examples += other.num_examples
        self.num_bytes += other.num_bytes
        self.patients |= other.patients
        self.has_anonymous |= other.has_anonymous
        self.class_counts += other.class_counts
        self.label_counts += other.label_counts
        self.digest += other.digest

    def split_info(self, shards: Sequence[str], lengths: Sequence[int]) -> SplitInfo:
        """This summary as the description of a split."""
        return SplitInfo(
            num_examples=self.num_examples,
            num_patients=None if self.has_anonymous else len(self.patients),
            num_bytes=self.num_bytes,
            shards=tuple(shards),
            shard_lengths=tuple(lengths),
            class_counts={name: self.class_counts[name] for name in self._classes},
            label_counts={label: self.label_counts[label] for label in LABELS},
        )


class _ShardResult(NamedTuple):
    name: str  # of the file
    summary: Summary
    manifest: str  # its lines


def format_digest(digest: int) -> str:
    """The sum of the records' SHA-256 values, modulo 2^256, as 64 hexadecimal digits."""
    return f"{digest % 2**256:064x}"


def read_example(serialized: bytes) -> dict[str, Any]:
    """Parses one record without TensorFlow ops: the keys of FEATURES, as str (image/encoded: bytes), int or float list.

    Raises ValueError if the bytes are no record of this schema.
    """
    try:
        feature = tf.train.Example.FromString(serialized).features.feature
    except message.DecodeError as error:
        raise ValueError("is no tf.train.Example") from error
    values: dict[str, Any] = {}
    for key, (dtype, shape) in FEATURES.items():
        kind = {tf.string: "bytes_list", tf.int64: "int64_list", tf.float32: "float_list"}[dtype]
        value = list(getattr(feature[key], kind).value) if key in feature else []
        if len(value) != (shape[0] if shape else 1):
            raise ValueError(f"{key} is missing or has another type or length")
        values[key] = value if shape else value[0]
        if dtype == tf.string and key != "image/encoded":
            values[key] = values[key].decode()
    return values


def to_row(record: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Returns the columns of the manifest, but for split, shard and position, of what `read_example` returned.

    Raises ValueError if the class is none of `classes` (-1 stands for none).
    """
    index = record["label/class"]
    if not -1 <= index < len(classes):
        raise ValueError(f"label/class is {index}, there are {len(classes)} classes")
    return {
        "id": record["image/id"],
        "patient": record["patient/id"],
        "class": classes[index] if index >= 0 else "",
        "view": record["image/view"],
        "sex": record["patient/sex"],
        "age": record["patient/age"],
        **dict(zip(LABELS, map(int, record["label/vector"]), strict=True)),
        "extra": record["label/extra"],
    }


def write_record_set(
    folder: str | os.PathLike,
    shards: Mapping[str, Sequence[ShardFn]],
    *,
    name: str,
    dataset: str,
    source: str,
    label_version: LabelVersion,
    resolution: int,
    seed: int,
    uncertain: str = "",
    split_policy: str = "",
    view: str = "",
    provenance: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
    workers: int = 1,
    total: int | None = None,
) -> RecordSetInfo:
    """Writes a record set; the one writer of built and of synthetic sets.

    A builder makes each shard a callable that yields `make_example(...)` one after another, so that memory holds one
    image per worker. A generator of synthetic images does the same with a batch at a time:

        def shard(class_index, first, count):          # images `first`, `first + 1`, ... of the class
            for image_id, vector, png in sample(...):
                yield records.make_example(encoded=png, image_id=f"synthetic-{number:06d}", resolution=info.resolution,
                                           vector=vector, class_index=class_index, source=f"synthetic:{run}")

        with files.output_folder(output_dir, overwrite=overwrite) as folder:    # the set appears whole or not at all
            records.write_record_set(folder, {"train": [functools.partial(shard, ...), ...], "validation": [...]},
                                     name="synthetic", dataset="synthetic", source=f"synthetic:{run}", ...)

    The output depends only on what the callables yield, not on `workers`. They run in threads (image and PNG ops
    release Python's lock): give `workers=1` if they share a model.

    Args:
        folder: an existing folder, usually the temporary one of `files.output_folder`.
        shards: split -> callables, one per shard file. A split without callables is left out.
        name: first part of the shards' file names.
        dataset: chexpert, chestxray, synthetic.
        source: `source` of the records.
        label_version: its class names and name go into the description.
        resolution: side of the images in pixels.
        seed: the seed of the build.
        uncertain: uncertain policy; empty where there is none.
        split_policy: how the splits were made.
        view: view filter; empty where there is none.
        provenance: whatever else the description should hold (JSON values).
        report: build_report.json, to which `written` and `splits` (the counts) are added. It is read after the last
            shard, so the callables may count in it.
        workers: number of threads.
        total: number of images, for the progress display.

    Returns:
        The set's description.

    Raises:
        RunError: a shard could not be written. Whatever the callables raise is passed on.
    """
    folder = pathlib.Path(folder)
    unknown = set(shards) - set(SPLITS)
    if unknown:
        raise ValueError(f"shards: unknown split {sorted(unknown)[0]!r}")
    with progress(total or 0, "writing records") as bar:
        writer = _ShardWriter(folder, label_version.class_names, bar)
        results = writer.run({s: shards[s] for s in SPLITS if shards.get(s)}, name, workers)
    splits, digest = _sum_up(results, label_version.class_names)
    info = RecordSetInfo(
        name=name,
        dataset=dataset,
        source=source,
        label_version=label_version.name,
        classes=label_version.class_names,
        resolution=resolution,
        uncertain=uncertain,
        split_policy=split_policy,
        view=view,
        seed=seed,
        labels=LABELS,
        digest=digest,
        splits=splits,
        provenance=dict(provenance or {}),
        schema_version=SCHEMA_VERSION,
        folder=folder,
    )
    if report is not None:
        counts = {split: dataclasses.asdict(part) for split, part in splits.items()}
        written = sum(part.num_examples for part in splits.values())
        files.write_json(folder / "build_report.json", {**report, "written": written, "splits": counts})
    _write_manifest(folder / "manifest.csv", results)
    write_info(info)
    return info


def _sum_up(results: Mapping[str, Sequence[_ShardResult]], classes: Sequence[str]) -> tuple[dict[str, SplitInfo], str]:
    """The splits' descriptions and the digest of the set."""
    splits, digest = {}, 0
    for split, shards in results.items():
        whole = Summary(classes)
        for shard in shards:
            whole.merge(shard.summary)
        splits[split] = whole.split_info([s.name for s in shards], [s.summary.num_examples for s in shards])
        digest += whole.digest
    return splits, format_digest(digest)


def _write_manifest(path: pathlib.Path, results: Mapping[str, Sequence[_ShardResult]]) -> None:
    with files.atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerow(MANIFEST_COLUMNS)
        stream.writelines(shard.manifest for shards in results.values() for shard in shards)


def write_info(info: RecordSetInfo) -> None:
    """Writes tfcxr_info.json, dataset_info.json and features.json into `info.folder`."""
    value = dataclasses.asdict(info)
    del value["folder"]
    files.write_json(info.folder / INFO_FILE, value)
    described = tfds_format.describe_set(
        info.name,
        version=f"{SCHEMA_VERSION}.0.0",
        description=f"Chest radiographs ({info.source}), label version {info.label_version}, {info.resolution} px. "
        f"Written by tfcxr; see {INFO_FILE}.",
        splits={name: (split.num_bytes, split.shard_lengths) for name, split in info.splits.items()},
    )
    features = tfds_format.describe_features(FEATURES, image_key="image/encoded", resolution=info.resolution)
    files.write_json(info.folder / "dataset_info.json", described)
    files.write_json(info.folder / "features.json", features)


class _ShardWriter:
    """Writes shards in threads; the first failure stops the others."""

    def __init__(self, folder: pathlib.Path, classes: Sequence[str], bar: Progress):
        self._folder, self._classes, self._bar = folder, classes, bar
        self._failed = threading.Event()
        self._lock = threading.Lock()  # a progress bar is not thread-safe

    def run(self, shards: Mapping[str, Sequence[ShardFn]], name: str, workers: int) -> dict[str, list[_ShardResult]]:
        """Writes all shards; returns what was written, per split."""
        with futures.ThreadPoolExecutor(workers) as executor:
            tasks = {
                split: [
                    executor.submit(self._write, split, f"{name}-{split}.tfrecord-{i:05d}-of-{len(fns):05d}", fn)
                    for i, fn in enumerate(fns)
                ]
                for split, fns in shards.items()
            }
            try:
                return {split: [task.result() for task in list_] for split, list_ in tasks.items()}
            except BaseException:
                self._failed.set()
                executor.shutdown(wait=True, cancel_futures=True)
                raise

    def _write(self, split: str, shard: str, examples: ShardFn) -> _ShardResult:
        summary, lines = Summary(self._classes), io.StringIO()
        manifest = csv.writer(lines, lineterminator="\n")
        try:
            with tf.io.TFRecordWriter(str(self._folder / shard)) as writer:
                for position, serialized in enumerate(examples()):
                    if self._failed.is_set():
                        break
                    writer.write(serialized)
                    row = to_row(read_example(serialized), self._classes)
                    row.update(split=split, shard=shard, position=position)
                    summary.add(split, serialized, row)
                    manifest.writerow(row[column] for column in MANIFEST_COLUMNS)
                    with self._lock:
                        self._bar.update(1)
        except (OSError, tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError) as error:
            self._failed.set()
            reason = error.message if isinstance(error, tf.errors.OpError) else error
            raise RunError(f"{self._folder / shard}: cannot be written ({reason})") from error
        except BaseException:
            self._failed.set()
            raise
        return _ShardResult(shard, summary, lines.getvalue())
