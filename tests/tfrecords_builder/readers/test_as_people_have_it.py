"""Data sets as archives, file systems, spreadsheets and other people's programs leave them."""

import shutil
import unicodedata

import numpy as np
import pytest

from tests import fakes
from tfrecords_builder import readers
from tfrecords_builder.errors import InputError


def _locate(dataset, folder, *columns, **options):
    """Id -> its file, from the folder."""
    chosen = readers.choose_columns(dataset, columns, (), "")
    table = readers.read(dataset, folder, columns=chosen, **options)
    paths = [path.removeprefix(f"{folder}/") for path in readers.locate(table)]
    return dict(zip(table.frame["id"], paths, strict=True)), table


def _folder(root, table, *files, name="t.csv"):
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(table if isinstance(table, bytes) else table.encode())
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def test_full_download_of_chexpert(tmp_path):
    """Its archives have other folders than its tables; the first holds the tables."""
    root = fakes.make_chexpert(tmp_path / "made", num_patients=4, images_per_patient=1, num_valid=1)
    first = tmp_path / "data" / "CheXpert-v1.0 batch 1 (validate & csv)"
    first.mkdir(parents=True)
    for name in ("train.csv", "valid.csv"):
        text = (root / name).read_text().replace("CheXpert-v1.0-small", "CheXpert-v1.0")
        (first / name).write_text(text)
    (root / "valid").rename(first / "valid")
    second, third = (tmp_path / "data" / f"CheXpert-v1.0 batch {n} (train {n - 1})" for n in (2, 3))
    (root / "train" / "patient00004").rename(_made(third / third.name) / "patient00004")  # unpacked into its own name
    (root / "train").rename(second)
    for data_dir in (tmp_path / "data", first):
        found = readers.locate(readers.read("chexpert", data_dir, official=True))
        assert len(found) == 5 and all(found), found
    assert found[0] == f"{second}/patient00001/study1/view1_frontal.jpg"
    assert found[4] == f"{first}/valid/patient00005/study1/view1_frontal.jpg"


def _made(folder):
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("data_dir", [".", "images-224", "images-224/images-224"])
def test_kaggle_copy_of_nih(tmp_path, data_dir):
    root = fakes.make_chestxray(tmp_path / "nih", num_patients=5, images_per_patient=1)
    (root / "images").rename(_made(root / "images-224") / "images-224")
    for name in ("train_val_list", "test_list"):
        (root / f"{name}.txt").rename(root / f"{name}_NIH.txt")
    if data_dir.count("/"):  # the table is two folders above
        with pytest.raises(InputError, match=r"holds no Data_Entry_2017\.csv; give the table by --labels_csv"):
            readers.read("chestxray", root / data_dir)
        table = readers.read("chestxray", root / data_dir, labels_csv=root / "Data_Entry_2017.csv", official=True)
    else:
        table = readers.read("chestxray", root / data_dir, official=True)
    assert all(readers.locate(table)) and table.frame["fold"].value_counts().to_dict() == {"train_val": 5, "test": 1}


def test_an_archive_unpacked_into_its_own_name(tmp_path):
    """Twice, and with what macOS adds."""
    fakes.make_chestxray(tmp_path / "nih" / "nih" / "nih", num_patients=2)
    _made(tmp_path / "nih" / "__MACOSX" / "nih")
    (tmp_path / "nih" / ".DS_Store").touch()
    assert all(readers.locate(readers.read("chestxray", tmp_path / "nih")))
    fakes.make_chexpert(tmp_path / "archive" / "archive", num_patients=2)
    assert all(readers.locate(readers.read("chexpert", tmp_path / "archive")))


