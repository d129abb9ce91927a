"""Renders the images of a plan into a record set, shard by shard; a call that was stopped goes on where it was."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfcxr.gan import image_grids, latent_sampling, loading
from tfcxr.generation import curation, plans, pngs, sheets
from tfrecords_builder import files, records
from tfrecords_builder.images import image_ops, pixel_ranges
from tfrecords_builder.labels import combinations
from tfrecords_builder.labels.canonical import SPLITS
from tfrecords_builder.records import scorecards
from tfrecords_builder.records import writing as records_writing

SHEET_FILE = "samples.png"
LATENT_STRIPS_FILE = "interpolation_latents.png"
LABEL_STRIPS_FILE = "interpolation_labels.png"

_SET_FILE = "set.txt"  # inside records_writing.WORK_FOLDER: the key of the set whose files are in the folder


@dataclasses.dataclass(frozen=True)
class Options:
    """How the images of a plan are made and written.

    Attributes:
        seed: of the latents.
        batch_size: images at a time. Latents do not depend on it; pixels may by one grey level.
        truncation: scale of the latents, 0 < psi <= 1, see `sampling.numbered_latents`; 1 is off.
        images_per_shard: at most so many.
        also_png: also write PNG files and tables in CheXpert's layout (pngs.py).
        strips: also draw the interpolation strips (sheets.py).
    """

    seed: int = 0
    batch_size: int = 64
    truncation: float = 1.0
    images_per_shard: int = 1024
    also_png: bool = False
    strips: bool = False


def write(
    generator: loading.Generator,
    plan: plans.Plan,
    folder: str | os.PathLike,
    options: Options | None = None,
    curator: curation.Curator | None = None,
) -> dict[str, Any]:
    """Generates the images of a plan and writes them as a record set, with a sheet of samples (samples.png).

    Memory holds the plan and one batch; see plans.py.

    Args:
        generator: makes the images.
        plan: the labels.
        folder: an existing folder, usually that of `files.resumable_folder`: shards of the same generator, plan and
            options that an earlier, stopped call finished there are taken over, with their PNG files.
        options: see there.
        curator: chooses the latents; None: image i has latent i.

    Returns:
        The content of result.json.

    Raises:
        InputError: too few images pass the curation.
        RunError: a file cannot be written.
    """
    began = time.monotonic()
    folder, options = pathlib.Path(folder), options or Options()
    source, weights = f"synthetic:{generator.name}", loading.digest_weights(generator)
    key = _key(generator, weights, plan, options, curator)
    _prepare(folder, key)
    renderer = Renderer(generator, options)
    latent_numbers, curated = np.arange(len(plan)), None
    if curator is not None:

        def render(numbers: np.ndarray, vectors: np.ndarray) -> np.ndarray:
            return renderer.images(renderer.latents(numbers), vectors)

        selection = curator.select(render, folder / records_writing.WORK_FOLDER, key, options.batch_size)
        latent_numbers, curated = selection.numbers, selection.description
    _draw(folder, plan, renderer, latent_numbers, strips=options.strips)
    if options.also_png:
        pngs.write_tables(folder, plan, source)
    rendered, num_labels = 0, len(plan.version.label_set)

    def shard(split: str, numbers: np.ndarray) -> Iterator[bytes]:
        nonlocal rendered
        for start in range(0, len(numbers), options.batch_size):
            part = numbers[start : start + options.batch_size].astype(np.int64)
            vectors, classes = combinations.decode(plan.codes[part], num_labels), plan.class_of_code[plan.codes[part]]
            encoded = renderer.pngs(latent_numbers[part], vectors)
            for number, vector, index, png in zip(part.tolist(), vectors, classes, encoded, strict=True):
                if options.also_png:
                    pngs.write_image(folder, split, number, png)
                rendered += 1
                yield records.make_example(
                    encoded=png,
                    image_id=f"synthetic-{number:06d}",
                    resolution=generator.network.resolution,
                    vector=vector,
                    class_index=int(index),
                    source=source,
                )

    shards, keys = {}, {}
    for index, split in enumerate(SPLITS):
        numbers = np.flatnonzero(plan.splits == index).astype(np.uint32)
        count = -(-len(numbers) // options.images_per_shard)
        # Every shard takes each count-th image, so that all of them hold all classes.
        shards[split] = [functools.partial(shard, split, numbers[part::count]) for part in range(count)]
        keys[split] = [f"{key} {split} {part}" for part in range(count)]
    info = records_writing.write_record_set(
        folder,
        shards,
        name="synthetic",
        dataset="synthetic",
        source=source,
        dataset_name=source,
        label_version=plan.version,
        resolution=generator.network.resolution,
        seed=options.seed,
        split_policy="index",
        provenance=_provenance(generator, plan, options, weights, curated),
        report={"label_source": plan.label_source, "left_out": plan.left_out},
        keys=keys,
        total=len(plan),
    )
    scorecards.write_unaudited(info)
    seconds = time.monotonic() - began
    return {
        "num_images": len(plan),
        "splits": {name: split.num_examples for name, split in info.splits.items()},
        "classes": plan.class_counts,
        "label_source": plan.label_source,
        "left_out": plan.left_out,
        "generator": generator.name,
        "kimg": generator.kimg,
        "digest": info.digest,
        "curation": curated,
        "taken_over": len(plan) - rendered,
        "images_per_s": round(rendered / seconds, 1),
    }


def is_worth_keeping(folder: pathlib.Path) -> bool:
    """Whether a stopped call has left something in a folder that the next one takes over."""
    chosen = folder / records_writing.WORK_FOLDER / curation.STATE_FILE
    return chosen.is_file() or records_writing.has_finished_shards(folder)


class Renderer:
    """Images of numbers or of latents.

    Its graphs take batches of any size, so that what was rendered before changes nothing.
    """

    def __init__(self, generator: loading.Generator, options: Options):
        size, model = generator.network.latent_size, generator.model
        vectors = tf.TensorSpec([None, generator.network.num_labels], tf.float32)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)], autograph=False)
        def latents(numbers):
            return latent_sampling.numbered_latents(options.seed, numbers, size, options.truncation)

        @tf.function(input_signature=[tf.TensorSpec([None, size], tf.float32), vectors], autograph=False)
        def images(values, labels):
            return pixel_ranges.signed_to_uint8(model([values, labels], training=False))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64), vectors], autograph=False)
        def encoded(numbers, labels):
            made = images(latents(numbers), labels)
            return tf.map_fn(image_ops.encode_png, made, fn_output_signature=tf.string)

        self._batch_size, self._latents, self._images, self._encoded = options.batch_size, latents, images, encoded

    def latents(self, numbers: np.ndarray) -> np.ndarray:
        """Latents float32 [N, size] of image numbers int64 [N]."""
        return self._latents(tf.constant(numbers, tf.int64)).numpy()

    def images(self, latents: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Images uint8 [N, R, R, 1] of latents [N, size] and label vectors [N, L], batch by batch."""
        cuts = range(self._batch_size, len(latents), self._batch_size)
        parts = zip(np.split(latents, cuts), np.split(vectors, cuts), strict=True)
        return np.concatenate([self._images(tf.constant(z), tf.constant(y)).numpy() for z, y in parts])

    def pngs(self, numbers: np.ndarray, vectors: np.ndarray) -> list[bytes]:
        """The encoded images of one batch of numbers int64 [N] with label vectors [N, L]."""
        return self._encoded(tf.constant(numbers, tf.int64), tf.constant(vectors)).numpy().tolist()


