"""Hugging Face's imagefolder: metadata.csv or metadata.jsonl beside the images, or in the folders of splits."""

import gzip
import json
import sys

import numpy as np
import pytest

from tfrecords_builder import json_lines, readers
from tfrecords_builder.errors import InputError


def _make(root, tables, *images):
    for name in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    for name, lines in tables.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (root / name).write_text("\n".join(texts) + "\n")
    return root


def _read(root, *items, class_values=(), pattern="", official=False, **options):
    columns = readers.choose_columns("imagefolder", items, class_values, pattern, **options)
    readers.check_header("imagefolder", root, columns=columns, official=official)
    table = readers.read("imagefolder", root, columns=columns, official=official)
    assert all(readers.locate(table))
    return table


def _rows(table, *columns):
    return table.frame[list(columns)].to_numpy().tolist()


def test_one_table_with_classes_and_patients(tmp_path):
    rows = ["file_name,label,patient_id,note", "a.png,Effusion,p1,x", "sub/b.png,normal,p2,y", "c.png,,p2,z"]
    table = _read(_make(tmp_path, {"metadata.csv": rows}, "a.png", "sub/b.png", "c.png"))
    assert _rows(table, "id", "patient", "fold") == [["a.png", "p1", ""], ["sub/b.png", "p2", ""], ["c.png", "p2", ""]]
    np.testing.assert_array_equal(table.frame["Pleural Effusion"], [1, 0, np.nan])
    assert (table.dataset, table.warnings, table.labelled) == ("imagefolder", (), ("No Finding", "Pleural Effusion"))
    assert [path.name for path in table.paths] == ["metadata.csv"] and table.frame["line"].tolist() == [2, 3, 4]


def test_a_table_in_each_split(tmp_path):
    """With columns of labels; messages name the table."""
    head = "file_name,Lung_Opacity,No Finding,patient"
    tables = {"train/metadata.csv": [head, "a.png,1,0,1"], "test/metadata.csv": [head, "a.png,0,1,2"]}
    root = _make(tmp_path / "set" / "data", tables, "train/a.png", "test/a.png", "test/extra.png")
    table = _read(tmp_path / "set", official=True)
    assert _rows(table, "id", "fold", "patient", "Lung Opacity", "No Finding") == [
        ["test/a.png", "test", "2", 0, 1],
        ["train/a.png", "train", "1", 1, 0],
    ]
    assert table.warnings == ("1 images have no row in metadata.csv and are left out",)
    (root / "test" / "metadata.csv").write_text(f"{head}\na.png,5,1,2\n")
    with pytest.raises(InputError, match=r"test/metadata\.csv: line 2, column Lung_Opacity: unknown value '5'"):
        _read(root)


def test_json_lines_with_lists(tmp_path):
    """Numbers, truth and null are as in CSV; the splits are in the names."""
    rows = [
        {"file_name": "train/a.png", "labels": ["Edema", "Pneumonia"], "subject_id": 7},
        {"file_name": "train/b.png", "labels": []},
        {"file_name": "val/c.png", "labels": ["TB"], "subject_id": None, "age": 40.0},
    ]
    root = _make(tmp_path, {"metadata.jsonl": rows}, "train/a.png", "train/b.png", "val/c.png")
    with pytest.raises(InputError, match=r"metadata.jsonl: line 2, column subject_id: is empty"):
        _read(root, class_values=["TB:Tuberculosis"])
    table = _read(root, "age:age", class_values=["TB:Tuberculosis"], pattern="[abc]", official=True)
    assert _rows(table, "id", "fold", "patient", "extra", "age") == [
        ["train/a.png", "train", "a", "", -1],
        ["train/b.png", "train", "b", "", -1],
        ["val/c.png", "validation", "c", "Tuberculosis", 40],
    ]
    np.testing.assert_array_equal(table.frame["Edema"], [1, np.nan, 0])
    raw = json_lines.read_table(root / "metadata.jsonl", ["age", "labels"])
    assert raw.convert("age", str).tolist() == ["", "", "40"]
    assert raw.convert("labels", str).tolist() == ["Edema|Pneumonia", "", "TB"]


