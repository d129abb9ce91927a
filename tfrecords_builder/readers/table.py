"""What all readers share: `Table`, whose table a file is, and the checks of cells."""

import ast
import dataclasses
import hashlib
import os
import pathlib
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from tfrecords_builder import files
from tfrecords_builder.csv_files import RawTable, did_you_mean, read_header, shorten
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import finding
from tfrecords_builder.labels.label_sets import DEFAULT, EXTRA_SEPARATOR, LabelSet

PHANTOM_MARKER = "phantom.json"
LATERAL = "LL"
SKIPPED_COLUMNS: tuple[str, ...] = ("table", "line", "id", "reason")
# pandas, R and spreadsheets write numbers, truth and nothing in these ways.
_BLANKS = ("", "nan", "NaN", "NA", "N/A", "None")
LABEL_VALUES = dict.fromkeys(_BLANKS, np.nan) | {
    text.format(number): float(number) for number in ("0", "1", "-1") for text in ("{}", "{}.0", "{},0", "{}.00")
}
LABEL_VALUES |= dict.fromkeys(("True", "TRUE", "true"), 1.0) | dict.fromkeys(("False", "FALSE", "false"), 0.0)
# What spreadsheets make of names: 12.0, 1.2E+11, 5-Jan, Jan-05, 05.01.2024.
_SPREADSHEET = re.compile(
    r"\d+[.,]0|\d[.,]\d+E\+\d+|\d{1,2}[-. ][A-Z][a-z]{2}|[A-Z][a-z]{2}[-. ]\d{2}|\d{1,2}[./]\d{1,2}[./]\d{2,4}"
)

# Columns by which the table of each data set can be told from others, and what to call it.
_LAYOUTS: tuple[tuple[str, str, frozenset[str]], ...] = (
    ("chexpert", "CheXpert's table", frozenset({"Path", "Frontal/Lateral", "AP/PA"})),
    ("chestxray", "ChestX-ray14's table", frozenset({"Image Index", "Finding Labels"})),
    ("chexpert_plus", "CheXpert Plus's table", frozenset({"path_to_image", "frontal_lateral"})),
    ("mimic_cxr", "a table of MIMIC-CXR-JPG", frozenset({"subject_id", "study_id"})),
    ("padchest", "PadChest's table", frozenset({"ImageID", "PatientID", "Projection"})),
    ("rsna_pneumonia", "RSNA's table of pneumonia", frozenset({"patientId", "Target"})),
    ("siim_acr", "SIIM-ACR's table", frozenset({"ImageId", "EncodedPixels"})),
    ("vindr_cxr", "a table of VinDr-CXR", frozenset({"image_id", "rad_id"})),
    ("records", "the manifest of a record set", frozenset({"id", "split", "shard", "position"})),
)
_AGE = re.compile(r"(\d+)(?:[.,]0*)?([YMD]?)")
_DAYS = {"": 1, "Y": 1, "M": 12, "D": 365}  # of that unit in a year
MAX_AGE = 120


