"""Subgroups: who is in which, numbers by hand, nulls where a class is missing."""

import numpy as np
import pandas as pd
import pytest

from tfcxr.evaluation import predictions, subgroups

CLASSES = ["No Finding", "Finding"]


def test_who_is_in_which_group():
    images = pd.DataFrame(
        {
            "sex": ["M", "Female", "", "male", "f"],
            "age": [0, 39, 40, 79, 80],
            "view": ["PA", "AP", "", "LL", "PA"],
        }
    )
    groups = subgroups.group_images(images)
    assert groups["sex"].tolist() == ["male", "female", "unknown", "male", "female"]
    assert groups["age"].tolist() == ["0-39", "0-39", "40-59", "60-79", "80+"]
    assert groups["view"].tolist() == ["PA", "AP", "unknown", "LL", "PA"]
    unknown = pd.DataFrame({"sex": ["", "O"], "age": [-1, -1], "view": ["", ""]})
    assert subgroups.group_images(unknown) == {}


def test_numbers_by_hand():
    # 24 women, a patient each: 12 of each class, 9 and 6 right. 4 men of 2 patients: one class only, 3 right.
    labels = np.array([0] * 12 + [1] * 12 + [0] * 4)
    predicted = np.array([0] * 9 + [1] * 3 + [1] * 6 + [0] * 6 + [0, 0, 0, 1])
    patients = [f"w{i}" for i in range(24)] + ["m0", "m0", "m1", "m1"]
    images = pd.DataFrame({"sex": ["F"] * 24 + ["M"] * 4, "age": [50] * 28, "view": [""] * 28})
    made = predictions.Predictions(patients, patients, labels, np.where(np.eye(2)[predicted] == 1, 0.8, 0.2))
    women, men, age = subgroups.evaluate_subgroups(images, made, CLASSES)
    assert [(row["attribute"], row["group"]) for row in (women, men, age)] == [
        ("sex", "female"),
        ("sex", "male"),
        ("age", "40-59"),
    ]
    assert (women["num_images"], women["num_patients"], women["small"]) == (24, 24, False)
    assert women["balanced_accuracy"]["value"] == pytest.approx((9 / 12 + 6 / 12) / 2)
    low, high = women["balanced_accuracy"]["ci95"]
    # The spread of two means of 12: sqrt((0.75 x 0.25 + 0.5 x 0.5) / 12) / 2 = 0.095, twice on either side.
    assert 0.625 - low == pytest.approx(1.96 * 0.095, abs=0.05)
    assert high - 0.625 == pytest.approx(1.96 * 0.095, abs=0.05)
    assert (men["num_images"], men["num_patients"], men["small"]) == (4, 2, True)
    assert men["balanced_accuracy"] == {"value": None, "ci95": None}
    assert men["recall"]["Finding"] == {"value": None, "ci95": None, "support": 0}
    assert men["recall"]["No Finding"]["value"] == 0.75
    assert men["recall"]["No Finding"]["ci95"] == [0.5, 1.0]
    # A group of everyone has the numbers of the whole.
    assert age["recall"]["No Finding"]["value"] == pytest.approx(12 / 16)


def test_a_class_of_one_patient_has_a_value_but_no_interval():
    images = pd.DataFrame({"sex": ["F"] * 4, "age": [-1] * 4, "view": [""] * 4})
    made = predictions.Predictions(
        list("abcd"), ["p", "q", "r", "r"], np.array([0, 0, 1, 1]), np.array([[0.9, 0.1]] * 3 + [[0.2, 0.8]])
    )
    (row,) = subgroups.evaluate_subgroups(images, made, CLASSES, resamples=100)
    assert row["recall"]["Finding"] == {"value": 0.5, "ci95": None, "support": 2}
    assert row["balanced_accuracy"] == {"value": 0.75, "ci95": None}
    assert row["recall"]["No Finding"]["ci95"] == [1.0, 1.0]
