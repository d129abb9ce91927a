"""Recall per class, balanced accuracy, AUC, calibration and bootstrap intervals that resample patients."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from sklearn import metrics as sklearn_metrics

# Patients x resamples held at once: bounds memory at some 100 MB.
_BOOTSTRAP_BLOCK = 10_000_000


def recalls(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Recall of each class, float64 [num_classes]; NaN for a class without an image.

    Args:
      labels: true classes, int [N] in 0..num_classes-1.
      predictions: predicted classes, int [N].
      num_classes: the number of classes.
    """
    return _recalls(confusion_matrix(labels, predictions, num_classes))


def balanced_accuracy(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> float:
    """Mean of the recalls; NaN if a class has no image (scikit-learn would leave that class out in silence)."""
    if len(np.unique(labels)) < num_classes:
        return float("nan")
    return float(sklearn_metrics.balanced_accuracy_score(labels, predictions))


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts, int64 [num_classes, num_classes]; rows are true classes, columns predictions."""
    return sklearn_metrics.confusion_matrix(labels, predictions, labels=np.arange(num_classes))


def roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class against the rest, float64 [K]; NaN where a side has no image.

    Args:
      labels: true classes, int [N].
      probabilities: float [N, K].
    """
    scores = np.full(probabilities.shape[1], np.nan)
    for k in range(probabilities.shape[1]):
        is_k = labels == k
        if 0 < is_k.sum() < len(is_k):
            scores[k] = sklearn_metrics.roc_auc_score(is_k, probabilities[:, k])
    return scores


def roc_curve(is_class: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False- and true-positive rates over all thresholds, for bool [N] and float [N]."""
    fpr, tpr, _ = sklearn_metrics.roc_curve(is_class, scores)
    return fpr, tpr


@dataclasses.dataclass(frozen=True)
class Intervals:
    """95% percentile intervals of a bootstrap.

    Attributes:
      balanced_accuracy: [low, high].
      recall: float64 [K, 2].
      resamples: number of resamples used.
      redrawn: number of resamples thrown away because a class had no image in them.
    """

    balanced_accuracy: np.ndarray
    recall: np.ndarray
    resamples: int
    redrawn: int


def bootstrap(
    labels: np.ndarray,
    predictions: np.ndarray,
    clusters: Sequence[str],
    num_classes: int,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Intervals | None:
    """Bootstrap over patients: whole patients are drawn with replacement, since images of one are not independent.

    Args:
      labels, predictions: int [N].
      clusters: patient ids [N]; images with an empty id are each a cluster of their own.
      num_classes: the number of classes.
      resamples: how many; resamples without an image of some class are redrawn and counted.
      seed: of the resampling.

    Returns:
      The intervals, or None if some class has no image at all.
    """
    if len(np.unique(labels)) < num_classes:
        return None
    names = np.asarray([c or f"\0{i}" for i, c in enumerate(clusters)])
    _, cluster = np.unique(names, return_inverse=True)
    num_clusters = int(cluster.max()) + 1
    counts = np.zeros((num_clusters, num_classes * num_classes))
    np.add.at(counts, (cluster, labels * num_classes + predictions), 1)
    random = np.random.default_rng(seed)
    block = max(1, min(resamples, _BOOTSTRAP_BLOCK // num_clusters))
    kept: list[np.ndarray] = []
    have = redrawn = 0
    # A class that one patient of very many holds is missing from e^-1 of the resamples: this ends soon.
    while have < resamples:
        draws = random.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size=block)
        tables = (draws @ counts).reshape(-1, num_classes, num_classes)
        whole = (tables.sum(axis=2) > 0).all(axis=1)
        redrawn += int((~whole[: resamples - have]).sum())
        kept.append(_recalls(tables[whole])[: resamples - have])
        have += len(kept[-1])
    sampled = np.concatenate(kept)
    return Intervals(
        balanced_accuracy=np.percentile(sampled.mean(axis=1), [2.5, 97.5]),
        recall=np.percentile(sampled, [2.5, 97.5], axis=0).T,
        resamples=resamples,
        redrawn=redrawn,
    )


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Mean |confidence - accuracy| over equal-width bins of the top probability, by count (Guo 2017, eq. 3)."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    weight = np.bincount(index, minlength=bins)
    gap = np.abs(np.bincount(index, confidence, bins) - np.bincount(index, correct.astype(float), bins))
    return float(gap.sum() / max(weight.sum(), 1))


def _recalls(tables: np.ndarray) -> np.ndarray:
    support = tables.sum(axis=-1)
    hits = np.diagonal(tables, axis1=-2, axis2=-1)
    return np.divide(hits, support, out=np.full(support.shape, np.nan), where=support > 0)
