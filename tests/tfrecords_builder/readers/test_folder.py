import numpy as np
import pytest

from tests import fakes
from tfrecords_builder import labels, readers
from tfrecords_builder.errors import InputError

VALUES = ("NORMAL:No Finding", "PNEUMONIA:Pneumonia", "TB:Tuberculosis")


def _write(folder, header, *rows, name="table.csv"):
    (folder / name).write_text("\n".join([header, *rows]) + "\n")
    return folder


def _read(folder, *columns, class_values=(), **options):
    return readers.read("folder", folder, columns=readers.parse_columns(columns, class_values), **options)


def test_class_column(tmp_path):
    root = fakes.make_folder_set(tmp_path / "lungs", num_patients=15)
    columns = ("path:file", "patient:pid", "class:finding", "view:view", "age:years", "split:part")
    table = _read(root, *columns, class_values=VALUES)
    frame = table.frame
    assert (table.source, table.dataset, table.num_rows, table.warnings) == ("folder:lungs", "folder", 30, ())
    assert (table.labelled, table.findings) == (("No Finding", "Pneumonia"), ("Tuberculosis",))
    assert frame["extra"].value_counts().to_dict() == {"": 20, "Tuberculosis": 10}
    assert (frame["Pneumonia"].sum(), frame["No Finding"].sum()) == (10, 10)
    assert frame["Pneumonia"].notna().all() and frame["Edema"].isna().all()
    assert frame["fold"].value_counts().to_dict() == {"train": 18, "validation": 6, "test": 6}
    first = frame.iloc[0]
    assert (first["id"], first["patient"], first["view"], first["age"]) == ("normal/p0_0.png", "p0", "PA", 30)
    assert (first["table"], first["line"], first["offset"]) == ("table.csv", 2, -1)
    assert (readers.locate(table) != "").all()


def test_class_values_may_stand_for_several_findings_or_none(tmp_path):
    _write(tmp_path, "path,patient,c", "a.png,1,BOTH", "b.png,1,UNREAD", "c.png,2,", "d.png,3,a:b")
    values = ("BOTH:pneumonia+Edema+Rib notching", "UNREAD:", "a:b:Edema")
    frame = _read(tmp_path, "class:c", class_values=values).frame
    np.testing.assert_array_equal(frame["Pneumonia"], [1, np.nan, np.nan, 0])
    np.testing.assert_array_equal(frame["Edema"], [1, np.nan, np.nan, 1])
    assert frame["extra"].tolist() == ["Rib notching", "", "", ""]
    assert frame["Edema"].dtype == np.float32


def test_labels_are_known_by_other_words(tmp_path):
    """In flags, cells and names of columns alike."""
    parsed = readers.parse_columns(["Pleural_Effusion:e", "NORMAL:n"])
    assert parsed.labels == {"Pleural Effusion": "e", "No Finding": "n"}
    assert readers.parse_class_values(["x:No_Finding", "y:Lung_Cyst+oedema"]) == {
        "x": ("No Finding",),
        "y": ("Lung_Cyst", "Edema"),
    }
    _write(tmp_path, "path,patient,c", "a.png,1,Effusion|LungOpacity", "b.png,2,normal")
    frame = _read(tmp_path, "class:c").frame
    assert frame[["Pleural Effusion", "Lung Opacity", "No Finding"]].to_numpy().tolist() == [[1, 1, 0], [0, 0, 1]]
    header = "path,patient,EFFUSION,Lung_Opacity,enlarged-cardiomediastinum,Normal"
    _write(tmp_path, header, "a.png,1,1,,0,0", "b.png,2,0,1,1,0")
    table = readers.read("folder", tmp_path)
    assert table.labelled == ("No Finding", "Enlarged Cardiomediastinum", "Lung Opacity", "Pleural Effusion")
    assert table.frame["Pleural Effusion"].tolist() == [1, 0] and table.warnings == ()


