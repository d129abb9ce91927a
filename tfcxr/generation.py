"""Labelled synthetic record sets from a trained generator.

Image i of a set has the latent of (seed, i); a class's images are numbered one after the other, the first 80% train
and the rest validation. Which label vector conditions it follows from the label version (see `plan_balanced`,
`plan_replicated`).
"""

import collections
import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfcxr.gan import loading, samples, sampling, steps
from tfrecords_builder import images as images_lib
from tfrecords_builder import labels as labels_lib
from tfrecords_builder import records, writing
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import LABELS, LabelClass, LabelVersion

TRAIN_FRACTION = 0.8

_IMAGES_PER_SHARD = 1024
_SHEET_COLUMNS = 10
_SHEET_ROWS = 8
# Salts that keep the draws of labels apart from those of latents, which use (seed, image number).
_LABEL_SALT = 7919


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to generate: row i is image i.

    Attributes:
      version: label version of the set.
      vectors: float32 [N, 14], the conditioning vectors, which the records hold.
      classes: int64 [N], -1 in a multilabel set.
      train: bool [N], train split; the rest is validation.
      label_source: where the vectors come from, in words.
    """

    version: LabelVersion
    vectors: np.ndarray
    classes: np.ndarray
    train: np.ndarray
    label_source: str


def find_label_version(
    name: str, versions_file: str | os.PathLike | None, label_records: str | os.PathLike | None
) -> LabelVersion:
    """The label version `name`: a built-in one, one of the user's file, or that of the record set `label_records`.

    The last is how the classes of a benchmark setting are had, which come from data. Raises InputError.
    """
    if label_records:
        info = records.load_info(label_records)
        if info.label_version == name:
            return info.version
    return labels_lib.get_label_version(name, labels_lib.load_label_versions(versions_file) if versions_file else None)


def label_table(
    generator: loading.Generator, label_records: str | os.PathLike | None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Distinct label vectors [C, 14] with their counts [C], most frequent first, and where they come from.

    Only the labels that the generator is conditioned on are kept; vectors without any of them are left out.

    Args:
      generator: its training fold is the default source.
      label_records: a record set whose train split to use instead.

    Raises:
      InputError: no such records, or a generator that does not know its training fold.
    """
    if label_records:
        from tfcxr import data

        vectors = data.RecordSet(label_records, flag="--label_records").labels("train")["vector"]
        counts, origin = np.ones(len(vectors), np.int64), f"train split of {pathlib.Path(label_records).name}"
    elif generator.combinations:
        vectors, counts = loading.combination_vectors(generator.combinations)
        origin = f"training fold of {generator.name}"
    else:
        raise InputError("--label_records is needed: the generator does not know the labels of its training images")
    counter: collections.Counter[tuple[int, ...]] = collections.Counter()
    for vector, count in zip(vectors * _seen(generator), counts, strict=True):
        counter[tuple(vector.astype(int).tolist())] += int(count)
    counter.pop((0,) * len(LABELS), None)
    ranked = sorted(counter.items(), key=lambda item: (-item[1], [-bit for bit in item[0]]))
    table = np.array([vector for vector, _ in ranked], np.float32).reshape(-1, len(LABELS))
    return table, np.array([count for _, count in ranked], np.int64), origin


