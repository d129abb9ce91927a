"""The RSNA's table of haemorrhages: six rows for a slice, patients from three places, and bad tables."""

import pathlib

import numpy as np
import pytest

from tests import fake_data_sets
from tfrecords_builder import labels, readers
from tfrecords_builder.errors import InputError
from tfrecords_builder.simulator import head

pytest.importorskip("pydicom")

KINDS = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")


def write_table(folder, slices, *, extra=(), header="ID,Label", name="stage_2_train.csv"):
    """A table of slices (name -> kinds that are there), and an empty file for each."""
    images = folder / "stage_2_train"
    images.mkdir(parents=True, exist_ok=True)
    lines = [header]
    for image, shown in slices.items():
        found = {*shown, "any"} if shown else set()
        lines += [f"{image}_{kind},{int(kind in found)}" for kind in KINDS]
        (images / f"{image}.dcm").write_bytes(b"")
    (folder / name).write_text("\n".join([*lines, *extra]) + "\n")
    return folder


def write_patients(folder, **patients):
    (folder / "patients.csv").write_text("ID,PatientID\n" + "".join(f"{i},{p}\n" for i, p in patients.items()))
    return folder


SLICES = {"ID_0a": ["subdural", "epidural"], "ID_1b": [], "ID_2c": ["subarachnoid"]}


def test_slices_have_their_six_values_and_patients(tmp_path):
    write_patients(write_table(tmp_path, SLICES), ID_0a="ID_p1", ID_1b="ID_p1", ID_2c="ID_p2")
    table = readers.read("rsna_brain", tmp_path)
    frame = table.frame
    assert table.label_set == labels.get_label_set("brain6")
    assert table.num_rows == 3
    assert frame["patient"].tolist() == ["ID_p1", "ID_p1", "ID_p2"]
    assert frame[["any", *KINDS[:5]]].to_numpy().tolist() == [[1, 1, 0, 0, 0, 1], [0] * 6, [1, 0, 0, 0, 1, 0]]
    located = readers.locate(table)
    assert [pathlib.Path(path).name for path in located] == ["ID_0a.dcm", "ID_1b.dcm", "ID_2c.dcm"]


def test_the_benchmarks_labels_have_no_finding_instead_of_any(tmp_path):
    write_patients(write_table(tmp_path, SLICES), ID_0a="a", ID_1b="b", ID_2c="c")
    frame = readers.read("rsna_brain", tmp_path, label_set=labels.get_label_set("brain_benchmark")).frame
    assert frame["no finding"].tolist() == [0, 1, 0]
    assert "any" not in frame
    assert frame["subdural"].tolist() == [1, 0, 0]


def test_rows_that_say_the_same_twice_count_once(tmp_path):
    extra = [f"ID_1b_{kind},0" for kind in KINDS]  # as in the published table
    write_patients(write_table(tmp_path, SLICES, extra=extra), ID_0a="a", ID_1b="b", ID_2c="c")
    assert readers.read("rsna_brain", tmp_path).num_rows == 3


def test_patients_are_read_from_a_column_or_the_files(tmp_path):
    folder = tmp_path / "column"
    (folder / "stage_2_train").mkdir(parents=True)
    lines = ["ID,Label,PatientID"] + [f"ID_0a_{kind},0,ID_q" for kind in KINDS]
    (folder / "stage_2_train.csv").write_text("\n".join(lines) + "\n")
    assert readers.read("rsna_brain", folder).frame["patient"].tolist() == ["ID_q"]
    heads = tmp_path / "heads"
    heads.mkdir()
    result = head.simulate_heads(heads, num_patients=2, resolution=16, seed=3)
    frame = readers.read("rsna_brain", heads).frame
    assert len(frame) == result["num_images"] >= 8
    assert sorted(set(frame["patient"])) == ["ID_000300001", "ID_000300002"]


