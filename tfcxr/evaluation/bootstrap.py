"""Bootstrap over patients: 95% intervals and paired tests.

Whole patients are drawn with replacement, since images of one patient are not independent (the cluster bootstrap;
Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). A resample is a weight per patient:
how often the patient was drawn. Statistics are computed from weights for many resamples at once.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tfcxr import metrics
from tfrecords_builder.splits import policies

# Images x resamples in one step: arrays of 8 MB fit in a processor's cache better than large ones.
_BLOCK = 2_000_000
# Where fewer than one draw in so many has all classes, because few patients have them, there is no interval.
_MAX_DRAWS_PER_RESAMPLE = 100

# Weights float32 [patients, B] -> {name: float [B, ...]}.
Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]


class PatientBootstrap:
    """Resamples of the patients of a fold, in which each class (or value of a label) of the fold has an image.

    Attributes:
        patient: number of each image's patient, int64 [N].
        num_patients: how many there are; an image without a patient id is a patient of its own.
        resamples, seed: as given.
        redrawn: how many resamples the last call of `sample` threw away because a class had no image in them.
    """

    def __init__(self, labels: np.ndarray, patients: Sequence[str], *, resamples: int = 2000, seed: int = 0):
        """Draws nothing yet.

        Args:
            labels: true classes, int [N]; or which of K labels each image has, bool [N, K]: of each label that has both
                values, both are then in a resample, but for values that only one patient has.
            patients: ids [N].
            resamples: number of resamples.
            seed: every call of `sample` draws the same.
        """
        self.patient = policies.number_patients(patients)
        self.num_patients = int(self.patient.max()) + 1
        self.resamples, self.seed, self.redrawn = resamples, seed, 0
        if labels.ndim == 2:
            values = np.concatenate([labels, ~labels], axis=1)
            counts = np.stack([self.count(np.where(value, 0, -1), 1)[:, 0] for value in values.T], axis=1)
            self._class_counts = counts[:, (counts > 0).sum(axis=0) > 1]
        else:
            present, classes = np.unique(labels, return_inverse=True)
            self._class_counts = self.count(classes, len(present))

    def describe(self) -> dict[str, Any]:
        """How the last call of `sample` drew, as result.json has it."""
        return {"resamples": self.resamples, "redrawn": int(self.redrawn), "unit": "patient", "seed": self.seed}

    def count(self, cells: np.ndarray, num_cells: int) -> np.ndarray:
        """Images of each patient in each cell, float32 [patients, num_cells]; `cells`: int [N], negative for none."""
        inside = cells >= 0
        index = self.patient[inside] * num_cells + cells[inside]
        counts = np.bincount(index, minlength=self.num_patients * num_cells)
        return counts.reshape(self.num_patients, num_cells).astype(np.float32)

    def holders(self, cells: np.ndarray, num_cells: int) -> np.ndarray:
        """Patients with an image in each cell, int64 [num_cells]; cells as of `count`."""
        return (self.count(cells, num_cells) > 0).sum(axis=0)

    def sample(self, statistic: Statistic) -> dict[str, np.ndarray] | None:
        """The statistic of each resample: {name: float [resamples, ...]}.

        None if there is one patient only, or if too few draws have all classes.
        """
        kept: list[dict[str, np.ndarray]] = []
        have = drawn = 0
        self.redrawn = 0
        if self.num_patients < 2:
            return None
        for weights in self._draw():
            drawn += weights.shape[1]
            whole = np.flatnonzero((self._class_counts.T @ weights > 0).all(axis=0))[: self.resamples - have]
            have += len(whole)
            done = have == self.resamples
            self.redrawn += (whole[-1] + 1 if done else weights.shape[1]) - len(whole)
            if len(whole):
                kept.append(statistic(weights if len(whole) == weights.shape[1] else weights[:, whole]))
            if done:
                return {name: np.concatenate([block[name] for block in kept]) for name in kept[0]}
            if drawn > _MAX_DRAWS_PER_RESAMPLE * self.resamples:
                return None
        raise AssertionError("the draws are endless")

    def _draw(self) -> Iterator[np.ndarray]:
        """Endless blocks of weights, float32 [patients, B]."""
        random = np.random.default_rng(self.seed)
        size = max(1, min(self.resamples, _BLOCK // len(self.patient)))
        while True:
            draws = random.integers(0, self.num_patients, size=(size, self.num_patients))
            cells = draws * size + np.arange(size)[:, None]
            counts = np.bincount(cells.ravel(), minlength=self.num_patients * size)
            yield counts.reshape(self.num_patients, size).astype(np.float32)


class ModelStatistics:
    """Recall, balanced accuracy, F1, ROC-AUC and average precision of one model's predictions: a `Statistic`.

    The results are {"recall", "f1", "roc_auc", "average_precision": float64 [B, K], "balanced_accuracy": [B]}; NaN
    where a class is absent.
    """

    def __init__(
        self, bootstrap: PatientBootstrap, labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray
    ):
        """`labels`, `predicted`: int [N] in 0..K-1; `probabilities`: float [N, K]."""
        number = probabilities.shape[1]
        self._tables = bootstrap.count(labels * number + predicted, number**2)
        self._rankings = [
            Ranking(labels == k, probabilities[:, k], bootstrap.patient) for k in range(probabilities.shape[1])
        ]

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The statistics under weights float32 [patients, B]."""
        tables = confusion_tables(self._tables, weights)
        recall = metrics.recalls_of_tables(tables)
        ranked = [ranking(weights) for ranking in self._rankings]
        return {
            "recall": recall,
            "balanced_accuracy": recall.mean(axis=1),
            "f1": metrics.f1_of_tables(tables),
            "roc_auc": np.stack([auc for auc, _ in ranked], axis=1),
            "average_precision": np.stack([precision for _, precision in ranked], axis=1),
        }


