"""The only reader of records for models: parse, decode, shuffle, balance, batch, and a position to resume from."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from tfrecords_builder import labels as labels_lib
from tfrecords_builder import records
from tfrecords_builder.errors import InputError, RunError

# Encoded images held for shuffling, in bytes: bounds memory whatever the data set's size.
_SHUFFLE_BYTES = 256 * 2**20
_MIN_SHUFFLE = 1024
_READ_SHARDS_AT_ONCE = 16
_GRAPH_SEED = 87654321  # any number but 0; this is the one that TensorFlow takes where none is set


def read_records(path: str | os.PathLike, split: str) -> tf.data.Dataset:
    """One split of a record set in the order of its shards.

    Returns:
      Dataset of dicts with the record's keys (see tfrecords_builder.records); `image` is uint8 [R, R, 1].

    Raises:
      InputError: no record set there, or no such split.
    """
    return RecordSet(path).dataset(split)


class RecordSet:
    """A folder of records that has been checked.

    Attributes:
      path: its folder.
      info: tfrecords_builder.records.RecordSetInfo.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        flag: str = "--records",
        resolution: int | None = None,
        label_versions: Sequence[str] | None = None,
    ):
        """Loads the metadata.

        Args:
          path: folder that build-records or generate wrote.
          flag: the flag that named it, for messages.
          resolution: side in pixels that the images must have, or None for any.
          label_versions: names of which the set's version must be one, or None for any.

        Raises:
          InputError: no record set there, or one that does not fit.
        """
        self.path = pathlib.Path(path)
        self.info = records.load_info(path)
        if resolution is not None and self.info.resolution != resolution:
            raise InputError(
                f"{flag}={path}: images are {self.info.resolution} px, not {resolution}; build records of that size"
            )
        if label_versions is not None and self.info.label_version not in label_versions:
            raise InputError(
                f"{flag}={path}: label version is {self.info.label_version}, not {' or '.join(label_versions)}"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for multilabel."""
        return len(self.info.classes)

    def num_examples(self, split: str) -> int:
        """Number of images in a split; raises InputError if there is no such split."""
        return self.info.split(split).num_examples

    def dataset(self, split: str, *, decode: bool = True) -> tf.data.Dataset:
        """The split's records in order, as `read_records`; without `decode` the key `image` is absent."""
        parsed = tf.data.TFRecordDataset(self.info.shard_paths(split)).map(
            lambda serialized: self.parse(serialized, decode=decode),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return parsed.prefetch(tf.data.AUTOTUNE)

    def parse(self, serialized: tf.Tensor, *, decode: bool = True) -> dict[str, tf.Tensor]:
        """`records.parse_example` with the static shape of `image` filled in."""
        record = records.parse_example(serialized, decode=decode)
        if decode:
            record["image"] = tf.ensure_shape(record["image"], [self.info.resolution, self.info.resolution, 1])
        return record

    def labels(self, split: str) -> dict[str, np.ndarray]:
        """All labels of a split in order: {"vector": float32 [N, 14], "class": int64 [N]}."""
        keys = {"vector": "label/vector", "class": "label/class"}
        dataset = self.dataset(split, decode=False).map(lambda record: {k: record[v] for k, v in keys.items()})
        with naming_damage(self.path):
            batches = list(dataset.batch(4096).as_numpy_iterator())
        if not batches:
            return {"vector": np.zeros([0, len(labels_lib.LABELS)], np.float32), "class": np.zeros([0], np.int64)}
        return {key: np.concatenate([batch[key] for batch in batches]) for key in keys}


def training_stream(
    record_set: RecordSet,
    split: str,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    balanced: bool = False,
    filter_labels: Sequence[int] | None = None,
    shares: int = 1,
    own: Sequence[int] = (0,),
) -> tf.data.Dataset:
    """An endless shuffled stream of batches, a deterministic function of (records, seed, start).

    Every epoch has its own order; a batch may span two epochs, so that all have `batch_size` images.

    Args:
      record_set: what to read.
      split: train, validation or test.
      batch_size: images per batch.
      seed: of all orders.
      start: images already drawn: the stream goes on exactly as an unbroken one would.
      balanced: draw each class equally often (each class is shuffled on its own).
      filter_labels: label indices; leaves out images whose vector is zero in all of them.
      shares: number of devices that share a batch (see `share_rows`).
      own: the shares wanted, one batch of `batch_size / shares` images each; the others are not decoded.

    Returns:
      Dataset of {"image": uint8 [B, R, R, 1], "vector": float32 [B, 14], "class": int64 [B], "index": int64 [B]};
      `index` counts the draws from 0 on, and seeds what is random per image.

    Raises:
      InputError: no such split, no image, or with `balanced` no image of some class.
    """
    table = record_set.labels(split)
    keep = np.ones(len(table["class"]), bool)
    if filter_labels is not None:
        keep &= has_any(table["vector"], filter_labels)
    if not keep.any():
        raise InputError(f"{record_set.path}: the {split} split has no image to train on")
    if balanced:
        stream = _balanced(record_set, split, table["class"][keep], filter_labels, seed, start)
    else:
        stream = _epochs(record_set, split, int(keep.sum()), seed, start, filter_labels, None)
    counted = tf.data.Dataset.zip((tf.data.Dataset.range(start, tf.int64.max), stream))
    if balanced:
        # Classes come in turn: shuffling the batch keeps a loss that pairs neighbours from pairing classes.
        counted = counted.batch(batch_size, drop_remainder=True)
        counted = counted.map(lambda index, serialized: _shuffle_batch(index, serialized, seed))
        counted = counted.unbatch()
    if shares > 1:
        rows = share_rows(batch_size, shares)[list(own)].reshape(-1)
        counted = counted.batch(batch_size, drop_remainder=True)
        counted = counted.map(lambda index, serialized: (tf.gather(index, rows), tf.gather(serialized, rows))).unbatch()

    def to_training_example(index, serialized):
        record = record_set.parse(serialized)
        return {
            "image": record["image"],
            "vector": record["label/vector"],
            "class": record["label/class"],
            "index": index,
        }

    dataset = counted.map(to_training_example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size // shares, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def has_any(vectors: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Which rows of label vectors [N, L] have one of the labels of these indices: bool [N]."""
    return (vectors[:, list(labels)] > 0).any(axis=1)


def share_rows(batch_size: int, shares: int, group: int = 4) -> np.ndarray:
    """The rows of a batch that each of `shares` devices (or passes) takes: int64 [shares, batch_size / shares].

    The minibatch standard deviation puts row i into group i mod batch_size / group; whole groups go to one share, and
    in an order in which they are its groups as well. What the shares compute is then what one device would.

    Raises ValueError if the groups cannot be shared equally.
    """
    if shares == 1:
        return np.arange(batch_size)[None]
    if batch_size % (group * shares):
        raise ValueError(f"batch_size={batch_size}: must be divisible by {group * shares} to be shared by {shares}")
    columns = np.arange(batch_size).reshape(group, shares, -1)
    return columns.transpose(1, 0, 2).reshape(shares, -1)


def evaluation_batches(record_set: RecordSet, split: str, batch_size: int) -> tf.data.Dataset:
    """Each image of a split once, in order; the last batch may be smaller.

    Returns:
      Dataset of {"image": uint8 [B, R, R, 1], "vector": float32 [B, 14], "class": int64 [B], "index": int64 [B],
      "id": string [B], "patient": string [B]}.
    """

    def convert(index, record):
        return {
            "image": record["image"],
            "vector": record["label/vector"],
            "class": record["label/class"],
            "index": index,
            "id": record["image/id"],
            "patient": record["patient/id"],
        }

    return record_set.dataset(split).enumerate().map(convert).batch(batch_size).prefetch(tf.data.AUTOTUNE)


@contextlib.contextmanager
def naming_damage(where: str | os.PathLike) -> Iterator[None]:
    """A damaged shard or image met while reading in the block becomes a RunError that names `where`."""
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        raise RunError(f"{where}: damaged records ({error.message.splitlines()[0]}); see verify-records") from error


def _shuffle_batch(index: tf.Tensor, serialized: tf.Tensor, seed: int) -> tuple[tf.Tensor, tf.Tensor]:
    return index, tf.random.experimental.stateless_shuffle(
        serialized, tf.stack([tf.constant(seed, tf.int64), index[0]])
    )


def _balanced(
    record_set: RecordSet,
    split: str,
    classes: np.ndarray,
    filter_labels: Sequence[int] | None,
    seed: int,
    start: int,
) -> tf.data.Dataset:
    number = record_set.num_classes
    if number < 2:
        raise InputError(f"{record_set.path}: --balanced needs classes, and label version multilabel has none")
    counts = np.bincount(classes, minlength=number)
    for k, count in enumerate(counts):
        if count == 0:
            raise InputError(f"{record_set.path}: the {split} split has no image of class {record_set.info.classes[k]}")
    # Draw i is of class i mod K, so each class's own position follows from the start.
    streams = [
        _epochs(record_set, split, int(counts[k]), seed + 1 + k, (start + number - 1 - k) // number, filter_labels, k)
        for k in range(number)
    ]
    choice = tf.data.Dataset.range(start, tf.int64.max).map(lambda i: i % number)
    return tf.data.Dataset.choose_from_datasets(streams, choice)


def _epochs(
    record_set: RecordSet,
    split: str,
    num_examples: int,
    seed: int,
    start: int,
    filter_labels: Sequence[int] | None,
    only_class: int | None,
) -> tf.data.Dataset:
    """Serialized examples of one shuffled epoch after the other, from draw number `start` on."""
    paths = record_set.info.shard_paths(split)
    mean_bytes = record_set.info.split(split).num_bytes / max(record_set.num_examples(split), 1)
    buffer = int(max(_MIN_SHUFFLE, min(num_examples, _SHUFFLE_BYTES / max(mean_bytes, 1))))

    def wanted(serialized):
        record = records.parse_example(serialized, decode=False)
        keep = tf.constant(True)
        if filter_labels is not None:
            keep &= tf.reduce_any(tf.gather(record["label/vector"], list(filter_labels)) > 0)
        if only_class is not None:
            keep &= record["label/class"] == only_class
        return keep

    def epoch(number):
        # `shuffle` mixes TensorFlow's global seed into its own; the order must not depend on who set that.
        tf.compat.v1.get_default_graph().seed = _GRAPH_SEED
        seeds = tf.random.stateless_uniform([2], tf.stack([tf.constant(seed, tf.int64), number]), 1, 2**31, tf.int64)
        shards = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths), seeds[0], reshuffle_each_iteration=False)
        examples = shards.interleave(
            tf.data.TFRecordDataset,
            cycle_length=min(len(paths), _READ_SHARDS_AT_ONCE),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        if filter_labels is not None or only_class is not None:
            examples = examples.filter(wanted)
        return examples.shuffle(buffer, seeds[1], reshuffle_each_iteration=False)

    first = start // num_examples
    return tf.data.Dataset.range(first, tf.int64.max).flat_map(epoch).skip(start - first * num_examples)
