import hashlib
import hmac
import re

import numpy as np
import pytest

from tests import fakes
from tfrecords_builder import readers
from tfrecords_builder.errors import InputError


def _hash(text, salt=b"salt"):
    return hmac.new(salt, text.encode(), hashlib.sha256).hexdigest()[:16]


@pytest.mark.parametrize(
    ("image", "patient", "expected"),
    [
        ("CheXpert-v1.0/train/patient00001/study1/a.jpg", "patient00001", "CheXpert-v1.0/train/patient{}/study1/a.jpg"),
        ("00000013_005.png", "13", "{}_005.png"),
        ("00000005_005.png", "5", "{}_005.png"),
        ("00000000_001.png", "0", "{}_001.png"),
        ("a/smith-7/x.png", "smith-7", "a/{}/x.png"),
        ("p7/p7_1.png", "p7", "{}/{}_1.png"),
        ("0013/scan.dcm", "13", "{}/scan.dcm"),
        ("0013/13.dcm", "13", "{}/{}.dcm"),
        ("synthetic-000001", "", "synthetic-000001"),
    ],
)
def test_the_patient_is_replaced_in_the_id(image, patient, expected):
    ids, patients = readers.hash_ids([image], [patient], b"salt")
    hashed = _hash(patient) if patient else ""
    assert patients.tolist() == [hashed] and ids.tolist() == [expected.replace("{}", hashed)]


@pytest.mark.parametrize(
    ("image", "patient", "suffix"),
    [
        ("scans/x.png", "17", ".png"),  # not there
        ("scans/ap17.png", "17", ".png"),  # inside a longer run
        ("17/ap17.png", "17", ".png"),  # once alone, once inside
        ("P7/p7.PNG", "P7", ".PNG"),  # once in another case
        ("x/smith.7", "17", ""),  # a suffix that may be a name's
    ],
)
def test_what_cannot_be_replaced_hides_the_whole_id(image, patient, suffix):
    ids, _ = readers.hash_ids([image], [patient], b"salt")
    assert ids.tolist() == [_hash(image) + suffix]


@pytest.mark.parametrize("dataset", ["chexpert", "chestxray"])
def test_no_patient_of_a_table_is_left(tmp_path, dataset):
    make = fakes.make_chexpert if dataset == "chexpert" else fakes.make_chestxray
    frame = readers.read(dataset, make(tmp_path, num_patients=8)).frame
    ids, patients = readers.hash_ids(frame["id"], frame["patient"], b"salt")
    assert len(set(ids)) == len(frame) and len(set(patients)) == frame["patient"].nunique() == 8
    assert not any(re.search(r"patient0000\d|0000000\d_", text) for text in ids)
    again, _ = readers.hash_ids(frame["id"], frame["patient"], b"salt")
    other, _ = readers.hash_ids(frame["id"], frame["patient"], b"other")
    np.testing.assert_array_equal(ids, again)
    assert not set(ids) & set(other)


def test_ids_must_stay_apart():
    with pytest.raises(InputError, match=r"--hash_patient_ids: 0013\.png and 13\.png would both become"):
        readers.hash_ids(["0013.png", "13.png"], ["13", "13"], b"salt")