class LabelStatistics:
    """Measures of each of K labels that do not exclude each other, of one model's predictions: a `Statistic`.

    The results are {"roc_auc", "average_precision", "f1", "expected_calibration_error", "brier": float64 [B, K]}; NaN
    where a label has one value only. Calibration is that of the probability of the label, in metrics.NUM_BINS bins;
    "brier" the mean squared difference of probability and truth (Brier 1950).
    """

    def __init__(
        self, bootstrap: PatientBootstrap, members: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray
    ):
        """`members`: which image has which label, bool [N, K]; `probabilities`: [N, K]; `thresholds` of F1: [K]."""
        called = probabilities >= thresholds
        gaps = probabilities - members
        self._members = _sum_by_patient(bootstrap, members)
        self._rest = _sum_by_patient(bootstrap, ~members)
        self._hits = _sum_by_patient(bootstrap, members & called)
        self._called = _sum_by_patient(bootstrap, called)
        self._squares = _sum_by_patient(bootstrap, gaps**2)
        self._gaps = []
        for k in range(members.shape[1]):
            in_bin = np.eye(metrics.NUM_BINS)[metrics.bin_numbers(probabilities[:, k])]
            self._gaps.append(_sum_by_patient(bootstrap, gaps[:, [k]] * in_bin))
        columns = range(members.shape[1])
        self._rankings = [Ranking(members[:, k], probabilities[:, k], bootstrap.patient) for k in columns]

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The statistics under weights float32 [patients, B]."""
        exact = weights.astype(np.float64)
        members, rest, hits, called, squares = (
            (sums.T @ exact).T for sums in (self._members, self._rest, self._hits, self._called, self._squares)
        )
        images = members + rest
        both = (members > 0) & (rest > 0)
        gaps = np.stack([np.abs(sums.T @ exact).sum(axis=0) for sums in self._gaps], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):  # where a value was not drawn
            ranked = [ranking(weights) for ranking in self._rankings]
            found = {
                "roc_auc": np.stack([auc for auc, _ in ranked], axis=1),
                "average_precision": np.stack([precision for _, precision in ranked], axis=1),
                "f1": 2 * hits / (members + called),
                "expected_calibration_error": gaps / images,
                "brier": squares / images,
            }
        return {name: np.where(both, values, np.nan) for name, values in found.items()}


def _sum_by_patient(bootstrap: PatientBootstrap, values: np.ndarray) -> np.ndarray:
    """Sums over the images of each patient: [N, C] -> float64 [patients, C]."""
    sums = np.zeros((bootstrap.num_patients, values.shape[1]))
    np.add.at(sums, bootstrap.patient, values)
    return sums


def confusion_tables(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Confusion matrices [B, K, K] under weights [patients, B]; counts: of each patient, [patients, K * K]."""
    number = math.isqrt(counts.shape[1])
    return (counts.T @ weights).T.reshape(-1, number, number)


