"""The metrics of a model whose labels do not exclude each other, and two such models on the same images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfcxr import metrics
from tfcxr.classifiers.calibration import BEST_F1, HALF
from tfcxr.evaluation import bootstrap
from tfcxr.evaluation.paired_test import Accuracy, describe_difference
from tfcxr.evaluation.predictions import Predictions
from tfrecords_builder.errors import InputError

MEASURES = ("roc_auc", "average_precision", "f1", "expected_calibration_error", "brier")
COMPARED = ("roc_auc", "average_precision", "expected_calibration_error", "brier")

_FEW_PATIENTS = 10


def summarise(
    predictions: Predictions,
    labels: Sequence[str],
    *,
    thresholds: Mapping[str, Mapping[str, float | None]] | None = None,
    mean_labels: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """The metrics of each label and their means, with 95% intervals: fractions; null where the images are lacking.

    Args:
        predictions: of one model.
        labels: names of its K labels.
        thresholds: see operating_points.Thresholds; F1 is at those of the best F1 where there are some, else at 0.5.
        mean_labels: labels of which the means are; none for all. Those with one value only are left out of them.
        resamples, seed: of the bootstrap over patients.

    Returns:
        {"num_images", "num_patients", "classes": the labels, "multilabel": True, "support": {label: {"images",
        "patients"} that have it}, "mean_of": labels, "f1_thresholds": {label: probability}, "reliability": {label: rows
        of bins}, "bootstrap", "warnings"} and for each of MEASURES {"macro": the mean, "macro_ci95", "per_class":
        {label: value}, "per_class_ci95"}.

    Raises:
        InputError: `mean_labels` has a label that the model does not know.
    """
    check_mean_labels(mean_labels, labels)
    members, probabilities = predictions.members, predictions.probabilities
    cuts = {name: (thresholds or {}).get(name, {}).get(BEST_F1, HALF) for name in labels}
    patients = bootstrap.PatientBootstrap(members, predictions.patients, resamples=resamples, seed=seed)
    at = np.array([np.inf if cut is None else cut for cut in cuts.values()])
    statistics = bootstrap.LabelStatistics(patients, members, probabilities, at)
    whole = statistics(np.ones((patients.num_patients, 1), np.float32))
    sampled = patients.sample(statistics)
    sides = count_holders(patients, members)
    holders = sides.min(axis=1)
    averaged = _find_averaged(members, labels, mean_labels)

    def measure(name: str) -> dict[str, Any]:
        values = whole[name][0]
        mean_ends: list[float] | None = None
        ends: list[list[float] | None] = [None] * len(labels)
        if sampled is not None and averaged.any():
            mean_ends = bootstrap.interval(sampled[name][:, averaged].mean(axis=1), holders=2)
        if sampled is not None:
            ends = [bootstrap.interval(sampled[name][:, k], holders[k]) for k in range(len(labels))]
        return {
            "macro": metrics.finite(values[averaged].mean()) if averaged.any() else None,
            "macro_ci95": mean_ends,
            "per_class": {label: metrics.finite(value) for label, value in zip(labels, values, strict=True)},
            "per_class_ci95": dict(zip(labels, ends, strict=True)),
        }

    return {
        "num_images": len(members),
        "num_patients": len({patient for patient in predictions.patients if patient}) or None,
        "classes": list(labels),
        "multilabel": True,
        "support": {
            label: {"images": int(images), "patients": int(number)}
            for label, images, number in zip(labels, members.sum(axis=0), sides[:, 1], strict=True)
        },
        "mean_of": [label for label, part in zip(labels, averaged, strict=True) if part],
        **{name: measure(name) for name in MEASURES},
        "f1_thresholds": cuts,
        "reliability": {
            label: metrics.reliability_of(members[:, k], probabilities[:, k]).rows() for k, label in enumerate(labels)
        },
        "bootstrap": None if sampled is None else patients.describe(),
        "warnings": _warnings(members, probabilities, labels, holders if sampled is not None else None),
    }


def check_mean_labels(mean_labels: Sequence[str], labels: Sequence[str]) -> None:
    """Raises InputError if a label of --mean_labels is none of the model's."""
    for name in mean_labels:
        if name not in labels:
            raise InputError(f"--mean_labels={name}: the model has no such label; it has {', '.join(labels)}")