def test_names_that_file_systems_change(tmp_path):
    """Capitals, accents as one character or two, and suffixes that the table leaves out; only where one file fits."""
    accented = unicodedata.normalize("NFD", "Müller.png")
    table = f"path,Edema\nA.png,1\n{unicodedata.normalize('NFC', accented)},0\nTrain\\sub\\c.PNG,1\n1.2.840.55,0\nd,1\n"
    table += "exact.png,0\n"
    files = ["A.PNG", accented, "train/Sub/c.png", "1.2.840.55.dcm", "d.jpeg"]
    files += ["exact.png", "EXACT.PNG", "._A.png", "d.txt"]
    root = _folder(tmp_path / "set", table, *files)
    if not (root / "EXACT.PNG").exists() or (root / "a.png").exists():
        pytest.skip("this file system does not tell capitals apart")
    found, _ = _locate("folder", root)
    assert list(found.values())[:5] == ["A.PNG", accented, "train/Sub/c.png", "1.2.840.55.dcm", "d.jpeg"]
    assert found["exact.png"] == "exact.png"
    (root / "d.png").touch()
    with pytest.raises(InputError, match=r"d may be .*d\.jpeg or .*d\.png; give paths from"):
        _locate("folder", root)


def test_ambiguous_names_in_the_folders_below(tmp_path):
    root = _folder(tmp_path, "path,Edema\nx/a,1\n", "deep/X/A.png", "deep/y/a.png")
    assert _locate("folder", root)[0] == {"x/a": "deep/X/A.png"}
    (root / "other" / "x").mkdir(parents=True)
    (root / "other" / "x" / "a.jpg").touch()
    with pytest.raises(InputError, match=r"x/a may be .*deep/X/A\.png or .*other/x/a\.jpg; give paths from"):
        _locate("folder", root)


def test_absolute_paths_and_links(tmp_path):
    root = _folder(tmp_path / "set", "", "a.png", "b.png")
    (tmp_path / "link").symlink_to(root)
    (root / "t.csv").write_text(f"path,Edema\n{root}/a.png,1\n{tmp_path}/link/b.png,0\n")
    assert list(_locate("folder", tmp_path / "link")[0].values()) == ["a.png", "b.png"]
    with pytest.raises(InputError, match=r"line 3, column path: '.*' is no path inside the data set's folder"):
        _locate("folder", root)


@pytest.mark.parametrize(
    "table",
    [
        "\ufeffpath;patient;No Finding\r\na.png;1;1,0\r\n\r\nb.png;2;0,0\r\n;;\r\n".encode(),  # a German spreadsheet
        "path\tpatient\tNo Finding\r\na.png\t1\tTRUE\r\nb.png\t2\tFALSE\r\n".encode("utf-16"),  # its Unicode text
        b'"path", "patient", "No Finding"\n"a.png ",1 , 1.00\n b.png,2, 0\n',
        b"path,patient,No Finding\n.\\a.png,1,True\nb.png,2,False\n",  # pandas on Windows
        b"path;patient;No Finding\ra.png;1;1\rb.png;2;0\r;;\r",  # an old one on the Mac
        b"sep=;\r\npath;patient;No Finding\r\na.png;1;1\r\nb.png;2;0\r\n",
    ],
)
def test_tables_of_spreadsheets(tmp_path, table):
    _, read = _locate("folder", _folder(tmp_path, table, "a.png", "b.png"))
    assert read.frame[["id", "patient", "No Finding"]].to_numpy().tolist() == [["a.png", "1", 1], ["b.png", "2", 0]]
    assert read.warnings == ()


def test_blanks_of_other_programs(tmp_path):
    _folder(tmp_path, "path,patient,Edema\na.png,1,1\nb.png,2,NA\nc.png,2,nan\n")
    np.testing.assert_array_equal(_locate("folder", tmp_path)[1].frame["Edema"], [1, np.nan, np.nan])


@pytest.mark.parametrize(
    ("patients", "warning"),
    [
        (
            "12.0,13.0",
            "column patient: 2 of 2 names, such as '12.0', look like numbers or dates that a spreadsheet made",
        ),
        ("1.2E+11,p2", "column patient: 1 of 2 names, such as '1.2E+11', look like"),
        ("05-Jan,5.1.2024", "column patient: 2 of 2 names, such as '05-Jan', look like"),
        ("1,2", "patients such as '1' are called '00001' in the images' paths; if a spreadsheet took the zeros"),
        ("00001,00002", None),
        ("p1,p2", None),
    ],
)
def test_patients_that_a_spreadsheet_changed(tmp_path, patients, warning):
    one, two = patients.split(",")
    _folder(tmp_path, f"path,patient,No Finding\n00001_0.png,{one},1\n00002_0.png,{two},0\n")
    warnings = _locate("folder", tmp_path)[1].warnings
    assert warnings == () if warning is None else warning in warnings[0] and len(warnings) == 1


