import gzip
import pathlib
import zipfile

import pytest

from tfrecords_builder import csv_files
from tfrecords_builder.errors import InputError


def _read(folder, data, *columns, name="t.csv"):
    path = folder / name
    path.write_bytes(data)
    return csv_files.read_table(path, columns or ("a", "b"))


def _rows(raw):
    return list(zip(raw.lines.tolist(), *(raw.convert(c, str).tolist() for c in raw.texts), strict=True))


@pytest.mark.parametrize(
    "data",
    [
        b"a,b\n1,x\n2,y\n",
        b"\xef\xbb\xbfa,b\r\n1,x\r\n2,y",
        b'"a" ; b\n 1;x\n2; "y"\n'.replace(b' "y"', b'"y"'),
        b"a\tb\n1\tx\n2\ty\t\t\n",
        b"c,a,b\n,1,x\n,2,y,,\n",
        "a\tb\r\n1\tx\r\n2\ty\r\n".encode("utf-16"),  # a spreadsheet's Unicode text
        b"\xfe\xff" + "a,b\n1,x\n2,y\n".encode("utf-16-be"),
        b"a,b\r1,x\r2,y\r",  # old spreadsheets for the Mac
        "a;b\r1;x\r2;y".encode("utf-16"),
    ],
)
def test_dialects(tmp_path, data):
    assert _rows(_read(tmp_path, data)) == [(2, "1", "x"), (3, "2", "y")]


@pytest.mark.parametrize("first", [b"sep=;\r\n", b'"sep=;"\n', b"\xef\xbb\xbfsep=;\n", b"sep=|\n"])
def test_the_separator_that_excel_is_told(tmp_path, first):
    separator = b"|" if b"|" in first else b";"
    assert _rows(_read(tmp_path, first + b"a;b\n1;x\n2;y\n".replace(b";", separator))) == [(3, "1", "x"), (4, "2", "y")]


def test_accents_of_columns_are_composed(tmp_path):
    (tmp_path / "t.csv").write_text("a,O\u0308dem\n1,x\n")
    assert csv_files.read_header(tmp_path / "t.csv") == ["a", "\u00d6dem"]


def test_lines_are_those_of_the_file(tmp_path):
    raw = _read(tmp_path, b'a,b\n\n1,"x\ny"\n,\n2,z\n')
    assert _rows(raw) == [(3, "1", "x\ny"), (6, "2", "z")]
    with pytest.raises(InputError, match=r"t\.csv: line 6, column a: too large"):
        raw.fail(1, "a", "too large")


def test_many_rows_keep_their_order(tmp_path):
    raw = _read(tmp_path, b"a,b\n" + b"".join(b"%d,%d\n" % (i, i % 3) for i in range(5000)))
    assert raw.convert("a", int).tolist() == list(range(5000)) and raw.lines.tolist() == list(range(2, 5002))
    assert raw.texts["b"] == ["0", "1", "2"] and raw.codes["b"].sum() == sum(i % 3 for i in range(5000))
    assert raw.convert("absent", lambda text: text or "none").tolist() == ["none"] * 5000


def test_gzip(tmp_path):
    data = gzip.compress(b"a,b\n" + b"1,x\n" * 10000)
    assert len(_read(tmp_path, data, name="t.csv.gz").lines) == 10000
    with pytest.raises(InputError, match=r"t\.csv\.gz: cannot be read \(Compressed file ended"):
        _read(tmp_path, data[:-20], name="t.csv.gz")
    with pytest.raises(InputError, match=r"t\.csv\.gz: cannot be read"):
        _read(tmp_path, b"a,b\n1,x\n", name="t.csv.gz")
    with pytest.raises(InputError, match=r"t\.csv\.gz: cannot be read"):
        _read(tmp_path, data[:30] + bytes(10) + data[40:], name="t.csv.gz")


def test_zip(tmp_path):
    def pack(**texts):
        with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
            for name, text in texts.items():
                archive.writestr(name.replace("__", ".") if name[0] != "_" else "__MACOSX/._t.csv", text)
        return csv_files.read_table(tmp_path / "t.csv.zip", ("a", "b"))

    assert _rows(pack(t__csv="a,b\n1,x\n2,y\n", _junk="x", readme__txt="x")) == [(2, "1", "x"), (3, "2", "y")]
    with pytest.raises(InputError, match=r"t\.csv\.zip: holds 2 tables; unpack it and give one of them"):
        pack(t__csv="a,b\n", u__csv="a,b\n")
    (tmp_path / "t.csv.zip").write_bytes(b"a,b\n1,x\n")
    with pytest.raises(InputError, match=r"t\.csv\.zip: cannot be read \(File is not a zip file\)"):
        csv_files.read_header(tmp_path / "t.csv.zip")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"\n1,2\n", "line 1: is blank, expected column names"),
        (b"a,b\n", "has no rows, only a header"),
        (b"a,b\n\n,\n", "has no rows, only a header"),
        (b"a,b\n1,2\n1\n", "line 3: has 1 cells, the header has 2"),
        (b"a,b\n1,2,3\n", "line 2: has 3 cells, the header has 2"),
        (b"a,b\n1,2\n3,\xff\n", "line 3: is not UTF-8 text; if a spreadsheet wrote it, save it as CSV in UTF-8"),
        ("a,b\n1,2\n".encode("utf-16")[:-1], "line 2: is damaged UTF-16 text"),
        ("a,b\n1,2\n".encode("utf-16-le"), "line 1: holds a NUL byte; is it a text file?"),
        (b"a,b\n1,2\n3,\x00\n", "line 3: holds a NUL byte; is it a text file?"),
        (b'a,b\n1,"2\n3,4\n5,6\n', "line 2: is no row of a table (unexpected end of data)"),
        (
            b"a,b\n1,2\r3,4\n",
            "line 2: is no row of a table (a carriage return within a row; save the table with one kind of line ends)",
        ),
        (b'a,b\n1,"2"x\n', "line 2: is no row of a table (',' expected after '\"')"),
    ],
)
def test_what_is_no_table(tmp_path, data, message):
    with pytest.raises(InputError) as error:
        _read(tmp_path, data)
    assert str(error.value).endswith(f"t.csv: {message}")


def test_what_cannot_be_read(tmp_path):
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            csv_files.read_header(pathlib.Path(path))


def test_choices(tmp_path):
    raw = _read(tmp_path, b"a,b\n1,x\n2,y\n" + b"1," + b"z" * 500 + b"\n")
    assert raw.choose("a", {"1": 10, "2": 20}, float).tolist() == [10, 20, 10]
    with pytest.raises(InputError, match=r"line 3, column b: unknown value 'y', expected x"):
        raw.choose("b", {"x": 1})
    with pytest.raises(InputError, match=r"line 4, column b: unknown value 'z{60}\.\.\.', expected x or y$"):
        raw.choose("b", {"x": 1, "y": 2}, float)
