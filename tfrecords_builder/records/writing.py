"""Writes record sets, shard by shard: the one writer of built and of synthetic sets.

A shard is a job of its own: `write_shard` writes it under a temporary name, renames it, and notes beside it what it
holds (its part). Jobs run in threads here or as the elements of an Apache Beam pipeline (see beam_runner.py). When all
are done, the parts are added up in order, so that the set does not depend on who wrote which shard, nor on whether the
writer was stopped in between: a shard whose part is there and has the job's key is not written again.
"""

import contextlib
import csv
import dataclasses
import io
import json
import os
import pathlib
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfrecords_builder import files, records
from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.labels import LabelVersion
from tfrecords_builder.labels.canonical import SPLITS
from tfrecords_builder.progress import progress
from tfrecords_builder.records import croissant, datasheet

WORK_FOLDER = ".work"  # inside the folder of an unfinished set
SKIPPED_FILE = "skipped.csv"
BAD_IMAGE = "bad image"

_DESCRIBED_FILES = (records.MANIFEST_FILE, "dataset_info.json", "features.json", records.INFO_FILE)
_NUM_DUPLICATES_NAMED = 20  # groups, and images of a group
# What TensorFlow makes of a full disk, a file too large, a folder that has gone, missing rights.
_FILE_ERRORS = (
    tf.errors.ResourceExhaustedError,
    tf.errors.OutOfRangeError,
    tf.errors.NotFoundError,
    tf.errors.FailedPreconditionError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnknownError,
)


class SkippedRow(NamedTuple):
    """A row of a table that is not in the set, and why."""

    table: str  # file name
    line: int
    id: str
    reason: str


# Yields the serialized Examples of one shard, lazily, and a SkippedRow for each image that could not be used.
ShardFn = Callable[[], Iterable[bytes | SkippedRow]]
# Runs the jobs, in any order and anywhere; gets the number of images in all and of those that are there already.
Runner = Callable[[Sequence["ShardJob"], int, int], None]


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """One shard to be written; picklable if `examples` is."""

    folder: str
    split: str
    name: str  # of the shard's file
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    examples: ShardFn
    key: str = ""  # of all that decides the shard's content; empty: never taken over from a stopped run
    allow_skipped: bool = True  # whether a finished shard that left images out may be taken over

    @property
    def path(self) -> pathlib.Path:
        """The shard's file."""
        return pathlib.Path(self.folder) / self.name

    @property
    def part_path(self) -> pathlib.Path:
        """The note of what the shard holds."""
        return pathlib.Path(self.folder) / WORK_FOLDER / f"{self.name}.json"


def write_shard(job: ShardJob, on_image: Callable[[], object] = lambda: None) -> None:
    """Writes one shard and its part, if they are not there; both appear whole or not at all.

    A runner may give a job to a second worker when it has lost the first one, which may yet live. What such a
    straggler writes after the set is finished falls away: no folder is made for it.

    Args:
        job: the shard.
        on_image: called after each image.

    Raises:
        RunError: the shard could not be written. Whatever `job.examples` raises is passed on.
    """
    if _finished(job):
        return
    summary, lines = records.Summary(job.classes, job.labels), io.StringIO()
    manifest, columns = csv.writer(lines, lineterminator="\n"), records.manifest_columns(job.labels)
    skipped: list[SkippedRow] = []
    pictures: list[str] = []
    try:
        with files.atomic_path(job.path, make_folder=False) as temporary:
            with tf.io.TFRecordWriter(str(temporary)) as writer:
                for item in job.examples():
                    if isinstance(item, SkippedRow):
                        skipped.append(item)
                    else:
                        writer.write(item)
                        record = records.read_example(item)
                        row = records.to_row(record, job.classes, job.labels)
                        row.update(split=job.split, shard=job.name, position=summary.num_examples)
                        summary.add(job.split, item, row)
                        manifest.writerow(row[column] for column in columns)
                        pictures.append(row["image_digest"])
                    on_image()
            size = temporary.stat().st_size
        part = {
            "key": job.key,
            "columns": list(columns),
            "bytes": size,
            "summary": summary.to_json(),
            "skipped": skipped,
            "pictures": pictures,
            "manifest": lines.getvalue(),
        }
        with files.atomic_path(job.part_path, make_folder=False) as temporary:
            temporary.write_text(json.dumps(part), encoding="utf-8")
    except (OSError, *_FILE_ERRORS) as error:
        reason = error.message if isinstance(error, tf.errors.OpError) else error.strerror or error
        raise RunError(f"{job.path}: cannot be written ({reason})") from error


