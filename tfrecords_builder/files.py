"""Files and folders that appear whole or not at all, locks, and what --overwrite may delete."""

import contextlib
import errno
import fcntl
import functools
import glob
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tfrecords_builder.errors import InputError, RunError

# The name of a file that a killed `atomic_path` has left; the group is that of the file it was to become.
LEFTOVER = re.compile(r"\.(.+)\.([\w-]+-)?\d+\.tmp[^/]*", re.ASCII)

# What a program that holds a whole folder locks, see `lock`.
LOCK_FILE = ".lock"

# In each finished output: all that was written there, so that --overwrite can tell what was not.
_LIST_FILE = ".tfcxr.json"
_LIST_VERSION = 2

_BLOCK = 2**20  # bytes of a file that are read at once
_LONGEST_HOST = 40  # characters of a host's name; what tells pods of Kubernetes apart is at the end

# What a desktop puts into each folder that somebody looks at.
_OF_DESKTOPS = (".DS_Store", "Thumbs.db", "desktop.ini")

# What flock says where another program holds the lock; all else means that the file system has no locks.
_HELD = (errno.EAGAIN, errno.EACCES)

# What fsync says of a folder where the file system has none for folders.
_NO_FSYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS)


class InUse(Exception):
    """Another program holds a lock."""


@contextlib.contextmanager
def lock(path: str | os.PathLike, *, temporary: bool = False) -> Iterator[int]:
    """Holds the lock of a file, which is made if need be; the system drops the lock however the program ends.

    Where the file system has no locks, as some mounts of NFS and Lustre, the program says so once and goes on.

    Args:
        path: the lock file. It is opened for writing, without which NFS gives no lock.
        temporary: whether it is removed at the end.

    Yields:
        Its descriptor: programs that inherit it hold the lock as well.

    Raises:
        InUse: another program holds it.
        OSError: the file cannot be made.
    """
    path = pathlib.Path(path)
    handle, _ = _take(path)
    try:
        yield handle
    finally:
        if temporary:
            path.unlink(missing_ok=True)
        os.close(handle)