@pytest.mark.parametrize("text", ["nan", "NaN", "NA", "N/A", "None"])
def test_words_for_nothing_are_no_patient(tmp_path, text):
    """pandas and R write them; all such images would be of one patient."""
    _folder(tmp_path, f"path,patient,Edema\na.png,1,1\nb.png,{text},0\nc.png,{text},0\n")
    with pytest.raises(InputError, match=rf"line 3, column patient: '{text}' stands for nothing and would make one"):
        _locate("folder", tmp_path)


def test_ages_with_a_decimal_comma(tmp_path):
    _folder(tmp_path, "path;patient;age;Edema\na.png;1;58,0;1,0\nb.png;2;61,;0,0\nc.png;3;6,5;0,0\n")
    table = _locate("folder", tmp_path, "age:age", "path:path", "patient:patient", "Edema:Edema")[1]
    assert table.frame["age"].tolist() == [58, 61, -1] and table.frame["Edema"].tolist() == [1, 0, 0]


def test_accents_in_columns_classes_and_folders(tmp_path):
    """As one character in a flag, as two in a table or folder of a Mac, and the other way round."""
    one, two = "\u00d6dem", "O\u0308dem"
    for i, (flag, there) in enumerate(((one, two), (two, one))):
        root = _folder(tmp_path / f"t{i}", f"path,patient,{there}\na.png,1,1\n", "a.png")
        columns = readers.choose_columns("folder", (f"Edema:{flag}", "path:path", "patient:patient"), (), "")
        assert readers.read("folder", root, columns=columns).frame["Edema"].tolist() == [1]
        root = _folder(tmp_path / f"c{i}", f"path,patient,class\na.png,1,{there}\n", "a.png")
        columns = readers.choose_columns("folder", ("class:class",), (f"{flag}:Edema",), "")
        assert readers.read("folder", root, columns=columns).frame["Edema"].tolist() == [1]
        (tmp_path / f"f{i}" / there).mkdir(parents=True)
        (tmp_path / f"f{i}" / there / "a.png").touch()
        columns = readers.choose_columns("imagefolder", (), (f"{flag}:Edema",), ".")
        table = readers.read("imagefolder", tmp_path / f"f{i}", columns=columns)
        assert table.frame["Edema"].tolist() == [1] and all(readers.locate(table))


def test_suffixes_in_capitals(tmp_path):
    root = _folder(tmp_path / "t", "path,patient,Edema\na.PNG,1,1\nb.JPG,2,0\nc,3,0\n", name="T.CSV")
    for name in ("a.PNG", "b.JPG", "c.DCM"):
        (root / name).touch()
    assert list(_locate("folder", root)[0].values()) == ["a.PNG", "b.JPG", "c.DCM"]
    for name in ("TRAIN/Edema/A.PNG", "Test/Edema/b.JPEG", "Train/No Finding/c.Jpg"):
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).touch()
    found, table = _locate("imagefolder", tmp_path / "f")
    assert sorted(found) == sorted(found.values()) and len(found) == 3
    assert sorted(table.frame["fold"]) == ["test", "train", "train"]


def test_columns_that_are_there_twice(tmp_path):
    _folder(tmp_path, "path,patient,Edema,Edema\na.png,1,1,0\n")
    with pytest.raises(InputError, match=r"t\.csv: has two columns 'Edema'"):
        _locate("folder", tmp_path)
    _folder(tmp_path, "path,patient,Edema,edema \na.png,1,1,0\n")
    with pytest.raises(InputError, match="line 2, column edema: is 0, and column Edema is 1; both mean 'Edema'"):
        _locate("folder", tmp_path)