def test_columns_of_one_label_are_one_unless_they_differ(tmp_path):
    header = "path,patient,Effusion,Pleural Effusion,No Finding"
    _write(tmp_path, header, "a.png,1,1,1,0", "b.png,2,,0,1", "c.png,3,-1,,")
    table = readers.read("folder", tmp_path)
    assert table.frame["Pleural Effusion"].tolist() == [1, 0, -1]
    assert table.warnings == (
        "the columns 'Effusion' and 'Pleural Effusion' mean 'Pleural Effusion' and are used as one",
    )
    _write(tmp_path, header, "a.png,1,1,1,0", "b.png,2,0,1,1")
    with pytest.raises(InputError, match=r"line 3, column Pleural Effusion: is 1, and column Effusion is 0; both mean"):
        readers.read("folder", tmp_path)
    assert _read(tmp_path, "Pleural Effusion:Effusion").frame["Pleural Effusion"].tolist() == [1, 0]


NO_FINDING = ("path,patient,Edema,TB,Support Devices", "a,1,0,0,1", "b,2,1,0,0", "c,3,,0,0", "d,4,-1,0,", "e,5,0,1,0")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("no_positive", [1, 0, 1, np.nan, 0]), ("all_negative", [1, 0, np.nan, np.nan, 0])],
)
def test_no_finding_is_derived(tmp_path, rule, expected):
    """Devices are no finding; findings outside the label set are."""
    _write(tmp_path, *NO_FINDING)
    items = ("Edema:Edema", "Tuberculosis:TB", "Support Devices:Support Devices")
    table = readers.read("folder", tmp_path, columns=readers.choose_columns("folder", items, (), "", no_finding=rule))
    np.testing.assert_array_equal(table.frame["No Finding"], expected)
    assert "No Finding" in table.labelled
    assert table.warnings == (f"--no_finding={rule}: {expected.count(1)} of 5 images count as 'No Finding'",)


def test_no_finding_is_not_derived_unasked(tmp_path):
    (warning,) = _read(
        _write(tmp_path, *NO_FINDING), "Edema:Edema", "Tuberculosis:TB", "Support Devices:Support Devices"
    ).warnings
    assert warning.startswith(
        "2 images without a positive finding have no label, as no column says 'No Finding'; --no_f"
    )
    _write(tmp_path, "path,patient,c", "a.png,1,Edema", "b.png,2,")
    columns = readers.choose_columns("folder", ["class:c"], (), "", no_finding="no_positive")
    assert readers.read("folder", tmp_path, columns=columns).frame["No Finding"].tolist() == [0, 1]
    _write(tmp_path, "path,patient,Normal,Edema", "a.png,1,1,0")
    columns = readers.choose_columns("folder", [], (), "", no_finding="all_negative")
    for look in (readers.read, readers.check_header):
        with pytest.raises(
            InputError, match=r"--no_finding=all_negative: .*table.csv says itself which images are 'No F"
        ):
            look("folder", tmp_path, columns=columns)
    with pytest.raises(InputError, match="--no_finding=no_positive: the label set brain6 has no label which says that"):
        brain = labels.get_label_set("brain6")
        readers.choose_columns("folder", [], (), "", no_finding="no_positive", label_set=brain)


def test_cells_are_split_with_class_values_too(tmp_path):
    """As NIH's: names that --class_values maps beside canonical ones; a value that holds "|" counts as a whole."""
    _write(tmp_path, "path,patient,c", "a.png,1,TB|Edema", "b.png,1,TB | infiltrat|TB", "c.png,2,x|y")
    frame = _read(tmp_path, "class:c", class_values=("TB:Tuberculosis", "infiltrat:Pneumonia", "x|y:Fracture")).frame
    assert frame["extra"].tolist() == ["Tuberculosis", "Tuberculosis", ""]
    assert frame["Edema"].tolist() == [1, 0, 0] and frame["Pneumonia"].tolist() == [0, 1, 0]
    assert frame["Fracture"].tolist() == [0, 0, 1]
    with pytest.raises(InputError, match=r"line 2, column c: 'TB' is not in --class_values \(NORMAL\)"):
        _read(tmp_path, "class:c", class_values=("NORMAL:No Finding",))


def test_class_values_default_to_canonical_labels(tmp_path):
    _write(tmp_path, "path,patient,c", "a.png,1,edema|Pneumonia", "b.png,1,NO FINDING", "c.png,2,")
    table = _read(tmp_path, "class:c")
    np.testing.assert_array_equal(table.frame["Edema"], [1, 0, np.nan])
    assert table.labelled == ("No Finding", "Edema", "Pneumonia") and table.findings == ()
    _write(tmp_path, "path,patient,c", "a.png,1,Edema", "b.png,1,TB")
    with pytest.raises(InputError, match="line 3, column c: 'TB' is none of the 14 labels; map it by --class_values"):
        _read(tmp_path, "class:c")