def holders(path: str | os.PathLike) -> dict[int, str]:
    """Other processes of this machine that have a file open -> their command lines.

    Left out are those whose parent is among them, and those that the system does not let us look at. Empty where there
    is no /proc.
    """
    target = pathlib.Path(path).stat()
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if any(_is_same(handle, target) for handle in (process / "fd").iterdir()):
                # After the name, which may hold anything: state, parent ...
                parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                commands[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ").strip()
    return {
        number: command
        for number, command in commands.items()
        if number != os.getpid() and (parents[number] not in parents or parents[number] == os.getpid())
    }


def _is_same(handle: pathlib.Path, target: os.stat_result) -> bool:
    with contextlib.suppress(OSError):  # closed since
        return os.path.samestat(handle.stat(), target)
    return False


def _take(path: pathlib.Path) -> tuple[int, bool]:
    """Opens and locks a file: descriptor, and whether the file system has locks. Raises as `lock`."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError:
            if not path.exists():
                raise
            handle = os.open(path, os.O_RDONLY)  # another user's, in a folder that both may write
        try:
            locked = _flock(handle, path)
            # Whoever held it may have removed it since we opened it.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle, locked
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _flock(handle: int, path: pathlib.Path) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            raise InUse(f"{path}: another program holds it") from error
        _warn_of_no_locks(str(path.parent.absolute()), error.strerror)
        return False
    return True


@functools.lru_cache(maxsize=1)
def _say_once(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _warn_of_no_locks(folder: str, reason: str | None) -> None:
    _say_once(
        f"warning: the file system of {folder} has no locks ({reason}); see to it that no second program writes there"
    )


def writer_name() -> str:
    """Host and process: part of temporary names, because programs of several machines may write in one folder."""
    host = re.sub(r"[^\w-]", "-", socket.gethostname().partition(".")[0], flags=re.ASCII)
    return f"{host[-_LONGEST_HOST:]}-{os.getpid()}"


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike, *, ending: str = "", make_folder: bool = True) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; it becomes `path` if the block succeeds and is removed otherwise.

    Contents reach the disk before the name does: after a power failure the file is the old or the new one, too.

    Args:
        path: the file to write.
        ending: of the temporary name, for writers that choose a format by it.
        make_folder: whether the file's folder is made.
    """
    path = pathlib.Path(path)
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{writer_name()}.tmp{ending}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(*paths: str | os.PathLike) -> None:
    """Waits until the contents of files, or the names in folders, are on the disk."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _NO_FSYNC:
                raise
        finally:
            os.close(handle)


def _sync_tree(folder: pathlib.Path) -> None:
    for path in folder.rglob("*"):
        if not path.is_symlink():
            sync(path)
    sync(folder)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. NaN and infinity are refused (they are not JSON)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal. Raises OSError if it cannot be read."""
    digest = hashlib.sha256()
    with pathlib.Path(path).open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file. Raises InputError naming the file if it is absent, no regular file, or not JSON."""
    check_regular(path)
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: is not valid JSON ({error})") from error


def check_regular(path: str | os.PathLike, flag: str = "") -> None:
    """Raises InputError if `path` is a pipe, a device or a socket: reading one may wait or go on for ever.

    What is not there, or cannot be looked at, passes: whoever opens it says so. `flag` is the one that named it.
    """
    try:
        mode = pathlib.Path(path).stat().st_mode
    except (OSError, ValueError):  # ValueError: a NUL byte
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{f'{flag}=' if flag else ''}{path}: is a pipe or a device; give a regular file")


def check_output(path: str | os.PathLike, *, overwrite: bool = False, flag: str = "--output_dir") -> pathlib.Path:
    """Returns `path` as an absolute one if a program may write its output there.

    Raises InputError if it exists, is not an empty folder, and `overwrite` is False; also if it would overwrite
    something that no tfcxr program wrote. `flag` is the one that named it.
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
        if path.is_dir():
            refuse_entries(path, foreign_entries(path), flag)
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
    missing = missing_parents(path)
    with contextlib.ExitStack() as stack:
        stack.callback(remove_empty, missing)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path)
            stack.enter_context(lock(_lock_of(temporary), temporary=True))
            stack.callback(shutil.rmtree, temporary, ignore_errors=True)
            temporary.mkdir()
        except (OSError, InUse) as error:
            raise InputError(f"{flag}={path}: cannot be made ({getattr(error, 'strerror', error)})") from error
        with naming_failures(path, flag):
            yield temporary
            _put_in_place(temporary, path, overwrite, flag)


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
    missing = missing_parents(path)
    with contextlib.ExitStack() as stack:
        stack.callback(remove_empty, missing)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock(_lock_of(partial), temporary=True))
            if partial.exists() and not (partial / _LIST_FILE).is_file() and any(partial.iterdir()):
                raise InputError(
                    f"--output_dir={path}: {partial}, where tfcxr would write, is not its own; move it away"
                )
            partial.mkdir(exist_ok=True)
        except InUse as error:
            raise InputError(
                f"--output_dir={path}: another program is writing it; wait, or choose another folder"
            ) from error
        except OSError as error:
            raise InputError(f"--output_dir={path}: cannot be made ({error.strerror})") from error
        try:
            with naming_failures(path, "--output_dir"):
                write_json(partial / _LIST_FILE, {"schema_version": _LIST_VERSION, "written": []})
                yield partial
                _put_in_place(partial, path, overwrite, "--output_dir")
        except RunError as error:
            if not worth_keeping(partial):
                raise
            raise RunError(f"{error}; what is finished is kept, the same command goes on from there") from error
        finally:
            if not worth_keeping(partial):
                _discard(partial)


def _discard(partial: pathlib.Path) -> None:
    """Removes a folder as far as that is possible; the list, by which the next call knows it as its own, goes last."""
    with contextlib.suppress(OSError):
        for name in {path.name for path in partial.iterdir()} - {_LIST_FILE}:
            if (partial / name).is_dir():
                shutil.rmtree(partial / name)
            else:
                (partial / name).unlink()
        shutil.rmtree(partial)