def no_rows() -> pd.DataFrame:
    """A `Table.skipped` without rows."""
    return pd.DataFrame({"table": [], "line": np.zeros(0, np.int64), "id": [], "reason": []}).astype(
        {"table": object, "id": object, "reason": object}
    )


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of a data set.

    Attributes:
        dataset: one of `choices.DATASETS`.
        source: `source` of the records made of it.
        dataset_name: whose patients they are, unless the user says it (`records.RecordSetInfo.dataset_name`).
        frame: one row per usable row of the tables. Text (objects), never missing: `id` (path in the table, with `/`),
            `patient` (empty: unknown, the image is its own patient), `view` (PA, AP, LL, ... or empty), `sex`, `extra`
            (findings outside the label set, joined by "|"), `fold` (`train_val` or `test` of official lists, `train`,
            `validation` or `test` where the data set has its own splits, or empty), `table` (file name; empty: there is
            no table). int64: `age` (years, 0 to 120; -1 unknown), `line` (in `table`, from 1), `offset` (byte offset of
            the record in its shard; -1: the image is a whole file). float32: the labels (1 positive, 0 negative, -1
            uncertain, NaN blank). Record sets also have `path` (text: the shard) and `combination` (the code of the
            record's labels, see labels/combinations.py).
        paths: the tables.
        bases: where images may be: folder, leading parts of `id` to drop.
        skipped: one row per row of the tables that is not in `frame`: `table`, `line` (int64), `id`, `reason`.
        findings: the findings outside the label set that the data set knows.
        labelled: the labels that the data set labels at all, in their order; the others are blank (of
            record sets 0).
        search: folder that is searched, with all folders in it, for images that no base has.
        warnings: one line each.
        label_set: which labels the frame has.
    """

    dataset: str
    source: str
    dataset_name: str
    frame: pd.DataFrame
    paths: tuple[pathlib.Path, ...]
    bases: tuple[tuple[pathlib.Path, int], ...]
    skipped: pd.DataFrame = dataclasses.field(default_factory=no_rows)
    findings: tuple[str, ...] = ()
    labelled: tuple[str, ...] = DEFAULT.labels
    search: pathlib.Path | None = None
    warnings: tuple[str, ...] = ()
    label_set: LabelSet = DEFAULT

    @property
    def num_rows(self) -> int:
        """Of the tables."""
        return len(self.frame) + len(self.skipped)

    @property
    def origin(self) -> pathlib.Path:
        """What messages name: the first table, or the folder where there is none."""
        return self.paths[0] if self.paths else self.bases[0][0]


def check_columns(path: pathlib.Path, header: Sequence[str], required: Sequence[str], dataset: str) -> None:
    """Raises InputError if a required column is absent or there twice; says so if it is another data set's table."""
    for column in required:
        if header.count(column) > 1:
            raise InputError(f"{path}: has two columns {column!r}")
        if column not in header:
            hint = guess_dataset(header, but=dataset) or f"it has {shorten(', '.join(header))}"
            hint += did_you_mean(column, header)
            hint += "; columns are told apart by commas, semicolons or tabs" if len(header) == 1 else ""
            raise InputError(f"{path}: has no column {column!r}; {hint}")


def guess_dataset(header: Collection[str], *, but: str) -> str:
    """Says whose table it looks like, if it is that of a known data set other than `but`; else returns ""."""
    for dataset, name, columns in _LAYOUTS:
        if dataset != but and columns <= set(header):
            return f"it looks like {name}; try --dataset={dataset}"
    return ""


def suggest_dataset(folder: pathlib.Path, *, but: str) -> str:
    """As `guess_dataset`, by the tables in a folder."""
    for path in find_tables(folder):
        try:
            hint = guess_dataset(read_header(path), but=but)
        except InputError:
            continue
        if hint:
            return f"{path.name} is there: {hint}"
    return ""


def suggest_folder(data_dir: pathlib.Path, names: Sequence[str]) -> str:
    """Says that a file of one of the names lies in a folder above or below `data_dir`; "" if none does."""
    data_dir = data_dir.resolve()
    for name in names:
        for path in (data_dir.parent / name, *sorted(data_dir.glob(f"*/{name}"))[:1]):
            if path.is_file():
                return f"{path} is there: give --data_dir={path.parent}"
    return ""


def find_tables(folder: pathlib.Path) -> list[pathlib.Path]:
    """The CSV and TSV files in a folder, plain, gzipped or zipped, in order of name; hidden ones are left out.

    Spreadsheets leave `~$table.csv` while a table is open.
    """
    names = tuple(f"{kind}{packed}" for kind in (".csv", ".tsv") for packed in ("", ".gz", ".zip"))
    return sorted(path for path in folder.iterdir() if path.name.lower().endswith(names) and path.name[0] not in ".~")


def find_file(folders: Sequence[pathlib.Path], names: Sequence[str]) -> pathlib.Path | None:
    """The first file of these names in the first folder that has one."""
    paths = (folder / name for folder in folders for name in names)
    return next((path for path in paths if path.is_file()), None)


def find_root(data_dir: pathlib.Path, names: Sequence[str], below: Sequence[str] = ()) -> pathlib.Path:
    """The folder that holds a file of these names: `data_dir`, one of `below` in it, or what it alone holds.

    It is `data_dir` if there is none.
    """

    def find(folder: pathlib.Path) -> pathlib.Path | None:
        places = (folder, *(folder / name for name in below))
        return next((place for place in places if find_file([place], names)), None)

    root = finding.skip_wrappers(data_dir, lambda folder: find(folder) is not None)
    return find(root) or data_dir


def require_file(
    dataset: str, data_dir: pathlib.Path, folders: Sequence[pathlib.Path], names: Sequence[str], what: str = ""
) -> pathlib.Path:
    """As `find_file`; raises InputError if there is none.

    Args:
        dataset: one of `choices.DATASETS`.
        data_dir: of the message.
        folders: where to look.
        names: of the file.
        what: the end of the message, where --labels_csv cannot name the file.
    """
    found = find_file(folders, names)
    if found is None:
        hint = suggest_dataset(data_dir, but=dataset) or suggest_folder(data_dir, names)
        raise InputError(f"--data_dir={data_dir}: holds no {names[0]}; {hint or what or 'give it by --labels_csv'}")
    return found


def refuse_official(dataset: str, official: bool) -> None:
    """Raises InputError if the split is asked for that the data set has not."""
    if official:
        raise InputError(
            f"--split_policy=official: --dataset={dataset} has no official split; choose --split_policy=patient"
        )


def to_filled(text: str) -> str:
    """The text itself. Raises ValueError if it is empty."""
    if not text:
        raise ValueError("is empty")
    return text


def to_patient(text: str) -> str:
    """The text itself. Raises ValueError if it says of no patient who it is."""
    if text in _BLANKS[1:]:
        raise ValueError(
            f"{text!r} stands for nothing and would make one patient of all such images; name each patient"
        )
    return to_filled(text)


def require_table(
    dataset: str,
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    names: Sequence[str],
    required: Sequence[str],
) -> pathlib.Path:
    """The table of a data set that has no official folds: one of `names` in or below `data_dir`, else `labels_csv`.

    Raises InputError if there is none, it lacks a required column, or folds are asked for.
    """
    refuse_official(dataset, official)
    path = labels_csv or require_file(dataset, data_dir, [find_root(data_dir, names)], names)
    check_columns(path, read_header(path), required, dataset)
    return path


def find_rows(raw: RawTable, column: str, keys: Iterable[str], to_key: Callable[[str], str] = to_filled) -> np.ndarray:
    """Joins two tables: the row of each key, int64, -1 if there is none.

    Args:
        raw: the table to look in.
        column: its column of keys.
        keys: what to look for.
        to_key: makes a key of a cell.

    Raises:
        InputError: a key has two rows; the message names both lines.
    """
    places: dict[str, int] = {}
    for row, key in enumerate(raw.convert(column, to_key)):
        if places.setdefault(key, row) != row:
            raw.fail(row, column, f"{key} is on line {raw.lines[places[key]]} as well; keep one of the rows")
    return np.array([places.get(key, -1) for key in keys], np.int64)


def map_words(dataset: str, words: Mapping[str, Sequence[str]], label_set: LabelSet) -> dict[str, tuple[str, ...]]:
    """Finding -> the labels it means. One that means none of the set stays a finding outside the labels.

    Args:
        dataset: one of `choices.DATASETS`.
        words: finding of a data set -> what it is a kind of, in the words of label sets.
        label_set: its own name or synonym for the finding is used alone, else all that it is a kind of.

    Raises:
        InputError: the label set knows none of the findings.
    """
    found = {}
    for name, kinds in words.items():
        own = label_set.match(name)
        labels = [own] if own else [label for label in map(label_set.match, kinds) if label]
        found[name] = tuple(dict.fromkeys(labels))
    if not any(found.values()):
        raise InputError(
            f"--label_set={label_set.name}: has none of the findings of --dataset={dataset}; choose another"
        )
    return found


def add_findings(
    frame: pd.DataFrame,
    positive: Mapping[str, np.ndarray],
    mapping: Mapping[str, Sequence[str]],
    label_set: LabelSet,
    nothing: str = "",
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Adds labels and `extra` to a frame whose images were read for each of these findings.

    Args:
        frame: of N rows.
        positive: finding -> bool [N].
        mapping: of `map_words`, for at least these findings. Labels that none of them means are blank.
        label_set: the labels.
        nothing: what the data set calls it if nothing was found, which is no finding outside the labels.

    Returns:
        `labelled` and `findings` of the table.
    """
    named = {label for name in positive for label in mapping[name]}
    for label in label_set.labels:
        values = np.full(len(frame), 0.0 if label in named else np.nan, np.float32)
        for name, mask in positive.items():
            if label in mapping[name]:
                values[mask] = 1
        frame[label] = values
    extra = [""] * len(frame)
    others = [name for name in positive if not mapping[name] and name != nothing]
    for name in others:
        for row in np.flatnonzero(positive[name]):
            extra[row] += f"{EXTRA_SEPARATOR}{name}" if extra[row] else name
    frame["extra"] = to_texts(np.array(extra, object), len(frame))
    return tuple(label for label in label_set.labels if label in named), tuple(others)


def to_path(text: str) -> str:
    """An image's path in the data set's folder, with `/`: tables made on Windows write `\\`.

    Raises ValueError if it is empty, absolute or has a parent step.
    """
    path = text.replace("\\", "/")
    if not path or path[0] == "/" or path[1:2] == ":" or (".." in path and ".." in path.split("/")):
        raise ValueError(f"{shorten(text)} is no path inside the data set's folder")
    return posixpath.normpath(path) if "//" in path or "./" in path or path[-1] == "/" else path


def to_age(text: str) -> int:
    """Years; NIH's `058Y`, `011M` and `002D` count full years; -1 for anything else, such as 414."""
    match = _AGE.fullmatch(text)
    years = int(match[1]) // _DAYS[match[2]] if match and len(match[1]) < 9 else -1
    return years if years <= MAX_AGE else -1


def to_year(text: str) -> int:
    """The year that a date or number such as 20140915 or 1931.0 begins with, 0 if it is none."""
    return int(text[:4]) if text[:4].isdecimal() and len(text) >= 4 else 0


def to_view(text: str) -> str:
    """A view in capitals; a lateral one as LL."""
    view = text.upper()
    return LATERAL if view in ("LATERAL", "LAT") else view


def to_list(text: str) -> list[str]:
    """The names in a cell: joined by "|", or a list as Python and JSON write it, `['a', 'b']`."""
    if text[:1] == "[":
        try:
            values = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(f"{shorten(text)} is no list such as ['a', 'b']") from error
        names = [str(value) for value in values]
    else:
        names = text.split("|")
    return [name.strip() for name in names if name.strip()]


def make_frame(
    raw: RawTable, *, id_column: str, view: str, sex: str, age: str, data_dir: pathlib.Path | None = None
) -> pd.DataFrame:
    """The columns that all tables have under different names; all may be absent.

    Args:
        raw: the table.
        id_column: of the images' paths.
        view: column.
        sex: column.
        age: column.
        data_dir: what absolute paths must be in.
    """
    count = len(raw.lines)
    inside = (
        () if data_dir is None else tuple(f"{path.as_posix()}/" for path in (data_dir.absolute(), data_dir.resolve()))
    )

    def to_id(text: str) -> str:
        base = next((base for base in inside if text.startswith(base)), "") if text[:1] == "/" else ""
        return to_path(text[len(base) :])

    return pd.DataFrame(
        {
            "id": to_texts(raw.convert(id_column, to_id) if id_column else "", count),
            "view": to_texts(raw.convert(view, to_view), count),
            "sex": to_texts(raw.convert(sex, str), count),
            "age": raw.convert(age, to_age, np.int64),
            "extra": to_texts("", count),
            "fold": to_texts("", count),
            "table": to_texts(raw.path.name, count),
            "line": raw.lines,
            "offset": np.full(count, -1, np.int64),
        }
    )


def suspect_spreadsheet(raw: RawTable, column: str) -> list[str]:
    """A warning if names in a column look like numbers or dates that a spreadsheet, or pandas, made of them."""
    texts = set(raw.texts.get(column, ()))
    changed = sorted(text for text in texts if _SPREADSHEET.fullmatch(text))
    if not changed:
        return []
    return [
        f"{raw.path.name}, column {column}: {len(changed)} of {len(texts)} names, such as {changed[0]!r}, look like "
        "numbers or dates that a spreadsheet made of them; different names may have become one: import the column as "
        "text"
    ]


def to_texts(values: str | np.ndarray, count: int) -> pd.Series:
    """A column of texts, all the same one if `values` is one.

    As objects: pandas 3 would copy each text into memory of its own, and most of them repeat.
    """
    return pd.Series(values, index=range(count), dtype=object)


def find_source(*folders: pathlib.Path, default: str, name: str = "") -> tuple[str, str]:
    """The `source` of the records and the name of the data set: a phantom says in a marker file that it is one.

    Args:
        *folders: where the marker may lie.
        default: the source if there is none.
        name: the data set's name if there is none; empty: as the source.

    Returns:
        Source and name. Phantoms of two seeds are of different patients, which bear the same numbers.
    """
    for folder in dict.fromkeys(folders):
        if (folder / PHANTOM_MARKER).is_file():
            marker = files.read_json(folder / PHANTOM_MARKER)
            if not isinstance(marker, dict) or not isinstance(marker.get("source"), str):
                raise InputError(f"{folder / PHANTOM_MARKER}: has no text `source`")
            source = marker["source"]
            return source, f"{source}-seed-{marker['seed']}" if "seed" in marker else source
    return default, name or default


def name_folder(data_dir: pathlib.Path) -> str:
    """A name for a user's data set: its folder's, and 8 digits of a hash of the whole path, which tell it from others.

    The same folder gives the same name whichever of its tables is read.
    """
    folder = data_dir.resolve()
    return f"{folder.name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]}"
