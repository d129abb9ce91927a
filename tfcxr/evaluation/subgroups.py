"""Balanced accuracy and recalls by sex, age band and view, where the records have them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfcxr import metrics
from tfcxr.evaluation import bootstrap
from tfcxr.evaluation.predictions import Predictions

SMALL = 20  # images; groups with fewer are marked
UNKNOWN = "unknown"
_SEXES = {"f": "female", "m": "male"}
_AGE_BANDS = {"0-39": 40, "40-59": 60, "60-79": 80, "80+": np.inf}  # name: first age beyond it


def group_images(images: pd.DataFrame) -> dict[str, pd.Series]:
    """{attribute: each image's group} of the frame of `predictions.read_images`, less attributes unknown for all."""
    attributes = {
        "sex": images["sex"].str.strip().str.lower().str[:1].map(_SEXES).fillna(UNKNOWN),
        "age": images["age"].map(_age_band),
        "view": images["view"].replace("", UNKNOWN),
    }
    return {name: groups for name, groups in attributes.items() if (groups != UNKNOWN).any()}


def list_groups(images: pd.DataFrame) -> list[tuple[str, str, np.ndarray]]:
    """(attribute, group, which images are in it, bool [N]) of each group that has an image, the unknown last."""
    groups: list[tuple[str, str, np.ndarray]] = []
    for attribute, values in group_images(images).items():
        names = sorted(values.unique(), key=lambda name: (name == UNKNOWN, name))
        groups += [(attribute, name, (values == name).to_numpy()) for name in names]
    return groups


def _age_band(age: float) -> str:
    return UNKNOWN if age < 0 else next(name for name, end in _AGE_BANDS.items() if age < end)


def evaluate_subgroups(
    images: pd.DataFrame, predictions: Predictions, classes: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> list[dict[str, Any]]:
    """A row per group that has an image, the unknown last.

    The patients of the whole fold are resampled. Resamples in which the group lacks a class are left out of the
    interval of what needs that class (see `bootstrap.interval`).

    Args:
        images: frame of `predictions.read_images`, in the order of the predictions.
        predictions: of one model.
        classes: names of the K classes.
        resamples, seed: of the bootstrap over patients.

    Returns:
        {"attribute", "group", "num_images", "num_patients" (null if unknown), "small" (fewer than SMALL images),
        "balanced_accuracy": {"value", "ci95"}, "recall": {class: {"value", "ci95", "support"}}} each; fractions, null
        for a class that the group lacks and for the balanced accuracy without it.
    """
    number = len(classes)
    groups = list_groups(images)
    cells = predictions.labels * number + predictions.predicted
    patients = bootstrap.PatientBootstrap(predictions.labels, predictions.patients, resamples=resamples, seed=seed)
    counts = [patients.count(np.where(member, cells, -1), number**2) for _, _, member in groups]

    def recalls(weights: np.ndarray) -> dict[str, np.ndarray]:
        tables = [bootstrap.confusion_tables(count, weights) for count in counts]
        return {str(i): metrics.recalls_of_tables(table) for i, table in enumerate(tables)}

    sampled = patients.sample(recalls) if groups else None
    rows = []
    for i, (attribute, name, member) in enumerate(groups):
        recall = metrics.recalls(predictions.labels[member], predictions.predicted[member], number)
        support = np.bincount(predictions.labels[member], minlength=number)
        holders = patients.holders(np.where(member, predictions.labels, -1), number)
        accuracy_interval: list[float] | None = None
        recall_intervals: list[list[float] | None] = [None] * number
        if sampled is not None:
            drawn = sampled[str(i)]
            accuracy_interval = bootstrap.interval(drawn.mean(axis=1), holders.min())
            recall_intervals = [bootstrap.interval(drawn[:, k], holders[k]) for k in range(number)]
        known = {patient for patient in np.asarray(predictions.patients, object)[member] if patient}
        rows.append(
            {
                "attribute": attribute,
                "group": name,
                "num_images": int(member.sum()),
                "num_patients": len(known) or None,
                "small": bool(member.sum() < SMALL),
                "balanced_accuracy": {"value": metrics.finite(recall.mean()), "ci95": accuracy_interval},
                "recall": {
                    label: {"value": metrics.finite(recall[k]), "ci95": recall_intervals[k], "support": int(support[k])}
                    for k, label in enumerate(classes)
                },
            }
        )
    return rows