def run_in_threads(workers: int) -> Runner:
    """A runner of `workers` threads (image and PNG ops release Python's lock); the first failure stops the others."""

    def run(jobs: Sequence[ShardJob], total: int, initial: int) -> None:
        failed, lock = threading.Event(), threading.Lock()  # a progress bar is not thread-safe
        with progress(total, "writing records", initial=initial) as bar:

            def on_image() -> None:
                if failed.is_set():
                    raise futures.CancelledError
                with lock:
                    bar.update(1)

            def work(job: ShardJob) -> None:
                if failed.is_set():
                    raise futures.CancelledError
                try:
                    write_shard(job, on_image)
                except BaseException:
                    failed.set()
                    raise

            with futures.ThreadPoolExecutor(workers) as executor:
                tasks = [executor.submit(work, job) for job in jobs]
                try:
                    futures.wait(tasks)
                except BaseException:  # the user stops the program
                    failed.set()
                    executor.shutdown(wait=True, cancel_futures=True)
                    raise
            faults = [error for error in (task.exception() for task in tasks) if error]
            if faults:
                raise next(error for error in faults if not isinstance(error, futures.CancelledError))

    return run


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
    dataset_name: str = "",
    uncertain: str = "",
    split_policy: str = "",
    view: str = "",
    aspect: str = "",
    contrast: str = "",
    hashed_patients: bool = False,
    provenance: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
    keys: Mapping[str, Sequence[str]] | None = None,
    allow_skipped: bool = True,
    runner: Runner | None = None,
    total: int = 0,
) -> records.RecordSetInfo:
    """Writes a record set.

    A builder makes each shard a callable that yields `records.make_example(...)` one after another, so that memory
    holds one image per worker. A generator of synthetic images does the same with a batch at a time. The output
    depends only on what the callables yield, not on the runner.

    Args:
        folder: an existing folder, usually that of `files.output_folder` or `files.resumable_folder`.
        shards: split -> callables, one per shard file. A split without callables is left out.
        name: first part of the shards' file names.
        dataset: chexpert, chestxray, folder, records, synthetic.
        source: `source` of the records.
        label_version: its label set, name, class names and definition go into the description.
        resolution: side of the images in pixels.
        seed: the seed of the build.
        dataset_name: whose patients they are, see `RecordSetInfo`; empty: `source` says it.
        uncertain: uncertain policy; empty where there is none.
        split_policy: how the splits were made.
        view: view filter; empty where there is none.
        aspect: how images were made square; empty for synthetic images, as is `contrast`.
        contrast: how grey levels were stretched.
        hashed_patients: whether patient ids are salted hashes.
        provenance: whatever else the description should hold (JSON values).
        report: build_report.json, to which `written`, `splits` (the counts), `duplicates` and the number of bad images
            are added.
        keys: split -> one text per shard that changes with its content; shards of those keys that an earlier, stopped
            call finished in `folder` are taken over. None: all are written.
        allow_skipped: whether shards that left images out may be taken over.
        runner: default one thread, which generators need that share a model.
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
    jobs: dict[str, list[ShardJob]] = {}
    for split in SPLITS:
        count = len(shards.get(split, ()))
        if count:
            jobs[split] = [
                ShardJob(
                    folder=str(folder),
                    split=split,
                    name=f"{name}-{split}.tfrecord-{i:05d}-of-{count:05d}",
                    classes=label_version.class_names,
                    labels=label_version.label_set.labels,
                    examples=shards[split][i],
                    key=keys[split][i] if keys else "",
                    allow_skipped=allow_skipped,
                )
                for i in range(count)
            ]
    (folder / WORK_FOLDER).mkdir(exist_ok=True)
    _run([job for part in jobs.values() for job in part], folder, runner or run_in_threads(1), total)
    whole = _add_up(jobs, folder, label_version)
    info = records.RecordSetInfo(
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
        label_set=label_version.label_set,
        digest=whole.digest,
        label_definition=label_version.definition(),
        aspect=aspect,
        contrast=contrast,
        hashed_patients=hashed_patients,
        splits=whole.splits,
        provenance=dict(provenance or {}),
        schema_version=records.SCHEMA_VERSION,
        folder=folder,
        dataset_name=dataset_name,
    )
    records.write_info(info)
    _describe(info, dict(report or {}), whole)
    shutil.rmtree(folder / WORK_FOLDER)
    return info


def has_finished_shards(folder: pathlib.Path) -> bool:
    """Whether an unfinished set is worth keeping."""
    return any((folder / WORK_FOLDER).glob("*.tfrecord-*.json"))


def _run(jobs: Sequence[ShardJob], folder: pathlib.Path, runner: Runner, total: int) -> None:
    """Writes what an earlier run has not; nothing else that looks like a shard stays in the folder."""
    _sweep(folder, jobs)
    rest, there = [], 0
    for job in jobs:
        finished = _finished(job)
        if finished:
            there += finished
        else:
            job.part_path.unlink(missing_ok=True)
            rest.append(job)
    if rest:
        runner(rest, total, there)
        _sweep(folder, jobs)
        for job in rest:
            part = files.read_json(job.part_path) if job.part_path.is_file() else {}
            if part.get("key") != job.key or not job.path.is_file() or part["bytes"] != job.path.stat().st_size:
                raise RunError(
                    f"{job.path}: is not there, or of another build, though its writer ended well; see to it that all "
                    "workers see this folder under this path, and that nobody else writes there"
                )


def _sweep(folder: pathlib.Path, jobs: Sequence[ShardJob]) -> None:
    """Removes shards of another build, and what killed or lost writers have left half written."""
    names = {job.name for job in jobs}
    for path in [*folder.glob("*.tfrecord-*"), *folder.glob(".*.tmp")]:
        if path.name not in names:
            path.unlink(missing_ok=True)


def _finished(job: ShardJob) -> int:
    """The number of rows in the shard if an earlier run finished it, else 0."""
    if not job.key or not job.path.is_file() or not job.part_path.is_file():
        return 0
    try:
        part = files.read_json(job.part_path)
    except InputError:
        return 0
    if part["key"] != job.key or part["bytes"] != job.path.stat().st_size:
        return 0
    if part.get("columns") != list(records.manifest_columns(job.labels)):  # of a version that wrote another manifest
        return 0
    if part["skipped"] and not job.allow_skipped:
        return 0
    return len(part["pictures"]) + len(part["skipped"])


@dataclasses.dataclass
class _Whole:
    """What the parts add up to."""

    splits: dict[str, records.SplitInfo]
    digest: str
    num_bad: int
    duplicates: dict[str, Any]


def _add_up(jobs: Mapping[str, Sequence[ShardJob]], folder: pathlib.Path, version: LabelVersion) -> _Whole:
    """Reads the parts in order, one at a time; writes manifest.csv and the bad images' rows of skipped.csv."""
    splits, digest, num_bad = {}, 0, 0
    classes, labels = version.class_names, version.label_set.labels
    pictures: list[np.ndarray] = []
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(files.atomic_path(folder / records.MANIFEST_FILE))
        manifest = stack.enter_context(temporary.open("w", encoding="utf-8", newline=""))
        csv.writer(manifest, lineterminator="\n").writerow(records.manifest_columns(labels))
        for split, shards in jobs.items():
            total, lengths = records.Summary(classes, labels), []
            for job in shards:
                part = files.read_json(job.part_path)
                summary = records.Summary.from_json(classes, labels, part["summary"])
                total.merge(summary)
                lengths.append(summary.num_examples)
                manifest.write(part["manifest"])
                pictures.append(np.array([int(text, 16) for text in part["pictures"]], np.uint64))
                num_bad += len(part["skipped"])
                append_skipped(folder, (SkippedRow(*row) for row in part["skipped"]))
            splits[split] = total.split_info([job.name for job in shards], lengths)
            digest += total.digest
    hashes = np.concatenate(pictures) if pictures else np.zeros(0, np.uint64)
    return _Whole(
        splits, records.format_digest(digest), num_bad, _find_duplicates(folder / records.MANIFEST_FILE, hashes)
    )


