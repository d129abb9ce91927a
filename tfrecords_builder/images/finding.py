"""Which files of a folder are images, and which are what systems leave beside them."""

import os
import pathlib
from collections.abc import Callable, Iterator

from tfrecords_builder import errors

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".dcm", ".dicom", ".dic"})
# Folders and files of macOS (and its zip files), Windows, Synology and Jupyter; whatever begins with "." is hidden.
_JUNK = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"})
MAX_WRAPPERS = 8  # a link may lead to the folder that it lies in


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is a system's own, such as `._a.png`, `.DS_Store` and `__MACOSX`."""
    return name.startswith(".") or name.casefold() in _JUNK


def is_image(path: str | os.PathLike) -> bool:
    """By suffix; or, as files of DICOM often have none, by content. DICOMDIR is an index of such files."""
    path = pathlib.Path(path)
    if is_junk(path.name):
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        if not path.is_file():  # others would be waited for: pipes, devices
            return False
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM" and path.name != "DICOMDIR"
    except OSError as error:
        errors.refuse_few_handles(error, path)
        return False


def walk(folder: str | os.PathLike[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """As os.walk, in order of name, without junk, and through links to folders; each folder once."""
    seen = set()
    for place, folders, names in os.walk(os.fspath(folder), followlinks=True):
        status = pathlib.Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above, or to one that was walked already
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_junk(name))
        yield place, folders, sorted(name for name in names if not is_junk(name))


def list_folder(folder: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, without junk; none if it cannot be read."""
    _, folders, names = next(walk(folder), ("", [], []))
    return folders, names


def skip_wrappers(folder: pathlib.Path, is_root: Callable[[pathlib.Path], bool]) -> pathlib.Path:
    """The folder, or what it holds if that is one folder and nothing else, and so on, as archives are often unpacked.

    Args:
        folder: an existing folder.
        is_root: whether a folder is not to be passed over. If there is none, `folder` is returned.
    """
    place = folder
    for _ in range(MAX_WRAPPERS):
        if is_root(place):
            return place
        folders, names = list_folder(place)
        if len(folders) != 1 or names:
            break
        place /= folders[0]
    return folder


def find_images(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """All images in a folder and the folders in it, in order of path."""
    found = (pathlib.Path(place, name) for place, _, names in walk(folder) for name in names)
    return sorted(path for path in found if is_image(path))
