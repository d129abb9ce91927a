"""Builds a record set from a label table and images: the library behind `tfcxr build-records`.

First everything that a table can tell (planning.py), then the images. Each shard is a list of rows, written to a file
of its own before the first image is read; a worker reads it, and decodes, resizes and encodes one image after the
other. So memory during the encoding depends on neither the number of images nor that of rows, the shards do not depend
on the number of workers or on where they run, and a stopped build goes on with the shards that it lacks.
"""

import functools
import hashlib
import json
import os
import pathlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfrecords_builder import build_plan, choices, errors, files, readers, records
from tfrecords_builder.errors import RunError
from tfrecords_builder.images import finding, pictures
from tfrecords_builder.labels import combinations
from tfrecords_builder.labels.canonical import SPLITS
from tfrecords_builder.records import writing

IMAGES_PER_SHARD = 1024
# A small split is cut finer, so that several workers have something to do; by the number of images, not of workers.
SMALL_SHARD = 128
SMALL_SPLIT_SHARDS = 8
_LOOKED_AT = 8  # images, for what all are like
_USUAL_DEPTH = 14  # bits of detectors; a picture of 16 uses them all
ROWS_FOLDER = "rows"  # inside writing.WORK_FOLDER

_encoder_lock = threading.Lock()
_ROW_COLUMNS = ("id", "patient", "view", "sex", "age", "extra", "class", "path", "offset", "table", "line", "listed")
_WITHOUT_UNITS = tuple(finding.SUFFIXES - {".dcm", ".dicom", ".dic"})
_RECORD_COLUMNS = (*_ROW_COLUMNS, "combination")  # of those that are made of records


def build(
    folder: str | os.PathLike,
    options: build_plan.Options,
    picture: pictures.PictureOptions,
    *,
    num_shards: int = 0,
    workers: int = 1,
    bad_images: str = "error",
    runner: writing.Runner | None = None,
) -> records.RecordSetInfo:
    """Builds a record set.

    Args:
        folder: an existing folder, usually that of `files.resumable_folder`: shards of the same rows and options that
            an earlier, stopped call finished there are taken over.
        options: which rows, classes and splits.
        picture: what is made of the images.
        num_shards: shards per split; 0: one per 1,024 images, up to 8 in splits with fewer than 8,192.
        workers: threads; the output does not depend on it.
        bad_images: error or skip, for images that cannot be decoded.
        runner: instead of threads, see beam_runner.py; the output does not depend on it.

    Returns:
        The set's description.

    Raises:
        InputError: before an image has been read: a bad argument, table or value, an image that is not there, a class
            without images.
        RunError: an image that cannot be decoded, or a file that cannot be written.
    """
    folder = pathlib.Path(folder)
    plan = build_plan.make_plan(options)
    plan.warnings.extend(_suspect_depth(plan, picture))
    plan.warnings.extend(_suspect_window(plan, picture))
    tables = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in plan.table.paths}
    report = {
        "tables": tables,
        "rows": plan.table.num_rows,
        "skipped": plan.skipped_counts,
        "hierarchy": plan.orphans,
        "warnings": plan.warnings,
    }
    (folder / writing.SKIPPED_FILE).unlink(missing_ok=True)
    writing.append_skipped(folder, (writing.SkippedRow(*row) for row in plan.skipped.itertuples(index=False)))
    skip, source, version, uncertain = bad_images == "skip", plan.table.source, plan.version, plan.uncertain
    dataset_name = options.dataset_name or plan.table.dataset_name
    shards: dict[str, list[writing.ShardFn]] = {}
    keys: dict[str, list[str]] = {}
    for split in SPLITS:
        paths = _write_rows(folder, plan, split, num_shards, options.seed)
        shards[split] = [functools.partial(encode_rows, str(path), picture, source, skip) for path in paths]
        keys[split] = [_key(path, split, picture, source, version.definition()) for path in paths]
    no_finding = options.columns.no_finding if options.columns else "column"
    total = len(plan.frame)
    del plan  # its tables; the shards have their rows in files
    info = writing.write_record_set(
        folder,
        shards,
        name=options.dataset,
        dataset=options.dataset,
        source=source,
        dataset_name=dataset_name,
        label_version=version,
        resolution=picture.resolution,
        seed=options.seed,
        uncertain=uncertain,
        split_policy=options.split_policy,
        view=options.view,
        **_picture_settings(options, picture),
        hashed_patients=bool(options.patient_salt),
        provenance={
            "tables": tables,
            **_split_settings(options),
            "limit": options.limit,
            **({"unlabelled_images": "keep"} if options.unlabelled_images == "keep" else {}),
            **{name: getattr(options, name) for name in choices.DATASETS[options.dataset].options},
            **({"no_finding": no_finding} if no_finding != "column" else {}),
        },
        report=report,
        keys=keys,
        allow_skipped=skip,
        runner=runner or writing.run_in_threads(workers),
        total=total,
    )
    for name in info.classes if options.unlabelled_images == "skip" else ():
        if not sum(split.class_counts[name] for split in info.splits.values()):
            raise RunError(f"class {name!r} of {version.name}: no image of it could be decoded")
    return info


