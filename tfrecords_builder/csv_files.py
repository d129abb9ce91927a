"""Reads CSV files line by line into codes of their distinct texts.

So memory holds each text once, every check and conversion of a column looks at each distinct text once, and messages
name the line of the file, whatever blank lines and quoted line breaks are in it.
"""

import array
import csv
import dataclasses
import difflib
import gzip
import io
import itertools
import pathlib
import re
import unicodedata
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from tfrecords_builder import files
from tfrecords_builder.errors import InputError

# But for the first: a truncated or damaged gzip or zip file, and a zip file with a password.
_READ_ERRORS = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_PEEKED = 8192  # bytes at most, by which the kind of line ends is told
_SEPARATOR = re.compile(r'"?sep=(.)"?')  # a first line by which Excel is told the separator
_ROWS_AT_ONCE = 1024
_MAX_SHOWN = 60  # characters of a cell in a message


@dataclasses.dataclass(frozen=True)
class RawTable:
    """A table as it stands in the file: stripped texts.

    Attributes:
        path: the file.
        lines: int64 [N], the line of each row, from 1.
        codes: column -> unsigned integers [N], indices into `texts`.
        texts: column -> its texts; those that differed in blanks around them are there more than once.
    """

    path: pathlib.Path
    lines: np.ndarray
    codes: Mapping[str, np.ndarray]
    texts: Mapping[str, Sequence[str]]

    def convert(self, column: str, function: Callable[[str], Any], dtype: Any = object) -> np.ndarray:
        """Returns dtype [N]: what `function` makes of each text of a column; all blank if the table lacks the column.

        Raises InputError naming line and column of the first text for which `function` raises ValueError.
        """
        if column not in self.texts:
            return np.full(len(self.lines), function(""), dtype)
        values = np.empty(len(self.texts[column]), dtype)
        for i, text in enumerate(self.texts[column]):
            try:
                values[i] = function(text)
            except ValueError as error:
                self.fail(int(np.argmax(self.codes[column] == i)), column, str(error))
        return values[self.codes[column]]

    def choose(self, column: str, values: Mapping[str, Any], dtype: Any = object, expected: str = "") -> np.ndarray:
        """As `convert`, with the values of a mapping; any other text is an error that says what was `expected`."""

        def lookup(text: str) -> Any:
            if text not in values:
                meant = did_you_mean(text, values)
                raise ValueError(f"unknown value {shorten(text)}, expected {expected or ' or '.join(values)}{meant}")
            return values[text]

        return self.convert(column, lookup, dtype)

    def fail(self, row: int, column: str, problem: str) -> NoReturn:
        """Raises InputError that names the file, the row's line and the column."""
        raise InputError(f"{self.path}: line {self.lines[row]}, column {column}: {problem}")


