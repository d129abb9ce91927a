"""Digests of what was written, compared when it is read: a flipped bit in weights gives other numbers and no error.

They protect from accidents and not from attackers, who can change a digest as well. What was written before there were
digests is read without.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tfrecords_builder import files
from tfrecords_builder.errors import InputError

if TYPE_CHECKING:
    import h5py

FILE = "digests.json"  # in an export: the SHA-256 of each of its files, by its name relative to the folder
_KEY = "sha256"  # of a JSON object: of all else in it
_ATTRIBUTE = "tfcxr_sha256"  # of an HDF5 file: of all arrays in it, with their names
# Of an export, but not of the model.
_LEFT_OUT = {FILE, "result.json", "flags.txt"}


def write(folder: str | os.PathLike) -> None:
    """Writes FILE into an export that is complete but for it and result.json."""
    folder = pathlib.Path(folder)
    found = {name: folder / name for name in files.entries(folder)}
    table = {
        name: files.sha256(path) for name, path in sorted(found.items()) if name not in _LEFT_OUT and path.is_file()
    }
    files.write_json(folder / FILE, {"schema_version": 1, "sha256": table})


def check(folder: str | os.PathLike, names: Iterable[str] | None = None) -> None:
    """Compares files of an export with their digests.

    Args:
        folder: an export, or a folder without digests, such as a run, which passes.
        names: of files relative to it, which are about to be read; those that FILE does not name pass. None: all that
            it names.

    Raises:
        InputError: a file has changed since, or is gone; or FILE cannot be read.
    """
    folder = pathlib.Path(folder)
    if not (folder / FILE).is_file():
        return
    table = files.read_json(folder / FILE)
    table = table.get("sha256") if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise InputError(f"{folder / FILE}: is damaged; export the run again")
    for name in table if names is None else names:
        if name not in table:
            continue
        try:
            same = files.sha256(folder / name) == table[name]
        except OSError as error:
            raise InputError(f"{folder / name}: cannot be read ({error.strerror}); export the run again") from error
        if not same:
            raise InputError(f"{folder / name}: is damaged, or was changed after the export; export the run again")


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its digest in it."""
    return {**value, _KEY: _of_json(value)}


def check_sealed(value: dict[str, Any], path: pathlib.Path) -> dict[str, Any]:
    """Returns what an object that was read from a file holds beside its digest, if it has one.

    Raises:
        InputError: it holds something else than was written.
    """
    rest = {name: each for name, each in value.items() if name != _KEY}
    if _KEY in value and value[_KEY] != _of_json(rest):
        raise InputError(f"{path}: is damaged, or was changed since it was written; put back a copy of it")
    return rest


def _of_json(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def seal_hdf5(path: str | os.PathLike) -> None:
    """Writes the digest of all arrays of an HDF5 file, such as weights of Keras, into it."""
    import h5py

    with h5py.File(path, "r+") as file:
        file.attrs[_ATTRIBUTE] = _of_arrays(file)


def check_hdf5(path: str | os.PathLike) -> None:
    """Compares the arrays of an HDF5 file with its digest, if it has one.

    Raises:
        InputError: they are others, or the file cannot be read.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            digest = file.attrs.get(_ATTRIBUTE)
            same = digest is None or digest == _of_arrays(file)
    except (OSError, KeyError, RuntimeError, ValueError, UnicodeDecodeError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"{path}: is damaged ({reason}); put back a copy of it, or train again") from error
    if not same:
        raise InputError(
            f"{path}: is damaged: its numbers are not those that were written; put back a copy of it, or train again"
        )


def _of_arrays(file: "h5py.File") -> str:
    import h5py
    import numpy as np

    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    digest = hashlib.sha256()
    for name in sorted(names):
        values = np.ascontiguousarray(file[name][()])
        digest.update(json.dumps([name, values.dtype.str, list(values.shape)]).encode())
        digest.update(values.data)
    return digest.hexdigest()
