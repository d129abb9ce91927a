"""Criteria by which the weights of an adapted classifier are chosen; higher is better.

source and target are balanced accuracies; the others look at predictions for target images only. Of these, entropy and
density take a network that predicts one class for everything for a good one. infomax, bnm and balance do not: they want
predictions that are certain, of all classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from tfcxr import metrics
from tfcxr.classifiers import choices, inference

_TEMPERATURE = 0.05
_ROWS_AT_ONCE = 1024


def criteria(
    source: inference.Outputs, target: inference.Outputs, expected_shares: np.ndarray
) -> dict[str, float | None]:
    """{"select/<criterion>": value} of outputs on the validation images of both domains.

    `expected_shares`: float [K], of the classes in the target, as far as is known.
    """
    return {
        "select/source": metrics.finite(source.balanced_accuracy()),
        "select/entropy": metrics.finite(-mean_entropy(target.probabilities)),
        "select/density": metrics.finite(soft_neighbourhood_density(target.probabilities)),
        "select/infomax": metrics.finite(mutual_information(target.probabilities)),
        "select/bnm": metrics.finite(nuclear_norm(target.probabilities)),
        "select/balance": metrics.finite(-entropy_and_imbalance(target.probabilities, expected_shares)),
        "select/target": metrics.finite(target.balanced_accuracy()),
    }


def mean_entropy(probabilities: np.ndarray) -> float:
    """Mean entropy of the rows of float [N, K], in nats."""
    return float(special.entr(probabilities).sum(axis=1).mean())


def mutual_information(probabilities: np.ndarray) -> float:
    """Of images and predicted classes: the entropy of the mean prediction less the mean entropy of the predictions.

    Krause et al., "Discriminative Clustering by Regularized Information Maximization", NeurIPS 2010, equation 2 without
    its regulariser.

    Args:
        probabilities: float [N, K].

    Returns:
        Nats in 0..log K; 0 where all images get the same prediction.
    """
    return float(special.entr(probabilities.mean(axis=0)).sum()) - mean_entropy(probabilities)


def nuclear_norm(probabilities: np.ndarray) -> float:
    """The sum of the singular values of the matrix of predictions, as a share of its largest possible value.

    Cui et al., "Towards Discriminability and Diversity: Batch Nuclear-norm Maximization under Label Insufficient
    Situations", CVPR 2020, arXiv 2003.12237, section 3.3.

    Args:
        probabilities: float [N, K].

    Returns:
        In 0..1; 1 / sqrt(K) where all images are certainly of one class (N at least K).
    """
    return float(np.linalg.norm(probabilities, ord="nuc") / np.sqrt(len(probabilities) * min(probabilities.shape)))


def entropy_and_imbalance(probabilities: np.ndarray, expected_shares: np.ndarray) -> float:
    """Mean entropy of the predictions, plus how far their mean is from the expected shares of classes.

    The distance is the Kullback-Leibler divergence of the expected shares from the mean prediction, which has no bound
    where a class is never predicted.

    Args:
        probabilities: float [N, K].
        expected_shares: float [K], sums to 1.

    Returns:
        Nats, at least 0; lower is better.
    """
    mean = np.maximum(probabilities.mean(axis=0), np.finfo(np.float64).tiny)
    return mean_entropy(probabilities) + float(special.rel_entr(expected_shares, mean).sum())


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
    """Step, balanced accuracy on source and target validation, and the criteria without labels.

    Entropy and balance are those of which less is better.
    """
    return {
        "step": row["step"],
        "source": row["select/source"],
        "entropy": _negated(row["select/entropy"]),
        "density": row["select/density"],
        # Rows of runs that began before these criteria do not have them.
        "infomax": row.get("select/infomax"),
        "bnm": row.get("select/bnm"),
        "balance": _negated(row.get("select/balance")),
        "target": row["select/target"],
    }


def _negated(value: float | None) -> float | None:
    return None if value is None else -value
