"""--label_map: the labels of one set in another."""

import dataclasses
import json

import numpy as np
import pytest

from tests import fake_data_sets
from tfrecords_builder import labels, readers
from tfrecords_builder.errors import InputError
from tfrecords_builder.readers import label_maps

NIH = labels.get_label_set("nih14")
SMALL = labels.make_label_set(
    {"name": "small", "labels": ["Opacity", "No Finding", "Tube"], "no_finding": "No Finding"}
)
TO_NIH = {
    "Lung Lesion": ["Mass", "Nodule"],
    "Pleural Other": "Pleural Thickening",
    **dict.fromkeys(("Enlarged Cardiomediastinum", "Lung Opacity", "Fracture", "Support Devices")),
}


def _write(folder, table):
    path = folder / "map.json"
    path.write_text(json.dumps(table))
    return path


def test_a_data_set_with_labels_of_its_own(tmp_path):
    root = fake_data_sets.make_mimic_cxr(tmp_path / "set")
    path = _write(tmp_path, TO_NIH)
    readers.check_header("mimic_cxr", root, label_set=NIH, label_map=path)
    table = readers.read("mimic_cxr", root, label_set=NIH, label_map=path)
    assert table.label_set == NIH and list(table.frame.columns[-len(NIH) :]) == list(NIH.labels)
    np.testing.assert_array_equal(table.frame["Effusion"], [np.nan, np.nan, 1, np.nan, np.nan])
    np.testing.assert_array_equal(table.frame["Pneumonia"], [np.nan, -1, np.nan, np.nan, np.nan])
    assert "Infiltration" not in table.labelled and table.frame["Infiltration"].isna().all()
    assert table.findings == ("Enlarged Cardiomediastinum", "Lung Opacity", "Fracture", "Support Devices")
    assert table.paths[-1] == path
    with pytest.raises(InputError, match="--label_set=nih14: --dataset=mimic_cxr has the labels of chexpert14; say by"):
        readers.read("mimic_cxr", root, label_set=NIH)


def test_several_labels_that_are_one(tmp_path):
    """Positive, else uncertain, else blank, else negative; findings outside the labels are mapped as well."""
    root = fake_data_sets.make_chexlocalize(tmp_path)
    made = readers.read("chexlocalize", root, frontal_only=False)
    made.frame["Edema"] = np.array([1, -1, 0, 0], np.float32)
    made.frame["Pneumonia"] = np.array([-1, 0, np.nan, 0], np.float32)
    made.frame["Fracture"] = np.array([1, 0, 0, 1], np.float32)
    made.frame["extra"] = ["", "Tube", "Stent|Scar", ""]
    made = dataclasses.replace(made, findings=("Tube", "Stent", "Scar"))
    table = {"Edema": "Opacity", "Pneumonia": "Opacity", "Tube": "Tube", "Stent": ["Tube"]}
    table |= {name: None for name in labels.LABELS if name not in (*table, "No Finding")}
    mapped = label_maps.apply(made, label_maps.load(_write(tmp_path, table), labels.DEFAULT, SMALL))
    np.testing.assert_array_equal(mapped.frame["Opacity"], [1, -1, np.nan, 0])
    np.testing.assert_array_equal(mapped.frame["Tube"], [0, 1, 1, 0])
    # The labels without a counterpart that an image has are findings outside the labels now.
    assert mapped.frame["extra"].tolist() == ["Lung Opacity|Fracture", "Lung Opacity", "Scar", "Cardiomegaly|Fracture"]
    assert mapped.labelled == SMALL.labels and "Edema" not in mapped.frame
    assert made.frame["Edema"].tolist() == [1, -1, 0, 0]  # as it was
    # `Tube` is a label of the other set, so it need not be named.
    del table["Tube"]
    again = label_maps.apply(made, label_maps.load(_write(tmp_path, table), labels.DEFAULT, SMALL))
    np.testing.assert_array_equal(again.frame["Tube"], [0, 1, 1, 0])
    strange = label_maps.load(_write(tmp_path, {**table, "Stend": None}), labels.DEFAULT, SMALL)
    with pytest.raises(
        InputError, match=r"map.json: 'Stend' is no label of chexpert14 and no finding of .*mean 'Stent'"
    ):
        label_maps.apply(made, strange)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "does not say what 'Enlarged Cardiomediastinum', 'Lung Opacity', .* of chexpert14 is in nih14; give a"),
        ({**TO_NIH, "Edema": "Oedema"}, "'Edema': 'Oedema' is no label of nih14; did you mean 'Edema'"),
        ({**TO_NIH, "Edema": 3}, "'Edema': must be a label, a list of labels or null, not 3"),
        ({**TO_NIH, "Edema": [["x"]]}, "'Edema': must be a label, a list of labels or null"),
        (
            {**TO_NIH, "Pleural Effusion": "Effusion", "Effusion": "Effusion"},
            "'Effusion' is given twice, as 'Pleural Effusion' is the same label",
        ),
        ([1], "must be an object, label -> label, list of labels or null"),
    ],
)
def test_bad_maps(tmp_path, table, message):
    with pytest.raises(InputError, match=f"--label_map=.*map.json: {message}"):
        label_maps.load(_write(tmp_path, table), labels.DEFAULT, NIH)


def test_maps_that_have_no_use(tmp_path):
    path = _write(tmp_path, TO_NIH)
    with pytest.raises(InputError, match="--label_map: --dataset=padchest has the labels that --label_set says; a map"):
        readers.check_header("padchest", tmp_path, label_set=NIH, label_map=path)
    with pytest.raises(
        InputError, match=r"--label_map=.*: the labels of --data_dir=.* are those of chexpert14 already"
    ):
        readers.check_header("chexpert", tmp_path, label_set=labels.DEFAULT, label_map=path)
    path.write_text("{")
    with pytest.raises(InputError, match=r"--label_map=.*map.json: is not valid JSON"):
        readers.read("chexpert", tmp_path, label_set=NIH, label_map=path)