def test_a_slice_of_two_patients_is_refused(tmp_path):
    """Whichever was taken, the other's slices might be in another split."""
    write_patients(write_table(tmp_path, {"ID_0a": []}), ID_0a="p1")
    listed = tmp_path / "patients.csv"
    listed.write_text(listed.read_text() + "ID_0a,p2\n")
    with pytest.raises(InputError, match=r"patients\.csv: line 3, column ID: ID_0a is on line 2 as well"):
        readers.read("rsna_brain", tmp_path)
    lines = ["ID,Label,PatientID"] + [f"ID_0a_{kind},0,{'q' if kind == 'any' else 'p'}" for kind in KINDS]
    (tmp_path / "stage_2_train.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"line 7, column PatientID: is q, and p in another row of ID_0a"):
        readers.read("rsna_brain", tmp_path)


def test_patients_lie_beside_the_table_that_is_given(tmp_path):
    data, tables = tmp_path / "data", tmp_path / "tables"
    tables.mkdir()
    write_table(data, SLICES)
    (data / "stage_2_train.csv").rename(tables / "mine.csv")
    write_patients(tables, ID_0a="a", ID_1b="a", ID_2c="b")
    assert readers.read("rsna_brain", data, labels_csv=tables / "mine.csv").frame["patient"].tolist() == ["a", "a", "b"]


@pytest.mark.parametrize(
    ("extra", "header", "message"),
    [
        (["ID_0a_subdural,0"], "ID,Label", "ID_0a is given as 0 and as 1"),
        (["ID_3d_subdural,0"], "ID,Label", "ID_3d has no row of epidural, intraparenchymal"),
        (["ID_3d_stroke,1"], "ID,Label", "'ID_3d_stroke' is no ID_<slice>_<type>; the types are epidural"),
        (["subdural,1"], "ID,Label", "'subdural' is no ID_<slice>_<type>"),
        (["ID_3d_any,2"], "ID,Label", "0 or 1"),
        ([f"ID_3d_{kind},{int(kind == 'any')}" for kind in KINDS], "ID,Label", "`any` is not 1 exactly where"),
        ([], "ID,Value", "Label"),
    ],
)
def test_bad_tables_are_named_with_their_line(tmp_path, extra, header, message):
    write_patients(write_table(tmp_path, SLICES, extra=extra, header=header), ID_0a="a", ID_1b="b", ID_2c="c")
    with pytest.raises(InputError) as caught:
        readers.read("rsna_brain", tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_else_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"holds no stage_2_train\.csv"):
        readers.read("rsna_brain", tmp_path)
    write_table(tmp_path, SLICES)
    with pytest.raises(InputError, match=r"ID_0a\.dcm: is no DICOM file that can be read|names no patient"):
        readers.read("rsna_brain", tmp_path)  # the files are empty
    with pytest.raises(InputError, match="has no folds"):
        readers.read("rsna_brain", tmp_path, official=True)
    write_patients(tmp_path, ID_0a="a")
    with pytest.raises(InputError, match=r"patients\.csv: has no row of ID_1b and 1 other"):
        readers.read("rsna_brain", tmp_path)
    with pytest.raises(InputError, match="has not the labels of --dataset=rsna_brain"):
        readers.read("rsna_brain", tmp_path, label_set=labels.get_label_set("chexpert14"))


@pytest.mark.parametrize("names", [("x1", "x1", "x1"), ("p", "ANONYMOUS", "anonymous")])
def test_headers_that_call_all_patients_alike_are_refused(tmp_path, names):
    write_table(tmp_path, SLICES)
    for path, name in zip(sorted(tmp_path.glob("**/*.dcm")), names, strict=True):
        fake_data_sets.write_dicom(path, PatientID=name)
    with pytest.raises(
        InputError, match=r"headers, such as that of ID_..\.dcm, call their patient .* give a table pat"
    ):
        readers.read("rsna_brain", tmp_path)
    write_patients(tmp_path, ID_0a="a", ID_1b="b", ID_2c="b")
    assert readers.read("rsna_brain", tmp_path).frame["patient"].tolist() == ["a", "b", "b"]


def test_png_copies_need_a_table_of_patients(tmp_path):
    write_table(tmp_path, SLICES)
    for path in (tmp_path / "stage_2_train").iterdir():
        path.rename(path.with_suffix(".png"))
    with pytest.raises(InputError, match="PNG files do not say it"):
        readers.read("rsna_brain", tmp_path)
    write_patients(tmp_path, ID_0a="a", ID_1b="b", ID_2c="c")
    frame = readers.read("rsna_brain", tmp_path).frame
    assert frame["patient"].tolist() == ["a", "b", "c"]
    assert np.char.endswith(readers.locate(readers.read("rsna_brain", tmp_path)).astype(str), ".png").all()
