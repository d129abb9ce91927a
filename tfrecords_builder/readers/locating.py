"""Finds the images of a table."""

import os
import pathlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from tfrecords_builder.errors import InputError
from tfrecords_builder.readers.table import Table


def locate(table: Table) -> np.ndarray:
    """Returns the image file of every row of the frame (object[N] of str), "" where there is none.

    Lists each folder once, which is much faster than asking for every file where most are absent. The rows of a record
    set keep their shards.

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
    absent = np.flatnonzero(found == "")
    if table.search and len(absent):
        _search(table.search, ids, absent, found)
    return found


def _search(root: pathlib.Path, ids: Sequence[str], absent: np.ndarray, found: np.ndarray) -> None:
    """Fills `found` for images whose path in the table is the end of one path below `root`."""
    wanted = {ids[i].rpartition("/")[2] for i in absent}
    places = defaultdict(list)
    for folder, _, names in os.walk(root):
        for name in wanted.intersection(names):
            places[name].append(f"{folder}/{name}")
    for i in absent:
        fitting = [path for path in places[ids[i].rpartition("/")[2]] if path.endswith(f"/{ids[i]}")]
        if len(fitting) > 1:
            first, second = sorted(fitting)[:2]
            raise InputError(f"{ids[i]} may be {first} or {second}; give paths from {root} in the table")
        if fitting:
            found[i] = fitting[0]


def _list_folder(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except OSError:
        return frozenset()