def append_skipped(folder: pathlib.Path, rows: Iterable[SkippedRow]) -> None:
    """Adds rows to skipped.csv, which is made with its header if it is not there."""
    path = folder / SKIPPED_FILE
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if new:
            writer.writerow(SkippedRow._fields)
        writer.writerows(rows)


def _find_duplicates(manifest: pathlib.Path, hashes: np.ndarray) -> dict[str, Any]:
    """Images with the same pixels: how many, over patients and over splits, and the first of them by name.

    `hashes` has one value per row of the manifest; memory holds one group per value that occurs again, and of a group
    some names only: a generator that has collapsed repeats one image in every row.
    """
    values, counts = np.unique(hashes, return_counts=True)
    if not (counts > 1).any():
        return {"images": 0, "across_patients": 0, "across_splits": 0, "examples": []}
    again = np.isin(hashes, values[counts > 1])
    groups: dict[int, _Group] = {}
    with manifest.open(encoding="utf-8", newline="") as stream:
        for row, value, chosen in zip(csv.DictReader(stream), hashes, again, strict=True):
            if chosen:
                groups.setdefault(int(value), _Group()).add(row)
    patients = [group for group in groups.values() if group.across_patients]
    splits = [group for group in groups.values() if group.across_splits]
    named = (splits or patients or list(groups.values()))[:_NUM_DUPLICATES_NAMED]
    return {
        "images": int((counts - 1).sum()),
        "across_patients": len(patients),
        "across_splits": len(splits),
        "examples": [group.names for group in named],
    }