def test_lists_in_a_cell(tmp_path):
    rows = ["file_name,labels,patient", "a.png,\"['edema', 'Effusion']\",1", 'b.png,"[""No Finding""]",2']
    table = _read(_make(tmp_path, {"metadata.csv": rows}, "a.png", "b.png"))
    assert _rows(table, "Edema", "Pleural Effusion", "No Finding") == [[1, 1, 0], [0, 0, 1]]
    (tmp_path / "metadata.csv").write_text("file_name,labels,patient\na.png,['edema',1\n")
    with pytest.raises(InputError, match=r"line 2, column labels: \"\['edema'\" is no list such as"):
        _read(tmp_path)


def test_classes_of_folders_and_patients_of_the_table(tmp_path):
    rows = ["file_name,patient", "train/NORMAL/a.png,1", "test/PNEUMONIA/b.png,2"]
    root = _make(tmp_path, {"metadata.csv": rows}, "train/NORMAL/a.png", "test/PNEUMONIA/b.png")
    table = _read(root)
    assert _rows(table, "patient", "fold", "No Finding", "Pneumonia") == [["1", "train", 1, 0], ["2", "test", 0, 1]]
    assert table.warnings == ()


def test_numbers_as_classes_must_be_named(tmp_path):
    rows = ["file_name,label,patient", "a.png,0,1", "b.png,1,2"]
    root = _make(tmp_path, {"metadata.csv": rows}, "a.png", "b.png")
    with pytest.raises(InputError, match=r"line 2, column label: '0' is none of the 14 labels; map it by --class_val"):
        _read(root)
    table = _read(root, class_values=["0:No Finding", "1:Pneumonia"])
    assert _rows(table, "No Finding", "Pneumonia") == [[1, 0], [0, 1]]
    table = _read(root, "class:label", "patient:patient", class_values=["0:No Finding", "1:Pneumonia"])
    assert _rows(table, "patient", "Pneumonia") == [["1", 0], ["2", 1]]