class Ranking:
    """One class against the rest, the images ranked by falling score: AUC and average precision under weights.

    AUC is the weight of the pairs (one of the class, one of the rest) that are ranked rightly, ties counted half
    (Mann-Whitney); average precision is the mean, over the images of the class, of the precision at their rank.
    """

    def __init__(self, is_class: np.ndarray, scores: np.ndarray, patient: np.ndarray):
        """Ranks images: bool [N] of the class, scores float [N], numbers of patients as of PatientBootstrap [N]."""
        order = np.argsort(-scores, kind="stable")
        self._patient = patient[order]
        falling = -scores[order]
        self._of_class = np.flatnonzero(is_class[order])
        own = falling[self._of_class]
        # For each image of the class: the images ranked above it, and those above or tied; of all, and of the class.
        self._above, self._with_ties = np.searchsorted(falling, own, "left"), np.searchsorted(falling, own, "right")
        self._own_above, self._own_with_ties = np.searchsorted(own, own, "left"), np.searchsorted(own, own, "right")

    def __call__(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(AUC, average precision), float64 [B] each, of weights float32 [patients, B]; NaN without both sides."""
        number = weights.shape[1]
        if not 0 < len(self._of_class) < len(self._patient):
            return np.full(number, np.nan), np.full(number, np.nan)
        ranked = weights[self._patient]
        own = ranked[self._of_class]
        all_sums, own_sums = _running_sums(ranked), _running_sums(own)
        hits = own_sums[self._own_with_ties]
        seen = all_sums[self._with_ties]
        own_total = own_sums[-1].astype(np.float64)
        rest_total = all_sums[-1] - own_total
        precision = hits / np.maximum(seen, 1)  # an image that was not drawn has no weight
        average_precision = np.einsum("nb,nb->b", own, precision, dtype=np.float64) / own_total
        # Images of the rest that are ranked above, ties counted half.
        wrong = seen - hits + all_sums[self._above] - own_sums[self._own_above]
        auc = 1 - np.einsum("nb,nb->b", own, wrong, dtype=np.float64) / (2 * own_total * rest_total)
        return auc, average_precision


def _running_sums(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0..N rows of [N, B]: float32 [N + 1, B], exact for counts below 2^24."""
    sums = np.zeros((len(values) + 1, values.shape[1]), np.float32)
    np.cumsum(values, axis=0, out=sums[1:])
    return sums


def interval(values: np.ndarray, holders: int) -> list[float] | None:
    """95% percentile interval [low, high] of a statistic.

    Args:
        values: of the resamples, [B]; those in which it is NaN are left out.
        holders: patients of the class it rests on, or of the class with fewest if it rests on several.

    Returns:
        The interval; None if there is one holder only, whose images say nothing of other patients, or if more than half
        of the resamples are NaN.
    """
    if holders < 2:
        return None
    finite = values[np.isfinite(values)]
    if 2 * len(finite) < len(values):
        return None
    return [float(value) for value in np.percentile(finite, [2.5, 97.5])]


def p_value(differences: np.ndarray) -> float:
    """Two-sided p-value of "no difference", from the resamples [B] of a paired difference, NaN left out.

    Twice the smaller share of resamples on one side of zero, zeros counted on both and one added to count and total,
    so that it is never 0: the level at which the percentile interval first touches zero (Efron and Tibshirani, "An
    Introduction to the Bootstrap", 1993, section 15.4; Davison and Hinkley 1997, section 4.2).
    """
    known = differences[~np.isnan(differences)]
    count = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (count + 1) / (len(known) + 1)))