def plan_balanced(
    generator: loading.Generator,
    version: LabelVersion,
    per_class: int,
    *,
    seed: int,
    label_records: str | os.PathLike | None = None,
    top_combinations: int | None = None,
) -> Plan:
    """The same number of images of each class.

    A class that fixes all 14 labels is conditioned on exactly them. A class with free labels (Xs, "Finding") draws
    combinations that satisfy it, in proportion to their frequency. A multilabel set is one group of `per_class` images.

    Args:
      generator: decides which labels can be asked for.
      version: the label version.
      per_class: images per class.
      seed: of the draws; image i's combination is a function of (seed, i).
      label_records: record set whose combinations to draw from; default the generator's training fold.
      top_combinations: draw from that many most frequent combinations per class only; None: all.

    Raises:
      InputError: a class whose labels the generator was not conditioned on, or that no combination satisfies.
    """
    if per_class < 1:
        raise InputError(f"--per_class={per_class}: must be at least 1")
    groups: list[tuple[int, LabelClass | None]] = [*enumerate(version.classes)] or [(labels_lib.NO_CLASS, None)]
    vectors, origins = [], set()
    for position, (index, label_class) in enumerate(groups):
        numbers = np.arange(per_class) + position * per_class
        if label_class is not None and _is_exact(label_class):
            choices, counts = _exact_vector(generator, version, label_class)[None], np.ones(1, np.int64)
            origins.add("the class's own labels")
        else:
            table, counts, origin = label_table(generator, label_records)
            keep = labels_lib.satisfies(version, index, table)
            choices, counts = table[keep][:top_combinations], counts[keep][:top_combinations]
            origins.add(origin)
            if not len(choices):
                name = "multilabel" if label_class is None else label_class.name
                raise InputError(
                    f"--label_version={version.name}: no combination of the labels that the GAN is conditioned on "
                    f"satisfies class {name}; give --label_records that hold it"
                )
        vectors.append(choices[_draw(counts, seed, numbers)])
    classes = np.repeat([index for index, _ in groups], per_class).astype(np.int64)
    within = np.tile(np.arange(per_class), len(groups))
    train = within < round(per_class * TRAIN_FRACTION)
    return Plan(version, np.concatenate(vectors), classes, train, "; ".join(sorted(origins)))


def plan_replicated(
    generator: loading.Generator,
    version: LabelVersion,
    *,
    seed: int,
    label_records: str | os.PathLike | None = None,
    top_combinations: int | None = None,
) -> Plan:
    """One image for each labelled image of the source, with the same label vector; arguments and errors as
    `plan_balanced`.

    Vectors that are in no class of the version are left out. The order is shuffled, so that both splits have the same
    distribution.
    """
    table, counts, origin = label_table(generator, label_records)
    keep = labels_lib.select(version, table) if len(table) else np.zeros(0, bool)
    table, counts = table[keep][:top_combinations], counts[keep][:top_combinations]
    if not len(table):
        raise InputError(
            f"--label_version={version.name}: no label combination of the {origin} is in any of its classes"
        )
    order = np.random.Generator(np.random.Philox(seed)).permutation(int(counts.sum()))
    vectors = np.repeat(table, counts, axis=0)[order]
    classes = labels_lib.assign(version, vectors)
    train = np.zeros(len(vectors), bool)
    for index in np.unique(classes):
        rows = np.flatnonzero(classes == index)
        train[rows[: round(len(rows) * TRAIN_FRACTION)]] = True
    return Plan(version, vectors, classes, train, f"replicates the {origin}")