def test_paths_of_windows_from_another_machine(tmp_path):
    for path in ("C:\\data\\a.png", "\\\\server\\share\\a.png"):
        _folder(tmp_path, f"path,patient,Edema\n{path},1,1\n", "a.png")
        with pytest.raises(InputError, match=r"line 2, column path: .* is no path inside the data set's folder"):
            _locate("folder", tmp_path)


def test_rows_of_one_image_are_one(tmp_path):
    """RSNA's and others' tables have a row for each box."""
    _folder(tmp_path, "path,patient,x,Edema\na.png,1,10,1\nb.png,2,,0\na.png,1,20,1\na.png,1,30,1\n")
    _, table = _locate("folder", tmp_path)
    assert table.frame["id"].tolist() == ["a.png", "b.png"] and table.num_rows == 4
    assert table.skipped.to_numpy().tolist() == [
        ["t.csv", line, "a.png", "another row of the same image"] for line in (4, 5)
    ]
    _folder(tmp_path, "path,patient,x,Edema\na.png,1,10,1\nb.png,2,,0\na.png,1,20,0\n")
    with pytest.raises(
        InputError, match=r"line 4: a\.png is listed more than once \(lines 2 and 4\), with different val"
    ):
        _locate("folder", tmp_path)


def test_tables_that_are_not_meant(tmp_path):
    """What macOS and spreadsheets leave beside the table."""
    root = _folder(tmp_path, "path,Edema\na.png,1\n", "._t.csv", "~$t.csv", ".~lock.t.csv", "a.png", name="t.csv")
    assert _locate("folder", root)[1].num_rows == 1
    shutil.make_archive(str(root / "t.csv"), "zip", root, "t.csv")
    (root / "t.csv").unlink()
    assert _locate("folder", root)[1].num_rows == 1


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        (
            "a.png,Pneumonai,train",
            ("class:c",),
            "line 2, column c: 'Pneumonai' is none of the 14 labels; .*did you mean 'P",
        ),
        (
            "a.png,edema,trian",
            ("class:c", "split:s"),
            "line 2, column s: unknown split 'trian', .*did you mean 'train'",
        ),
        ("a.png,edema,train", ("class:k",), "has no column 'k'; it has 'path, c, s'"),
        ("a.png,edema,train", ("class:c", "view:vieuw"), "has no column 'vieuw'"),
    ],
)
def test_the_nearest_known_name(tmp_path, row, columns, message):
    with pytest.raises(InputError, match=message):
        _locate("folder", _folder(tmp_path, f"path,c,s\n{row}\n"), *columns)


def test_the_nearest_finding_of_nih_and_value_of_chexpert(tmp_path):
    root = fakes.make_chestxray(tmp_path / "nih", num_patients=1)
    table = root / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("Hernia", "Pleural Thickening"))
    with pytest.raises(InputError, match="unknown finding 'Pleural Thickening'; did you mean 'Pleural_Thickening'"):
        readers.read("chestxray", root)
    root = fakes.make_chexpert(tmp_path / "chexpert", num_patients=1)
    (root / "train.csv").write_text((root / "train.csv").read_text().replace("Frontal,A", "frontal,A"))
    with pytest.raises(
        InputError, match=r"line 2, column Frontal/Lateral: unknown value 'frontal', expected Frontal or .*did"
    ):
        readers.read("chexpert", root)


def test_columns_of_findings_that_are_not_used(tmp_path):
    """They would make of an effusion beside a pneumothorax a pneumothorax alone."""
    header = "path,patient,No Finding,Pneumothorax,Rib Notching,Mass,Follow-up,Note,Bed\n"
    _folder(tmp_path, f"{header}a.png,p1,0,1,1,,0,x,0\nb.png,p2,0,0,0,TRUE,2,1,0\n")
    (warning,) = _locate("folder", tmp_path)[1].warnings
    assert warning.startswith(
        "t.csv: the columns 'Rib Notching', 'Mass' hold 0 and 1 and are not used; an image with such"
    )
    named = ("No Finding:No Finding", "Pneumothorax:Pneumothorax", "Rib Notching:Rib Notching", "Mass:Mass")
    table = _locate("folder", tmp_path, *named)[1]
    assert table.warnings == () and table.frame["extra"].tolist() == ["Rib Notching", "Mass"]
