"""result.json's metrics: values by hand, nulls, warnings."""

import json

import numpy as np
import pytest

from tfcxr.evaluation import predictions, summary

CLASSES = ["No Finding", "Finding"]


def make(labels, positive, patients=None):
    positive = np.asarray(positive, float)
    return predictions.Predictions(
        ids=[str(i) for i in range(len(labels))],
        patients=patients or [f"p{i}" for i in range(len(labels))],
        labels=np.asarray(labels),
        probabilities=np.stack([1 - positive, positive], axis=1),
    )


def test_values_by_hand():
    # Predicted 0 1 1 1 0 of labels 0 0 1 1 1.
    result = summary.summarise(make([0, 0, 1, 1, 1], [0.2, 0.6, 0.7, 0.9, 0.4]), CLASSES, resamples=100)
    assert result["num_images"] == result["num_patients"] == 5
    assert result["confusion_matrix"] == [[1, 1], [1, 2]]
    assert result["balanced_accuracy"]["value"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert result["f1"]["per_class"] == pytest.approx({"No Finding": 1 / 2, "Finding": 2 / 3})
    assert result["f1"]["macro"] == pytest.approx(7 / 12)
    # 5 of 6 pairs are in order; the positives rank 1, 2 and 4.
    assert result["roc_auc"]["per_class"]["Finding"] == pytest.approx(5 / 6)
    assert result["average_precision"]["per_class"]["Finding"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    for metric in ("roc_auc", "average_precision", "f1"):
        low, high = result[metric]["macro_ci95"]
        assert low <= result[metric]["macro"] <= high
        assert set(result[metric]["per_class_ci95"]) == set(CLASSES)
    assert sum(row["count"] for row in result["reliability"]) == 5
    assert result["reliability"][9] == {
        "low": pytest.approx(0.6),
        "high": pytest.approx(2 / 3),
        "count": 2,
        "confidence": pytest.approx(0.6),
        "accuracy": 0.0,
    }
    assert result["bootstrap"]["resamples"] == 100
    assert result["warnings"] == [
        "the images of class No Finding are of 2 patients only, so that its interval is rough or missing",
        "the images of class Finding are of 3 patients only, so that its interval is rough or missing",
    ]


def test_a_class_without_an_image_is_null_and_a_warning():
    result = summary.summarise(make([0] * 12, [0.1, 0.4] * 6), CLASSES)
    assert result["recall"]["No Finding"] == {"value": 1.0, "ci95": [1.0, 1.0], "support": 12}
    assert result["recall"]["Finding"] == {"value": None, "ci95": None, "support": 0}
    assert result["balanced_accuracy"] == {"value": None, "ci95": None}
    for metric in ("roc_auc", "average_precision", "f1"):
        assert result[metric]["macro"] is None
        assert result[metric]["macro_ci95"] is None
    assert result["warnings"] == [
        "class Finding has no image",
        "the model has collapsed: it takes every image for No Finding",
    ]
    json.dumps(result, allow_nan=False)


def test_a_class_that_is_hardly_recognised_is_a_warning():
    # 2 of 12 findings are found: 16.7%, and the balanced accuracy is 58.3% all the same.
    scores = [0.1] * 12 + [0.9] * 2 + [0.1] * 10
    result = summary.summarise(make([0] * 12 + [1] * 12, scores), CLASSES)
    assert result["balanced_accuracy"]["value"] == pytest.approx(0.5833, abs=1e-4)
    assert result["warnings"] == [
        "the model hardly recognises class Finding: 16.7% of its 12 images, where guessing would reach 50.0%",
        "the model takes 91.7% of the images for No Finding, but 50.0% are of that class",
        "the model takes 8.3% of the images for Finding, but 50.0% are of that class",
    ]
    # A quarter of chance more, and shares that are near the true ones: nothing is said.
    result = summary.summarise(make([0] * 12 + [1] * 12, [0.1] * 8 + [0.9] * 4 + [0.9] * 6 + [0.1] * 6), CLASSES)
    assert result["warnings"] == []


def test_one_patient_has_no_interval():
    result = summary.summarise(make([0, 1, 1], [0.1, 0.9, 0.2], ["p"] * 3), CLASSES)
    assert result["balanced_accuracy"] == {"value": pytest.approx(0.75), "ci95": None}
    assert result["bootstrap"] is None
    assert result["warnings"] == ["there are too few patients for intervals"]
    # One patient has all images of a class: no interval for it, nor for what rests on it.
    result = summary.summarise(make([0, 0, 1, 1], [0.1, 0.9, 0.2, 0.8], ["p", "q", "r", "r"]), CLASSES)
    assert result["recall"]["No Finding"]["ci95"] is not None
    assert result["recall"]["Finding"]["ci95"] is None
    assert result["balanced_accuracy"]["ci95"] is None