def _suspect_depth(plan: build_plan.Plan, picture: pictures.PictureOptions) -> list[str]:
    """A warning if some images, looked at for all, leave upper bits of their 16 unused: they would be nearly black."""
    if picture.contrast != "none":
        return []
    whole = plan.frame[plan.frame["offset"] < 0]
    for path in whole["path"].iloc[:: max(1, len(whole) // _LOOKED_AT)][:_LOOKED_AT]:
        try:
            used = pictures.count_used_bits(readers.read_image(path))
        except (OSError, ValueError):
            continue
        if used is None:
            return []
        if used <= _USUAL_DEPTH:
            return [
                f"{path} has 16 bits and uses the lower {used} only, so that its picture is nearly black; if others "
                "are like it, --contrast=max or --contrast=percentile stretches their grey levels"
            ]
    return []


def _suspect_window(plan: build_plan.Plan, picture: pictures.PictureOptions) -> list[str]:
    """A warning if there are images that a window of Hounsfield units leaves as they are."""
    if picture.contrast not in choices.CT_WINDOWS:
        return []
    pictures_of_greys = (plan.frame["offset"] >= 0) | plan.frame["path"].str.lower().str.endswith(_WITHOUT_UNITS)
    count = int(pictures_of_greys.sum())
    if not count:
        return []
    return [
        f"--window={picture.contrast}: {count} of {len(plan.frame)} images are no DICOM files and have no Hounsfield "
        "units: the window does nothing to them, and what they show depends on how they were made"
    ]


def _picture_settings(options: build_plan.Options, picture: pictures.PictureOptions) -> dict[str, str]:
    """Aspect and contrast of the set. Made of records, whose images are square, it has what theirs began with."""
    if options.dataset != "records":
        return {"aspect": picture.aspect, "contrast": picture.contrast}
    earlier = records.load_info(options.data_dir)
    return {
        "aspect": earlier.aspect,
        "contrast": earlier.contrast if picture.contrast == "none" else picture.contrast,
    }


def encode_rows(
    rows: str, picture: pictures.PictureOptions, source: str, skip: bool
) -> Iterator[bytes | writing.SkippedRow]:
    """Yields the records of one shard.

    Args:
        rows: file of the shard's rows, one JSON object a line.
        picture: what is made of the images.
        source: `source` of the records.
        skip: whether an image that cannot be used is a SkippedRow rather than an error.

    Raises:
        RunError: an image that cannot be read or decoded.
    """
    encoder = _encoder(picture)
    with pathlib.Path(rows).open(encoding="utf-8") as stream:
        for row in map(json.loads, stream):
            try:
                encoded = encoder.encode(_read(row))
            except (OSError, ValueError, pictures.BadImage) as error:
                errors.refuse_few_handles(error, row["path"])
                reason = getattr(error, "strerror", None) or str(error)
                if not skip:
                    place = f" ({row['table']} line {row['line']})" if row["table"] else ""
                    raise RunError(
                        f"{row['path']}: cannot be used: {reason}{place}; --bad_images=skip leaves such out"
                    ) from error
                yield writing.SkippedRow(row["table"], row["line"], row["id"], f"{writing.BAD_IMAGE}: {reason}")
                continue
            yield records.make_example(
                encoded=encoded,
                image_id=row["id"],
                resolution=picture.resolution,
                vector=row["vector"],
                class_index=row["class"],
                source=source,
                patient_id=row["patient"],
                view=row["view"],
                sex=row["sex"],
                age=row["age"],
                extra=[finding for finding in row["extra"].split(readers.EXTRA_SEPARATOR) if finding],
            )


def format_counts(info: records.RecordSetInfo) -> str:
    """The images of each class in each split, and the patients, as a table in plain text."""
    names = list(info.splits)
    counts = {split: info.splits[split].class_counts or info.splits[split].label_counts for split in names}
    rows = [("", *names)]
    rows += [(name, *(str(counts[split][name]) for split in names)) for name in info.classes or info.labels]
    if info.classes and any(info.splits[split].num_examples > sum(counts[split].values()) for split in names):
        rest = (info.splits[split].num_examples - sum(counts[split].values()) for split in names)
        rows.append(("without label", *map(str, rest)))
    rows.append(("images", *(str(info.splits[split].num_examples) for split in names)))
    rows.append(("patients", *(str(info.splits[split].num_patients or "-") for split in names)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def _read(row: Mapping[str, Any]) -> bytes:
    """The encoded image of a row. Raises ValueError if a record set's manifest names another record than is there."""
    if row["offset"] < 0:
        return readers.read_image(row["path"])
    record = readers.read_record(row["path"], row["offset"])
    code = int(combinations.encode(np.array([record["label/vector"]]))[0])  # a label map may have changed `vector`
    if record["image/id"] != row["listed"] or code != row["combination"]:
        raise ValueError(
            f"the record at byte {row['offset']} is {record['image/id']}, with another id or other labels than the "
            f"manifest says of {row['listed']}; build the record set again"
        )
    return record["image/encoded"]


@functools.lru_cache(maxsize=1)
def _make_encoder(picture: pictures.PictureOptions) -> pictures.PictureEncoder:
    return pictures.PictureEncoder(picture)


def _encoder(picture: pictures.PictureOptions) -> pictures.PictureEncoder:
    """One encoder a process, whichever thread asks first."""
    with _encoder_lock:  # the cache alone lets two threads make one each
        return _make_encoder(picture)


def _write_rows(
    folder: pathlib.Path, plan: build_plan.Plan, split: str, num_shards: int, seed: int
) -> list[pathlib.Path]:
    """Writes the split's rows in random order, one file per shard.

    They hold size and time of each image file: a build that goes on after images have changed makes their shards anew.
    """
    rows = np.flatnonzero((plan.frame["split"] == split).to_numpy())
    rows = np.random.default_rng([seed, 2, SPLITS.index(split)]).permutation(rows)
    count = min(num_shards or _num_shards(len(rows)), len(rows))
    target = folder / writing.WORK_FOLDER / ROWS_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, part in enumerate(np.array_split(rows, count) if count else []):
        paths.append(target / f"{split}-{i:05d}.jsonl")
        lines = []
        frame = plan.frame.iloc[part][[name for name in _RECORD_COLUMNS if name in plan.frame]]
        for row, vector in zip(frame.to_dict("records"), plan.vectors[part].astype(int).tolist(), strict=True):
            path = pathlib.Path(row["path"]).absolute()  # a Beam worker has another current folder
            more = {"path": str(path), "vector": vector, "stamp": _stamp(path)}
            lines.append(json.dumps(row | more))
        files.write_text(paths[-1], "".join(f"{line}\n" for line in lines))
    return paths


def _num_shards(num_images: int) -> int:
    return max(-(-num_images // IMAGES_PER_SHARD), min(-(-num_images // SMALL_SHARD), SMALL_SPLIT_SHARDS))


def _stamp(path: pathlib.Path) -> list[int]:
    """Size and time of a file; nothing for what cannot be opened either, such as a link that leads nowhere."""
    try:
        stamp = path.stat()
    except OSError:
        return []
    return [stamp.st_size, stamp.st_mtime_ns]


def _key(rows: pathlib.Path, split: str, *values: Any) -> str:
    """Hash of all that decides a shard's content; TensorFlow decodes, resizes and encodes."""
    text = json.dumps([split, records.SCHEMA_VERSION, tf.__version__, *map(str, values)])
    return hashlib.sha256(rows.read_bytes() + text.encode()).hexdigest()


def _split_settings(options: build_plan.Options) -> dict[str, Any]:
    """The settings that the split policy uses."""
    if options.split_policy == "kfold":
        return {"num_folds": options.num_folds, "fold": options.fold, "kfold_test": options.kfold_test}
    if options.split_policy == "lists":
        return {"split_lists": pathlib.Path(str(options.split_lists)).name}
    if options.split_policy == "official":
        return {}
    return {"split_fractions": list(options.split_fractions)}
