"""Files that appear whole or not at all: written under a temporary name, then renamed."""

import contextlib
import fcntl
import glob
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from tfrecords_builder.errors import InputError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; it becomes `path` if the block succeeds and is removed otherwise."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. NaN and infinity are refused (they are not JSON)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file. Raises InputError naming the file if it is absent or not JSON."""
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: is not valid JSON ({error})") from error


@contextlib.contextmanager
def output_folder(path: str | os.PathLike, *, overwrite: bool = False) -> Iterator[pathlib.Path]:
    """Yields a temporary folder beside `path`; it becomes `path` if the block succeeds and is removed otherwise.

    Raises InputError if `path` exists, is not an empty folder, and `overwrite` is False; also if it would overwrite a
    folder that no tfcxr program wrote (one without flags.txt).
    """
    path = pathlib.Path(path).absolute()
    if path.exists() and not path.is_dir():
        raise InputError(f"--output_dir={path}: is a file, not a folder")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise InputError(f"--output_dir={path}: is not empty; choose another folder or give --overwrite")
    refuse_foreign(path, "--output_dir")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        temporary.mkdir()
        handle = os.open(temporary, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"--output_dir={path}: cannot be made ({error.strerror})") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        os.close(handle)
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(path: pathlib.Path) -> None:
    """Removes temporary folders of `path` whose writer was killed: the system has dropped its lock."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.is_dir():
                shutil.rmtree(folder)
        except BlockingIOError:
            pass  # another program is writing the same output
        finally:
            os.close(handle)


def refuse_foreign(path: pathlib.Path, flag: str) -> None:
    """Raises InputError if `path` is a folder with files that no tfcxr program wrote: --overwrite would delete them."""
    if path.is_dir() and any(path.iterdir()) and not (path / "flags.txt").exists():
        raise InputError(
            f"{flag}={path}: --overwrite would delete files that tfcxr did not write; choose another folder"
        )