def test_label_columns_by_name(tmp_path):
    _write(tmp_path, "path,patient,PNEUMONIA,Note,edema", "a.png,1,1,x,", "b.png,2,0.0,,-1")
    table = readers.read("folder", tmp_path)
    assert table.labelled == ("Edema", "Pneumonia") and table.frame["Pneumonia"].tolist() == [1, 0]
    np.testing.assert_array_equal(table.frame["Edema"], [np.nan, -1])


def test_label_columns_by_map(tmp_path):
    _write(tmp_path, "path,patient,p,tb,rib", "a.png,1,1,1,1", "b.png,2,0,-1,0", "c.png,2,,,1")
    table = _read(tmp_path, "pneumonia:p", "Tuberculosis:tb", "Rib notching:rib")
    assert table.labelled == ("Pneumonia",) and table.findings == ("Tuberculosis", "Rib notching")
    assert table.frame["extra"].tolist() == ["Tuberculosis|Rib notching", "", "Rib notching"]
    assert table.warnings == (
        "1 images are uncertain about 'Tuberculosis', which counts as absent: policies are for the 14 labels",
    )


def test_no_finding_beside_a_finding_is_counted(tmp_path):
    header = "path,patient,No Finding,Edema,Support Devices"
    _write(tmp_path, header, "a.png,1,1,1,0", "b.png,1,1,0,1", "c.png,1,1,-1,0")
    assert readers.read("folder", tmp_path).warnings == ("1 images are labelled 'No Finding' together with a finding",)


def test_without_patients_there_is_a_warning(tmp_path):
    _write(tmp_path, "path,Edema", "a.png,1", "b.png,1")
    table = readers.read("folder", tmp_path)
    assert table.frame["patient"].tolist() == ["", ""]
    (warning,) = table.warnings
    assert warning.startswith("nothing says which patient an image is of (--columns=patient:COLUMN or")


def test_lateral_views_are_skipped_unless_wanted(tmp_path):
    _write(tmp_path, "path,patient,v,Edema", "a.png,1,pa,1", "b.png,1,Lateral,0", "c.png,2,LL,0")
    table = _read(tmp_path, "view:v")
    assert table.frame["view"].tolist() == ["PA"] and table.num_rows == 3
    assert table.skipped[["line", "id", "reason"]].to_numpy().tolist() == [
        [3, "b.png", "lateral view"],
        [4, "c.png", "lateral view"],
    ]
    assert _read(tmp_path, "view:v", frontal_only=False).frame["view"].tolist() == ["PA", "LL", "LL"]


