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
        ("b.png,Edema,0,17,58,F,PA", "line 3: b.png is listed more than once"),
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
    with pytest.raises(InputError, match="is not UTF-8"):
        readers.read("chestxray", tmp_path)
    (tmp_path / "Data_Entry_2017.csv").write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        readers.read("chestxray", tmp_path)


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
