"""The only reader of records for models: parse, decode, shuffle, balance, batch, and a position to resume from.

Functions that TensorFlow traces are not converted by AutoGraph: none has control flow of tensors, and reading the
sources of what they call takes longer than tracing it.
"""

import contextlib
import dataclasses
import functools
import heapq
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from tfrecords_builder import labels as labels_lib
from tfrecords_builder import records
from tfrecords_builder.errors import InputError, RunError, reason
from tfrecords_builder.readers import shards
from tfrecords_builder.records import manifest
from tfrecords_builder.splits import policies

# Encoded images held for shuffling, in bytes: bounds memory whatever the data set's size.
_SHUFFLE_BYTES = 256 * 2**20
_MIN_SHUFFLE = 1024
_READ_SHARDS_AT_ONCE = 16
_READ_ROWS_AT_ONCE = 32
_ROWS_AT_ONCE = 4096
_GRAPH_SEED = 87654321  # any number but 0; this is the one that TensorFlow takes where none is set
# Names the operations that read a record, and so what they say where one is damaged; see `naming_damage`.
_READING = "reading_a_record"
_EXTRA_SEED = 1_000_003  # keeps the order of extra images apart from that of the others, should both be of one set


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
        self.path, self._flag = pathlib.Path(path), flag
        self.info = records.load_info(path)
        self._labels: dict[str, dict[str, np.ndarray]] = {}
        self._places: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        if resolution is not None and self.info.resolution != resolution:
            raise InputError(
                f"{flag}={path}: images are {self.info.resolution} px, not {resolution}; build records of that size"
            )
        if label_versions is not None and self.info.label_version not in label_versions:
            raise InputError(
                f"{flag}={path}: label version is {self.info.label_version}, not {' or '.join(label_versions)}"
            )

    def refuse_other_labels(self, label_set: labels_lib.LabelSet, of: str) -> None:
        """Raises InputError if its label vectors mean other labels than those of what `of` names."""
        labels_lib.refuse_other(label_set, self.info.label_set, of=of, other_of=f"{self._flag}={self.path}")

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for multilabel."""
        return len(self.info.classes)

    def num_examples(self, split: str) -> int:
        """Number of images in a split; raises InputError if there is no such split."""
        return self.info.split(split).num_examples

    def dataset(self, split: str, *, decode: bool = True) -> tf.data.Dataset:
        """The split's records in order, as `read_records`; without `decode` the key `image` is absent."""

        @tf.autograph.experimental.do_not_convert
        def parse(serialized):
            return self.parse(serialized, decode=decode)

        serialized = tf.data.TFRecordDataset(self.info.shard_paths(split))
        parsed = serialized.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return parsed.prefetch(tf.data.AUTOTUNE)

    def parse(self, serialized: tf.Tensor, *, decode: bool = True) -> dict[str, tf.Tensor]:
        """`records.parse_example` with the static shape of `image` filled in."""
        with tf.name_scope(_READING):
            record = records.parse_example(serialized, num_labels=len(self.info.labels), decode=decode)
            if decode:
                record["image"] = tf.ensure_shape(record["image"], [self.info.resolution, self.info.resolution, 1])
        return record

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """`image/encoded` of one record, string [] -> uint8 [R, R, 1]."""
        with tf.name_scope(_READING):
            image = tf.io.decode_png(encoded, channels=1)
            return tf.ensure_shape(image, [self.info.resolution, self.info.resolution, 1])

    def labels(self, split: str) -> dict[str, np.ndarray]:
        """All labels of a split in order: {"vector": float32 [N, L], "class": int64 [N]}, read once, read-only.

        They are those of the manifest (see `manifest.read_rows`). Raises InputError: no such split, or a manifest of
        other records; RunError: damaged shards.
        """
        if split not in self._labels:
            rows = manifest.read_rows(self.info, split, ["class", *self.info.labels])
            index = {name: i for i, name in enumerate(self.info.classes)}
            table = {
                "vector": rows[list(self.info.labels)].to_numpy(np.float32),
                "class": rows["class"].map(index).fillna(labels_lib.NO_CLASS).to_numpy(np.int64),
            }
            for array in table.values():
                array.setflags(write=False)
            self._labels[split] = table
        return self._labels[split]

    def patients(self, split: str) -> np.ndarray:
        """The patient of each image of a split in order, object [N] of str; empty where there is none.

        Errors as of `labels`.
        """
        return manifest.read_rows(self.info, split, ["patient"])["patient"].to_numpy(object)

    def places(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Where each record of a split lies: the number of its shard int32 [N], and its byte offset there int64 [N].

        Raises RunError if a shard cannot be read or holds another number of records than described.
        """
        if split not in self._places:
            lengths, offsets = self.info.split(split).shard_lengths, []
            for path, length in zip(self.info.shard_paths(split), lengths, strict=True):
                try:
                    offsets.append(shards.index_shard(path))
                except InputError as error:
                    raise RunError(f"{self.path}: damaged records ({error}); see verify-records") from error
                if len(offsets[-1]) != length:
                    raise RunError(
                        f"{self.path}: damaged records ({path} holds {len(offsets[-1])}, described are {length}); "
                        "see verify-records"
                    )
            empty = np.zeros(0, np.int64)
            numbers = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
            self._places[split] = (numbers, np.concatenate([empty, *offsets]))
        return self._places[split]


@dataclasses.dataclass(frozen=True)
class Extra:
    """Images that a training stream draws besides those of its record set, evenly among them.

    Attributes:
        record_set: whose train split they are of, shuffled anew after each time through; resolution and classes are
            those of the main set.
        per_pass: how many for each pass over the main images.
        duplicate: draw none of these images, but main images again instead, with their classes (if there are some) in
            the shares that these have: the control that tells what more steps and another class balance do by
            themselves.
    """

    record_set: RecordSet
    per_pass: int
    duplicate: bool = False


def training_stream(
    record_set: RecordSet,
    split: str,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    balanced: bool = False,
    class_counts: np.ndarray | None = None,
    filter_labels: Sequence[int] | None = None,
    only: np.ndarray | None = None,
    extra: Extra | None = None,
    shares: int = 1,
    own: Sequence[int] = (0,),
    group: int = 4,
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
        class_counts: int [K]; draw the classes in this ratio instead, none of a class with 0.
        filter_labels: label indices; leaves out images whose vector is zero in all of them.
        only: bool [N]; the images to draw from, in the order of `RecordSet.labels`.
        extra: images drawn besides; with `balanced`, each class equally often as well.
        shares: number of devices that share a batch (see `share_rows`).
        own: the shares wanted, one batch of `batch_size / shares` images each; the others are not decoded.
        group: see `share_rows`; 1 where no layer looks at several images.

    Returns:
        Dataset of {"image": uint8 [B, R, R, 1], "vector": float32 [B, L], "class": int64 [B], "index": int64 [B]};
        `index` counts the draws from 0 on, and seeds what is random per image.

    Raises:
        InputError: no such split, no image, or with `balanced` no image of some class.
    """
    keep = np.ones(record_set.num_examples(split), bool) if only is None else only
    if filter_labels is not None:
        keep = keep & has_any(record_set.labels(split)["vector"], filter_labels)
    shares_of_classes = np.ones(record_set.num_classes, np.int64) if balanced else class_counts
    counted = _count_draws(record_set, split, batch_size, seed, start, shares_of_classes, keep, extra)
    counted = _keep_own(counted, batch_size, shares, own, group)

    @tf.autograph.experimental.do_not_convert
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


def training_rows(
    record_set: RecordSet,
    *,
    number: int,
    batch_size: int,
    seed: int,
    balanced: bool = False,
    only: np.ndarray | None = None,
    extra: Extra | None = None,
) -> np.ndarray:
    """Which images the first `number` draws of `training_stream` from the train split are; none is read.

    Arguments and errors are those of `training_stream`.

    Returns:
        int64 [number]: rows of the train split; those of the extra images count on from its last one.
    """
    keep = np.ones(record_set.num_examples("train"), bool) if only is None else only
    shares_of_classes = np.ones(record_set.num_classes, np.int64) if balanced else None
    counted = _count_draws(record_set, "train", batch_size, seed, 0, shares_of_classes, keep, extra, by_row=True)
    rows = counted.map(lambda _, row: row).batch(_ROWS_AT_ONCE).take(-(-number // _ROWS_AT_ONCE))
    return np.concatenate([np.zeros(0, np.int64), *rows.as_numpy_iterator()])[:number]


def _count_draws(
    record_set: RecordSet,
    split: str,
    batch_size: int,
    seed: int,
    start: int,
    shares_of_classes: np.ndarray | None,
    keep: np.ndarray,
    extra: Extra | None,
    *,
    by_row: bool = False,
) -> tf.data.Dataset:
    """Draws of a training stream, from number `start` on: pairs of number and example, or of number and row."""
    if not keep.any():
        raise InputError(f"{record_set.path}: the {split} split has no image to train on")
    classes = record_set.labels(split)["class"]
    draw = functools.partial(_draw, record_set, split, classes, keep, by_row=by_row)
    if extra is None:
        stream = draw(shares_of_classes, seed, start)
    else:
        again = _draw_extra(extra, draw, shares_of_classes, by_row=by_row, first_row=len(classes))
        parts = [
            (int(keep.sum()), functools.partial(draw, shares_of_classes, seed)),
            (extra.per_pass, functools.partial(again, seed + _EXTRA_SEED)),
        ]
        stream = _in_turn(parts, start)
    counted = tf.data.Dataset.zip((tf.data.Dataset.range(start, tf.int64.max), stream))
    if shares_of_classes is not None:
        # Classes come in turn: shuffling the batch keeps a loss that pairs neighbours from pairing classes.
        counted = counted.batch(batch_size, drop_remainder=True)
        counted = counted.map(lambda index, drawn: _shuffle_batch(index, drawn, seed))
        counted = counted.unbatch()
    return counted


def unlabelled_stream(
    record_set: RecordSet,
    splits: Sequence[str],
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    same_patient: bool = False,
    shares: int = 1,
    own: Sequence[int] = (0,),
) -> tf.data.Dataset:
    """An endless shuffled stream of images without labels, a deterministic function of (records, seed, start).

    Splits are drawn from evenly, each in the share of its images. Arguments that are not named here are those of
    `training_stream`.

    Args:
        record_set: what to read.
        splits: at least one with an image.
        batch_size: images per batch.
        seed: of all orders.
        start: images already drawn.
        same_patient: give each image a partner: another image of the same patient and split, drawn anew each time; the
            image itself where there is no other one.
        shares: devices that share a batch.
        own: the shares wanted.

    Returns:
        Dataset of {"image": uint8 [B, R, R, 1], "index": int64 [B]}, and with `same_patient` "partner", as "image".
    """
    draw = _draw_pairs if same_patient else _draw_alone
    parts = [
        (record_set.num_examples(split), functools.partial(draw, record_set, split, seed + number))
        for number, split in enumerate(splits)
        if record_set.num_examples(split)
    ]
    counted = tf.data.Dataset.zip((tf.data.Dataset.range(start, tf.int64.max), _in_turn(parts, start)))
    counted = _keep_own(counted, batch_size, shares, own, group=1)
    names = ("image", "partner") if same_patient else ("image",)

    @tf.autograph.experimental.do_not_convert
    def decode(index, serialized):
        images = {name: record_set.parse(serialized[i])["image"] for i, name in enumerate(names)}
        return {**images, "index": index}

    dataset = counted.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size // shares, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def count_paired(record_set: RecordSet, splits: Sequence[str]) -> int:
    """Images of these splits that have a partner in `unlabelled_stream`: another one of their patient."""
    return sum(int((_Patients(record_set.patients(split)).counts_of_rows > 1).sum()) for split in splits)


def choose_per_class(classes: np.ndarray, number: int, num_classes: int, seed: int) -> np.ndarray:
    """Which images to take for a set with few labels: `number` of each class, drawn without regard to patients.

    For each class its images, in the order of the records, are permuted by `seed`, and the first ones taken: with one
    seed a larger number holds what a smaller one does.

    Args:
        classes: int [N].
        number: images of each class.
        num_classes: K.
        seed: of the permutations.

    Returns:
        bool [N].

    Raises:
        ValueError: a class has fewer.
    """
    chosen = np.zeros(len(classes), bool)
    for k in range(num_classes):
        rows = np.flatnonzero(classes == k)
        if len(rows) < number:
            raise ValueError(f"class {k} has {len(rows)} images, fewer than {number}")
        chosen[np.random.default_rng([seed, k]).permutation(rows)[:number]] = True
    return chosen


def choose_fraction(patients: np.ndarray, memberships: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which images to take for a set with few labels: all those of a fraction of the patients.

    A patient is in the stratum of the rarest thing that one of the images has (see splits.policies.stratify). The
    patients of each stratum are permuted by `seed`, and the first ones taken: with one seed a larger fraction holds
    what a smaller one does.

    Args:
        patients: object [N] of str; an empty one is a patient of a single image.
        memberships: bool [N, K], such as the classes; each image has at least one thing.
        fraction: of the patients of each stratum, in (0, 1]; rounded to whole patients.
        seed: of the permutations.

    Returns:
        bool [N].
    """
    row, _, strata = policies.stratify(policies.number_patients(patients), memberships)
    chosen = np.zeros(len(strata), bool)
    for k in np.unique(strata):
        members = np.flatnonzero(strata == k)
        number = round(fraction * len(members))
        chosen[np.random.default_rng([seed, k]).permutation(members)[:number]] = True
    return chosen[row]


class _Patients:
    """The images of each patient of a split.

    Attributes:
        counts_of_rows: images of the patient of each image, int64 [N].
    """

    def __init__(self, patients: np.ndarray):
        number = policies.number_patients(patients)
        counts = np.bincount(number, minlength=1)
        firsts = np.cumsum(counts) - counts
        self._order = np.argsort(number, kind="stable")
        self._first = firsts[number]
        self._place = np.empty(len(number), np.int64)
        self._place[self._order] = np.arange(len(number)) - firsts[number[self._order]]
        self.counts_of_rows = counts[number]

    def draw_partner(self, row: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Another row of the same patient, each as likely, int64 []; `row` itself where there is none."""
        count, first, place = (tf.gather(a, row) for a in (self.counts_of_rows, self._first, self._place))
        ahead = 1 + tf.random.stateless_uniform([], seed, 0, tf.maximum(count - 1, 1), tf.int64)
        return tf.gather(self._order, first + (place + ahead) % count)


def has_any(vectors: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Which rows of label vectors [N, L] have one of the labels of these indices: bool [N]."""
    return np.any(vectors[:, list(labels)] > 0, axis=1)


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


def fetch_examples(record_sets: Sequence[RecordSet], split: str, rows: tf.Tensor) -> tf.Tensor:
    """Serialized examples of a split, each read at its place; for use in a graph.

    Args:
        record_sets: that have the split.
        split: train, validation or test.
        rows: int64 [N], of the split of the first set; those of the next set count on from its last one.

    Returns:
        string [N]. What is damaged is an error that `naming_damage` knows.
    """

    def read(chosen: np.ndarray) -> np.ndarray:
        examples, first = np.empty(len(chosen), object), 0
        for record_set in record_sets:
            end = first + record_set.num_examples(split)
            own = np.flatnonzero((chosen >= first) & (chosen < end))
            examples[own] = _read_examples(record_set, split, chosen[own] - first)
            first = end
        return examples

    with tf.name_scope(_READING):
        return tf.ensure_shape(tf.numpy_function(read, [rows], tf.string), rows.shape)


def evaluation_batches(record_set: RecordSet, split: str, batch_size: int) -> tf.data.Dataset:
    """Each image of a split once, in order; the last batch may be smaller.

    Returns:
        Dataset of {"image": uint8 [B, R, R, 1], "vector": float32 [B, L], "class": int64 [B], "index": int64 [B],
        "id": string [B], "patient": string [B]}.
    """

    @tf.autograph.experimental.do_not_convert
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
    """A damaged shard or image met while reading in the block becomes a RunError that names `where`.

    What else fails in the block, such as a training step, is left as it is.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if not _comes_from_reading(error):
            raise
        if isinstance(error, tf.errors.PermissionDeniedError):
            raise RunError(f"{where}: the records may not be read ({reason(error)}); change their rights") from error
        raise RunError(f"{where}: damaged records ({reason(error)}); see verify-records") from error


def _comes_from_reading(error: tf.errors.OpError) -> bool:
    if isinstance(error, tf.errors.DataLossError):  # a wrong CRC or a file cut short
        return True
    # The name of the operation that could not decode it, or of the file that cannot be opened.
    return _READING in error.message or re.search(r"\.tfrecord-\d{5}-of-\d{5}; ", error.message) is not None


def _shuffle_batch(index: tf.Tensor, drawn: tf.Tensor, seed: int) -> tuple[tf.Tensor, tf.Tensor]:
    return index, tf.random.experimental.stateless_shuffle(drawn, tf.stack([tf.constant(seed, tf.int64), index[0]]))


# (seed, first) -> endless dataset of serialized examples, or of rows, from draw number `first` on.
_Draws = Callable[[int, int], tf.data.Dataset]


def _draw(
    record_set: RecordSet,
    split: str,
    classes: np.ndarray,
    keep: np.ndarray,
    class_shares: np.ndarray | None,
    seed: int,
    start: int,
    *,
    by_row: bool = False,
) -> tf.data.Dataset:
    """Draws the images of `keep`: one epoch after the other, or each class in the ratio of `class_shares`."""
    epochs = functools.partial(_epochs, record_set, split, by_row=by_row)
    if class_shares is None:
        return epochs(keep, seed, start)
    if record_set.num_classes < 2:
        raise InputError(f"{record_set.path}: --balanced needs classes, and label version multilabel has none")
    parts = []
    for k, share in enumerate(class_shares):
        of_class = keep & (classes == k)
        if share and not of_class.any():
            raise InputError(f"{record_set.path}: the {split} split has no image of class {record_set.info.classes[k]}")
        if share:
            parts.append((int(share), functools.partial(epochs, of_class, seed + 1 + k)))
    return _in_turn(parts, start)


def _draw_alone(record_set: RecordSet, split: str, seed: int, start: int) -> tf.data.Dataset:
    """Serialized examples as string [1]."""
    everything = np.ones(record_set.num_examples(split), bool)
    return _epochs(record_set, split, everything, seed, start).map(lambda serialized: serialized[tf.newaxis])


def _draw_pairs(record_set: RecordSet, split: str, seed: int, start: int) -> tf.data.Dataset:
    """Serialized examples of an image and its partner, string [2]."""
    patients = _Patients(record_set.patients(split))
    everything = np.ones(record_set.num_examples(split), bool)
    rows = _epochs(record_set, split, everything, seed, start, by_row=True)

    def pair(index, row):
        return tf.stack([row, patients.draw_partner(row, tf.stack([tf.constant(seed, tf.int64), index]))])

    pairs = tf.data.Dataset.zip((tf.data.Dataset.range(start, tf.int64.max), rows)).map(pair)
    return _fetch(record_set, split, pairs.unbatch()).batch(2, drop_remainder=True)


def _keep_own(
    counted: tf.data.Dataset, batch_size: int, shares: int, own: Sequence[int], group: int
) -> tf.data.Dataset:
    """Of each batch of numbered draws those of the shares wanted, in their order."""
    if shares == 1:
        return counted
    rows = share_rows(batch_size, shares, group)[list(own)].reshape(-1)
    batches = counted.batch(batch_size, drop_remainder=True)
    return batches.map(lambda index, serialized: (tf.gather(index, rows), tf.gather(serialized, rows))).unbatch()


def _draw_extra(
    extra: Extra,
    draw_main: Callable[..., tf.data.Dataset],
    class_shares: np.ndarray | None,
    *,
    by_row: bool,
    first_row: int,
) -> _Draws:
    """Draws extra images; rows of the extra set count from `first_row` on."""
    classes = extra.record_set.labels("train")["class"]
    if extra.duplicate:
        if class_shares is None and extra.record_set.num_classes:
            class_shares = np.bincount(classes, minlength=extra.record_set.num_classes)
        return functools.partial(draw_main, class_shares)
    everything = np.ones(len(classes), bool)
    draw = functools.partial(_draw, extra.record_set, "train", classes, everything, class_shares, by_row=by_row)
    return (lambda seed, start: draw(seed, start).map(lambda row: row + first_row)) if by_row else draw


def _in_turn(parts: Sequence[tuple[int, Callable[[int], tf.data.Dataset]]], start: int) -> tf.data.Dataset:
    """Draws from several streams in a fixed ratio, each spread evenly; from draw number `start` on.

    Args:
        parts: (share, function of the number of the stream's first draw); shares are positive.
        start: draws of all streams together that are done.
    """
    counts = np.array([share for share, _ in parts])
    counts //= math.gcd(*counts.tolist())
    # Draw j of n is due at (j + 1/2) / n of a cycle; of those due at once the first stream comes first.
    due = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    cycle = np.repeat(np.arange(len(counts)), counts)[np.argsort(due, kind="stable")]
    cycles, rest = divmod(start, len(cycle))
    firsts = cycles * counts + np.bincount(cycle[:rest], minlength=len(counts))
    streams = [make(int(first)) for (_, make), first in zip(parts, firsts, strict=True)]
    order = tf.constant(cycle, tf.int64)
    choice = tf.data.Dataset.range(start, tf.int64.max).map(lambda i: order[i % len(cycle)])
    return tf.data.Dataset.choose_from_datasets(streams, choice)


def _epochs(
    record_set: RecordSet, split: str, keep: np.ndarray, seed: int, start: int, *, by_row: bool = False
) -> tf.data.Dataset:
    """Serialized examples of one shuffled epoch of the images `keep` after the other, from draw number `start` on.

    With `by_row`, their rows in the split, int64, instead.

    All images of a split are read shard by shard, which disks like best. Of some of them (a class, a few labels) only
    the numbers of the rows are shuffled, in the order in which the shards would give them; then each chosen record is
    read at its place. So the streams of several classes read what they draw, not the whole set each.
    """
    info = record_set.info.split(split)
    paths = record_set.info.shard_paths(split)
    num_examples = int(keep.sum())
    mean_bytes = info.num_bytes / max(info.num_examples, 1)
    buffer = int(max(_MIN_SHUFFLE, min(num_examples, _SHUFFLE_BYTES / max(mean_bytes, 1))))
    everything = bool(keep.all()) and not by_row

    def rows_of(order: np.ndarray) -> np.ndarray:
        rows = interleave_rows(info.shard_lengths, order, _READ_SHARDS_AT_ONCE)
        return rows[keep[rows]]

    @tf.autograph.experimental.do_not_convert
    def epoch(number):
        # `shuffle` mixes TensorFlow's global seed into its own; the order must not depend on who set that.
        tf.compat.v1.get_default_graph().seed = _GRAPH_SEED
        seeds = tf.random.stateless_uniform([2], tf.stack([tf.constant(seed, tf.int64), number]), 1, 2**31, tf.int64)
        order = tf.data.Dataset.range(len(paths)).shuffle(len(paths), seeds[0], reshuffle_each_iteration=False)
        if everything:
            drawn = order.interleave(
                lambda i: tf.data.TFRecordDataset(tf.gather(paths, i)),
                cycle_length=min(len(paths), _READ_SHARDS_AT_ONCE),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
        else:
            drawn = order.batch(len(paths)).map(
                lambda i: tf.ensure_shape(tf.numpy_function(rows_of, [i], tf.int64), [num_examples])
            )
            drawn = drawn.unbatch()
        return drawn.shuffle(buffer, seeds[1], reshuffle_each_iteration=False)

    first = start // num_examples
    stream = tf.data.Dataset.range(first, tf.int64.max).flat_map(epoch).skip(start - first * num_examples)
    return stream if everything or by_row else _fetch(record_set, split, stream)


def interleave_rows(lengths: Sequence[int], order: np.ndarray, cycle: int) -> np.ndarray:
    """The order in which `tf.data.Dataset.interleave` with `block_length=1` gives the rows of a split.

    `cycle` shards are open at a time, and give a row each in turn. The next shard takes the place of one that has
    ended, one round later.

    Args:
        lengths: rows of each shard; row numbers count from the first row of the first shard.
        order: int [S], a permutation of the shards: the order in which they are opened.
        cycle: how many are open at a time.

    Returns:
        int64 [sum of lengths].
    """
    firsts = np.cumsum([0, *lengths])
    free = [(0, slot) for slot in range(min(cycle, len(order)))]  # when and where the next shard is opened; a heap
    rows, rounds, slots = [], [], []
    for shard in order:
        start, slot = heapq.heappop(free)
        rows.append(np.arange(firsts[shard], firsts[shard + 1]))
        rounds.append(start + np.arange(lengths[shard]))
        slots.append(np.full(lengths[shard], slot))
        heapq.heappush(free, (start + lengths[shard] + 1, slot))
    return np.concatenate(rows)[np.lexsort([np.concatenate(slots), np.concatenate(rounds)])]


def _fetch(record_set: RecordSet, split: str, rows: tf.data.Dataset) -> tf.data.Dataset:
    """Serialized examples of an endless stream of row numbers of a split, int64."""
    record_set.places(split)  # known, or found to be damaged, before the first is read

    @tf.autograph.experimental.do_not_convert
    def fetch(chosen: tf.Tensor) -> tf.Tensor:
        return fetch_examples([record_set], split, chosen)

    return (
        rows.batch(_READ_ROWS_AT_ONCE, drop_remainder=True)
        .map(fetch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .unbatch()
    )


def _read_examples(record_set: RecordSet, split: str, rows: np.ndarray) -> np.ndarray:
    """Serialized examples of some rows of a split: bytes [N]. Raises ValueError if one is damaged."""
    paths = [pathlib.Path(path) for path in record_set.info.shard_paths(split)]
    numbers, offsets = record_set.places(split)
    examples = np.empty(len(rows), object)
    for number in np.unique(numbers[rows]):
        with paths[number].open("rb") as stream:
            for i in np.flatnonzero(numbers[rows] == number):
                try:
                    examples[i] = shards.read_serialized(stream, int(offsets[rows[i]]))
                except ValueError as error:
                    raise ValueError(f"{paths[number]}: {error}") from error
    return examples
