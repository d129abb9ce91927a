"""Readers of label tables: CheXpert and NIH ChestX-ray8/14 (and phantoms in their layouts) -> one pandas frame.

A reader looks at tables only; `locate` finds the images. Sources: CheXpert, Irvin et al. 2019,
https://arxiv.org/abs/1901.07031; ChestX-ray8/14, Wang et al. 2017, https://arxiv.org/abs/1705.02315.
"""

import collections
import csv
import dataclasses
import gzip
import io
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import LABELS, NO_FINDING

PHANTOM_MARKER = "phantom.json"
EXTRA_SEPARATOR = "|"

# NIH's findings -> canonical labels; those mapped to None have no CheXpert counterpart and stay extra findings.
NIH_FINDINGS: dict[str, str | None] = {
    NO_FINDING: NO_FINDING,
    "Cardiomegaly": "Cardiomegaly",
    "Edema": "Edema",
    "Consolidation": "Consolidation",
    "Pneumonia": "Pneumonia",
    "Atelectasis": "Atelectasis",
    "Pneumothorax": "Pneumothorax",
    "Effusion": "Pleural Effusion",
    "Infiltration": None,
    "Mass": None,
    "Nodule": None,
    "Emphysema": None,
    "Fibrosis": None,
    "Pleural_Thickening": None,
    "Hernia": None,
}
_NIH_TABLES = (
    "Data_Entry_2017_v2020.csv",
    "Data_Entry_2017_v2020.csv.gz",
    "Data_Entry_2017.csv",
    "Data_Entry_2017.csv.gz",
)
_VALUES = {"": np.nan, "1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": -1.0, "-1.0": -1.0}
# Outside the folder of the images: a parent step, or an absolute path of POSIX or Windows.
_OUTSIDE = re.compile(r"(?:^|[/\\])\.\.(?:[/\\]|$)|^[/\\]|^[A-Za-z]:")
_MAX_AGE = 120


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of a data set that could be used.

    `frame` has one row per frontal image: `id` (path in the table), `patient`, `view` (PA, AP, ... or empty), `sex`,
    `age` (int, -1 unknown), the 14 LABELS (1 positive, 0 negative, -1 uncertain, NaN blank), `extra` (findings outside
    the 14, joined by "|"), `fold` (`train_val`, `test` or empty: the official lists) and `line` (in its table).
    """

    dataset: str
    source: str
    frame: pd.DataFrame
    num_rows: int  # of the tables, the skipped ones included
    skipped: collections.Counter[str]  # reason -> rows that are not in the frame
    paths: tuple[pathlib.Path, ...]  # the tables
    bases: tuple[tuple[pathlib.Path, int], ...]  # where images may be: folder, leading parts of `id` to drop


def read(
    dataset: str, data_dir: str | os.PathLike, *, labels_csv: str | os.PathLike | None = None, official: bool = False
) -> Table:
    """Reads a data set's tables.

    Args:
        dataset: a key of READERS.
        data_dir: folder of the data set.
        labels_csv: a table instead of the one in `data_dir`.
        official: whether to fill `fold` (chexpert: also reads valid.csv, its test rows; without it valid.csv is
            ignored; chestxray: reads the official lists).

    Raises:
        InputError: a file, column or value is missing or unknown; the message names file, line and column.
    """
    data_dir = pathlib.Path(data_dir)
    if dataset not in READERS:
        raise InputError(f"--dataset={dataset}: unknown; choose one of {', '.join(READERS)}")
    if not data_dir.is_dir():
        raise InputError(f"--data_dir={data_dir}: there is no such folder")
    table = READERS[dataset](data_dir, pathlib.Path(labels_csv) if labels_csv else None, official)
    duplicate = table.frame["id"].duplicated()
    if duplicate.any():
        row = table.frame[duplicate].iloc[0]
        raise InputError(f"{table.paths[0]}: line {row['line']}: {row['id']} is listed more than once")
    return table


def locate(table: Table) -> np.ndarray:
    """Returns the image file of every row of the frame (object[N] of str), "" where there is none.

    Lists each folder once, which is much faster than asking for every file where most are absent.
    """
    listings: dict[str, frozenset[str]] = {}
    ids = table.frame["id"].tolist()
    found = np.full(len(ids), "", object)
    for base, drop in table.bases:
        prefix = f"{base}{os.sep}"
        for i in np.flatnonzero(found == ""):
            path = prefix + ids[i].split("/", drop)[-1]
            folder, name = os.path.split(path)
            if folder not in listings:
                listings[folder] = _list_folder(folder)
            if name in listings[folder]:
                found[i] = path
    return found


def _list_folder(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except OSError:
        return frozenset()


def read_chexpert(data_dir: pathlib.Path, labels_csv: pathlib.Path | None, official: bool) -> Table:
    """Reads CheXpert's train.csv and, if `official`, valid.csv; full and -small layouts.

    `data_dir` is the folder of train.csv or its parent. Lateral views are skipped and counted.
    """
    root = data_dir
    if not labels_csv and not (root / "train.csv").is_file():
        roots = sorted(path.parent for path in data_dir.glob("CheXpert*/train.csv"))
        if len(roots) != 1:
            what = "several CheXpert folders" if roots else "no train.csv"
            raise InputError(f"--data_dir={data_dir}: holds {what}; give the folder of train.csv")
        root = roots[0]
    paths = [labels_csv or root / "train.csv"]
    if official:
        paths.append(root / "valid.csv")
    skipped: collections.Counter[str] = collections.Counter()
    frames, num_rows = [], 0
    for path, fold in zip(paths, ("train_val", "test"), strict=False):
        raw = _read_table(path, ("Path", "Frontal/Lateral", "AP/PA", *LABELS))
        num_rows += len(raw)
        frontal = _choices(raw, "Frontal/Lateral", {"Frontal": True, "Lateral": False}, path)
        skipped["lateral view"] += int((~frontal).sum())
        raw = raw[frontal]
        _refuse_outside(raw, "Path", path)
        frame = _make_frame(raw, id_column="Path", view="AP/PA", sex="Sex", age="Age")
        for label in LABELS:
            frame[label] = _choices(raw, label, _VALUES, path, "1, 0, -1 or blank")
        frame["patient"] = _chexpert_patients(frame, path)
        frame["fold"] = fold if official else ""
        frames.append(frame)
    return Table(
        dataset="chexpert",
        source=_source(data_dir, root, default="chexpert"),
        frame=pd.concat(frames, ignore_index=True),
        num_rows=num_rows,
        skipped=+skipped,
        paths=tuple(paths),
        # The table's paths start with CheXpert-v1.0[-small]/, whatever the folder is called here.
        bases=((root.parent, 0), (root, 1), (root, 0)),
    )


def _chexpert_patients(frame: pd.DataFrame, path: pathlib.Path) -> pd.Series:
    # The third part of the path; by its name too, should the first part have been stripped from the table.
    patients = frame["id"].str.extract(r"(?:^|/)(patient\d+)/", expand=False)
    third = frame["id"].str.split("/").str[2]
    patients = patients.where(patients.notna(), third)
    absent = patients.isna()
    if absent.any():
        row = frame[absent].iloc[0]
        raise InputError(f"{path}: line {row['line']}, column Path: no patient folder in {row['id']!r}")
    return patients


def read_chestxray(data_dir: pathlib.Path, labels_csv: pathlib.Path | None, official: bool) -> Table:
    """Reads NIH's Data_Entry_2017.csv or _v2020.csv, plain or gzipped, and, if `official`, its lists.

    Images may lie in `images/`, `images_001/images/` ... `images_012/images/`, `images_*/` or `data_dir` itself.
    """
    path = labels_csv or next((data_dir / name for name in _NIH_TABLES if (data_dir / name).is_file()), None)
    if path is None:
        raise InputError(f"--data_dir={data_dir}: holds no {_NIH_TABLES[2]}; give the table by --labels_csv")
    raw = _read_table(path, ("Image Index", "Finding Labels", "Patient ID", "View Position"))
    _refuse_outside(raw, "Image Index", path)
    frame = _make_frame(raw, id_column="Image Index", view="View Position", sex="Patient Gender", age="Patient Age")
    frame["patient"] = raw["Patient ID"]
    if (frame["patient"] == "").any():
        line = frame["line"][frame["patient"] == ""].iloc[0]
        raise InputError(f"{path}: line {line}, column Patient ID: is empty")
    _add_nih_labels(frame, raw["Finding Labels"], path)
    frame["fold"] = _nih_folds(frame["id"], data_dir) if official else ""
    bases = [
        data_dir / "images",
        *sorted(data_dir.glob("images_*/images")),
        *sorted(data_dir.glob("images_*")),
        data_dir,
    ]
    return Table(
        dataset="chestxray",
        source=_source(data_dir, path.parent, default="chestxray"),
        frame=frame,
        num_rows=len(raw),
        skipped=collections.Counter(),
        paths=(path,),
        bases=tuple((base, 0) for base in bases if base.is_dir()),
    )


def _add_nih_labels(frame: pd.DataFrame, column: pd.Series, path: pathlib.Path) -> None:
    """Adds the 14 labels (NaN where NIH has no such finding) and `extra`. Works on the few hundred distinct values."""
    codes, combinations = pd.factorize(column)
    mapped = [label for label in NIH_FINDINGS.values() if label]
    vectors = np.full((len(combinations), len(LABELS)), np.nan)
    vectors[:, [LABELS.index(label) for label in mapped]] = 0
    extras = []
    for i, combination in enumerate(combinations):
        findings = [finding.strip() for finding in combination.split("|")]
        unknown = [finding for finding in findings if finding not in NIH_FINDINGS]
        if unknown or (NO_FINDING in findings and len(findings) > 1):
            line = frame["line"].iat[int(np.argmax(codes == i))]
            what = (
                f"unknown finding {unknown[0]!r}" if unknown else f"{NO_FINDING!r} beside findings in {combination!r}"
            )
            raise InputError(f"{path}: line {line}, column Finding Labels: {what}")
        for finding in findings:
            label = NIH_FINDINGS[finding]
            if label:
                vectors[i, LABELS.index(label)] = 1
        extras.append(EXTRA_SEPARATOR.join(finding for finding in findings if NIH_FINDINGS[finding] is None))
    for j, label in enumerate(LABELS):
        frame[label] = vectors[codes, j]
    frame["extra"] = np.array(extras, object)[codes]


def _nih_folds(ids: pd.Series, data_dir: pathlib.Path) -> np.ndarray:
    folds = np.full(len(ids), "", object)
    for name, fold in (("train_val_list.txt", "train_val"), ("test_list.txt", "test")):
        if not (data_dir / name).is_file():
            raise InputError(f"--split_policy=official: {data_dir / name} is not there; choose --split_policy=patient")
        listed = ids.isin({line.strip() for line in _read_text(data_dir / name).splitlines()}).to_numpy()
        both = listed & (folds != "")
        if both.any():
            raise InputError(f"{data_dir / name}: {ids[both].iloc[0]} is in train_val_list.txt as well")
        folds[listed] = fold
    return folds


def _read_text(path: pathlib.Path) -> str:
    """Text of a plain or gzipped UTF-8 file, without a byte order mark."""
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text") from error


def _read_table(path: pathlib.Path, required: Sequence[str]) -> pd.DataFrame:
    """Reads a table as text, blanks as ""; its index is the line number. Comma or semicolon, BOM, CRLF are fine."""
    text = _read_text(path)
    header = text.split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    try:
        frame = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, index_col=False)
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path}: is no table ({error})") from error
    frame.columns = [str(column).strip() for column in frame.columns]
    absent = [column for column in required if column not in frame.columns]
    if absent:
        raise InputError(f"{path}: has no column {absent[0]!r}; is it the table of this --dataset?")
    if not len(frame):
        raise InputError(f"{path}: has no rows")
    frame.index = pd.RangeIndex(2, len(frame) + 2)
    return frame


def _make_frame(raw: pd.DataFrame, *, id_column: str, view: str, sex: str, age: str) -> pd.DataFrame:
    """The columns that both tables have under different names; sex and age may be absent."""
    blank = pd.Series("", index=raw.index)
    frame = pd.DataFrame({"id": raw[id_column], "view": raw[view].str.strip().str.upper()})
    frame["sex"] = raw.get(sex, blank).str.strip()
    frame["age"] = _ages(raw.get(age, blank))
    frame["extra"] = ""
    frame["line"] = raw.index
    return frame


def _ages(column: pd.Series) -> np.ndarray:
    """Years; NIH's `058Y`, `011M` and `002D` count full years; -1 for anything else, such as 414."""
    parts = column.str.strip().str.extract(r"^(\d+)(?:\.0*)?([YMD]?)$")
    years = pd.to_numeric(parts[0], errors="coerce").fillna(-1).to_numpy(np.int64)
    unit = parts[1].fillna("").to_numpy()
    years = np.where(unit == "M", years // 12, np.where(unit == "D", years // 365, years))
    return np.where(years > _MAX_AGE, -1, years)


def _choices(raw: pd.DataFrame, column: str, values: dict, path: pathlib.Path, expected: str = "") -> np.ndarray:
    """Maps a column's text to values. Raises InputError naming line and column of the first unknown one."""
    codes, distinct = pd.factorize(raw[column].str.strip())
    for i, text in enumerate(distinct):
        if text not in values:
            line = raw.index[int(np.argmax(codes == i))]
            expected = expected or " or ".join(values)
            raise InputError(f"{path}: line {line}, column {column}: unknown value {text!r}, expected {expected}")
    return np.array([values[text] for text in distinct])[codes]


def _refuse_outside(raw: pd.DataFrame, column: str, path: pathlib.Path) -> None:
    bad = raw[column].map(lambda text: not text or bool(_OUTSIDE.search(text)))
    if bad.any():
        line = bad.index[bad.to_numpy()][0]
        raise InputError(
            f"{path}: line {line}, column {column}: {raw[column][line]!r} is no path inside the data set's folder"
        )


def _source(*folders: pathlib.Path, default: str) -> str:
    """The `source` of the records: a phantom says in a marker file that it is one."""
    for folder in _distinct(folders):
        if (folder / PHANTOM_MARKER).is_file():
            marker = files.read_json(folder / PHANTOM_MARKER)
            if not isinstance(marker, dict) or not isinstance(marker.get("source"), str):
                raise InputError(f"{folder / PHANTOM_MARKER}: has no text `source`")
            return marker["source"]
    return default


def _distinct(folders: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    return list(dict.fromkeys(folders))


READERS: dict[str, Callable[[pathlib.Path, pathlib.Path | None, bool], Table]] = {
    "chexpert": read_chexpert,
    "chestxray": read_chestxray,
}