def test_parquet(tmp_path, monkeypatch):
    """Numbers, lists, truth and null are as in JSON lines; a line is the row's number."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    root = _make(tmp_path, {}, "train/a.png", "val/b.png")
    rows = {
        "file_name": ["train/a.png", "val/b.png"],
        "labels": [["Edema", "Pneumonia"], ["Effusion"]],
        "patient": [7, 8],
        "age": [40.0, None],
        "scar": [True, False],
        "note": [None, None],
    }
    pq.write_table(pa.table(rows), root / "metadata.parquet")
    table = _read(root, "age:age", official=True)
    assert _rows(table, "id", "fold", "patient", "age", "Edema", "Pleural Effusion", "line") == [
        ["train/a.png", "train", "7", 40, 1, 0, 1],
        ["val/b.png", "validation", "8", -1, 0, 1, 2],
    ]
    assert len(table.warnings) == 1
    assert table.warnings[0].startswith("metadata.parquet: the columns 'scar' hold 0 and 1 and are not used")
    pq.write_table(pa.table({**rows, "labels": [["Edema"], ["Effusoin"]]}), root / "metadata.parquet")
    with pytest.raises(InputError, match=r"metadata\.parquet: line 2, column labels: 'Effusoin' is none of the 14"):
        _read(root)
    pq.write_table(pa.table({**rows, "patient": [{"bytes": b"7"}, None]}), root / "metadata.parquet")
    with pytest.raises(InputError, match=r"metadata\.parquet: column patient holds structures that are no text"):
        _read(root)
    pq.write_table(pa.table({**rows}).slice(0, 0), root / "metadata.parquet")
    with pytest.raises(InputError, match=r"metadata\.parquet: has no rows"):
        _read(root)
    (root / "metadata.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(InputError, match=r"metadata\.parquet: is no Parquet file that can be read") as error:
        _read(root)
    assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"metadata\.parquet: is Parquet; install the extra: pip install tfcxr\[parq"):
        _read(root)


def test_columns_that_are_not_used_are_named(tmp_path):
    rows = [{"file_name": "a.png", "label": "Edema", "patient": 1, "scar": 1, "tb": True, "other": 2}]
    table = _read(_make(tmp_path, {"metadata.jsonl": rows}, "a.png"))
    assert len(table.warnings) == 1
    assert table.warnings[0].startswith(
        "metadata.jsonl: the columns 'scar', 'tb' hold 0 and 1 and are not used; an image with such a finding"
    )


@pytest.mark.parametrize(
    ("tables", "items", "message"),
    [
        (
            {"metadata.csv": ["file_name,x", "a.png,y"]},
            (),
            r"metadata.csv: has no column label or labels, none named as",
        ),
        ({"metadata.csv": ["image,label", "a.png,Edema"]}, (), "metadata.csv: has no column 'file_name'; it has"),
        ({"metadata.csv": ["file_name,label"]}, (), "metadata.csv: has no rows, only a header"),
        ({"metadata.csv": ["a"], "metadata.jsonl": ["{}"]}, (), "holds metadata.csv and metadata.jsonl; name one of"),
        ({"metadata.jsonl": [{"file_name": "a.png", "label": "x"}, "[1]"]}, (), "line 2: is no JSON object with a key"),
        ({"metadata.jsonl": [{"file_name": "a.png", "label": "Edema"}, "{"]}, (), "metadata.jsonl: line 2: is no JSON"),
        ({"metadata.jsonl": [""]}, (), "metadata.jsonl: is empty"),
        ({"metadata.csv": ["file_name,label", "../a.png,Edema"]}, (), "is no path inside the data set's folder"),
        (
            {"metadata.csv": ["file_name,label", "a.png,Edema", "a.png,Mass"]},
            (),
            "line 3, column label: 'Mass' is none",
        ),
        ({"x/metadata.csv": ["file_name"], "y/metadata.csv": ["file_name"]}, (), "there may be one table, or one in"),
        ({}, ("patient:p",), "--columns, --no_finding: .* has no metadata.csv, .jsonl or .parquet, and so no columns"),
    ],
)
def test_bad_tables(tmp_path, tables, items, message):
    with pytest.raises(InputError, match=message) as error:
        _read(_make(tmp_path, tables, "a.png"), *items)
    assert "\n" not in str(error.value)


def test_official_needs_splits_and_gzip_is_read(tmp_path):
    root = _make(tmp_path, {"metadata.csv": ["file_name,label", "a.png,Edema"]}, "a.png")
    with pytest.raises(InputError, match=r"--split_policy=official: .* has no folders train, val or test"):
        _read(root, official=True)
    with gzip.open(tmp_path / "t.jsonl.gz", "wt") as stream:
        stream.write('\n{"file_name": "a.png", "label": "Edema"}\n')
    table = readers.read("imagefolder", root, labels_csv=tmp_path / "t.jsonl.gz")
    assert table.frame["Edema"].tolist() == [1] and table.frame["line"].tolist() == [2]


def test_one_number_is_one_patient_however_json_writes_it(tmp_path):
    """pandas writes 3.0 where a column has a blank: the patient would be two, perhaps in two splits."""
    path = tmp_path / "t.jsonl"
    path.write_text('{"patient": 3, "age": NaN}\n{"patient": 3.0, "age": 4.5}\n{"patient": "3", "age": -1.0}\n')
    raw = json_lines.read_table(path, ["patient", "age"])
    assert raw.convert("patient", str).tolist() == ["3", "3", "3"]
    assert raw.convert("age", str).tolist() == ["", "4.5", "-1"]