class _Group:
    """Images with the same pixels: the names of the first of them, and whether all are of one patient and one split."""

    __slots__ = ("_patient", "_split", "across_patients", "across_splits", "names")

    def __init__(self) -> None:
        self.names: list[str] = []
        self.across_patients = self.across_splits = False

    def add(self, row: Mapping[str, str]) -> None:
        if not self.names:
            self._patient, self._split = row["patient"], row["split"]
        self.across_patients |= row["patient"] != self._patient
        self.across_splits |= row["split"] != self._split
        if len(self.names) < _NUM_DUPLICATES_NAMED:
            self.names.append(row["id"])


def _describe(info: records.RecordSetInfo, report: dict[str, Any], whole: _Whole) -> None:
    """Writes build_report.json, croissant.json and DATASHEET.md."""
    skipped = Counter(report.get("skipped", {}))
    if whole.num_bad:
        skipped[BAD_IMAGE] += whole.num_bad
    report |= {
        "skipped": dict(skipped),
        "duplicates": whole.duplicates,
        "written": sum(part.num_examples for part in info.splits.values()),
        "splits": {split: dataclasses.asdict(part) for split, part in info.splits.items()},
    }
    report["warnings"] = [*report.get("warnings", []), *_duplicate_warnings(whole.duplicates)]
    files.write_json(info.folder / "build_report.json", report)
    described = {name: files.sha256(info.folder / name) for name in _DESCRIBED_FILES}
    files.write_json(info.folder / "croissant.json", croissant.describe(info, files=described))
    files.write_text(info.folder / datasheet.FILE, datasheet.render(info, report))


def _duplicate_warnings(duplicates: Mapping[str, Any]) -> Iterator[str]:
    if duplicates["images"]:
        first = " and ".join(duplicates["examples"][0][:2])
        yield (
            f"images that repeat the pixels of another: {duplicates['images']} (groups of them in several splits: "
            f"{duplicates['across_splits']}, under several patients: {duplicates['across_patients']}), such as {first}"
        )
