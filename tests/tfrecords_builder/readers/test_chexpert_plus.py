import numpy as np
import pytest

from tests import fake_data_sets
from tfrecords_builder import readers
from tfrecords_builder.errors import InputError


def test_rows(tmp_path):
    root = fake_data_sets.make_chexpert_plus(tmp_path)
    readers.check_header("chexpert_plus", root)
    table = readers.read("chexpert_plus", root, official=True)
    assert table.frame[["id", "patient", "view", "fold", "sex", "age"]].to_numpy().tolist() == [
        ["train/patient42142/study5/view1_frontal", "patient42142", "AP", "train_val", "Female", 76],
        ["train/patient00007/study1/view1_frontal", "patient00007", "PA", "train_val", "Female", 76],
        ["valid/patient64541/study1/view1_frontal", "patient64541", "AP", "test", "Female", 76],
    ]
    np.testing.assert_array_equal(table.frame["Edema"], [1, np.nan, np.nan])
    np.testing.assert_array_equal(table.frame["Pneumonia"], [np.nan, np.nan, -1])
    assert readers.locate(table)[0] == f"{root}/PNG/train/patient42142/study5/view1_frontal.png"
    assert all(readers.locate(table)) and table.dataset_name == "chexpert" and table.warnings == ()
    assert set(readers.read("chexpert_plus", root).frame["fold"]) == {""}


def test_images_without_labels_are_counted(tmp_path):
    root = fake_data_sets.make_chexpert_plus(tmp_path)
    path = root / "chexbert_labels" / "impression_fixed.json"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    path.rename(root / "findings_fixed.json")
    table = readers.read("chexpert_plus", root)
    assert table.warnings == ("1 images have no line in findings_fixed.json: they have no label",)
    assert table.frame["Pneumonia"].isna().all()


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"holds no df_chexpert_plus_240401\.csv; it names the images"):
        readers.read("chexpert_plus", tmp_path)
    root = fake_data_sets.make_chexpert_plus(tmp_path)
    path = root / "chexbert_labels" / "impression_fixed.json"
    text = path.read_text()
    for changed, message in (
        (text + text.splitlines()[0] + "\n", r"line 5, column path_to_image: train/.*frontal is on line 1 as well"),
        (text.replace("Edema", "Oedema"), r"impression_fixed\.json: has no column 'Edema'; .*did you mean 'Oedema'"),
        (text.replace("-1.0", "7"), r"line 4, column Pneumonia: unknown value '7', expected 1, 0, -1 or blank"),
        (text.replace("{", "[", 1), r"impression_fixed\.json: line 1: is no JSON"),
    ):
        path.write_text(changed)
        with pytest.raises(InputError, match=message):
            readers.read("chexpert_plus", root)
    path.unlink()
    with pytest.raises(InputError, match=r"holds no impression_fixed\.json; give it by --labels_csv"):
        readers.check_header("chexpert_plus", root)
