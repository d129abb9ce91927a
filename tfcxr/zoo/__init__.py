"""Generators that come with the package, each in a folder of its name: `--generator=nih_32` finds one.

A folder holds what `tfcxr.gan.loading` needs of an export: assets/generator.json and assets/weights.npz, its model
card, and digests.json of these. To add one: copy these files of an export (tfcxr export-model) into a folder here, and
let `tfcxr.training.digests.write` write the last.
"""

import os
import pathlib

from tfrecords_builder.errors import InputError

_FOLDER = pathlib.Path(__file__).parent
_MARK = "assets/generator.json"


def folders() -> dict[str, pathlib.Path]:
    """Name -> folder of all generators here, sorted."""
    return {mark.parents[1].name: mark.parents[1] for mark in sorted(_FOLDER.glob(f"*/{_MARK}"))}


def find(path: str | os.PathLike) -> pathlib.Path:
    """The folder that a user means: `path` if there is something, else the generator here of that name.

    Raises InputError, which names the generators here, if there is neither.
    """
    if pathlib.Path(path).exists():
        return pathlib.Path(path)
    if str(path) in folders():
        return folders()[str(path)]
    raise InputError(f"{path}: there is no such folder; generators that are found by name: {', '.join(folders())}")
