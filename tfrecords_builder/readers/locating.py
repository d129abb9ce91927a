"""Finds the images of a table."""

import os
import pathlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from tfrecords_builder.errors import InputError
from tfrecords_builder.images import finding
from tfrecords_builder.readers.table import Table


def locate(table: Table) -> np.ndarray:
    """Returns the image file of every row of the frame (object[N] of str), "" where there is none.

    Lists each folder once, which is much faster than asking for every file where most are absent. A name that is not
    there stands for the only one in its folder that differs in capitals, in how accents are encoded (NFC, NFD), or in
    having a suffix, in this order. The rows of a record set keep their shards.

    Raises:
        InputError: several images in the folder that is searched fit one row.
    """
    if "path" in table.frame and (table.frame["offset"] >= 0).all():
        return table.frame["path"].to_numpy(object)
    listings: dict[str, frozenset[str]] = {}
    ids = table.frame["id"].tolist()
    found = np.full(len(ids), "", object)
    for base, drop in table.bases:
        prefix = f"{base}{os.sep}"
        for i in np.flatnonzero(found == ""):
            path = prefix + ids[i].split("/", drop)[-1]
            folder, _, name = path.rpartition("/")
            if folder not in listings:
                listings[folder] = _list_folder(folder)
            if name in listings[folder]:
                found[i] = path
    alike = _Alike(listings)
    for base, drop in table.bases:
        place = str(base)
        for i in np.flatnonzero(found == "").tolist():
            found[i] = alike.find(f"{place}/{ids[i].split('/', drop)[-1]}", place)
    absent = np.flatnonzero(found == "")
    if table.search and len(absent):
        _search(table.search, ids, absent, found)
    return found


class _Alike:
    """Finds files whose names file systems, archives and people have changed a little."""

    def __init__(self, listings: dict[str, frozenset[str]]):
        self._listings = listings
        self._names: dict[str, dict[str, list[str]]] = {}
        self._folders: dict[str, str] = {}

    def find(self, path: str, base: str) -> str:
        """The file that a path below `base` means, "" if there is none or several are alike."""
        folder, _, name = path.rpartition("/")
        folder = self._find_folder(folder, base)
        found = self._look_up(folder, name) if folder else ""
        return f"{folder}/{found}" if found else ""

    def _find_folder(self, folder: str, base: str) -> str:
        if len(folder) <= len(base):
            return folder
        if folder not in self._folders:
            above, _, name = folder.rpartition("/")
            above = self._find_folder(above, base)
            found = self._look_up(above, name) if above else ""
            self._folders[folder] = f"{above}/{found}" if found else ""
        return self._folders[folder]

    def _look_up(self, folder: str, name: str) -> str:
        if folder not in self._listings:
            self._listings[folder] = _list_folder(folder)
        if name in self._listings[folder]:
            return name
        if folder not in self._names:
            keyed: defaultdict[str, list[str]] = defaultdict(list)
            for each in self._listings[folder]:
                folded, *stems = _keys(each)
                keyed[folded].append(each)
                for stem in stems:
                    keyed[f"{stem}/"].append(each)  # no file's name ends so
            self._names[folder] = dict(keyed)
        names, key = self._names[folder], _fold(name)
        same = names.get(key) or names.get(f"{key}/") or ()
        return same[0] if len(same) == 1 else ""


def _fold(name: str) -> str:
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def _search(root: pathlib.Path, ids: Sequence[str], absent: np.ndarray, found: np.ndarray) -> None:
    """Fills `found` for images whose path in the table is the end of one path below `root`, or is alike."""
    wanted = {_fold(ids[i].rpartition("/")[2]) for i in absent}
    places = defaultdict(list)
    for folder, _, names in finding.walk(root):
        for name in names:
            for key in wanted.intersection(_keys(name)):
                places[key].append(f"{folder}/{name}")
    for i in absent:
        paths = places[_fold(ids[i].rpartition("/")[2])]
        end = f"/{_fold(ids[i])}"
        fitting = [path for path in paths if path.endswith(f"/{ids[i]}")]
        fitting = fitting or [
            path for path in paths if _fold(path).endswith(end) or _fold(path).rpartition(".")[0].endswith(end)
        ]
        if len(fitting) > 1:
            first, second = sorted(fitting)[:2]
            raise InputError(f"{ids[i]} may be {first} or {second}; give paths from {root} in the table")
        if fitting:
            found[i] = fitting[0]


def _keys(name: str) -> tuple[str, ...]:
    """Of a file's name: itself without differences of capitals and accents, and the same without an image's suffix."""
    folded = _fold(name)
    stem, dot, suffix = folded.rpartition(".")
    return (folded, stem) if f"{dot}{suffix}" in finding.SUFFIXES and not finding.is_junk(name) else (folded,)


def explain_missing(table: Table, image: str, data_dir: str | os.PathLike) -> str:
    """Says where an image was looked for, and what lies elsewhere in `data_dir` under its name; for one message.

    Args:
        table: its table.
        image: its `id`.
        data_dir: folder of the data set, which is searched to its depths: for one image, where something is wrong.
    """
    looked = [str(pathlib.Path(base, image.split("/", drop)[-1]).parent) for base, drop in table.bases]
    looked += [f"all folders of {table.search}"] if table.search else []
    text = f"looked for in {', '.join(dict.fromkeys(looked)) or 'no folder, as there is none with images'}"
    parts = image.split("/")
    name, other = parts[-1], ""
    # Many of CheXpert's images bear the same name: their folders count.
    tail = "/".join(parts[max((drop for _, drop in table.bases), default=0) :])
    for folder, _, names in os.walk(str(data_dir)):
        if name in names and (table.search or f"{folder}/{name}".endswith(f"/{tail}")):
            return f"{text}; {pathlib.Path(folder, name)} has its name: {_advise(table, image, pathlib.Path(folder))}"
        stem = pathlib.PurePosixPath(name).stem
        if not other and (table.search or f"{folder}/{name}".endswith(f"/{tail}")):
            same = sorted(each for each in names if pathlib.PurePosixPath(each).stem == stem)
            other = str(pathlib.Path(folder, same[0])) if same else ""
    return f"{text}; {other} differs in its ending only, which the table must name" if other else text


def _advise(table: Table, image: str, folder: pathlib.Path) -> str:
    """Which --data_dir would find an image that lies in `folder`."""
    if table.search:
        return f"the table must give the end of its path, such as {folder.name}/{pathlib.PurePosixPath(image).name}"
    place = f"{folder}/{pathlib.PurePosixPath(image).name}"
    parts = image.split("/")
    for drop in sorted({drop for _, drop in table.bases}):
        rest = "/".join(parts[drop:])
        if len(parts) > drop and place.endswith(f"/{rest}"):
            root = place.removesuffix(rest).rstrip("/")
            if len(parts) == 1:  # NIH's folders below the one of the table
                root = re.sub(r"(/images_[^/]*)?(/images)?$", "", root)
            elif drop == 0:
                root = f"{root}/{parts[0]}"
            return f"give --data_dir={root}, with --labels_csv={table.origin} if the table is not there"
    return "the table names another folder than the one that it lies in"


def _list_folder(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except OSError:
        return frozenset()
