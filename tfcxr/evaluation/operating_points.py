"""Operating points: what a classifier does at a threshold chosen for a purpose.

A class is against the rest, and an image is called positive where the class's probability reaches the threshold. Two
classes have one table, of the class that is not "No Finding" (else of the second); more classes, and labels that do not
exclude each other, have one each.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

from tfcxr import metrics
from tfcxr.classifiers.calibration import BEST_F1
from tfcxr.evaluation.predictions import Predictions
from tfrecords_builder import files, labels
from tfrecords_builder.errors import InputError

YOUDEN = "Youden's J"
AT_SENSITIVITY = "sensitivity 0.9"
AT_SPECIFICITY = "specificity 0.9"
_TARGET = 0.9

# {class: {criterion: threshold}}; None: no image is called positive.
Thresholds = Mapping[str, Mapping[str, float | None]]


def positive_classes(classes: Sequence[str], *, multilabel: bool = False) -> list[str]:
    """The classes or labels that have a table of operating points."""
    if multilabel or len(classes) != 2:
        return list(classes)
    return [classes[0] if classes[1] == labels.NO_FINDING else classes[1]]


def choose_thresholds(predictions: Predictions, classes: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """The thresholds that these images suggest; a class without an image, or without one of the rest, is left out.

    Per class: the largest sensitivity + specificity - 1 (Youden 1950); the largest specificity at which sensitivity is
    0.9 or more; the largest sensitivity at which specificity is 0.9 or more. Per label, first, the largest F1.
    """
    chosen = {}
    for name in positive_classes(classes, multilabel=predictions.multilabel):
        k = classes.index(name)
        is_class = predictions.members[:, k]
        if not 0 < is_class.sum() < len(is_class):
            continue
        # From "none is positive" (threshold infinity) on, sensitivity grows and specificity falls.
        curve = sklearn_metrics.roc_curve(is_class, predictions.probabilities[:, k], drop_intermediate=False)
        false_positive_rate, sensitivity, thresholds = curve
        places = {
            YOUDEN: np.argmax(sensitivity - false_positive_rate),
            AT_SENSITIVITY: np.argmax(sensitivity >= _TARGET),
            AT_SPECIFICITY: np.flatnonzero(1 - false_positive_rate >= _TARGET)[-1],
        }
        if predictions.multilabel:
            called = sensitivity * is_class.sum() + false_positive_rate * (~is_class).sum()
            places = {BEST_F1: np.argmax(2 * sensitivity * is_class.sum() / (is_class.sum() + called)), **places}
        chosen[name] = {criterion: metrics.finite(thresholds[place]) for criterion, place in places.items()}
    return chosen


def apply_thresholds(thresholds: Thresholds, predictions: Predictions, classes: Sequence[str]) -> list[dict[str, Any]]:
    """A row per class and criterion: class, criterion, threshold, sensitivity, specificity, ppv, npv, prevalence.

    Fractions; None where there is no image to divide by. PPV and NPV hold for the prevalence of these images only.
    """
    rows = []
    for name, criteria in thresholds.items():
        k = classes.index(name)
        is_class = predictions.members[:, k]
        for criterion, threshold in criteria.items():
            called = predictions.probabilities[:, k] >= (np.inf if threshold is None else threshold)
            rows.append(
                {
                    "class": name,
                    "criterion": criterion,
                    "threshold": threshold,
                    "sensitivity": _share(called, is_class),
                    "specificity": _share(~called, ~is_class),
                    "ppv": _share(is_class, called),
                    "npv": _share(~is_class, ~called),
                    "prevalence": float(is_class.mean()),
                }
            )
    return rows


def _share(hits: np.ndarray, among: np.ndarray) -> float | None:
    return float(hits[among].mean()) if among.any() else None


def read_thresholds(
    folder: str | os.PathLike,
    *,
    classes: Sequence[str],
    model_digest: str,
    ten_crop: bool = False,
    flag: str = "--thresholds_from",
) -> tuple[dict[str, dict[str, float | None]], dict[str, Any]]:
    """The thresholds that an earlier evaluation of the same model chose.

    Args:
        folder: output folder of that evaluation.
        classes: names the model's classes have.
        model_digest: of the model's weights.
        ten_crop: whether they are for means over ten crops.
        flag: that named the folder, for messages.

    Returns:
        The thresholds, and where they were chosen: {"path", "split", "records_digest"}.

    Raises:
        InputError: no evaluation there, of another model or other crops, or one that took its thresholds from
            elsewhere.
    """
    flag = f"{flag}={folder}"
    result = files.read_json(pathlib.Path(folder) / "result.json")
    try:
        points, found = result["operating_points"], result["classes"]
        digest, split, records = result["model_digest"], result["split"], result["records"]["digest"]
        thresholds: dict[str, dict[str, float | None]] = {}
        for row in points["rows"]:
            value = row["threshold"]
            thresholds.setdefault(row["class"], {})[row["criterion"]] = None if value is None else float(value)
        borrowed = points["chosen_on"]["path"] is not None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{flag}: its result.json was not written by evaluate, or by an older one") from error
    if digest != model_digest:
        raise InputError(f"{flag}: holds an evaluation of another model; thresholds are a model's own")
    if result.get("ten_crop", False) != ten_crop:
        ours, theirs = ("ten crops", "the centre") if ten_crop else ("the centre", "ten crops")
        raise InputError(f"{flag}: is of {theirs} of each image, this of {ours}; give both the same --ten_crop")
    if list(found) != list(classes) or not set(thresholds) <= set(classes):
        raise InputError(f"{flag}: its classes are {', '.join(found)}, the model's are {', '.join(classes)}")
    if borrowed:
        raise InputError(f"{flag}: took its thresholds from another evaluation itself; name that one")
    return thresholds, {"path": str(folder), "split": split, "records_digest": records}
