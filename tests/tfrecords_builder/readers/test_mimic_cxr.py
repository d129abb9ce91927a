import gzip

import numpy as np
import pytest

from tests import fake_data_sets
from tfrecords_builder import readers
from tfrecords_builder.errors import InputError


def test_rows(tmp_path):
    root = fake_data_sets.make_mimic_cxr(tmp_path)
    readers.check_header("mimic_cxr", root, official=True)
    table = readers.read("mimic_cxr", root, official=True)
    assert table.frame[["id", "patient", "view", "fold", "line"]].to_numpy().tolist() == [
        ["files/p10/p10000032/s50414267/02aa804e.jpg", "10000032", "PA", "train", 2],
        ["files/p10/p10000032/s53189527/2a2277a9.jpg", "10000032", "AP", "train", 4],
        ["files/p10/p10000764/s57375967/68b5c4b1.jpg", "10000764", "AP", "validation", 5],
        ["files/p11/p11000011/s51029426/fffabebf.jpg", "11000011", "", "test", 6],
        ["files/p12/p12000012/s59999999/aaaaaaaa.jpg", "12000012", "PA", "train", 7],
    ]
    np.testing.assert_array_equal(table.frame["Edema"], [np.nan, 1, 0, np.nan, np.nan])
    np.testing.assert_array_equal(table.frame["Pneumonia"], [np.nan, -1, np.nan, np.nan, np.nan])
    assert table.skipped["reason"].tolist() == ["lateral view"] and table.num_rows == 6
    assert table.warnings == (
        "1 images are of studies without a row in mimic-cxr-2.0.0-chexpert.csv.gz: they have no label",
    )
    assert all(readers.locate(table)) and [path.name[:22] for path in table.paths] == [
        "mimic-cxr-2.0.0-metada",
        "mimic-cxr-2.0.0-chexpe",
        "mimic-cxr-2.0.0-split.",
    ]


@pytest.mark.parametrize("name", ["patients.csv.gz", "hosp/patients.csv"])
def test_sex_and_age_of_mimic_iv(tmp_path, name):
    """The age at the study: three patients have a row, one of the years is unknown, one patient is of unknown age."""
    root = fake_data_sets.make_mimic_cxr(tmp_path)
    header = ["subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod"]
    rows = [
        ["10000032", "F", 52, 2180, "", ""],
        ["10000764", "M", 86, 2132, "", ""],
        ["11000011", "M", "", 2150, "", ""],
    ]
    fake_data_sets.write_table(root / name, header, rows)
    table = readers.read("mimic_cxr", root)
    assert table.frame[["sex", "age"]].to_numpy().tolist() == [["F", 52], ["F", 53], ["M", 87], ["M", -1], ["", -1]]
    assert table.paths[-1].name == name.removeprefix("hosp/")
    fake_data_sets.write_table(root / name, ["subject_id", "gender"], [["10000032", "F"]])
    with pytest.raises(InputError, match="has no column 'anchor_age'"):
        readers.check_header("mimic_cxr", root)


def test_labels_of_negbio(tmp_path):
    """Unpacked, named by --labels_csv, or found where the others are not there."""
    root = fake_data_sets.make_mimic_cxr(tmp_path)
    with gzip.open(root / "mimic-cxr-2.0.0-chexpert.csv.gz", "rt") as stream:
        (root / "mimic-cxr-2.0.0-negbio.csv").write_text(stream.read().replace("-1.0", "1.0"))
    assert readers.read("mimic_cxr", root).frame["Pneumonia"].tolist()[1] == -1
    named = readers.read("mimic_cxr", root, labels_csv=root / "mimic-cxr-2.0.0-negbio.csv")
    (root / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    for table in (named, readers.read("mimic_cxr", root)):
        assert table.frame["Pneumonia"].tolist()[1] == 1


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"holds no mimic-cxr-2\.0\.0-metadata\.csv\.gz; it names the images"):
        readers.read("mimic_cxr", tmp_path)
    root = fake_data_sets.make_mimic_cxr(tmp_path)
    (root / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    with pytest.raises(InputError, match=r"--split_policy=official: .*split\.csv\.gz is not there; choose --split_p"):
        readers.check_header("mimic_cxr", root, official=True)
    path = root / "labels.csv"
    with gzip.open(root / "mimic-cxr-2.0.0-chexpert.csv.gz", "rt") as stream:
        text = stream.read()
    for changed, message in (
        (text.replace("study_id", "study"), r"labels\.csv: has no column 'study_id'; .*did you mean 'study'"),
        (text + text.splitlines()[1] + "\n", r"labels\.csv: line 6, column study_id: 50414267 is on line 2 as well"),
        (text.replace("-1.0", "-2"), r"line 3, column Pneumonia: unknown value '-2', expected 1, 0, -1 or blank"),
    ):
        path.write_text(changed)
        with pytest.raises(InputError, match=message):
            readers.read("mimic_cxr", root, labels_csv=path)
    (root / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    with pytest.raises(InputError, match=r"holds no mimic-cxr-2\.0\.0-chexpert\.csv\.gz; give it by --labels_csv"):
        readers.read("mimic_cxr", root)
    fake_data_sets.write_table(path, ["dicom_id", "split"], [["02aa804e", "dev"]])
    path.rename(root / "mimic-cxr-2.0.0-split.csv")
    with pytest.raises(InputError, match=r"split\.csv: line 2, column split: unknown split 'dev', expected train"):
        readers.read("mimic_cxr", root, official=True, labels_csv=_write(root / "l.csv", text))


def _write(path, text):
    path.write_text(text)
    return path