@contextlib.contextmanager
def naming_failures(path: pathlib.Path, flag: str) -> Iterator[None]:
    """A file that cannot be written, such as on a full disk, becomes a RunError that names flag and path."""
    try:
        yield
    except BrokenPipeError:  # of standard output
        raise
    except OSError as error:
        name = error.filename2 or error.filename or path  # of a copy that fails both, and the second is that to write
        raise RunError(f"{flag}={path}: {name} cannot be read or written ({error.strerror or error})") from error


def missing_parents(path: pathlib.Path) -> list[pathlib.Path]:
    """The folders above `path` that have to be made, the innermost first."""
    return [parent for parent in path.parents if not parent.exists()]


def remove_empty(folders: Sequence[pathlib.Path]) -> None:
    """Removes those of the folders that are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _put_in_place(temporary: pathlib.Path, path: pathlib.Path, overwrite: bool, flag: str) -> None:
    try:
        check_output(path, overwrite=overwrite, flag=flag)
    except InputError as error:  # written by others meanwhile
        raise RunError(str(error)) from error
    written = [name for name in entries(temporary) if name != _LIST_FILE]
    write_json(temporary / _LIST_FILE, {"schema_version": _LIST_VERSION, "written": written})
    _sync_tree(temporary)
    # Set aside, not deleted yet: a kill meanwhile must not leave half of an output under its name.
    earlier = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
    if path.exists():
        path.replace(earlier)
    temporary.replace(path)
    sync(path.parent)
    shutil.rmtree(earlier, ignore_errors=True)


def _lock_of(folder: pathlib.Path) -> pathlib.Path:
    """The lock file of a temporary folder: beside it, because the folder will bear another name."""
    return folder.with_suffix(".lock")


def _remove_abandoned(path: pathlib.Path) -> None:
    """Removes temporary folders of `path` whose writer was killed: the system has dropped its lock."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if not re.fullmatch(r"\d+(\.old)?", folder.name[len(path.name) + 2 : -len(".tmp")]):
            continue  # another's
        try:
            handle, locked = _take(_lock_of(folder))
        except InUse:
            continue  # another program is writing the same output
        if locked:
            shutil.rmtree(folder, ignore_errors=True)
        _lock_of(folder).unlink(missing_ok=True)
        os.close(handle)


def refuse_source(
    output: str | os.PathLike, source: str | os.PathLike, *, flag: str = "--data_dir", output_flag: str = "--output_dir"
) -> None:
    """Raises InputError if `source` is the folder `output` or in it: --overwrite would delete what is being read.

    `flag` is the one that named the source, `output_flag` the one that named the output.
    """
    if pathlib.Path(os.path.realpath(source)).is_relative_to(os.path.realpath(output)):
        raise InputError(f"{output_flag}={output}: holds {flag}={source}; choose another folder")


def entries(folder: pathlib.Path) -> list[str]:
    """All files, links and empty folders below a folder: paths relative to it with "/", sorted.

    What desktops put into folders does not count.
    """
    found = []

    def fail(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=fail):
        names = [name for name in names if name not in _OF_DESKTOPS]
        links = [name for name in folders if pathlib.Path(root, name).is_symlink()]
        empty = [] if folders or names or root == str(folder) else ["."]
        found += [pathlib.Path(root, name).relative_to(folder).as_posix() for name in names + links + empty]
    return sorted(found)


def foreign_entries(folder: pathlib.Path) -> set[str]:
    """Those of `entries` that are not on the list of what was written there; all, where there is no such list."""
    try:
        value = read_json(folder / _LIST_FILE)
    except InputError:
        value = None
    # Earlier lists held the names at the top only.
    listed = isinstance(value, dict) and value.get("schema_version") == _LIST_VERSION and value.get("written")
    written = {_LIST_FILE, *map(str, listed)} if isinstance(listed, list) else set()
    return set(entries(folder)) - written


def refuse_entries(path: pathlib.Path, foreign: set[str], flag: str) -> None:
    """Raises InputError if there are names of `foreign` files in the folder `path` that `flag` named."""
    if foreign:
        name = min(foreign, key=lambda name: (name.startswith("."), name))  # one that a listing shows, if there is one
        raise InputError(
            f"{flag}={path}: --overwrite would delete {name}, which tfcxr did not write or did not list; choose "
            "another folder, or move that away"
        )
