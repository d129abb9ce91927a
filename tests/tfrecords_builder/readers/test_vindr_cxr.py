import numpy as np
import pytest

from tests import fake_data_sets
from tfrecords_builder import labels, readers
from tfrecords_builder.errors import InputError

pytest.importorskip("pydicom")


def test_rows(tmp_path):
    """What more than half of three radiologists say; the test images have one row each."""
    root = fake_data_sets.make_vindr_cxr(tmp_path)
    readers.check_header("vindr_cxr", root, official=True)
    table = readers.read("vindr_cxr", root, official=True)
    assert table.frame[["id", "fold", "sex", "age", "extra"]].to_numpy().tolist() == [
        ["000434", "train_val", "F", 61, ""],
        ["00053190", "train_val", "F", 61, ""],
        ["0005e8e3", "train_val", "F", 61, "Other diseases"],
        ["002a34c5", "test", "F", -1, ""],
    ]
    names = ["No Finding", "Pleural Effusion", "Fracture", "Atelectasis"]
    assert table.frame[names].to_numpy().tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert table.labelled == ("No Finding", "Atelectasis", "Pleural Effusion", "Fracture")
    assert table.findings == ("Aortic enlargement", "Other diseases") and table.frame["Edema"].isna().all()
    assert table.num_rows == 10 and len(table.skipped) == 6 and all(readers.locate(table))
    (warning,) = table.warnings
    assert warning.startswith("nothing says which patient an image is of")
    assert len(readers.read("vindr_cxr", root).frame) == 3


@pytest.mark.parametrize(
    ("agreement", "values", "extra"),
    [
        ("any", [[0, 1, 1], [0, 0, 0], [0, 0, 0]], ["", "Other diseases", "Other diseases"]),
        ("all", [[0, 0, 0], [0, 0, 0], [0, 0, 0]], ["", "", "Other diseases"]),
    ],
)
def test_other_rules_of_agreement(tmp_path, agreement, values, extra):
    table = readers.read("vindr_cxr", fake_data_sets.make_vindr_cxr(tmp_path), agreement=agreement)
    assert table.frame[["No Finding", "Pleural Effusion", "Fracture"]].to_numpy().tolist() == values
    assert table.frame["extra"].tolist() == extra


def test_rows_of_boxes(tmp_path):
    """Kaggle's train.csv: two boxes of one radiologist are one voice."""
    header = ["image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max"]
    rows = [
        ["a", "Cardiomegaly", 3, "R1", 1, 2, 3, 4],
        ["a", "Cardiomegaly", 3, "R1", 2, 2, 3, 4],
        ["a", "No finding", 14, "R2", "", "", "", ""],
        ["a", "No finding", 14, "R3", "", "", "", ""],
        ["b", "Rib fracture", 3, "R1", 1, 2, 3, 4],
        ["b", "Clavicle fracture", 3, "R2", 1, 2, 3, 4],
        ["b", "Pulmonary fibrosis", 13, "R3", 1, 2, 3, 4],
        ["b", "Pulmonary fibrosis", 13, "R2", 1, 2, 3, 4],
    ]
    fake_data_sets.write_table(tmp_path / "train.csv", header, rows)
    for name in "ab":
        fake_data_sets.write_dicom(tmp_path / "train" / f"{name}.dicom", PatientID=f"p{name}")
    table = readers.read("vindr_cxr", tmp_path, label_set=labels.get_label_set("nih14"))
    assert table.frame[["id", "patient", "No Finding", "Cardiomegaly", "Fibrosis", "extra"]].to_numpy().tolist() == [
        ["a", "pa", 1, 0, 0, ""],
        ["b", "pb", 0, 0, 1, ""],
    ]
    assert table.warnings == () and "Rib fracture" in table.findings
    np.testing.assert_array_equal(readers.read("vindr_cxr", tmp_path).frame["Fracture"], [0, 0])
    rows[0][1] = "Cardiomegalie"
    fake_data_sets.write_table(tmp_path / "train.csv", header, rows)
    with pytest.raises(
        InputError, match=r"line 2, column class_name: unknown finding 'Cardiomegalie'; did you mean 'C"
    ):
        readers.read("vindr_cxr", tmp_path)


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"holds no image_labels_train\.csv; give it by --labels_csv"):
        readers.read("vindr_cxr", tmp_path)
    root = fake_data_sets.make_vindr_cxr(tmp_path)
    path = root / "annotations" / "image_labels_train.csv"
    text = path.read_text()
    for changed, message in (
        (text.replace("image_id", "image"), r"train\.csv: has no column 'image_id'; .*did you mean 'image'"),
        ("image_id,rad_id,x\na,R1,0\n", r"train\.csv: has no column 'class_name'; it has 'image_id, rad_id, x'"),
        (
            text.replace("R10,0,0,1", "R10,0,0,3"),
            r"line 2, column Pleural effusion: unknown value '3', expected 1 or 0",
        ),
    ):
        path.write_text(changed)
        with pytest.raises(InputError, match=message):
            readers.read("vindr_cxr", root)
    (root / "annotations" / "image_labels_test.csv").unlink()
    with pytest.raises(InputError, match=r"official: .*annotations/image_labels_test\.csv is not there; choose"):
        readers.check_header("vindr_cxr", root, official=True)
