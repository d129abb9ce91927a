"""Builds a record set from a label table and images: the library behind `build.py`.

First everything that a table can tell (rows, labels, classes, splits, which images are there), then the images: every
shard is a list of rows that a worker reads, decodes, resizes and encodes one by one, so memory does not depend on the
number of images and the shards do not depend on the number of workers.
"""

import collections
import dataclasses
import functools
import hashlib
import os
import pathlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from tfrecords_builder import images, labels, readers, records, splits
from tfrecords_builder.errors import InputError, RunError

IMAGES_PER_SHARD = 1024


@dataclasses.dataclass(frozen=True)
class Plan:
    """The selected rows, before an image has been read.

    `frame` is a reader's frame with `path`, `class` (int) and `split`; `vectors` are its label vectors [N, 14].
    """

    table: readers.Table
    version: labels.LabelVersion
    frame: pd.DataFrame
    vectors: np.ndarray
    skipped: collections.Counter[str]
    warnings: list[str]


def make_plan(
    *,
    dataset: str,
    data_dir: str | os.PathLike,
    label_version: str,
    labels_csv: str | os.PathLike | None = None,
    uncertain: str = "zeros",
    split_policy: str = "patient",
    split_fractions: Sequence[float] = splits.DEFAULT_FRACTIONS,
    view: str = "any",
    limit: int = 0,
    missing_images: str = "error",
    seed: int = 0,
) -> Plan:
    """Selects rows, classes and splits; see `build` for the arguments and the errors."""
    version = labels.get_label_version(label_version)
    table = readers.read(dataset, data_dir, labels_csv=labels_csv, official=split_policy == "official")
    skipped, frame = table.skipped.copy(), table.frame
    frame["path"] = readers.locate(table)
    exists = (frame["path"] != "").to_numpy()

    # The split comes first and looks at the whole table, so that no later choice moves a patient (see splits.py).
    used = exists if missing_images == "skip" else np.ones(len(frame), bool)
    if not used.any():
        raise InputError(f"--data_dir={data_dir}: holds none of the images that {table.paths[0].name} names")
    frame["split"] = splits.NO_SPLIT
    frame.loc[used, "split"] = splits.assign_splits(frame[used], split_policy, fractions=split_fractions, seed=seed)

    vectors, certain = labels.apply_uncertain(version, frame[list(labels.LABELS)].to_numpy(), uncertain)
    extra = (frame["extra"] != "").to_numpy()
    frame["class"] = labels.assign(version, vectors, extra)
    selected = labels.select(version, vectors, extra)
    blank = ~(vectors > 0).any(axis=1)
    reasons = [
        (f"view is not {view}", (frame["view"] != view).to_numpy() if view != "any" else np.zeros(len(frame), bool)),
        ("uncertain label dropped", ~certain),
        ("no label", ~selected & blank & ~extra),
        ("unmapped findings only", ~selected & blank & extra),
        (f"in no class of {version.name}", ~selected),
        ("missing image", ~exists),
        ("in no official list", (frame["split"] == splits.NO_SPLIT).to_numpy()),
    ]
    kept = np.ones(len(frame), bool)
    for reason, mask in reasons:
        if reason == "missing image" and missing_images == "error" and (kept & mask).any():
            _raise_missing(frame[kept & mask], int(kept.sum()), data_dir)
        skipped[reason] += int((kept & mask).sum())
        kept &= ~mask
    if limit:
        over = kept & ~_limit(frame, kept, limit, seed)
        skipped["over --limit"] += int(over.sum())
        kept &= ~over
    plan = Plan(table, version, frame[kept].reset_index(drop=True), vectors[kept], +skipped, [])
    _check_classes(plan, split_policy)
    return plan


def build(
    folder: str | os.PathLike,
    *,
    dataset: str,
    data_dir: str | os.PathLike,
    label_version: str,
    resolution: int,
    labels_csv: str | os.PathLike | None = None,
    uncertain: str = "zeros",
    split_policy: str = "patient",
    split_fractions: Sequence[float] = splits.DEFAULT_FRACTIONS,
    view: str = "any",
    limit: int = 0,
    num_shards: int = 0,
    workers: int = 1,
    missing_images: str = "error",
    bad_images: str = "error",
    seed: int = 0,
) -> records.RecordSetInfo:
    """Builds a record set.

    Args:
        folder: an existing folder, usually the temporary one of `files.output_folder`.
        dataset: chexpert or chestxray.
        data_dir: folder of the data set.
        label_version: name of a label version.
        resolution: side of the square images in pixels.
        labels_csv: a table instead of the one in `data_dir`.
        uncertain: zeros, ones or drop.
        split_policy: patient, official or image.
        split_fractions: of train, validation and test; not for `official`.
        view: PA, AP or any.
        limit: at most that many images, drawn at random with the proportions of classes and splits; 0: all.
        num_shards: shards per split; 0: one per 1,024 images.
        workers: threads; the output does not depend on it.
        missing_images: error or skip, for images that the table names and the folder lacks.
        bad_images: error or skip, for images that cannot be decoded.
        seed: fixes the split, the order of the images and the choice under `limit`.

    Returns:
        The set's description.

    Raises:
        InputError: before an image has been read: a bad argument, table or value, an image that is not there, a class
            without images.
        RunError: an image that cannot be decoded, or a file that cannot be written.
    """
    plan = make_plan(
        dataset=dataset,
        data_dir=data_dir,
        label_version=label_version,
        labels_csv=labels_csv,
        uncertain=uncertain,
        split_policy=split_policy,
        split_fractions=split_fractions,
        view=view,
        limit=limit,
        missing_images=missing_images,
        seed=seed,
    )
    fractions = None if split_policy == "official" else list(split_fractions)
    report: dict[str, Any] = {
        "tables": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in plan.table.paths},
        "rows": plan.table.num_rows,
        "skipped": plan.skipped,  # the encoder counts bad images in it
        "warnings": plan.warnings,
    }
    encoder = _Encoder(plan, resolution, skip=bad_images == "skip")
    info = records.write_record_set(
        folder,
        {split: encoder.shards(split, num_shards, seed) for split in records.SPLITS},
        name=dataset,
        dataset=dataset,
        source=plan.table.source,
        label_version=plan.version,
        resolution=resolution,
        seed=seed,
        uncertain=uncertain,
        split_policy=split_policy,
        view=view,
        provenance={"tables": report["tables"], "split_fractions": fractions, "limit": limit},
        report=report,
        workers=workers,
        total=len(plan.frame),
    )
    for name in info.classes:
        if not sum(split.class_counts[name] for split in info.splits.values()):
            raise RunError(f"class {name!r} of {label_version}: no image of it could be decoded")
    return info


