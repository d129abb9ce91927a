import gzip

import numpy as np
import pytest

from tests import fakes
from tfrecords_builder import labels, readers
from tfrecords_builder.errors import InputError

NIH_HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"


def _nih(folder, *rows, header=NIH_HEADER, name="Data_Entry_2017.csv"):
    (folder / name).write_text(header + "".join(f"{row}\n" for row in rows))
    return folder


def _chexpert(folder, *rows, name="train.csv"):
    header = ",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *labels.LABELS])
    (folder / name).write_text("\n".join([header, *rows]) + "\n")
    return folder


def _chexpert_row(path="CheXpert-v1.0/train/patient00007/study1/view1_frontal.jpg", view="Frontal", **values):
    cells = [values.get(label.replace(" ", "_"), "") for label in labels.LABELS]
    return ",".join([path, "Male", "51", view, "AP" if view == "Frontal" else "", *cells])


def test_chexpert(tmp_path):
    rows = [
        _chexpert_row(Edema="1.0", Fracture="-1.0", Pneumonia="0.0"),
        _chexpert_row(path="CheXpert-v1.0/train/patient00007/study1/view2_lateral.jpg", view="Lateral"),
    ]
    table = readers.read("chexpert", _chexpert(tmp_path, *rows))
    assert table.source == "chexpert" and table.num_rows == 2
    assert table.skipped.to_dict("records") == [
        {
            "table": "train.csv",
            "line": 3,
            "id": "CheXpert-v1.0/train/patient00007/study1/view2_lateral.jpg",
            "reason": "lateral view",
        }
    ]
    (row,) = table.frame.to_dict("records")
    assert (row["patient"], row["view"], row["sex"], row["age"], row["fold"]) == ("patient00007", "AP", "Male", 51, "")
    assert (row["Edema"], row["Fracture"], row["Pneumonia"]) == (1, -1, 0) and np.isnan(row["Atelectasis"])


def test_chexpert_is_frontal_where_its_column_says_so(tmp_path):
    """16 frontal images of the published table say LL in AP/PA, one says RL: they are frontal, of unknown view."""
    rows = [
        _chexpert_row(path=f"CheXpert-v1.0/train/patient{i:05d}/study1/view1_frontal.jpg").replace(",AP,", f",{view},")
        for i, view in enumerate(("AP", "LL", "RL", "ll", "PA", ""))
    ]
    rows.append(_chexpert_row(path="CheXpert-v1.0/train/patient00009/study1/v.jpg", view="Lateral"))
    table = readers.read("chexpert", _chexpert(tmp_path, *rows))
    assert table.frame["view"].tolist() == ["AP", "", "", "", "PA", ""]
    assert table.skipped["line"].tolist() == [8]
    both = readers.read("chexpert", tmp_path, frontal_only=False).frame
    assert both["view"].tolist()[-1] == "LL" and len(both) == 7


def test_chexpert_official_reads_valid(tmp_path):
    root = fakes.make_chexpert(tmp_path, num_patients=6, num_valid=2)
    for data_dir in (root, tmp_path):
        table = readers.read("chexpert", data_dir, official=True)
        assert table.frame["fold"].value_counts().to_dict() == {"train_val": 12, "test": 4}
        assert (readers.locate(table) != "").all()
    assert "test" not in set(readers.read("chexpert", root).frame["fold"])


@pytest.mark.parametrize("name", ["CheXpert-v1.0", "somewhere else"])
def test_chexpert_prefix_of_path_need_not_be_the_folder(tmp_path, name):
    root = fakes.make_chexpert(tmp_path, num_patients=2)
    root.rename(tmp_path / name)
    assert (readers.locate(readers.read("chexpert", tmp_path / name)) != "").all()


def test_chestxray(tmp_path):
    _nih(
        tmp_path, "a.png,Effusion|Mass,0,17,058Y,F,PA", "b.png,No Finding,1,17,414,M,AP", "c.png,Hernia,2,18,011M,M,AP"
    )
    table = readers.read("chestxray", tmp_path)
    first, second, third = table.frame.to_dict("records")
    assert (first["patient"], first["age"], first["extra"], first["Pleural Effusion"]) == ("17", 58, "Mass", 1)
    assert first["No Finding"] == 0 and np.isnan(first["Lung Opacity"])
    assert (second["No Finding"], second["age"], second["extra"]) == (1, -1, "")
    assert (third["extra"], third["age"]) == ("Hernia", 0)