def write(
    generator: loading.Generator, plan: Plan, folder: str | os.PathLike, *, seed: int, batch_size: int = 64
) -> dict[str, Any]:
    """Generates the images of a plan and writes them as a record set, with a sheet of samples (samples.png).

    Memory holds one batch. Latents do not depend on the batch size; pixels may by one grey level.

    Args:
      generator: makes the images.
      plan: the labels.
      folder: an existing folder.
      seed: of the latents.
      batch_size: images at a time.

    Returns:
      The content of result.json.
    """
    began = time.monotonic()
    folder, source = pathlib.Path(folder), f"synthetic:{generator.name}"
    sheet = _Sheet(plan)
    render = _renderer(generator, seed)

    def shard(numbers: np.ndarray) -> Iterator[bytes]:
        for start in range(0, len(numbers), batch_size):
            part = numbers[start : start + batch_size]
            images, encoded = render(tf.constant(part, tf.int64), tf.constant(plan.vectors[part]))
            for number, image, png in zip(part, images.numpy(), encoded.numpy(), strict=True):
                sheet.offer(int(number), image)
                yield records.make_example(
                    encoded=png,
                    image_id=f"synthetic-{number:06d}",
                    resolution=generator.network.resolution,
                    vector=plan.vectors[number],
                    class_index=int(plan.classes[number]),
                    source=source,
                )

    shards = {}
    for split, chosen in (("train", plan.train), ("validation", ~plan.train)):
        numbers = np.flatnonzero(chosen)
        count = -(-len(numbers) // _IMAGES_PER_SHARD)
        # Every shard takes each count-th image, so that all of them hold all classes.
        shards[split] = [functools.partial(shard, numbers[part::count]) for part in range(count)]
    info = writing.write_record_set(
        folder,
        shards,
        name="synthetic",
        dataset="synthetic",
        source=source,
        label_version=plan.version,
        resolution=generator.network.resolution,
        seed=seed,
        split_policy="index",
        provenance=_provenance(generator, plan),
        report={"label_source": plan.label_source, "skipped": {}},
        total=len(plan.classes),
    )
    samples.write_png(folder / "samples.png", sheet.picture())
    seconds = time.monotonic() - began
    return {
        "num_images": len(plan.classes),
        "splits": {name: split.num_examples for name, split in info.splits.items()},
        "classes": {name: int((plan.classes == index).sum()) for index, name in enumerate(plan.version.class_names)},
        "label_source": plan.label_source,
        "generator": generator.name,
        "kimg": generator.kimg,
        "digest": info.digest,
        "images_per_s": round(len(plan.classes) / seconds, 1),
    }


class _Sheet:
    """The first images of each class (multilabel: of the most frequent combinations) in rows."""

    def __init__(self, plan: Plan):
        if plan.version.multilabel:
            combinations, _ = samples.common_combinations(plan.vectors, _SHEET_ROWS)
            rows = [np.flatnonzero((plan.vectors == row).all(axis=1)) for row in combinations]
        else:
            rows = [np.flatnonzero(plan.classes == index) for index in range(len(plan.version.classes))]
        self._rows = [row[:_SHEET_COLUMNS].tolist() for row in rows]
        self._wanted = {number for row in self._rows for number in row}
        self._images: dict[int, np.ndarray] = {}

    def offer(self, number: int, image: np.ndarray) -> None:
        if number in self._wanted:
            self._images[number] = image

    def picture(self) -> np.ndarray:
        blank = np.full_like(next(iter(self._images.values())), 255)
        cells = []
        for row in self._rows:
            cells += [self._images[number] for number in row] + [blank] * (_SHEET_COLUMNS - len(row))
        return samples.image_grid(np.stack(cells), _SHEET_COLUMNS)


def _renderer(generator: loading.Generator, seed: int):
    @tf.function(reduce_retracing=True)
    def render(numbers, vectors):
        latents = sampling.numbered_latents(seed, numbers, generator.network.latent_size)
        images = steps.to_uint8(generator.model([latents, vectors], training=False))
        return images, tf.map_fn(images_lib.encode_png, images, fn_output_signature=tf.string)

    return render


def _provenance(generator: loading.Generator, plan: Plan) -> dict[str, Any]:
    rows, counts = samples.common_combinations(plan.vectors, len(plan.vectors))
    return {
        "generator": generator.name,
        "kimg": generator.kimg,
        "condition_labels": [LABELS[index] for index in generator.network.condition_labels] or list(LABELS),
        "trained_on": generator.records,
        "label_source": plan.label_source,
        "combinations": [
            {"labels": samples.describe(row, LABELS), "count": int(count)}
            for row, count in zip(rows, counts, strict=True)
        ],
    }


def _seen(generator: loading.Generator) -> np.ndarray:
    mask = np.zeros(len(LABELS), np.float32)
    mask[list(generator.network.condition_labels or range(len(LABELS)))] = 1
    return mask


def _is_exact(label_class: LabelClass) -> bool:
    return label_class.fixes_all and not label_class.any and set(label_class.one) <= set(LABELS)


def _exact_vector(generator: loading.Generator, version: LabelVersion, label_class: LabelClass) -> np.ndarray:
    vector = np.isin(LABELS, label_class.one).astype(np.float32)
    unseen = [name for name, value, seen in zip(LABELS, vector, _seen(generator), strict=True) if value and not seen]
    if unseen:
        known = ", ".join(LABELS[index] for index in generator.network.condition_labels)
        raise InputError(
            f"--label_version={version.name}: class {label_class.name} needs the label {unseen[0]}, but the GAN was "
            f"conditioned on {known} only"
        )
    return vector


def _draw(counts: np.ndarray, seed: int, numbers: np.ndarray) -> np.ndarray:
    """For each image number an index into `counts`, in proportion to them, as a function of (seed, number)."""
    if len(counts) == 1:
        return np.zeros(len(numbers), np.int64)
    total = int(counts.sum())
    seeds = np.stack([np.full_like(numbers, seed + _LABEL_SALT), numbers], axis=1)
    drawn = tf.map_fn(
        lambda pair: tf.random.stateless_uniform([], pair, 0, total, tf.int64), seeds, fn_output_signature=tf.int64
    ).numpy()
    return np.searchsorted(np.cumsum(counts), drawn, side="right")
