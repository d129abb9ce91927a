"""Files that appear whole or not at all: written under a temporary name, then renamed."""

import contextlib
import fcntl
import glob
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tfrecords_builder.errors import InputError, RunError


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


def check_output(path: str | os.PathLike, *, overwrite: bool = False, flag: str = "--output_dir") -> pathlib.Path:
    """Returns `path` as an absolute one if a program may write its output there.

    Raises InputError if it exists, is not an empty folder, and `overwrite` is False; also if it would overwrite a
    folder that no tfcxr program wrote (one without flags.txt). `flag` is the one that named it.
    """
    path = pathlib.Path(path).absolute()
    try:
        if path.exists() and not path.is_dir():
            raise InputError(f"{flag}={path}: is a file, not a folder")
        if path.is_dir() and any(path.iterdir()) and not overwrite:
            raise InputError(f"{flag}={path}: is not empty; choose another folder or give --overwrite")
        if path.is_symlink() or path.is_mount():  # neither can be replaced by a finished folder
            kind = "a link" if path.is_symlink() else "a mount point"
            raise InputError(f"{flag}={path}: is {kind}; give a folder inside it")
        refuse_foreign(path, flag)
    except OSError as error:
        raise InputError(f"{flag}={path}: cannot be looked at ({error.strerror})") from error
    return path


@contextlib.contextmanager
def output_folder(
    path: str | os.PathLike, *, overwrite: bool = False, flag: str = "--output_dir"
) -> Iterator[pathlib.Path]:
    """Yields a temporary folder beside `path`; it becomes `path` if the block succeeds and is removed otherwise.

    Raises InputError where `check_output` does, and if the folder cannot be made.
    """
    path = check_output(path, overwrite=overwrite, flag=flag)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    missing = _missing_parents(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        temporary.mkdir()
        handle = os.open(temporary, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{flag}={path}: cannot be made ({error.strerror})") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with naming_failures(path, flag):
            yield temporary
            _put_in_place(temporary, path, overwrite, flag)
    finally:
        os.close(handle)
        shutil.rmtree(temporary, ignore_errors=True)
        _remove_empty(missing)


@contextlib.contextmanager
def resumable_folder(
    path: str | os.PathLike, *, worth_keeping: Callable[[pathlib.Path], bool], overwrite: bool = False
) -> Iterator[pathlib.Path]:
    """As `output_folder`, but what a stopped program has finished stays for the next call with the same `path`.

    The folder is `.<name>.partial` beside `path`, whoever writes it; the block finds there what an earlier call left,
    and must itself tell what of it still holds.

    Args:
        path: the output.
        worth_keeping: decides, after an exception, whether the folder is kept.
        overwrite: whether an earlier output is replaced.

    Raises:
        InputError: as `output_folder`, and if another program is writing the same output.
    """
    path = check_output(path, overwrite=overwrite)
    partial = path.with_name(f".{path.name}.partial")
    missing = _missing_parents(path)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        handle = os.open(partial, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"--output_dir={path}: cannot be made ({error.strerror})") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = partial.is_dir() and os.path.samestat(os.fstat(handle), partial.stat())
        except BlockingIOError:
            locked = False
        if not locked:  # or put in place by the other program since we opened it
            raise InputError(f"--output_dir={path}: another program is writing it; wait, or choose another folder")
        try:
            with naming_failures(path, "--output_dir"):
                yield partial
                _put_in_place(partial, path, overwrite, "--output_dir")
        except RunError as error:
            if not worth_keeping(partial):
                raise
            raise RunError(f"{error}; what is finished is kept, the same command goes on from there") from error
        finally:
            if not worth_keeping(partial):
                shutil.rmtree(partial, ignore_errors=True)
                _remove_empty(missing)
    finally:
        os.close(handle)


@contextlib.contextmanager
def naming_failures(path: pathlib.Path, flag: str) -> Iterator[None]:
    """A file that cannot be written, such as on a full disk, becomes a RunError that names flag and path."""
    try:
        yield
    except BrokenPipeError:  # of standard output
        raise
    except OSError as error:
        name = error.filename or path
        raise RunError(f"{flag}={path}: {name} cannot be read or written ({error.strerror or error})") from error


def _missing_parents(path: pathlib.Path) -> list[pathlib.Path]:
    """The folders above `path` that have to be made, the innermost first."""
    return [parent for parent in path.parents if not parent.exists()]


def _remove_empty(folders: Sequence[pathlib.Path]) -> None:
    """Removes those of the folders that are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _put_in_place(temporary: pathlib.Path, path: pathlib.Path, overwrite: bool, flag: str) -> None:
    try:
        check_output(path, overwrite=overwrite, flag=flag)
    except InputError as error:  # written by others meanwhile
        raise RunError(str(error)) from error
    if path.exists():
        shutil.rmtree(path)
    temporary.replace(path)


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


def refuse_source(output: str | os.PathLike, source: str | os.PathLike, *, flag: str = "--data_dir") -> None:
    """Raises InputError if `source` is the folder `output` or in it: --overwrite would delete what is being read.

    `flag` is the one that named the source.
    """
    if pathlib.Path(os.path.realpath(source)).is_relative_to(os.path.realpath(output)):
        raise InputError(f"--output_dir={output}: holds {flag}={source}; choose another folder")


def refuse_foreign(path: pathlib.Path, flag: str) -> None:
    """Raises InputError if `path` is a folder with files that no tfcxr program wrote: --overwrite would delete them."""
    if path.is_dir() and any(path.iterdir()) and not (path / "flags.txt").exists():
        raise InputError(
            f"{flag}={path}: --overwrite would delete files that tfcxr did not write; choose another folder"
        )