def _draw(
    folder: pathlib.Path, plan: plans.Plan, renderer: Renderer, latent_numbers: np.ndarray, *, strips: bool
) -> None:
    numbered = np.append(latent_numbers, len(plan))  # strips of a single image go on to one that is not in the set
    drawings: dict[str, Callable[..., np.ndarray | None]] = {SHEET_FILE: sheets.draw_sheet}
    if strips:
        drawings |= {LATENT_STRIPS_FILE: sheets.draw_latent_strips, LABEL_STRIPS_FILE: sheets.draw_label_strips}
    for name, draw in drawings.items():
        picture = draw(plan, lambda numbers: renderer.latents(numbered[numbers]), renderer.images)
        if picture is not None:
            image_grids.write_png(folder / name, picture)


def _prepare(folder: pathlib.Path, key: str) -> None:
    """Removes what a stopped call left but for its shards, which have keys, and PNG files of the same key."""
    for name in (records_writing.SKIPPED_FILE, SHEET_FILE, LATENT_STRIPS_FILE, LABEL_STRIPS_FILE):
        (folder / name).unlink(missing_ok=True)
    note = folder / records_writing.WORK_FOLDER / _SET_FILE
    if not note.is_file() or note.read_text() != key:
        shutil.rmtree(folder / pngs.FOLDER, ignore_errors=True)
    files.write_text(note, key)


def _key(
    generator: loading.Generator, weights: str, plan: plans.Plan, options: Options, curator: curation.Curator | None
) -> str:
    """Hash of all that decides the content of the shards and of the PNG files."""
    drawn = dataclasses.asdict(dataclasses.replace(options, strips=False))
    devices = sorted({device.device_type for device in tf.config.list_logical_devices()})
    known = [records.SCHEMA_VERSION, tf.__version__, devices, generator.name, weights, plan.version.definition(), drawn]
    known += [] if curator is None else [curator.key]
    digest = hashlib.sha256(json.dumps(known).encode())
    digest.update(np.ascontiguousarray(plan.codes).data)
    digest.update(np.ascontiguousarray(plan.splits).data)
    return digest.hexdigest()


def _provenance(
    generator: loading.Generator, plan: plans.Plan, options: Options, weights: str, curated: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "generator": generator.name,
        "generator_sha256": weights,
        "kimg": generator.kimg,
        "condition_labels": [generator.label_set.labels[index] for index in generator.network.seen_labels],
        "trained_on": generator.records,
        "truncation": options.truncation,
        "label_source": plan.label_source,
        **({} if curated is None else {"curation": curated}),
        "combinations": combinations.to_table(plan.code_counts, generator.label_set.labels),
    }
