"""The metrics of one model on one split, as the JSON values of result.json."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfcxr import metrics
from tfcxr.evaluation import bootstrap
from tfcxr.evaluation.predictions import Predictions
from tfcxr.percentages import percent

_FEW_PATIENTS = 10
_FEW_IMAGES = 10  # of a class; of fewer nothing is said
_HARDLY = 0.5  # a recall below so much of chance
_FAR = 0.25  # a share of predictions that is so far from the share of images


def summarise(
    predictions: Predictions, classes: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """The metrics of 6-interfaces.md, with 95% intervals: fractions; null where the images for a number are lacking.

    Args:
        predictions: of one model.
        classes: names of the K classes.
        resamples, seed: of the bootstrap over patients.
    """
    number = len(classes)
    labels, predicted, probabilities = predictions.labels, predictions.predicted, predictions.probabilities
    table = metrics.confusion_matrix(labels, predicted, number)
    patients = bootstrap.PatientBootstrap(labels, predictions.patients, resamples=resamples, seed=seed)
    holders = patients.holders(labels, number)
    sampled = patients.sample(bootstrap.ModelStatistics(patients, labels, predicted, probabilities))

    def interval(name: str, k: int | None = None) -> list[float] | None:
        """Of a statistic's column `k`, or of its mean over the classes."""
        if sampled is None:
            return None
        values = sampled[name]
        if k is not None:
            return bootstrap.interval(values[:, k], holders[k])
        return bootstrap.interval(values if values.ndim == 1 else values.mean(axis=1), holders.min())

    def per_class(name: str, values: np.ndarray) -> dict[str, Any]:
        return {
            "macro": metrics.finite(values.mean()),
            "macro_ci95": interval(name),
            "per_class": {classes[k]: metrics.finite(value) for k, value in enumerate(values)},
            "per_class_ci95": {classes[k]: interval(name, k) for k in range(number)},
        }

    support = table.sum(axis=1)
    recall = metrics.recalls_of_tables(table)
    bins = metrics.reliability(labels, probabilities)
    return {
        "num_images": len(labels),
        "num_patients": len({patient for patient in predictions.patients if patient}) or None,
        "classes": list(classes),
        "balanced_accuracy": {
            "value": metrics.finite(metrics.balanced_accuracy(labels, predicted, number)),
            "ci95": interval("balanced_accuracy"),
        },
        "recall": {
            name: {"value": metrics.finite(recall[k]), "ci95": interval("recall", k), "support": int(support[k])}
            for k, name in enumerate(classes)
        },
        "roc_auc": per_class("roc_auc", metrics.roc_auc(labels, probabilities)),
        "average_precision": per_class("average_precision", metrics.average_precision(labels, probabilities)),
        "f1": per_class("f1", metrics.f1_of_tables(table)),
        "expected_calibration_error": bins.expected_calibration_error,
        "reliability": bins.rows(),
        "confusion_matrix": table.tolist(),
        "bootstrap": None if sampled is None else patients.describe(),
        "warnings": _warnings(table, classes, holders if sampled is not None else None),
    }


def _warnings(table: np.ndarray, classes: Sequence[str], holders: np.ndarray | None) -> list[str]:
    """`holders`: patients of each class; None if there are no intervals at all."""
    warnings = [f"class {classes[k]} has no image" for k in np.flatnonzero(table.sum(axis=1) == 0).tolist()]
    predicted = np.flatnonzero(table.sum(axis=0))
    if len(predicted) == 1:
        warnings.append(f"the model has collapsed: it takes every image for {classes[predicted[0]]}")
    else:
        warnings += _near_collapse(table, classes)
    if holders is None:
        return [*warnings, "there are too few patients for intervals"]
    for k in np.flatnonzero((holders > 0) & (holders < _FEW_PATIENTS)).tolist():
        who = "1 patient" if holders[k] == 1 else f"{holders[k]} patients"
        warnings.append(f"the images of class {classes[k]} are of {who} only, so that its interval is rough or missing")
    return warnings


def _near_collapse(table: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Says which classes the model hardly recognises, or takes far too many or too few images for.

    Both can hide behind a balanced accuracy that looks well: of two classes, recalls of 95% and 17% make 56%.

    Args:
        table: confusion matrix [K, K], true classes in rows.
        classes: names of the K classes.
    """
    support, chance = table.sum(axis=1), 1 / len(classes)
    recall = metrics.recalls_of_tables(table)
    warnings = [
        f"the model hardly recognises class {classes[k]}: {percent(recall[k])}% of its {support[k]} images, where "
        f"guessing would reach {percent(chance)}%"
        for k in np.flatnonzero(support >= _FEW_IMAGES).tolist()
        if recall[k] < _HARDLY * chance
    ]
    if table.sum() < 2 * _FEW_IMAGES:
        return warnings
    true, said = support / table.sum(), table.sum(axis=0) / table.sum()
    return warnings + [
        f"the model takes {percent(said[k])}% of the images for {classes[k]}, but {percent(true[k])}% are of that class"
        for k in np.flatnonzero(np.abs(said - true) > _FAR).tolist()
    ]