def format_counts(info: records.RecordSetInfo) -> str:
    """The images of each class in each split, and the patients, as a table in plain text."""
    names = list(info.splits)
    counts = {split: info.splits[split].class_counts or info.splits[split].label_counts for split in names}
    rows = [("", *names)]
    rows += [(name, *(str(counts[split][name]) for split in names)) for name in info.classes or info.labels]
    rows.append(("images", *(str(info.splits[split].num_examples) for split in names)))
    rows.append(("patients", *(str(info.splits[split].num_patients or "-") for split in names)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def _raise_missing(absent: pd.DataFrame, count: int, data_dir: str | os.PathLike) -> None:
    first = absent.iloc[0]
    raise InputError(
        f"--data_dir={data_dir}: {len(absent)} of the {count} images to be used are not there, the first is "
        f"{first['id']} (line {first['line']} of the table); --missing_images=skip counts and leaves them out"
    )


def _limit(frame: pd.DataFrame, kept: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """bool[N]: `limit` of the kept rows, in the proportions of (split, class), the first of each before all others."""
    rows = np.flatnonzero(kept)
    rows = np.random.default_rng([seed, 1]).permutation(rows)
    groups = frame.iloc[rows].groupby(["split", "class"])["id"]
    place = groups.cumcount().to_numpy() / groups.transform("size").to_numpy()
    chosen = np.zeros(len(frame), bool)
    chosen[rows[np.argsort(place, kind="stable")[:limit]]] = True
    return chosen


def _check_classes(plan: Plan, split_policy: str) -> None:
    """Raises InputError if a class has no image at all; notes classes that only a split lacks."""
    if not len(plan.frame):
        raise InputError(f"--label_version={plan.version.name}: no image is left after selection ({_tell(plan)})")
    counts = pd.crosstab(plan.frame["split"], plan.frame["class"])
    for i, name in enumerate(plan.version.class_names):
        if i not in counts.columns:
            raise InputError(
                f"--label_version={plan.version.name}: class {name!r} has no image after selection ({_tell(plan)})"
            )
        plan.warnings.extend(f"the {s} split has no image of class {name!r}" for s in counts.index if not counts[i][s])
    if split_policy == "image":
        plan.warnings.append(
            "--split_policy=image: images of one patient are in several splits; scores will be too good"
        )


def _tell(plan: Plan) -> str:
    left_out = ", ".join(f"{count} {reason}" for reason, count in plan.skipped.items())
    return f"{plan.table.num_rows} rows, left out: {left_out or 'none'}"


class _Encoder:
    """Makes the serialized Examples of a plan's rows; used by several threads at once."""

    def __init__(self, plan: Plan, resolution: int, *, skip: bool):
        self._plan, self._resolution, self._skip = plan, resolution, skip
        self._lock = threading.Lock()

        @functools.partial(tf.function, input_signature=[tf.TensorSpec([], tf.string)])
        def encode(encoded: tf.Tensor) -> tf.Tensor:
            grey = images.decode_grey(encoded)
            return images.encode_png(images.to_uint8(images.resize(grey, resolution, resolution)))

        self._encode = encode.get_concrete_function()

    def shards(self, split: str, num_shards: int, seed: int) -> list[records.ShardFn]:
        """The split's rows in random order, as one callable per shard."""
        rows = np.flatnonzero((self._plan.frame["split"] == split).to_numpy())
        rows = np.random.default_rng([seed, 2, records.SPLITS.index(split)]).permutation(rows)
        count = min(num_shards or -(-len(rows) // IMAGES_PER_SHARD), len(rows))
        return [functools.partial(self._examples, part) for part in np.array_split(rows, count)] if count else []

    def _examples(self, rows: np.ndarray) -> Iterator[bytes]:
        part, vectors = self._plan.frame.iloc[rows], self._plan.vectors[rows]
        for row, vector in zip(part.to_dict("records"), vectors, strict=True):
            try:
                encoded = self._encode(tf.constant(pathlib.Path(row["path"]).read_bytes())).numpy()
            except (OSError, tf.errors.InvalidArgumentError) as error:
                if not self._skip:
                    raise RunError(
                        f"{row['path']}: cannot be decoded ({_first_words(error)}); --bad_images=skip leaves such out"
                    ) from error
                with self._lock:
                    self._plan.skipped["bad image"] += 1
                continue
            yield records.make_example(
                encoded=encoded,
                image_id=row["id"],
                resolution=self._resolution,
                vector=vector,
                class_index=row["class"],
                source=self._plan.table.source,
                patient_id=row["patient"],
                view=row["view"],
                sex=row["sex"],
                age=row["age"],
                extra=[finding for finding in row["extra"].split(readers.EXTRA_SEPARATOR) if finding],
            )


def _first_words(error: Exception) -> str:
    return " ".join(str(getattr(error, "message", error)).split())[:120]
