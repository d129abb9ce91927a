"""Membership inference: does a score tell which real images the generator learned from?

The attack by distance takes real images for training images that are near to a synthetic one (GAN-Leaks: Chen et al.,
CCS 2020, arXiv 1909.03935); that by the discriminator those that it scores highly (LOGAN: Hayes et al., PETS 2019,
arXiv 1705.07663). What counts is the true-positive rate at a low false-positive rate (Carlini et al., "Membership
Inference Attacks From First Principles", S&P 2022, arXiv 2112.03570). Patients are resampled and exchanged as wholes.
"""

from typing import Any

import numpy as np
from scipy import stats

from tfcxr.evaluation import bootstrap

RATES = (0.01, 0.001)
NAMES = ("membership_auc", "membership_tpr_at_1pct", "membership_tpr_at_0.1pct")
EXPECTED = (0.5, *RATES)

_TOP = 0.05  # of the images are looked at first for true-positive rates


def attack(scores: np.ndarray, members: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """AUC, and TPR at 1% and 0.1% FPR, of several rankings, truly and under each exchange of patients.

    Args:
        scores: [D, N], higher for supposed training images; ties are broken at random.
        members: bool [P + 1, N], see copying.Exchange.
        seed: of the ties.

    Returns:
        float64 [D, P + 1, 3]. A true-positive rate is that at the lowest threshold with at most the share of the
        holdout images above it: of fewer than 1000, that at 0.1% has none above.
    """
    trained, held_out = members.sum(axis=1), (~members).sum(axis=1)
    ranks = stats.rankdata(scores, axis=1)
    wins = ranks @ members.T.astype(np.float64) - trained * (trained + 1) / 2
    found = np.empty([len(scores), len(members), 1 + len(RATES)])
    found[..., 0] = wins / (trained * held_out)
    ties = np.random.default_rng(seed).random(scores.shape[1])
    for row, score in enumerate(scores):
        order = np.lexsort((ties, -score))
        for column, rate in enumerate(RATES, start=1):
            found[row, :, column] = _true_positives(members, order, np.floor(rate * held_out)) / trained
    return found


def intervals(scores: np.ndarray, is_train: np.ndarray, patients: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """95% intervals of the three figures over patients: {name: [low, high] or None}; scores [N]."""
    resamples = bootstrap.PatientBootstrap(
        is_train.astype(np.int64), [str(patient) for patient in patients], resamples=1000, seed=seed
    )
    ranking = bootstrap.Ranking(is_train, scores, resamples.patient)
    order = np.lexsort((np.random.default_rng(seed).random(len(scores)), -scores))
    member, patient = is_train[order], resamples.patient[order]

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        drawn = weights[patient]
        wrong = np.cumsum(drawn * ~member[:, None], axis=0)
        right = np.cumsum(drawn * member[:, None], axis=0)
        figures = {NAMES[0]: ranking(weights)[0]}
        for name, rate in zip(NAMES[1:], RATES, strict=True):
            last = (wrong <= rate * wrong[-1]).sum(axis=0) - 1
            hits = np.take_along_axis(right, np.maximum(last, 0)[None], axis=0)[0]
            figures[name] = np.where(last >= 0, hits, 0) / right[-1]
        return figures

    found = resamples.sample(statistic)
    holders = min(len(np.unique(patients[is_train])), len(np.unique(patients[~is_train])))
    return {name: None if found is None else bootstrap.interval(found[name], holders) for name in NAMES}


def _true_positives(members: np.ndarray, order: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Training images above the holdout image number `allowed` + 1, int64 [P + 1]."""
    for length in (min(len(order), int(_TOP * len(order)) + 50), len(order)):
        top = members[:, order[:length]]
        above = np.cumsum(~top, axis=1, dtype=np.int32) <= allowed[:, None]
        if length == len(order) or not above[:, -1].any():
            break
    return (top & above).sum(axis=1)
