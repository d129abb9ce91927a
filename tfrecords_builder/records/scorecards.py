"""The scorecard of a synthetic record set: the file in its folder that says whether it was audited.

`generate` writes it with "audited": "no"; `scorecard` replaces it. The records, their digest and their description stay
as they are; only the datasheet is written again.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.records import datasheet
from tfrecords_builder.records.info import RecordSetInfo

FILE = "scorecard.json"
SCHEMA_VERSION = 1


def write_unaudited(info: RecordSetInfo) -> None:
    """Says in the folder of a set that there is no scorecard yet."""
    card = {
        "schema_version": SCHEMA_VERSION,
        "audited": "no",
        "set": {"digest": info.digest},
        "lines": [datasheet.NO_SCORECARD],
    }
    files.write_json(info.folder / FILE, card)


def attach(info: RecordSetInfo, card: Mapping[str, Any]) -> None:
    """Writes a scorecard into the folder of its set, and its lines into the datasheet.

    Raises:
        InputError: the set has lost its build_report.json, or the folder cannot be written.
    """
    report = files.read_json(info.folder / "build_report.json")
    try:
        files.write_json(info.folder / FILE, card)
        files.write_text(info.folder / datasheet.FILE, datasheet.render(info, report, card["lines"]))
    except OSError as error:
        raise InputError(
            f"--synthetic_set={info.folder}: cannot be written ({error.strerror}); give --noattach to leave it as it is"
        ) from error


def read(path: str | os.PathLike, flag: str) -> dict[str, Any]:
    """A scorecard, of its file or of the folder that holds it. Raises InputError, which names `flag`, for no such."""
    path = pathlib.Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{flag}={path}: holds no {FILE}; give an output folder of scorecard")
    card = files.read_json(file)
    known = isinstance(card, dict) and card.get("schema_version") == SCHEMA_VERSION
    if not known or not isinstance(card.get("set"), dict) or not isinstance(card.get("lines"), list):
        raise InputError(f"{flag}={path}: {FILE} is no scorecard of this version of tfcxr; make it again")
    return card
