import gzip

import numpy as np
import pytest

from tests import fake_data_sets
from tfrecords_builder import labels, readers
from tfrecords_builder.errors import InputError

NAME = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"


def test_rows(tmp_path):
    root = fake_data_sets.make_padchest(tmp_path)
    readers.check_header("padchest", root)
    table = readers.read("padchest", root)
    assert table.frame[["id", "patient", "view", "sex", "age", "extra"]].to_numpy().tolist() == [
        ["0/a1.png", "P1", "PA", "F", 84, ""],
        ["1/b1.png", "P2", "AP", "M", 60, "copd signs"],
        ["1/c1.png", "P3", "AP", "M", -1, ""],
        ["1/d1.png", "P3", "PA", "M", -1, ""],
    ]
    np.testing.assert_array_equal(table.frame["No Finding"], [1, 0, 0, np.nan])
    for label in ("Atelectasis", "Pleural Effusion", "Pneumothorax"):
        np.testing.assert_array_equal(table.frame[label], [0, 1, 0, np.nan])
    assert "Lung Opacity" not in table.labelled and table.frame["Lung Opacity"].isna().all()
    assert "Support Devices" in table.labelled and "copd signs" in table.findings
    assert sorted(table.skipped[["line", "reason"]].to_numpy().tolist()) == [
        [3, "lateral view"],
        [7, "projection COSTAL"],
        [8, "labelled suboptimal study"],
    ]
    assert table.num_rows == 7 and all(readers.locate(table)) and table.warnings == ()
    nih = readers.read("padchest", root, label_set=labels.get_label_set("nih14"))
    assert nih.frame["Effusion"].tolist()[:3] == [0, 1, 0] and nih.labelled == labels.get_label_set("nih14").labels


def test_all_images_in_one_folder(tmp_path):
    root = fake_data_sets.make_padchest(tmp_path)
    for path in [*root.glob("0/*.png"), *root.glob("1/*.png")]:
        (root / "images-224").mkdir(exist_ok=True)
        path.rename(root / "images-224" / path.name)
    assert readers.locate(readers.read("padchest", root))[0] == f"{root}/images-224/a1.png"


def test_labels_of_physicians_only(tmp_path):
    root = fake_data_sets.make_padchest(tmp_path)
    table = readers.read("padchest", root, labelled_by="physicians")
    assert table.frame["id"].tolist() == ["0/a1.png"] and table.num_rows == 7
    assert table.skipped["reason"].value_counts().to_dict() == {
        "labelled by a network": 3,
        "lateral view": 1,
        "projection COSTAL": 1,
        "labelled suboptimal study": 1,
    }
    with gzip.open(root / f"{NAME}.gz", "rt") as stream:
        text = stream.read()
    for changed, message in (
        (text.replace("MethodLabel", "Method"), r"t\.csv: has no column 'MethodLabel'; .*did you mean 'Method'"),
        (text.replace("RNN_model", "RNN_modle"), "MethodLabel: unknown value 'RNN_modle', expected Physician or RNN_m"),
    ):
        (root / "t.csv").write_text(changed)
        assert len(readers.read("padchest", root, labels_csv=root / "t.csv").frame) == 4
        with pytest.raises(InputError, match=message):
            readers.read("padchest", root, labels_csv=root / "t.csv", labelled_by="physicians")


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match=rf"holds no {NAME}; give it by --labels_csv"):
        readers.read("padchest", tmp_path)
    root = fake_data_sets.make_padchest(tmp_path)
    with gzip.open(root / f"{NAME}.gz", "rt") as stream:
        text = stream.read()
    for changed, message in (
        (text.replace("Labels", "labels"), r"t\.csv: has no column 'Labels'; .*did you mean 'labels'"),
        (text.replace("['normal']", "['normal'"), r"t\.csv: line 2, column Labels: \"\['normal'\" is no list such as"),
        (text.replace("b1.png", "../b1.png"), r"line 4, column ImageID: '\.\./b1\.png' is no path inside"),
        (text + text.splitlines()[1].replace("normal", "mass") + "\n", r"line 9: 0/a1\.png is listed more than once"),
    ):
        (root / "t.csv").write_text(changed)
        with pytest.raises(InputError, match=message):
            readers.read("padchest", root, labels_csv=root / "t.csv")
    with pytest.raises(InputError, match="official: --dataset=padchest has no official split"):
        readers.check_header("padchest", root, official=True)
    with pytest.raises(InputError, match="--label_set=brain6: has none of the findings of --dataset=padchest"):
        readers.check_header("padchest", root, label_set=labels.get_label_set("brain6"))