def compare(
    predictions: Predictions,
    other: Predictions,
    labels: Sequence[str],
    *,
    mean_labels: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares a model with another one, image by image; see paired_test.compare.

    Args:
        predictions: of the model.
        other: of the other model, on the same images in the same order.
        labels: names of the K labels, which both have.
        mean_labels: as of `summarise`.
        resamples, seed: of the bootstrap over patients.

    Returns:
        For each of COMPARED, of the means, {"this", "other", "difference": {"value", "ci95"}, "p_value"}; "per_class":
        {measure: {label: the same}}; "mean_of": labels. Fractions, difference = this - other; null where the images for
        a number are lacking.
    """
    members = predictions.members
    patients = bootstrap.PatientBootstrap(members, predictions.patients, resamples=resamples, seed=seed)
    half = np.full(len(labels), HALF)
    models = [bootstrap.LabelStatistics(patients, members, one.probabilities, half) for one in (predictions, other)]
    this, that = (model(np.ones((patients.num_patients, 1), np.float32)) for model in models)

    def differences(weights: np.ndarray) -> dict[str, np.ndarray]:
        ours, theirs = (model(weights) for model in models)
        return {name: ours[name] - theirs[name] for name in COMPARED}

    sampled = patients.sample(differences)
    holders = count_holders(patients, members).min(axis=1)
    averaged = _find_averaged(members, labels, mean_labels)

    def row(name: str, columns: np.ndarray, num_holders: int) -> dict[str, Any]:
        a, b = (float(values[name][0, columns].mean()) if columns.any() else np.nan for values in (this, that))
        drawn = None if sampled is None or not columns.any() else sampled[name][:, columns].mean(axis=1)
        return describe_difference(a, b, drawn, num_holders)

    own = np.eye(len(labels), dtype=bool)
    return {
        **{name: row(name, averaged, 2) for name in COMPARED},
        "per_class": {
            name: {label: row(name, own[k], holders[k]) for k, label in enumerate(labels)} for name in COMPARED
        },
        "mean_of": [label for label, part in zip(labels, averaged, strict=True) if part],
    }


def sample_means(
    groups: Mapping[Any, Sequence[Predictions]], labels: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> dict[Any, Accuracy] | None:
    """Samples the mean ROC-AUC of groups of models; see paired_test.sample_accuracies.

    Args:
        groups: name -> predictions of its models; all of these K labels, on the same images in the same order.
        labels: their names; each has both values.
        resamples, seed: of the bootstrap over patients.

    Returns:
        name -> its mean, and in `parts` its labels, but for those that one patient only has or lacks; None if there are
        too few patients to draw from.
    """
    first = next(iter(groups.values()))[0]
    members = first.members
    patients = bootstrap.PatientBootstrap(members, first.patients, resamples=resamples, seed=seed)
    rankings = {
        name: [
            [bootstrap.Ranking(members[:, k], one.probabilities[:, k], patients.patient) for k in range(len(labels))]
            for one in models
        ]
        for name, models in groups.items()
    }

    def aucs(weights: np.ndarray) -> dict[Any, np.ndarray]:
        """Of each group, the mean over its models: [B, K]."""
        with np.errstate(divide="ignore", invalid="ignore"):  # where a value was not drawn
            return {
                name: np.mean([[ranking(weights)[0] for ranking in of_model] for of_model in models], axis=0).T
                for name, models in rankings.items()
            }

    sampled = patients.sample(aucs)
    holders = count_holders(patients, members).min(axis=1)
    if sampled is None or bootstrap.interval(next(iter(sampled.values())).mean(axis=1), 2) is None:
        return None
    whole = aucs(np.ones((patients.num_patients, 1), np.float32))
    return {
        name: Accuracy(
            float(whole[name][0].mean()),
            sampled[name].mean(axis=1),
            {
                label: Accuracy(float(whole[name][0, k]), sampled[name][:, k])
                for k, label in enumerate(labels)
                if holders[k] > 1
            },
        )
        for name in groups
    }


def count_holders(patients: bootstrap.PatientBootstrap, members: np.ndarray) -> np.ndarray:
    """Patients with an image without (column 0) and with (column 1) each label, int64 [K, 2].

    A label's numbers rest on the fewer of the two.
    """
    return np.stack([patients.holders(is_label.astype(int), 2) for is_label in members.T])


def _find_averaged(members: np.ndarray, labels: Sequence[str], mean_labels: Sequence[str]) -> np.ndarray:
    """Which labels the means are of, bool [K]: those wanted (none: all) that have both values."""
    return metrics.have_both(members) & np.array([not mean_labels or name in mean_labels for name in labels])


def _warnings(
    members: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], holders: np.ndarray | None
) -> list[str]:
    """`holders`: patients on whom each label's numbers rest; None if there are no intervals at all."""
    lacking = {
        "no image has": [label for label, found in zip(labels, members.any(axis=0), strict=True) if not found],
        "all images have": [label for label, found in zip(labels, members.all(axis=0), strict=True) if found],
    }
    warnings = [
        f"{who} {', '.join(names)}: no numbers of {'it' if len(names) == 1 else 'them'}, and no part in the means"
        for who, names in lacking.items()
        if names
    ]
    same = [label for label, width in zip(labels, np.ptp(probabilities, axis=0), strict=True) if width == 0]
    if same:
        warnings.append(f"the model has collapsed: for all images it gives the same probability of {', '.join(same)}")
    if holders is None:
        return [*warnings, "there are too few patients for intervals"]
    few = [f"{label} ({number})" for label, number in zip(labels, holders, strict=True) if 0 < number < _FEW_PATIENTS]
    if few:
        warnings.append(
            f"few patients have, or lack, {', '.join(few)}, so that intervals of such a label are rough or missing"
        )
    return warnings