def test_images_are_searched_below_the_folder(tmp_path):
    _write(tmp_path, "path,patient,Edema", "a.png,1,1", "x/b.png,1,0", "c.png,1,0")
    for path in ("deep/er/a.png", "deep/x/b.png", "deep/y/b.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = readers.locate(readers.read("folder", tmp_path))
    assert found.tolist() == [f"{tmp_path}/deep/er/a.png", f"{tmp_path}/deep/x/b.png", ""]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.png").touch()
    with pytest.raises(InputError, match=r"a\.png may be .*/a/a\.png or .*/deep/er/a\.png"):
        readers.locate(readers.read("folder", tmp_path))


def test_images_beside_a_table_elsewhere(tmp_path):
    (tmp_path / "data").mkdir()
    _write(tmp_path / "data", "path,Edema", "a.png,1")
    (tmp_path / "data" / "a.png").touch()
    (tmp_path / "empty").mkdir()
    table = readers.read("folder", tmp_path / "empty", labels_csv=tmp_path / "data" / "table.csv")
    assert readers.locate(table).tolist() == [f"{tmp_path}/data/a.png"]


@pytest.mark.parametrize(
    ("columns", "class_values", "message"),
    [
        (("path",), (), "--columns=path: expected key:column"),
        (("path:",), (), "--columns=path:: expected key:column"),
        (("path:a", "PATH:b"), (), "--columns=PATH:b: 'PATH' is given twice"),
        (("edema:a", "Edema:b"), (), "--columns=Edema:b: 'Edema' is given twice"),
        (("a|b:c",), (), "--columns=a|b:c: 'a|b' is no name of a finding"),
        (("class:a", "Edema:b"), (), "--columns: gives a class column and label columns"),
        ((), ("A:Edema",), "--class_values: there is no class column"),
        (("class:c",), ("Edema",), "--class_values=Edema: expected value:finding"),
        (("class:c",), ("A:Edema", "A:Edema"), "--class_values=A:Edema: 'A' is given twice"),
        (("class:c",), ("A:Edema+",), "--class_values=A:Edema+: '' is no name of a finding"),
    ],
)
def test_bad_flags(columns, class_values, message):
    with pytest.raises(InputError) as error:
        readers.parse_columns(columns, class_values)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (("path,Edema", "a.png,2"), (), "line 2, column Edema: unknown value '2', expected 1, 0, -1 or blank"),
        (("path,Edema", "a.png,1"), ("patient:pid",), "has no column 'pid'; it has 'path, Edema'"),
        (("path,p,Edema", "a.png,,1"), ("patient:p",), "line 2, column p: is empty"),
        (("path,s,Edema", "a.png,dev,1"), ("split:s",), "line 2, column s: unknown split 'dev'"),
        (("path,c", "a.png,1"), (), "has no column named as one of the 14 labels; give --columns=class:COLUMN"),
        (("path,edema,Edema", "a.png,1,0"), (), "line 2, column Edema: is 0, and column edema is 1; both mean 'Edema'"),
        (("path,Edema,path", "a.png,1,b.png"), (), "has two columns 'path'"),
        (("Image Index,Finding Labels", "a.png,Edema"), (), "it looks like ChestX-ray14's table; try --dataset=chest"),
    ],
)
def test_bad_tables(tmp_path, rows, columns, message):
    with pytest.raises(InputError) as error:
        _read(_write(tmp_path, *rows), *columns)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_unknown_class_value(tmp_path):
    _write(tmp_path, "path,patient,c", "a.png,1,NORMAL", "b.png,1,normal")
    with pytest.raises(InputError, match=r"line 3, column c: 'normal' is not in --class_values \(NORMAL, TB\)"):
        _read(tmp_path, "class:c", class_values=("NORMAL:No Finding", "TB:Tuberculosis"))


def test_the_table_must_be_found(tmp_path):
    with pytest.raises(InputError, match=r"holds no \*\.csv and no \*\.tsv; give the table by --labels_csv"):
        readers.read("folder", tmp_path)
    for name in ("b.csv", "a.csv"):
        _write(tmp_path, "path,Edema", "a.png,1", name=name)
    with pytest.raises(InputError, match=r"holds several tables \(a\.csv, b\.csv\)"):
        readers.read("folder", tmp_path)
    assert len(readers.read("folder", tmp_path, labels_csv=tmp_path / "a.csv").frame) == 1
    with pytest.raises(InputError, match="give the column of the splits by --columns=split:COLUMN"):
        readers.read("folder", tmp_path, labels_csv=tmp_path / "a.csv", official=True)


def test_a_table_of_tabs_is_found(tmp_path):
    _write(tmp_path, "path\tpatient\tEdema", "a.png\t1\t1", name="table.tsv")
    assert readers.read("folder", tmp_path).frame["Edema"].tolist() == [1]


def test_a_mistyped_label_in_a_flag_is_told(tmp_path):
    _write(tmp_path, "path,patient,c,No Finding", "a.png,1,1,0")
    warnings = _read(tmp_path, "Pnuemonia:c", "No Finding:No Finding").warnings
    assert warnings == ("--columns: 'Pnuemonia' is a finding outside the 14 labels; did you mean 'Pneumonia'?",)
    _write(tmp_path, "path,patient,c", "a.png,1,A", "b.png,2,B")
    warnings = _read(tmp_path, "class:c", class_values=("A:Pnuemonia", "B:Tuberculosis")).warnings
    assert warnings == ("--class_values: 'Pnuemonia' is a finding outside the 14 labels; did you mean 'Pneumonia'?",)
