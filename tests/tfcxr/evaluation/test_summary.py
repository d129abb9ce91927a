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
        "class No Finding has images of 2 patients: its intervals are rough or none",
        "class Finding has images of 3 patients: its intervals are rough or none",
    ]


def test_a_class_without_an_image_is_null_and_a_warning():
    result = summary.summarise(make([0] * 12, [0.1, 0.4] * 6), CLASSES)
    assert result["recall"]["No Finding"] == {"value": 1.0, "ci95": [1.0, 1.0], "support": 12}
    assert result["recall"]["Finding"] == {"value": None, "ci95": None, "support": 0}
    assert result["balanced_accuracy"] == {"value": None, "ci95": None}
    for metric in ("roc_auc", "average_precision", "f1"):
        assert result[metric]["macro"] is None
        assert result[metric]["macro_ci95"] is None
    assert result["warnings"] == ["class Finding has no image", "collapsed: every image is predicted as No Finding"]
    json.dumps(result, allow_nan=False)


def test_one_patient_has_no_interval():
    result = summary.summarise(make([0, 1, 1], [0.1, 0.9, 0.2], ["p"] * 3), CLASSES)
    assert result["balanced_accuracy"] == {"value": pytest.approx(0.75), "ci95": None}
    assert result["bootstrap"] is None
    assert result["warnings"] == ["too few patients for intervals"]
    # One patient has all images of a class: no interval for it, nor for what rests on it.
    result = summary.summarise(make([0, 0, 1, 1], [0.1, 0.9, 0.2, 0.8], ["p", "q", "r", "r"]), CLASSES)
    assert result["recall"]["No Finding"]["ci95"] is not None
    assert result["recall"]["Finding"]["ci95"] is None
    assert result["balanced_accuracy"]["ci95"] is None