@pytest.mark.parametrize("encoding", ["bom", "crlf", "semicolon", "gzip"])
def test_table_encodings(tmp_path, encoding):
    _nih(tmp_path, "a.png,Edema,0,17,58,F,PA", "b.png,No Finding,1,17,58,M,AP")
    path = tmp_path / "Data_Entry_2017.csv"
    data = path.read_bytes()
    if encoding == "bom":
        path.write_bytes(b"\xef\xbb\xbf" + data)
    elif encoding == "crlf":
        path.write_bytes(data.replace(b"\n", b"\r\n"))
    elif encoding == "semicolon":
        path.write_bytes(data.replace(b",", b";"))
    else:
        path.rename(tmp_path / "plain.csv")
        (tmp_path / "Data_Entry_2017_v2020.csv.gz").write_bytes(gzip.compress(data))
    frame = readers.read("chestxray", tmp_path).frame
    assert frame["Edema"].tolist() == [1, 0] and frame["view"].tolist() == ["PA", "AP"]


@pytest.mark.parametrize("folder", ["images", "images_001/images", "images_012", "."])
def test_chestxray_image_folders(tmp_path, folder):
    _nih(tmp_path, "a.png,Edema,0,17,58,F,PA", "b.png,Edema,0,17,58,F,PA")
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / "a.png").touch()
    found = readers.locate(readers.read("chestxray", tmp_path))
    assert found[0].endswith("a.png") and found[1] == ""


