"""Shared patients and images of record sets."""

import dataclasses

import pytest

from tests import fakes
from tfrecords_builder import records
from tfrecords_builder.records import overlap


def _make(folder, *, seed=0, **values):
    """8 + 8 images of 8 patients in each split; patients have the same ids in every set, pictures those of the seed."""
    return records.load_info(fakes.make_records(folder, seed=seed, **values))


def _count(first, first_splits, second, second_splits):
    found = overlap.find_overlap(first, first_splits, second, second_splits)
    return len(found.patients), len(found.images)


def test_splits_of_one_set_share_nothing(tmp_path):
    info = _make(tmp_path / "set", dataset_name="a")
    assert _count(info, "train", info, "test") == (0, 0)
    assert not overlap.find_overlap(info, "train", info, ["validation", "test"])
    assert _count(info, "train", info, ["train", "test"]) == (8, 16)
    assert _count(info, ["train", "validation"], info, ["train", "validation", "test"]) == (16, 32)
    assert overlap.find_overlap(info, "test", info, "test").patients == {
        f"test-{i}-{k}" for i in range(4) for k in (0, 1)
    }


def test_patients_go_by_the_name_of_the_data_set_and_images_by_their_bytes(tmp_path):
    a = _make(tmp_path / "a", dataset_name="hospital", source="folder:x")
    same = _make(tmp_path / "same", dataset_name="hospital", source="folder:y", seed=1)
    other = _make(tmp_path / "other", dataset_name="clinic", source="folder:x", seed=1)
    copy = _make(tmp_path / "copy", dataset_name="copied", source="folder:z")
    assert _count(a, "train", same, "train") == (8, 0)
    assert _count(a, "train", other, "train") == (0, 0)
    assert _count(a, "train", copy, "train") == (0, 16)
    assert _count(a, "train", copy, "test") == (0, 0)


def test_sets_without_a_name_go_by_their_source(tmp_path):
    a, b = _make(tmp_path / "a", source="folder:x"), _make(tmp_path / "b", source="folder:y")
    named = _make(tmp_path / "named", source="folder:x", dataset_name="hospital")
    old = records.load_info(fakes.make_old(a.folder))
    assert old.dataset_name == ""
    assert _count(old, "test", old, "test") == (8, 16)
    assert _count(old, "test", b, "test") == (0, 16)
    assert _count(old, "test", named, "test") == (8, 16)


def test_images_without_a_patient_are_nobody(tmp_path):
    info = _make(tmp_path / "set", with_patients=False, source="synthetic:run")
    assert _count(info, "train", info, "train") == (0, 16)


def test_hashed_ids_are_not_compared_with_plain_ones(tmp_path):
    info = _make(tmp_path / "set", dataset_name="a")
    hashed = dataclasses.replace(info, hashed_patients=True)
    assert _count(info, "train", hashed, "train") == (0, 16)
    assert _count(hashed, "train", hashed, "train") == (8, 16)


def test_a_split_that_a_set_lacks_is_empty(tmp_path):
    info = _make(tmp_path / "set", splits=("train",))
    assert _count(info, "test", info, "train") == (0, 0)


@pytest.mark.parametrize("splits", [("train", "test"), ["train", "test"]])
def test_several_splits(tmp_path, splits):
    info = _make(tmp_path / "set")
    assert _count(info, splits, info, "test") == (8, 16)
