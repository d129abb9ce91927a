"""Thresholds and what they give, by hand; thresholds of an earlier evaluation, and those that are refused."""

import copy
import json

import numpy as np
import pytest

from tfcxr.evaluation import operating_points, predictions
from tfrecords_builder.errors import InputError

CLASSES = ["No Finding", "Finding"]


def make(labels, positive):
    positive = np.asarray(positive, float)
    ids = [str(i) for i in range(len(labels))]
    return predictions.Predictions(ids, ids, np.asarray(labels), np.stack([1 - positive, positive], axis=1))


# Ten images without the finding, four of them above 0.51; nine with it from 0.51 up in steps of 0.06, and one at 0.
WITHOUT = [0.05, 0.15, 0.25, 0.35, 0.45, 0.5, 0.65, 0.75, 0.85, 0.95]
MADE = make([0] * 10 + [1] * 10, [*WITHOUT, *np.linspace(0.51, 0.99, 9), 0.0])


def test_which_class_is_positive():
    assert operating_points.positive_classes(CLASSES) == ["Finding"]
    assert operating_points.positive_classes(CLASSES[::-1]) == ["Finding"]
    assert operating_points.positive_classes(["a", "b"]) == ["b"]
    assert operating_points.positive_classes(["a", "b", "c"]) == ["a", "b", "c"]


def test_thresholds_and_rows_by_hand():
    thresholds = operating_points.choose_thresholds(MADE, CLASSES)
    assert list(thresholds["Finding"]) == ["Youden's J", "sensitivity 0.9", "specificity 0.9"]
    assert list(thresholds["Finding"].values()) == pytest.approx([0.51, 0.51, 0.87])
    rows = operating_points.apply_thresholds(thresholds, MADE, CLASSES)
    assert rows[0] == pytest.approx(
        {
            "class": "Finding",
            "criterion": "Youden's J",
            "threshold": 0.51,
            "sensitivity": 0.9,
            "specificity": 0.6,
            "ppv": 9 / 13,
            "npv": 6 / 7,
            "prevalence": 0.5,
        }
    )
    assert rows[2]["specificity"] == pytest.approx(0.9)
    assert rows[2]["sensitivity"] == pytest.approx(0.3)


def test_no_threshold_calls_nothing_positive():
    # All scores are equal: no threshold but infinity has a specificity of 0.9.
    made = make([0, 0, 1, 1], [0.5] * 4)
    thresholds = operating_points.choose_thresholds(made, CLASSES)
    assert thresholds["Finding"]["specificity 0.9"] is None
    row = operating_points.apply_thresholds(thresholds, made, CLASSES)[2]
    assert (row["sensitivity"], row["specificity"], row["ppv"], row["npv"]) == (0, 1, None, 0.5)


def test_a_class_alone_has_no_operating_point():
    assert operating_points.choose_thresholds(make([0, 0], [0.1, 0.2]), CLASSES) == {}


def test_thresholds_of_an_earlier_evaluation(tmp_path):
    thresholds = operating_points.choose_thresholds(MADE, CLASSES)
    rows = operating_points.apply_thresholds(thresholds, MADE, CLASSES)
    points = {"chosen_on": {"path": None}, "optimistic": True, "rows": rows}
    result = {"classes": CLASSES, "model_digest": "m", "split": "validation", "records": {"digest": "r"}}
    result["operating_points"] = points

    def read(value, **arguments):
        (tmp_path / "result.json").write_text(json.dumps(value))
        return operating_points.read_thresholds(tmp_path, **{"classes": CLASSES, "model_digest": "m", **arguments})

    assert read(result) == (
        thresholds,
        {"path": str(tmp_path), "split": "validation", "records_digest": "r"},
    )
    borrowed = copy.deepcopy(result)
    borrowed["operating_points"]["chosen_on"]["path"] = "elsewhere"
    for value, arguments, words in [
        (result, {"model_digest": "n"}, "of another model"),
        (result, {"classes": ["a", "b"]}, "its classes are No Finding, Finding"),
        (borrowed, {}, "from another evaluation itself"),
        ({"classes": CLASSES}, {}, "not written by evaluate"),
        ([], {}, "not written by evaluate"),
    ]:
        with pytest.raises(InputError, match=words):
            read(value, **arguments)
