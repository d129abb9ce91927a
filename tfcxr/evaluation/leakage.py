"""Whether a classifier is evaluated on images, or on patients, that it was trained on."""

import os
import pathlib
from collections.abc import Iterator

from tfcxr.training import runs
from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.records import RecordSetInfo, load_info
from tfrecords_builder.records.overlap import Overlap, find_overlap

MARK = "leakage:"
# The folds that a training is given: one to learn, one to choose the weights. Pretraining may learn from others.
GIVEN = ("train", "validation")

_RECORDS = ("records", "source_records", "target_records", "extra_records")
_MODELS = ("init_from", "weights", "run_dir")


def find_leakage(model_path: str | os.PathLike, tested: RecordSetInfo, split: str) -> list[str]:
    """Compares a fold with what a classifier was given, and with what the classifiers it started from were given.

    The record sets are those that the flags.txt of the run names, as long as they are still there; of an export, those
    of its run.

    Args:
        model_path: run folder or export of a classifier.
        tested: the record set of the evaluation.
        split: its fold that is evaluated.

    Returns:
        Warnings, each a sentence without a full stop.
    """
    patients: set[str] = set()
    images: set[str] = set()
    for info, learned in list_training_sets(model_path):
        same = info.digest == tested.digest
        if same and split in learned:
            return [f"{MARK} these are the images that the model was trained on, so that the score is too good"]
        # That a validation fold chose the weights is said elsewhere.
        folds = [fold for fold in dict.fromkeys([*learned, *GIVEN]) if not (same and fold == split)]
        try:
            found = find_overlap(tested, split, info, folds)
        except (InputError, RunError) as error:
            return [describe_failure(error)]
        patients |= found.patients
        images |= found.images
    return describe(Overlap(frozenset(patients), frozenset(images)))


def describe(overlap: Overlap) -> list[str]:
    """What the test has in common with the training, as warnings."""
    parts = [
        f"{len(found)} {name if len(found) == 1 else f'{name}s'}"
        for name, found in (("patient", overlap.patients), ("image", overlap.images))
        if found
    ]
    if not parts:
        return []
    verb = "was" if parts[0].startswith("1 ") and len(parts) == 1 else "were"
    shared = " and ".join(parts)
    return [f"{MARK} of the test, {shared} {verb} also given to the training, so that the score is too good"]


def describe_failure(error: Exception) -> str:
    """A warning where record sets cannot be compared."""
    return f"{MARK} whether images of the test were given to the training cannot be found out ({error})"


def list_training_sets(run: str | os.PathLike) -> list[tuple[RecordSetInfo, tuple[str, ...]]]:
    """The record sets that a run, or an export's, and the runs it began with were given, and the folds learned from.

    Those only that are where flags.txt says, and unchanged.
    """
    return list(_find_sets(pathlib.Path(run), set()))


def _find_sets(folder: pathlib.Path, seen: set[pathlib.Path]) -> Iterator[tuple[RecordSetInfo, tuple[str, ...]]]:
    """See `list_training_sets`; `seen`: folders looked into, to which it adds."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    flags = _read_flags(folder)
    try:
        config = runs.load_config(folder)
    except InputError:
        return
    digests, learned = set(config["records"].values()), tuple(config["config"].get("splits", ("train",)))
    for name in _RECORDS:
        if name in flags:
            try:
                info = load_info(flags[name])
            except InputError:  # moved or deleted since
                continue
            if info.digest in digests:
                yield info, learned
    for name in _MODELS:
        if name in flags and (pathlib.Path(flags[name]) / "config.json").is_file():
            yield from _find_sets(pathlib.Path(flags[name]), seen)


def _read_flags(folder: pathlib.Path) -> dict[str, str]:
    """The flags with values in a folder's flags.txt; none if it has no such file."""
    try:
        lines = (folder / "flags.txt").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return dict(line.removeprefix("--").split("=", 1) for line in lines if line.startswith("--") and "=" in line)
