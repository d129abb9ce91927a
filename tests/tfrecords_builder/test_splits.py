import numpy as np
import pandas as pd
import pytest

from tfrecords_builder import labels, splits
from tfrecords_builder.errors import InputError


def _frame(num_patients=600, seed=0):
    """Patients with 1 to 6 images; common and rare labels; a fifth is the official test fold."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(num_patients), rng.integers(1, 7, num_patients))
    frame = pd.DataFrame({"patient": [f"p{i:04d}" for i in patients], "extra": ""})
    frame["fold"] = np.where(patients % 5 == 0, "test", "train_val")
    names = np.array(["No Finding", "Pneumothorax", "Cardiomegaly", "Pneumonia"], object)
    drawn = rng.choice(names, len(frame), p=[0.6, 0.25, 0.13, 0.02])
    for label in labels.LABELS:
        frame[label] = np.where(drawn == label, 1.0, np.nan)
    return frame


def _shares(frame, split, name):
    rows = frame[name] == 1
    return [float((split[rows] == s).mean()) for s in ("train", "validation", "test")]


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.1), (0.8, 0.2, 0.0)])
def test_patient_split(fractions):
    frame = _frame()
    split = splits.assign_splits(frame, "patient", fractions=fractions, seed=3)
    splits.check_disjoint(frame["patient"].to_numpy(), split)
    patients = pd.Series(split).groupby(frame["patient"]).first().value_counts(normalize=True)
    for name, fraction in zip(("train", "validation", "test"), fractions, strict=True):
        assert abs(patients.get(name, 0) - fraction) < 0.005
    for label, tolerance in (("No Finding", 0.03), ("Pneumothorax", 0.05), ("Cardiomegaly", 0.06), ("Pneumonia", 0.1)):
        np.testing.assert_allclose(_shares(frame, split, label), fractions, atol=tolerance, err_msg=label)


def test_deterministic_by_seed():
    frame = _frame()
    first = splits.assign_splits(frame, "patient", seed=1)
    assert (first == splits.assign_splits(frame, "patient", seed=1)).all()
    assert (first != splits.assign_splits(frame, "patient", seed=2)).any()
    shuffled = frame.sample(frac=1, random_state=0)
    by_patient = dict(zip(frame["patient"], first, strict=True))
    again = splits.assign_splits(shuffled, "patient", seed=1)
    assert all(by_patient[p] == s for p, s in zip(shuffled["patient"], again, strict=True))


def test_every_split_gets_a_rare_label():
    frame = _frame(40)
    for label in labels.LABELS:
        frame[label] = np.nan
    frame["No Finding"] = 1.0
    rare = frame["patient"].isin(frame["patient"].unique()[:3])
    frame.loc[rare, ["No Finding", "Pneumonia"]] = [0.0, 1.0]
    split = splits.assign_splits(frame, "patient")
    assert set(split[rare]) == {"train", "validation", "test"}


def test_official_split():
    frame = _frame()
    split = splits.assign_splits(frame, "official", seed=0)
    assert ((split == "test") == (frame["fold"] == "test")).all()
    patients = pd.Series(split).groupby(frame["patient"]).first()
    others = patients[patients != "test"]
    assert abs((others == "validation").mean() - 0.1) < 0.005
    frame["fold"] = "train_val"
    with pytest.raises(InputError, match="official fold has no row"):
        splits.assign_splits(frame, "official")


def test_official_folds_that_share_a_patient_are_refused():
    frame = _frame()
    frame.loc[0, "fold"] = "train_val"
    frame.loc[1, ["patient", "fold"]] = [frame.loc[0, "patient"], "test"]
    with pytest.raises(InputError, match="more than one split"):
        splits.assign_splits(frame, "official")


def test_image_split_leaks():
    frame = _frame()
    split = splits.assign_splits(frame, "image", seed=0)
    np.testing.assert_allclose(_shares(frame, split, "No Finding"), (0.8, 0.1, 0.1), atol=0.01)
    with pytest.raises(InputError):
        splits.check_disjoint(frame["patient"].to_numpy(), split)


@pytest.mark.parametrize("fractions", [(0.8, 0.1), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1), (0, 0.5, 0.5)])
def test_bad_fractions(fractions):
    with pytest.raises(InputError, match="--split_fractions"):
        splits.assign_splits(_frame(10), "patient", fractions=fractions)


def test_synthetic_images_are_exempt():
    splits.check_disjoint(np.array(["", ""], object), np.array(["train", "test"], object))
