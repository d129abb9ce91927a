"""Metrics of a classifier: recall, balanced accuracy, F1, AUC, average precision and calibration.

Intervals are in evaluation/bootstrap.py. A metric of a class that lacks the images for it is NaN. scikit-learn is
imported where it is used: that takes 0.7 s, and a training can begin without it.
"""

import dataclasses

import numpy as np

NUM_BINS = 15  # of calibration


def recalls(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Recall of each class, float64 [num_classes]; NaN for a class without an image.

    Args:
        labels: true classes, int [N] in 0..num_classes-1; images of -1, which have no label, do not count.
        predictions: predicted classes, int [N].
        num_classes: the number of classes.
    """
    return recalls_of_tables(confusion_matrix(labels, predictions, num_classes))


def recalls_of_tables(tables: np.ndarray) -> np.ndarray:
    """Recalls [..., K] of confusion matrices [..., K, K] whose rows are true classes; NaN where a row is empty."""
    hits = np.diagonal(tables, axis1=-2, axis2=-1).astype(np.float64)
    support = tables.sum(axis=-1)
    return np.divide(hits, support, out=np.full(support.shape, np.nan), where=support > 0)


def f1_of_tables(tables: np.ndarray) -> np.ndarray:
    """F1 [..., K] of confusion matrices [..., K, K]: 2 TP / (2 TP + FP + FN); NaN for a class without an image."""
    hits = np.diagonal(tables, axis1=-2, axis2=-1).astype(np.float64)
    support = tables.sum(axis=-1)
    total = support + tables.sum(axis=-2)
    return np.divide(2 * hits, total, out=np.full(support.shape, np.nan), where=support > 0)


def balanced_accuracy(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> float:
    """Mean of the recalls; NaN if a class has no image (scikit-learn would leave that class out in silence)."""
    if len(np.unique(labels)) < num_classes:
        return float("nan")
    from sklearn import metrics as sklearn_metrics

    return float(sklearn_metrics.balanced_accuracy_score(labels, predictions))


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts, int64 [num_classes, num_classes]; rows are true classes, columns predictions; of -1 there is none."""
    known = labels >= 0
    if not known.all():
        labels, predictions = labels[known], predictions[known]
    if not len(labels):
        return np.zeros((num_classes, num_classes), np.int64)
    from sklearn import metrics as sklearn_metrics

    return sklearn_metrics.confusion_matrix(labels, predictions, labels=np.arange(num_classes))


def roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class (or label) against the rest, float64 [K]; NaN where a side has no image.

    Args:
        labels: true classes, int [N]; or which of K labels that do not exclude each other an image has, bool [N, K].
        probabilities: float [N, K].
    """
    from sklearn import metrics as sklearn_metrics

    return _per_class(sklearn_metrics.roc_auc_score, labels, probabilities)


def average_precision(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Average precision, the step-wise area under the precision-recall curve, of each class against the rest.

    Arguments and result as of `roc_auc`. A ranking by chance reaches the share of the class among the images.
    """
    from sklearn import metrics as sklearn_metrics

    return _per_class(sklearn_metrics.average_precision_score, labels, probabilities)


def _per_class(score, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    scores = np.full(probabilities.shape[1], np.nan)
    members = memberships(labels, probabilities.shape[1])
    for k in np.flatnonzero(have_both(members)):
        scores[k] = score(members[:, k], probabilities[:, k])
    return scores


def memberships(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Which class, or which labels, each image has: bool [N, num_classes]; `labels` as of `roc_auc`."""
    return labels if labels.ndim == 2 else labels[:, np.newaxis] == np.arange(num_classes)


def have_both(members: np.ndarray) -> np.ndarray:
    """Which columns of bool [N, K] have both values: bool [K]."""
    return members.any(axis=0) & ~members.all(axis=0)


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Images by a probability that was said of them, in bins of equal width over 0..1.

    Attributes:
        edges: float64 [bins + 1].
        counts: images, int64 [bins].
        confidence: mean probability, float64 [bins]; NaN in an empty bin.
        accuracy: share of the images of which what was said is true, float64 [bins]; NaN in an empty bin.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_calibration_error(self) -> float:
        """Mean |confidence - accuracy| over the bins, weighted by their images (Guo et al. 2017, eq. 3)."""
        gap = np.nan_to_num(np.abs(self.confidence - self.accuracy))
        return float((gap * self.counts).sum() / self.counts.sum())

    def rows(self) -> list[dict[str, float | None]]:
        """The bins as result.json has them: {"low", "high", "count", "confidence", "accuracy"} each."""
        return [
            {
                "low": float(self.edges[i]),
                "high": float(self.edges[i + 1]),
                "count": int(self.counts[i]),
                "confidence": finite(self.confidence[i]),
                "accuracy": finite(self.accuracy[i]),
            }
            for i in range(len(self.counts))
        ]


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = NUM_BINS) -> Reliability:
    """How often predictions of some confidence are right.

    Args:
        labels: true classes, int [N], N > 0.
        probabilities: float [N, K]; the confidence is that of the predicted class.
        bins: number of bins.
    """
    return reliability_of(probabilities.argmax(axis=1) == labels, probabilities.max(axis=1), bins)


def reliability_of(true: np.ndarray, confidence: np.ndarray, bins: int = NUM_BINS) -> Reliability:
    """How often what was said with some probability is true, such as that an image has a label.

    Args:
        true: bool [N], N > 0.
        confidence: the probability that was said, float [N].
        bins: number of bins.
    """
    index = bin_numbers(confidence, bins)
    counts = np.bincount(index, minlength=bins)

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(index, values, bins)
        return np.divide(sums, counts, out=np.full(bins, np.nan), where=counts > 0)

    return Reliability(np.linspace(0, 1, bins + 1), counts, mean(confidence), mean(true.astype(float)))


def bin_numbers(confidence: np.ndarray, bins: int = NUM_BINS) -> np.ndarray:
    """The bin of each probability, int64 [N] in 0..bins-1, of float [N]."""
    return np.minimum((confidence * bins).astype(int), bins - 1)


def finite(value: float) -> float | None:
    """`value` as a JSON number: None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None