def test_phantom_marker_sets_the_source(tmp_path):
    _nih(tmp_path, "a.png,Edema,0,17,58,F,PA")
    (tmp_path / "phantom.json").write_text('{"source": "phantom-b"}')
    assert readers.read("chestxray", tmp_path).source == "phantom-b"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,Oedema,0,17,58,F,PA", "line 3, column Finding Labels: unknown finding 'Oedema'"),
        ("a.png,No Finding|Edema,0,17,58,F,PA", "line 3, column Finding Labels: 'No Finding' beside"),
        ("../a.png,Edema,0,17,58,F,PA", "line 3, column Image Index: '../a.png'"),
        ("/etc/a.png,Edema,0,17,58,F,PA", "line 3, column Image Index: '/etc/a.png'"),
        (",Edema,0,17,58,F,PA", "line 3, column Image Index"),
        ("a.png,Edema,0,,58,F,PA", "line 3, column Patient ID: is empty"),
        ("b.png,Mass,0,17,58,F,PA", "line 3: b.png is listed more than once"),
    ],
)
def test_bad_chestxray_row(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        readers.read("chestxray", _nih(tmp_path, "b.png,Edema,0,17,58,F,PA", row))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (_chexpert_row(Edema="2"), "line 2, column Edema: unknown value '2', expected 1, 0, -1 or blank"),
        (_chexpert_row(view="Oblique"), "line 2, column Frontal/Lateral: unknown value 'Oblique'"),
        (_chexpert_row(path="CheXpert-v1.0/../../secret.jpg"), "line 2, column Path"),
        (_chexpert_row(path="x.jpg"), "line 2, column Path: no patient folder"),
    ],
)
def test_bad_chexpert_row(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        readers.read("chexpert", _chexpert(tmp_path, row))


def test_bad_tables(tmp_path):
    with pytest.raises(InputError, match=r"holds no Data_Entry_2017\.csv"):
        readers.read("chestxray", tmp_path)
    with pytest.raises(InputError, match=r"no train\.csv"):
        readers.read("chexpert", tmp_path)
    _nih(tmp_path, "a.png,1", header="Image Index,Patient ID\n")
    with pytest.raises(InputError, match=r"Data_Entry_2017\.csv: has no column 'Finding Labels'"):
        readers.read("chestxray", tmp_path)
    _nih(tmp_path)
    with pytest.raises(InputError, match="has no rows"):
        readers.read("chestxray", tmp_path)
    (tmp_path / "Data_Entry_2017.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="line 1: is damaged UTF-16"):
        readers.read("chestxray", tmp_path)
    (tmp_path / "Data_Entry_2017.csv").write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        readers.read("chestxray", tmp_path)


def test_columns_and_dtypes_of_the_frame(tmp_path):
    kinds = {"age": "int64", "line": "int64", "offset": "int64", **dict.fromkeys(labels.LABELS, "float32")}
    texts = {"id", "patient", "view", "sex", "extra", "fold", "table"}
    for dataset, make in (("chexpert", fakes.make_chexpert), ("chestxray", fakes.make_chestxray)):
        table = readers.read(dataset, make(tmp_path / dataset, num_patients=5))
        assert set(table.frame.columns) == texts | set(kinds)
        assert {column: str(table.frame[column].dtype) for column in kinds} == kinds
        assert all(isinstance(text, str) for column in texts for text in table.frame[column])
        assert tuple(table.skipped.columns) == readers.SKIPPED_COLUMNS and table.skipped["line"].dtype == np.int64
        assert len(table.frame) + len(table.skipped) == table.num_rows
        assert (table.frame["offset"] == -1).all()


def test_what_the_data_sets_label(tmp_path):
    chexpert = readers.read("chexpert", fakes.make_chexpert(tmp_path / "a", num_patients=2))
    assert (chexpert.labelled, chexpert.findings) == (labels.LABELS, ())
    nih = readers.read("chestxray", fakes.make_chestxray(tmp_path / "b", num_patients=2))
    assert len(nih.labelled) == 8 and nih.labelled[0] == "No Finding" and nih.labelled[-1] == "Pleural Effusion"
    assert nih.findings == (
        *("Infiltration", "Mass", "Nodule", "Emphysema", "Fibrosis"),
        *("Pleural_Thickening", "Hernia"),
    )
    assert all(nih.frame[label].isna().all() != (label in nih.labelled) for label in labels.LABELS)


def test_lateral_views_on_demand(tmp_path):
    root = fakes.make_chexpert(tmp_path, num_patients=8, num_valid=4)
    table = readers.read("chexpert", root, official=True, frontal_only=False)
    assert table.frame["view"].value_counts().to_dict() == {"AP": 12, "PA": 12, "LL": 3} and not len(table.skipped)
    assert table.frame["table"].value_counts().to_dict() == {"train.csv": 18, "valid.csv": 9}
    frontal = readers.read("chexpert", root, official=True)
    assert frontal.skipped["table"].tolist() == ["train.csv", "train.csv", "valid.csv"]
    assert frontal.frame.index.tolist() == list(range(24))


def test_windows_paths(tmp_path):
    row = _chexpert_row(path=r"CheXpert-v1.0\train\patient00007\study1\view1_frontal.jpg", Edema="1")
    frame = readers.read("chexpert", _chexpert(tmp_path, row)).frame
    assert frame["id"].tolist() == ["CheXpert-v1.0/train/patient00007/study1/view1_frontal.jpg"]
    assert frame["patient"].tolist() == ["patient00007"]


@pytest.mark.parametrize("path", [r"..\a.png", "x/../a.png", r"C:\a.png", "C:a.png", r"\\host\a.png", "/a.png", "x/.."])
def test_paths_stay_inside_the_folder(tmp_path, path):
    with pytest.raises(InputError, match=r"line 2, column Image Index: .* is no path inside the data set's folder"):
        readers.read("chestxray", _nih(tmp_path, f"{path},Edema,0,17,58,F,PA"))


@pytest.mark.parametrize(("path", "tidy"), [("./a.png", "a.png"), ("x//./a.png", "x/a.png"), ("a..b.png", "a..b.png")])
def test_paths_are_tidied(tmp_path, path, tidy):
    frame = readers.read("chestxray", _nih(tmp_path, f"{path},Edema,0,17,58,F,PA")).frame
    assert frame["id"].tolist() == [tidy]


def test_one_image_twice(tmp_path):
    rows = ["b.png,Edema,0,7,58,F,PA", "a.png,Edema,0,7,58,F,PA", "c.png,Edema,0,7,58,F,PA"]
    with pytest.raises(InputError, match=r"2017\.csv: a\.png is listed under patients 7 and 9 \(lines 3 and 5\)$"):
        readers.read("chestxray", _nih(tmp_path, *rows, r".\a.png,Edema,0,9,58,F,PA"))
    with pytest.raises(
        InputError, match=r"line 5: a\.png is listed more than once .* different values of No Finding; rows of"
    ):
        readers.read("chestxray", _nih(tmp_path, *rows, "a.png,No Finding,0,7,58,F,PA"))
    with pytest.raises(InputError, match=r"line 5: a\.png .* different values of findings outside the labels; rows of"):
        readers.read("chestxray", _nih(tmp_path, *rows, "a.png,Edema|Hernia,0,7,58,F,PA"))
    for name in ("train.csv", "valid.csv"):
        _chexpert(tmp_path, _chexpert_row(Edema="1"), name=name)
    with pytest.raises(InputError, match=r"valid\.csv: line 2: .* \(line 2 of train\.csv and line 2 of valid\.csv\)$"):
        readers.read("chexpert", tmp_path, official=True)


def test_table_of_another_data_set(tmp_path):
    nih = _nih(tmp_path, "a.png,Edema,0,17,58,F,PA")
    with pytest.raises(InputError, match=r"it looks like ChestX-ray14's table; try --dataset=chestxray$"):
        readers.read("chexpert", nih, labels_csv=nih / "Data_Entry_2017.csv")
    with pytest.raises(
        InputError, match=r"no train\.csv \(Data_Entry_2017\.csv is there: it looks like ChestX-ray14's"
    ):
        readers.read("chexpert", nih)
    chexpert = tmp_path / "chexpert"
    chexpert.mkdir()
    _chexpert(chexpert, _chexpert_row())
    with pytest.raises(
        InputError, match=r"train\.csv is there: it looks like CheXpert's table; try --dataset=chexpert$"
    ):
        readers.read("chestxray", chexpert)
    records = fakes.make_records(tmp_path / "records", per_class=1)
    with pytest.raises(InputError, match=r"it looks like the manifest of a record set; try --dataset=records$"):
        readers.read("folder", records)


def test_official_lists_are_required_and_disjoint(tmp_path):
    _nih(tmp_path, "a.png,Edema,0,17,58,F,PA")
    with pytest.raises(InputError, match=r"train_val_list\.txt is not there"):
        readers.read("chestxray", tmp_path, official=True)
    for name in ("train_val_list.txt", "test_list.txt"):
        (tmp_path / name).write_text("a.png\n")
    with pytest.raises(InputError, match=r"a\.png is in train_val_list\.txt as well"):
        readers.read("chestxray", tmp_path, official=True)


def test_nih_counts_of_the_real_table(shared_dir):
    """The counts of shared/data/README.md and 2-labels.md, official split."""
    table = readers.read("chestxray", shared_dir / "data" / "nih", official=True)
    frame = table.frame
    extra = frame["extra"].to_numpy(object)
    expected = {
        "v1_0s": {"No Finding": (50500, 9861), "Pneumothorax": (1241, 953)},
        "v3_0s": {
            "No Finding": (50500, 9861),
            "Pneumothorax": (1241, 953),
            "Pneumonia": (234, 88),
            "Cardiomegaly": (777, 316),
        },
    }
    for name, classes in expected.items():
        version = labels.get_label_version(name)
        vectors, _ = labels.apply_uncertain(version, frame[list(labels.LABELS)].to_numpy(), "zeros")
        index = labels.assign(version, vectors, extra)
        for i, class_name in enumerate(version.class_names):
            folds = frame["fold"][index == i].value_counts()
            assert (folds["train_val"], folds["test"]) == classes[class_name], (name, class_name)
    multilabel = labels.get_label_version("multilabel")
    assert int((~labels.select(multilabel, vectors, extra)).sum()) == 20343
    assert int(((extra != "") & ~vectors.any(axis=1)).sum()) == 20343
    assert frame["fold"].value_counts().to_dict() == {"train_val": 86524, "test": 25596}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.replace(b",", b"|"), "columns are told apart by commas, semicolons or tabs"),
        (lambda data: data.replace(b"Patient ID", b"PatientID"), "did you mean 'PatientID'?"),
        (lambda data: data.replace(b"Patient ID", b"patient id"), "did you mean 'patient id'?"),
        (gzip.compress, "it is a gzip file, whose name must end in .gz"),
        (lambda data: b"PK\x03\x04" + data, "is no CSV: it is a zip file or a spreadsheet; save the table as CSV"),
        (lambda data: data + b"b.png,Ed\xe9ma,0,1,1,F,PA\n", "line 3: is not UTF-8 text"),
    ],
)
def test_what_is_wrong_with_a_table_is_recognised(tmp_path, change, message):
    _nih(tmp_path, "a.png,Edema,0,17,58,F,PA")
    path = tmp_path / "Data_Entry_2017.csv"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError) as caught:
        readers.read("chestxray", tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dataset", "place"),
    [("chexpert", "train"), ("chestxray", "..")],
)
def test_a_folder_beside_the_right_one(tmp_path, dataset, place):
    make = {"chestxray": fakes.make_chestxray, "chexpert": fakes.make_chexpert}[dataset]
    root = make(tmp_path / "data", num_patients=2)
    (tmp_path / "notes.txt").touch()  # else the only folder in a folder is meant
    with pytest.raises(InputError, match=f"give --data_dir={root}"):
        readers.read(dataset, root / place)


def test_a_table_instead_of_its_folder(tmp_path):
    root = fakes.make_chestxray(tmp_path, num_patients=2)
    with pytest.raises(InputError, match=r"--data_dir=.*csv: is a file; give the images' folder"):
        readers.read("chestxray", root / "Data_Entry_2017.csv")


def test_chexpert_official_without_its_test_table(tmp_path):
    root = fakes.make_chexpert(tmp_path, num_patients=2)
    (root / "valid.csv").unlink()
    with pytest.raises(InputError, match=r"--split_policy=official: .*valid\.csv, .* is not there; choose"):
        readers.read("chexpert", root, official=True)
