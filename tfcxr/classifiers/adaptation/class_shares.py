"""The shares of classes in unlabelled images: estimates from predictions, and predictions corrected for them.

Label shift: source and target differ in how frequent classes are, not in what an image of a class looks like. Where the
domains differ in both, the estimates are those of a classifier that errs on the target as it does on the source.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import optimize

from tfrecords_builder import files
from tfrecords_builder.errors import InputError

# Estimates below are raised to this: a batch without a class cannot teach it, and weights 1 / share stay finite.
SMALLEST = 0.02
# Share of a training set of which all others are multiples; see `to_counts`.
_PARTS = 1000
_MOST_STEPS = 1000
_SETTLED = 1e-6


def estimate_by_confusion(
    labels: np.ndarray, predictions: np.ndarray, target_predictions: np.ndarray, num_classes: int
):
    """Black-box shift estimation.

    Lipton et al., "Detecting and Correcting for Label Shift with Black Box Predictors", ICML 2018, arXiv 1802.03916:
    the target's predicted shares m and the source's confusion matrix C[i, j] = p(predicted i | labelled j) give its
    class shares q by C q = m. Here by least squares with q >= 0, scaled to a sum of 1.

    Args:
        labels: int [N], classes of labelled source images that the classifier was not trained on.
        predictions: int [N], what it predicts for them.
        target_predictions: int [M], what it predicts for target images.
        num_classes: K.

    Returns:
        float64 [K], sums to 1. Classes without a labelled image keep the share that is predicted.
    """
    table = np.zeros((num_classes, num_classes))
    np.add.at(table, (predictions, labels), 1.0)
    counts = table.sum(axis=0)
    confusion = np.where(counts > 0, table / np.maximum(counts, 1.0), np.eye(num_classes))
    predicted = np.bincount(target_predictions, minlength=num_classes) / len(target_predictions)
    shares, _ = optimize.nnls(confusion, predicted)
    return shares / shares.sum()


def estimate_by_likelihood(probabilities: np.ndarray, trained_shares: np.ndarray) -> np.ndarray:
    """Expectation maximisation: the shares under which the classifier's probabilities for the target are most likely.

    Saerens, Latinne, Decaestecker, "Adjusting the Outputs of a Classifier to New a Priori Probabilities", Neural
    Computation 14, 2002, equations 2.9 to 2.11. Relies on calibrated probabilities.

    Args:
        probabilities: float [M, K], of target images.
        trained_shares: float [K], of the classes in what the classifier was trained on, all above 0.

    Returns:
        float64 [K], sums to 1.
    """
    shares = np.asarray(trained_shares, np.float64)
    for _ in range(_MOST_STEPS):
        updated = correct(probabilities, trained_shares, shares).mean(axis=0)
        settled = np.abs(updated - shares).max() < _SETTLED
        shares = updated
        if settled:
            break
    return shares


def correct(probabilities: np.ndarray, trained_shares: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Probabilities where classes have other shares than in training: p[k] shares[k] / trained[k], scaled to sum to 1.

    Saerens et al. 2002, equation 2.4.

    Args:
        probabilities: float [M, K].
        trained_shares: float [K], above 0.
        shares: float [K].

    Returns:
        float64 [M, K].
    """
    weighted = np.asarray(probabilities, np.float64) * (np.asarray(shares) / np.asarray(trained_shares))
    # A row whose only possible classes have share 0 says nothing of the others.
    sums = weighted.sum(axis=1, keepdims=True)
    return np.where(sums > 0, weighted / np.maximum(sums, 1e-300), np.asarray(shares, np.float64))


def read(path: str, classes: Sequence[str], flag: str) -> np.ndarray:
    """Shares of a JSON file {class: share}; float64 [K], scaled to a sum of 1.

    Raises:
        InputError: no such file, other classes, or numbers that are no shares.
    """
    where = f"{flag}={path}"
    if not pathlib.Path(path).is_file():
        raise InputError(f"{where}: must be source, estimate or a JSON file {{class: share}}; there is no such file")
    table = files.read_json(path)
    if not isinstance(table, Mapping) or set(table) != set(classes):
        raise InputError(f"{where}: must name each class once: {', '.join(classes)}")
    values = [table[name] for name in classes]
    if not all(_is_share(value) for value in values) or not sum(values):
        raise InputError(f"{where}: the shares must be numbers from 0 on, not all 0; they are {values}")
    return np.array(values, np.float64) / sum(values)


def to_counts(shares: np.ndarray) -> np.ndarray:
    """Whole numbers in the ratio of shares [K], none of which is below SMALLEST, of about 1,000 in all: int64 [K]."""
    raised = np.maximum(shares, SMALLEST)
    return np.rint(_PARTS * raised / raised.sum()).astype(np.int64)


def describe(shares: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """{class: share}, as a file of `read` has them."""
    return {name: round(float(share), 6) for name, share in zip(classes, shares, strict=True)}


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")
