import json

import numpy as np
import pytest

from tests import fake_data_sets
from tfrecords_builder import labels, readers
from tfrecords_builder.errors import InputError

pytest.importorskip("pydicom")


def test_rows(tmp_path):
    """One row for an image with two boxes; sex, age and view of the headers; patients unknown."""
    root = fake_data_sets.make_rsna_pneumonia(tmp_path)
    readers.check_header("rsna_pneumonia", root)
    table = readers.read("rsna_pneumonia", root)
    assert table.frame[["id", "patient", "view", "sex", "age", "extra"]].to_numpy().tolist() == [
        ["0004cfab", "0004cfab", "AP", "F", 40, "No Lung Opacity / Not Normal"],
        ["00436515", "00436515", "AP", "M", 41, ""],
        ["00704310", "00704310", "AP", "F", 42, ""],
        ["003d8fa0", "003d8fa0", "AP", "M", 43, ""],
    ]
    assert table.labelled == ("No Finding", "Lung Opacity", "Pneumonia") and table.frame["Edema"].isna().all()
    assert table.frame[list(table.labelled)].to_numpy().tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 1], [1, 0, 0]]
    assert table.skipped["reason"].tolist() == ["another row of the same image"] and table.num_rows == 5
    assert readers.locate(table)[1] == f"{root}/stage_2_train_images/00436515.dcm"
    (warning,) = table.warnings
    assert warning.startswith(
        "pneumonia-challenge-dataset-mappings_2018.json is not there, which says of which of NIH's"
    )
    nih = readers.read("rsna_pneumonia", root, label_set=labels.get_label_set("nih14"))
    assert nih.labelled == ("No Finding", "Pneumonia") and nih.frame["Pneumonia"].tolist() == [0, 1, 1, 0]


def test_patients_of_nih(tmp_path):
    table = readers.read("rsna_pneumonia", fake_data_sets.make_rsna_pneumonia(tmp_path, mappings=True))
    assert table.frame["patient"].tolist() == ["13", "13", "14", "14"]
    assert table.dataset_name == "chestxray" and table.warnings == ()
    path = tmp_path / "pneumonia-challenge-dataset-mappings_2018.json"
    path.write_text(json.dumps(json.loads(path.read_text())[1:]))
    with pytest.raises(InputError, match=r"mappings_2018\.json: does not say of which patient \w+ and 0 other images"):
        readers.read("rsna_pneumonia", tmp_path)
    path.write_text('[{"img_id": "a_1.png"}]')
    with pytest.raises(InputError, match=r"mappings_2018\.json: is no list of objects with subset_img_id and img_id"):
        readers.read("rsna_pneumonia", tmp_path)


def test_without_the_second_table(tmp_path):
    root = fake_data_sets.make_rsna_pneumonia(tmp_path, mappings=True)
    (root / "stage_2_detailed_class_info.csv").unlink()
    table = readers.read("rsna_pneumonia", root)
    assert table.frame["No Finding"].isna().all() and set(table.frame["extra"]) == {""}
    np.testing.assert_array_equal(table.frame["Pneumonia"], [0, 1, 1, 0])
    assert table.warnings == (
        "stage_2_detailed_class_info.csv is not there: nothing says which images are normal, so none is 'No Finding'",
    )


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"holds no stage_2_train_labels\.csv; give it by --labels_csv"):
        readers.read("rsna_pneumonia", tmp_path)
    root = fake_data_sets.make_rsna_pneumonia(tmp_path)
    path, classes = root / "stage_2_train_labels.csv", root / "stage_2_detailed_class_info.csv"
    text, kinds = path.read_text(), classes.read_text()
    for changed, message in (
        (text.replace("Target", "target"), r"labels\.csv: has no column 'Target'; .*did you mean 'target'"),
        (text.replace(",1\n", ",2\n"), r"line 3, column Target: unknown value '2', expected 0 or 1"),
        (text.replace(",,0\n", ",,1\n"), r"line 2, column Target: contradicts stage_2_detailed.*'No Lung Opacity / N"),
        (text + "00436515,1,2,3,4,0\n", r"line 7, column Target: contradicts stage_2_detailed"),
    ):
        path.write_text(changed)
        with pytest.raises(InputError, match=message):
            readers.read("rsna_pneumonia", root)
    path.write_text(text)
    for changed, message in (
        (
            kinds + "003d8fa0,Lung Opacity\n",
            r"class_info\.csv: line 7, column class: is 'Lung Opacity', and 'Normal' in",
        ),
        (kinds.replace(",Normal", ",normal"), r"line 6, column class: unknown value 'normal', .*did you mean 'Normal'"),
    ):
        classes.write_text(changed)
        with pytest.raises(InputError, match=message):
            readers.read("rsna_pneumonia", root)
    with pytest.raises(InputError, match="official: --dataset=rsna_pneumonia has no official split; choose --split_p"):
        readers.check_header("rsna_pneumonia", root, official=True)
    with pytest.raises(InputError, match="--label_set=brain6: has none of the findings of --dataset=rsna_pneumonia"):
        readers.check_header("rsna_pneumonia", root, label_set=labels.get_label_set("brain6"))
