import numpy as np
import pytest
from PIL import Image

from tests import fake_data_sets
from tfrecords_builder import readers
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import dicom

pytest.importorskip("pydicom")


def test_rows(tmp_path):
    root = fake_data_sets.make_siim_acr(tmp_path)
    readers.check_header("siim_acr", root)
    table = readers.read("siim_acr", root)
    assert table.frame[["patient", "view", "sex", "age", "Pneumothorax"]].to_numpy().tolist() == [
        ["p0", "PA", "M", 51, 1],
        ["p0", "PA", "M", 51, 0],
        ["p1", "PA", "M", 51, 0],
    ]
    assert table.labelled == ("Pneumothorax",) and table.frame["No Finding"].isna().all()
    assert table.num_rows == 4 and len(table.skipped) == 1 and table.warnings == ()
    assert readers.locate(table)[0].endswith(f"dicom-images-train/study0/series0/{table.frame['id'][0]}.dcm")


def test_decimal_numbers_of_pandas(tmp_path):
    root = fake_data_sets.make_siim_acr(tmp_path)
    path = root / "train-rle.csv"
    path.write_text(path.read_text().replace(" -1", " -1.0"))
    assert readers.read("siim_acr", root).frame["Pneumothorax"].tolist() == [1, 0, 0]


def test_images_without_a_patient(tmp_path):
    """In the header, as pictures, absent, damaged: each image is its own."""
    root = fake_data_sets.make_siim_acr(tmp_path, patients=False)
    table = readers.read("siim_acr", root)
    assert table.frame["patient"].tolist() == [""] * 3 and table.frame["view"].tolist() == ["PA"] * 3
    assert table.warnings[0].startswith(
        "nothing says which patient an image is of, neither the table nor a DICOM header"
    )
    first, second, third = readers.locate(table)
    fake_data_sets.write_dicom(tmp_path / "x.dcm", PatientID="p9")
    (tmp_path / "x.dcm").rename(first)
    (root / second.replace(".dcm", ".png")).write_bytes(b"")
    (root / second).unlink()
    (root / third).write_bytes(b"damaged")
    table = readers.read("siim_acr", root)
    assert table.frame["patient"].tolist() == ["p9", "", ""] and table.frame["view"].tolist() == ["", "", ""]
    assert table.warnings[0].startswith("of 2 rows nothing says which patient")


@pytest.mark.parametrize("dataset", ["siim_acr", "vindr_cxr"])
@pytest.mark.parametrize(
    ("names", "patients", "warning"),
    [
        ("sss", ["", "", ""], "3 DICOM headers call their patient 's', which tells no patients apart: each image"),
        (
            ["Anonymous", "p1", "ANON"],
            ["", "p1", ""],
            "2 DICOM headers call their patient 'ANON' or 'Anonymous', which",
        ),
        (
            ["0000", "xxxx", ""],
            ["", "", ""],
            "2 DICOM headers call their patient '0000' or 'xxxx', which tells no",
        ),
        (["p1", "p1", "anona"], ["p1", "p1", "anona"], None),
    ],
)
def test_headers_that_call_all_patients_alike(tmp_path, dataset, names, patients, warning):
    root = getattr(fake_data_sets, f"make_{dataset}")(tmp_path)
    found = list(dict.fromkeys(readers.locate(readers.read(dataset, root))))
    for path, name in zip(found, names, strict=True):
        (tmp_path / path).unlink()
        fake_data_sets.write_dicom(tmp_path / path, PatientID=name)
    table = readers.read(dataset, root)
    assert table.frame["patient"].tolist() == patients
    assert len(table.warnings) == bool(warning) + ("" in list(names))
    assert warning is None or table.warnings[0].startswith(warning)


def test_without_pydicom(tmp_path, monkeypatch):
    root = fake_data_sets.make_siim_acr(tmp_path)
    monkeypatch.setattr(dicom, "is_installed", lambda: False)
    warnings = readers.read("siim_acr", root).warnings
    assert warnings[0] == "DICOM headers are not read: pip install tfcxr[dicom]" and len(warnings) == 2


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"holds no train-rle\.csv; give it by --labels_csv"):
        readers.read("siim_acr", tmp_path)
    root = fake_data_sets.make_siim_acr(tmp_path)
    path = root / "train-rle.csv"
    text = path.read_text()
    for changed, message in (
        (
            text.replace("Encoded", "encoded"),
            r"train-rle\.csv: has no column 'EncodedPixels'; .*did you mean 'encodedP",
        ),
        (text.replace(" -1", " nan"), r"line 4, column EncodedPixels: 'nan' is neither -1 nor a mask"),
        (text.replace(" -1", " 0"), r"line 4, column EncodedPixels: '0' is neither -1 nor a mask"),
        (text.replace(" -1", ""), r"line 4, column EncodedPixels: is empty"),
        (text + text.splitlines()[1].split(",")[0] + ",-1\n", r"line 6: .* is listed more than once \(lines 2 and 6\)"),
    ):
        path.write_text(changed)
        with pytest.raises(InputError, match=message):
            readers.read("siim_acr", root)
    with pytest.raises(InputError, match="official: --dataset=siim_acr has no official split"):
        readers.check_header("siim_acr", root, official=True)


def test_headers(tmp_path):
    fake_data_sets.write_dicom(tmp_path / "a.dcm", PatientID="p1", PatientAge="061Y", ViewPosition="LL")
    header = dicom.read_header(tmp_path / "a.dcm")
    assert header == {"PatientID": "p1", "PatientSex": "", "PatientAge": "061Y", "ViewPosition": "LL"}
    Image.fromarray(np.zeros([4, 4], np.uint8)).save(tmp_path / "a.png")
    assert not any(dicom.read_header(tmp_path / "a.png").values()) and dicom.read_header(tmp_path / "no") == {}
