"""Checkpoints of a run: saved so that a full disk loses nothing, restored from the newest that can be read."""

import contextlib
import logging
import os
import pathlib
import re
from collections.abc import Collection

import tensorflow as tf

from tfcxr.training import runs
from tfrecords_builder import errors, files
from tfrecords_builder.errors import InputError, RunError

# What TensorFlow raises for a checkpoint that is absent, cut short, or of another network.
ERRORS = (tf.errors.OpError, AssertionError, IndexError, RuntimeError, ValueError)

_KEEP = 2


def available(folder: str | os.PathLike) -> list[str]:
    """Checkpoints in a folder, newest first; TensorFlow's own list of them may be lost or damaged."""
    return list(by_step(folder).values())


def by_step(folder: str | os.PathLike) -> dict[int, str]:
    """Step -> checkpoint in a folder, newest first."""
    found = {}
    for path in pathlib.Path(folder).glob("ckpt-*.index"):
        if match := re.fullmatch(r"ckpt-(\d+)\.index", path.name):
            found[int(match.group(1))] = str(path.with_suffix(""))
    return {step: found[step] for step in sorted(found, reverse=True)}


def restore_newest(
    folder: str | os.PathLike, checkpoint: tf.train.Checkpoint, *, whole: bool, steps: Collection[int] | None = None
) -> str | None:
    """Restores the newest checkpoint that can be read, and says so where it is not the newest of all.

    Args:
        folder: of checkpoints.
        checkpoint: takes the values.
        whole: every value stored must have a place, not only every place a value.
        steps: those whose checkpoints count; None: all.

    Returns:
        Its path; None if the folder has no checkpoint.

    Raises:
        InputError: none of them can be read.
    """
    paths = [path for step, path in by_step(folder).items() if steps is None or step in steps]
    for number, path in enumerate(paths):
        try:
            status = checkpoint.restore(path)
            _ = status.assert_consumed() if whole else status.expect_partial().assert_existing_objects_matched()
        except ERRORS as error:
            reason = errors.reason(error)
            if number + 1 == len(paths):
                others = ", nor can one before it" if number else ""
                raise InputError(f"{path}: cannot be read ({reason}){others}") from error
            logging.warning("%s cannot be read (%s); trying the one before", path, reason)
            continue
        return path
    return None


def check(folder: str | os.PathLike, step: int) -> None:
    """Reads the whole checkpoint of a step, into nothing.

    Raises InputError: it is gone or damaged; one line that ends in what is wrong.
    """
    path = pathlib.Path(folder) / f"ckpt-{step}"
    if step not in by_step(folder):
        raise InputError(f"{path}: is gone")
    try:
        reader = tf.train.load_checkpoint(str(path))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except ERRORS as error:
        raise InputError(f"{path}: is damaged ({errors.reason(error)})") from error


class Writer:
    """Keeps the newest two checkpoints of a folder (or as many as wanted; None: all).

    The files are as those of TensorFlow's CheckpointManager, which a damaged list of them stops.
    """

    def __init__(self, checkpoint: tf.train.Checkpoint, folder: str | os.PathLike, keep: int | None = _KEEP):
        """Removes what a kill amid a save has left there."""
        self._checkpoint, self._folder, self._keep = checkpoint, pathlib.Path(folder), keep
        # `restore` expects it in what was written.
        _ = checkpoint.save_counter
        whole = {pathlib.Path(path).name for path in available(folder)}
        for path in self._folder.glob("*"):
            if _is_part(path) and path.name.partition(".")[0] not in whole:
                _remove(path)
        _remove_unfinished(self._folder)

    def save(self, step: int) -> None:
        """Writes checkpoint number `step`; raises RunError if it cannot, and those before it are intact.

        It is on the disk, not only in the system's memory, before an earlier one is deleted.
        """
        try:
            self._folder.mkdir(exist_ok=True)
            path = self._checkpoint.write(str(self._folder / f"ckpt-{step}"))
            # TensorFlow leaves it to the system when a checkpoint reaches the disk; the one before is deleted below.
            files.sync(*self._folder.glob(f"ckpt-{step}.*"), self._folder)
            # Those of later steps are damaged, or this run would have gone on from them.
            there = available(self._folder)
            there = there[there.index(path) :]
            self._write_list(there[: self._keep])
        except (tf.errors.OpError, OSError) as error:
            _remove_parts(self._folder / f"ckpt-{step}")
            _remove_unfinished(self._folder)
            reason = errors.reason(error)
            before = "the one before is intact" if self.steps() else "there is none before"
            raise RunError(
                f"{self._folder}: checkpoint {step} cannot be written ({reason}); {before}. Free some space and give "
                "the same command again"
            ) from error
        for path in there[len(there[: self._keep]) :]:
            _remove_parts(pathlib.Path(path))

    def steps(self) -> list[int]:
        """Of the checkpoints in the folder, newest first."""
        return list(by_step(self._folder))

    def remove(self, step: int) -> None:
        """Deletes the checkpoint of one step; the index, without which there is none, goes first."""
        kept = [path for other, path in by_step(self._folder).items() if other != step]
        self._write_list(kept)
        _remove_parts(self._folder / f"ckpt-{step}")

    def _write_list(self, paths: list[str]) -> None:
        """Writes TensorFlow's list of the checkpoints, newest first, for other programs; ours go without."""
        if not paths:
            (self._folder / "checkpoint").unlink(missing_ok=True)
            return
        kept = [pathlib.Path(path).name for path in paths]
        lines = [
            f'model_checkpoint_path: "{kept[0]}"',
            *(f'all_model_checkpoint_paths: "{name}"' for name in kept[::-1]),
        ]
        files.write_text(self._folder / "checkpoint", "".join(f"{line}\n" for line in lines))


def _is_part(path: pathlib.Path) -> bool:
    return re.fullmatch(r"ckpt-\d+\.(index|data-\d+-of-\d+)", path.name) is not None


def _remove(path: pathlib.Path) -> None:
    path.unlink(missing_ok=True)


def _remove_parts(checkpoint: pathlib.Path) -> None:
    """The index, without which there is no checkpoint, goes first."""
    for path in sorted(checkpoint.parent.glob(f"{checkpoint.name}.*"), reverse=True):
        if _is_part(path):
            _remove(path)


def _remove_unfinished(folder: pathlib.Path) -> None:
    """Removes what a kill amid a save leaves, and nothing else: people keep copies of checkpoints beside them."""
    for path in [*folder.glob("ckpt-*_temp/part-*"), *folder.glob("ckpt-*"), *folder.glob("*checkpoint.*")]:
        leftover = files.LEFTOVER.fullmatch(path.name)
        if path.is_dir() and path.name.endswith("_temp"):
            with contextlib.suppress(OSError):
                path.rmdir()
        elif runs.UNFINISHED_CHECKPOINT.fullmatch(path.relative_to(folder).as_posix()) or (
            leftover and leftover[1] == "checkpoint"
        ):
            _remove(path)
