"""Criteria by which the weights of an adapted classifier are chosen; higher is better.

source and target are balanced accuracies, entropy and density look at predictions for target images only. Both of
these take a network that predicts one class for everything for a good one: heed the warning of a collapse.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from tfcxr import metrics
from tfcxr.classifiers import choices, inference

_TEMPERATURE = 0.05
_ROWS_AT_ONCE = 1024


def criteria(source: inference.Outputs, target: inference.Outputs) -> dict[str, float | None]:
    """{"select/<criterion>": value} of outputs on the validation images of both domains."""
    return {
        "select/source": metrics.finite(source.balanced_accuracy()),
        "select/entropy": metrics.finite(-mean_entropy(target.probabilities)),
        "select/density": metrics.finite(soft_neighbourhood_density(target.probabilities)),
        "select/target": metrics.finite(target.balanced_accuracy()),
    }


def mean_entropy(probabilities: np.ndarray) -> float:
    """Mean entropy of the rows of float [N, K], in nats."""
    return float(special.entr(probabilities).sum(axis=1).mean())


def soft_neighbourhood_density(probabilities: np.ndarray) -> float:
    """How many neighbours the predictions have: the mean entropy of softmax(cosine similarity / 0.05) to the others.

    Saito et al., "Tune it the Right Way: Unsupervised Validation of Domain Adaptation via Soft Neighborhood Density",
    ICCV 2021, arXiv 2108.10860, section 3.

    Args:
        probabilities: float [N, K].

    Returns:
        Nats, in 0..log(N - 1); NaN for fewer than two rows.
    """
    if len(probabilities) < 2:
        return float("nan")
    unit = probabilities / np.linalg.norm(probabilities, axis=1, keepdims=True)
    total = 0.0
    for first in range(0, len(unit), _ROWS_AT_ONCE):
        scaled = unit[first : first + _ROWS_AT_ONCE] @ unit.T / _TEMPERATURE
        rows = np.arange(len(scaled))
        scaled[rows, first + rows] = -np.inf  # no image is its own neighbour
        total += special.entr(special.softmax(scaled, axis=1)).sum()
    return float(total / len(unit))


def best_by_criterion(history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """For each criterion, what `values` says of the evaluation that it would choose; None where it has no value."""
    chosen = {}
    for criterion in choices.CRITERIA:
        rows = [row for row in history if row.get(f"select/{criterion}") is not None]
        chosen[criterion] = values(max(rows, key=lambda row: row[f"select/{criterion}"])) if rows else None
    return chosen


def values(row: Mapping[str, Any]) -> dict[str, Any]:
    """Step, balanced accuracy on source and target validation, entropy (lower is better) and density in nats."""
    return {
        "step": row["step"],
        "source": row["select/source"],
        "entropy": None if row["select/entropy"] is None else -row["select/entropy"],
        "density": row["select/density"],
        "target": row["select/target"],
    }