def shorten(text: str) -> str:
    """The text in quotes, cut if it is long."""
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message: the known name that is nearest to another one, "" if none is near."""
    folded = {each.casefold(): each for each in known if each}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def read_header(path: pathlib.Path) -> list[str]:
    """Returns the column names of a table, stripped.

    Raises InputError if the file cannot be read, is empty or is no text.
    """
    with _Lines(path) as lines:
        return lines.header


def read_table(path: pathlib.Path, columns: Sequence[str]) -> RawTable:
    """Reads those of `columns` that the table has.

    Comma, semicolon or tab, a first line `sep=;`, a byte order mark, UTF-16 with one, CRLF, CR, quotes, gzip, a zip
    file of one table, blank lines, and empty cells beyond the last column are fine. Columns' names are composed (NFC).

    Raises:
        InputError: the file is absent, empty or no UTF-8 text, holds NUL bytes, has no rows, or a row has more or fewer
            cells than the header; the message names the line.
    """
    with _Lines(path) as lines:
        header = lines.header
        places = {column: header.index(column) for column in columns if column in header}
        # A text gets the next code when it is first met.
        index: dict[str, defaultdict[str, int]] = {column: defaultdict() for column in places}
        for distinct in index.values():
            distinct.default_factory = distinct.__len__
        codes = {column: array.array("i") for column in places}
        numbers = array.array("q")
        rows = lines.rows()
        while chunk := [(lines.first, row) for row in itertools.islice(rows, _ROWS_AT_ONCE)]:
            numbers.extend(number for number, _ in chunk)
            cells = list(zip(*(row for _, row in chunk), strict=True))
            for column, place in places.items():
                codes[column].extend(map(index[column].__getitem__, cells[place]))
    if not numbers:
        raise InputError(f"{path}: has no rows, only a header")
    return RawTable(
        path=path,
        lines=np.frombuffer(numbers, np.int64),
        codes={column: _shrink(codes.pop(column), len(index[column])) for column in places},
        texts={column: [text.strip() for text in distinct] for column, distinct in index.items()},
    )


def _shrink(codes: array.array, count: int) -> np.ndarray:
    """The codes 0 to `count` - 1 in the smallest type that holds them."""
    return np.frombuffer(codes, np.int32).astype(np.min_scalar_type(max(count - 1, 0)))


class _Lines:
    """An open table: its header, and its rows with the number of the line at which each begins."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._line = 0  # the last that was read
        self.first = 0  # the first of the present row
        try:
            self._stream = _open(path)
            start = self._stream.peek(_PEEKED)[:_PEEKED]
            returns = b"\r" in start and b"\n" not in start  # line ends of old spreadsheets for the Mac
            wide = start[:2] in _UTF16
            self._text = io.TextIOWrapper(self._stream, "utf-16", newline="\r" if returns else "\n") if wide else None
            self._data = (data + b"\n" for data in self._stream.read().split(b"\r")) if returns and not wide else None
            first = next(self._decoded(), "")
            given = _SEPARATOR.fullmatch(first.removeprefix("\ufeff").rstrip("\r\n"))
            if given:
                first = next(self._decoded(), "")
        except _READ_ERRORS as error:
            raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
        first = first.removeprefix("\ufeff")
        if first.startswith("PK\x03\x04"):
            self._stream.close()
            raise InputError(f"{path}: is no CSV{_recognise(first.encode())}")
        if not first.strip():
            self._stream.close()
            raise InputError(f"{path}: is empty" if not first else f"{path}: line 1: is blank, expected column names")
        self._separator = given[1] if given else max(",;\t", key=first.count)
        try:
            # Composed: Macs may write an accent as a character of its own.
            self.header = [
                unicodedata.normalize("NFC", name.strip())
                for name in next(csv.reader([first], delimiter=self._separator, skipinitialspace=True))
            ]
        except csv.Error as error:
            self._stream.close()
            raise InputError(f"{path}: line 1: is no row of a table ({_explain(error)})") from error

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def rows(self) -> Iterator[list[str]]:
        """Yields the rows, each as long as the header."""
        # strict: an open quote would otherwise swallow the rest of the file in silence.
        reader, width = (
            csv.reader(self._decoded(), delimiter=self._separator, skipinitialspace=True, strict=True),
            len(self.header),
        )
        self.first = self._line + 1
        try:
            for row in reader:
                if len(row) != width:
                    while len(row) > width and not row[-1].strip():
                        row.pop()
                    if len(row) != width and any(map(str.strip, row)):
                        raise InputError(
                            f"{self._path}: line {self.first}: has {len(row)} cells, the header has {width}"
                        )
                if len(row) == width and any(row):
                    yield row
                self.first = self._line + 1
        except csv.Error as error:
            raise InputError(f"{self._path}: line {self.first}: is no row of a table ({_explain(error)})") from error
        except _READ_ERRORS as error:
            raise InputError(f"{self._path}: cannot be read ({error})") from error

    def _decoded(self) -> Iterator[str]:
        if self._text:
            yield from self._decoded_wide(self._text)
            return
        if self._data is None:
            self._data = iter(self._stream)
        for data in self._data:
            self._line += 1
            try:
                text = data.decode()
            except UnicodeDecodeError as error:
                hint = _recognise(data) if self._line == 1 else ""
                hint = hint or "; if a spreadsheet wrote it, save it as CSV in UTF-8"
                raise InputError(f"{self._path}: line {self._line}: is not UTF-8 text{hint}") from error
            if "\0" in text:
                raise InputError(f"{self._path}: line {self._line}: holds a NUL byte; is it a text file?")
            yield text

    def _decoded_wide(self, lines: Iterable[str]) -> Iterator[str]:
        try:
            for text in lines:
                self._line += 1
                yield text
        except UnicodeDecodeError as error:
            raise InputError(f"{self._path}: line {self._line + 1}: is damaged UTF-16 text") from error


def _explain(error: csv.Error) -> str:
    """What is wrong, without the advice to programmers that the module csv gives."""
    returns = "a carriage return within a row; save the table with one kind of line ends"
    return returns if str(error).startswith("new-line character") else str(error)


def _open(path: pathlib.Path) -> Any:
    """The bytes of a table: of the file, of what was gzipped, or of the only table in a zip file."""
    files.check_regular(path)
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path, "rb")
    if suffix != ".zip":
        return path.open("rb")
    archive = zipfile.ZipFile(path)
    names = [name for name in archive.namelist() if name.lower().endswith((".csv", ".tsv"))]
    names = [name for name in names if not any(part[:1] in "._" for part in name.split("/"))]  # __MACOSX/._t.csv
    if len(names) != 1:
        archive.close()
        raise InputError(f"{path}: holds {len(names)} tables; unpack it and give one of them")
    return archive.open(names[0])


def _recognise(data: bytes) -> str:
    """What the first bytes of a file that is no text say it is, and what to do; as the end of a message."""
    if data.startswith(b"PK\x03\x04"):
        return ": it is a zip file or a spreadsheet; save the table as CSV"
    if data.startswith(b"\x1f\x8b"):
        return ": it is a gzip file, whose name must end in .gz"
    return ""


def read_numbered_lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields number, from 1, and stripped text of the lines of a UTF-8 file, plain or gzipped, without blank ones.

    Raises InputError if it cannot be read.
    """
    try:
        with _open(path) as stream:
            for number, data in enumerate(stream, 1):
                try:
                    text = data.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    raise InputError(f"{path}: line {number}: is not UTF-8 text") from error
                if text:
                    yield number, text
    except _READ_ERRORS as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def read_lines(path: pathlib.Path) -> list[str]:
    """Returns the lines of a UTF-8 file, stripped, without blank ones. Raises InputError if it cannot be read."""
    files.check_regular(path)
    try:
        return [line for line in map(str.strip, path.read_text("utf-8-sig").splitlines()) if line]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text") from error
