"""Checkpoints of a GAN's run: saved so that a full disk loses nothing, restored from the newest that can be read."""

import logging
import os
import pathlib
import re
import shutil

import tensorflow as tf

from tfrecords_builder.errors import InputError, RunError

# What TensorFlow raises for a checkpoint that is absent, cut short, or of another network.
ERRORS = (tf.errors.OpError, AssertionError, IndexError, RuntimeError, ValueError)

_KEEP = 2


def available(folder: str | os.PathLike) -> list[str]:
    """Checkpoints in a folder, newest first; TensorFlow's own list of them may be lost or damaged."""
    found = {}
    for path in pathlib.Path(folder).glob("ckpt-*.index"):
        if match := re.fullmatch(r"ckpt-(\d+)\.index", path.name):
            found[int(match.group(1))] = str(path.with_suffix(""))
    return [found[number] for number in sorted(found, reverse=True)]


def restore_newest(folder: str | os.PathLike, checkpoint: tf.train.Checkpoint, *, whole: bool) -> str | None:
    """Restores the newest checkpoint that can be read, and says so where it is not the newest of all.

    Args:
      folder: of checkpoints.
      checkpoint: takes the values.
      whole: every value stored must have a place, not only every place a value.

    Returns:
      Its path; None if the folder has no checkpoint.

    Raises:
      InputError: none of them can be read.
    """
    paths = available(folder)
    for number, path in enumerate(paths):
        try:
            status = checkpoint.restore(path)
            _ = status.assert_consumed() if whole else status.expect_partial().assert_existing_objects_matched()
        except ERRORS as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
            if number + 1 == len(paths):
                raise InputError(f"{path}: cannot be read ({reason}), nor can one before it") from error
            logging.warning("%s cannot be read (%s); trying the one before", path, reason)
            continue
        return path
    return None


class Writer:
    """Keeps the newest two checkpoints of a folder (or as many as wanted)."""

    def __init__(self, checkpoint: tf.train.Checkpoint, folder: str | os.PathLike, keep: int = _KEEP):
        self._folder = pathlib.Path(folder)
        # What a kill amid a save leaves behind.
        for path in self._folder.glob("ckpt-*_temp*"):
            shutil.rmtree(path, ignore_errors=True)
        self._manager = tf.train.CheckpointManager(checkpoint, str(folder), keep)

    def save(self, step: int) -> None:
        """Writes checkpoint number `step`. Raises RunError if it cannot; those before it are intact."""
        try:
            self._manager.save(step)
        except (tf.errors.OpError, OSError) as error:
            for path in self._folder.glob(f"ckpt-{step}[._]*"):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
            raise RunError(
                f"{self._folder}: checkpoint {step} cannot be written ({reason}); the one before is intact. Free some "
                "space and give the same command again"
            ) from error
