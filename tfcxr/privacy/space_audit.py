"""The audit of a synthetic set in one feature space: all figures, and what each would have detected.

Detection power: copies of training images take the place of some synthetic images, and each figure's test is done
again, with many draws of which images are copied and which give way. So the power is that on this very set.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from tfcxr.privacy import copying, membership, nearest, planted_copies

ALPHA = 0.01  # at which a figure detects copying
FILTER_QUANTILE = copying.MATCH_QUANTILE

AUTHENTICITY, DATA_COPYING = "authenticity", "data_copying"
FIGURES = (*copying.EXCHANGED, AUTHENTICITY, DATA_COPYING, *membership.NAMES)

_KEPT_NEIGHBOURS = 8


@dataclasses.dataclass(frozen=True)
class Power:
    """How often a figure detected planted copies.

    Attributes:
        kind, rate: of the copies, and the share of the set that they are.
        copies: their number.
        detected: share of the draws with a p-value of at most ALPHA.
        interval: exact binomial 95% interval of that share (Clopper and Pearson 1934).
    """

    kind: str
    rate: float
    copies: int
    detected: float
    interval: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure of the audit.

    Attributes:
        space: feature space, or where the scores come from.
        name: of FIGURES.
        value: what was found; None where it cannot be told.
        expected: what a generator that copies nobody would have: mean over the exchanges, or the holdouts' value.
        interval: 95% of the exchanges lie there; None for tests of another kind.
        confidence: 95% interval of the value itself, over patients; None if there is none.
        p_value: one-sided, against "no copying".
        power: of each kind and rate; empty where no copies can be planted.
    """

    space: str
    name: str
    value: float | None
    expected: float
    interval: tuple[float, float] | None
    confidence: tuple[float, float] | None
    p_value: float
    power: tuple[Power, ...] = ()

    @property
    def indicated(self) -> bool:
        """Whether it indicates copying, by itself."""
        return self.p_value <= ALPHA


@dataclasses.dataclass(frozen=True)
class SpaceAudit:
    """All that was found in one feature space.

    Attributes:
        space: its name.
        figures: in the order of FIGURES.
        distances: float32 [n] each: "synthetic_to_train", "synthetic_to_holdout" (nearest ones), "holdout_to_train".
        filter_distance: a filter by distance would remove synthetic images nearer than this to a training image.
        filter_removes: the share of the synthetic images that it would remove.
        filter_misses: the share of the planted copies of each kind that it would leave in the set.
    """

    space: str
    figures: tuple[Figure, ...]
    distances: dict[str, np.ndarray]
    filter_distance: float
    filter_removes: float
    filter_misses: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """As result.json has it: of the distances their quantiles."""
        value = dataclasses.asdict(self)
        value["figures"] = [{**dataclasses.asdict(f), "indicated": f.indicated} for f in self.figures]
        value["distances"] = {
            name: {f"{q:g}": float(np.quantile(d, q)) for q in (0, 0.01, 0.1, 0.5, 0.9)}
            for name, d in self.distances.items()
        }
        return value


def audit_space(
    space: str,
    *,
    synthetic: np.ndarray,
    reals: np.ndarray,
    is_train: np.ndarray,
    patients: np.ndarray,
    copies: Mapping[str, np.ndarray],
    permutations: int = 999,
    draws: int = 100,
    seed: int = 0,
) -> SpaceAudit:
    """Audits a synthetic set in one feature space.

    Memory: beside the vectors, 5 float32 numbers for each synthetic image or copy and each permutation.

    Args:
        space: its name.
        synthetic: vectors of the synthetic images, float [S, F].
        reals: of training and holdout images, float [N, F].
        is_train: which are training images, bool [N].
        patients: int [N].
        copies: for each kind, vectors of planted copies of training images, float [B, F].
        permutations: exchanges of patients.
        draws: of planted sets, for each kind and rate.
        seed: of everything random.
    """
    exchange = copying.Exchange(reals, is_train, patients, permutations=permutations, seed=seed)
    rows = np.concatenate([synthetic, *copies.values()]).astype(np.float32)
    tests = _Tests(exchange, rows, len(synthetic), seed)
    plain = np.zeros([1, len(rows)], np.float32)
    plain[:, : len(synthetic)] = 1
    found = tests.run(plain)
    power: dict[str, list[Power]] = {name: [] for name in found}
    rng = np.random.default_rng(seed)
    for number, (kind, bank) in enumerate(copies.items()):
        first = len(synthetic) + number * len(bank)
        for rate in planted_copies.RATES:
            count = max(1, round(rate * len(synthetic)))
            weights = np.repeat(plain, draws, axis=0)
            for row in weights:
                row[rng.choice(len(synthetic), count, replace=False)] = 0
                planted = rng.choice(len(bank), count, replace=count > len(bank))
                row += np.bincount(planted + first, minlength=len(row)).astype(np.float32)
            for name, result in tests.run(weights).items():
                power[name].append(_power(kind, rate, count, result.p_values))
    scores = tests.membership_scores(plain)[0]
    confidence = membership.intervals(scores, exchange.members[0], exchange.patients, seed=seed)
    figures = tuple(
        Figure(
            space,
            name,
            _number(found[name].values[0]),
            found[name].expected,
            found[name].interval,
            confidence.get(name),
            float(found[name].p_values[0]),
            tuple(power[name]),
        )
        for name in FIGURES
    )
    removed = tests.to_train < exchange.match_distance
    banks = np.split(removed[len(synthetic) :], len(copies)) if copies else []
    return SpaceAudit(
        space,
        figures,
        {
            "synthetic_to_train": tests.to_train[: len(synthetic)],
            "synthetic_to_holdout": nearest.find_nearest(synthetic, reals[~is_train]).distances[:, 0],
            "holdout_to_train": exchange.holdout_distances,
        },
        exchange.match_distance,
        float(removed[: len(synthetic)].mean()),
        {kind: float(1 - bank.mean()) for kind, bank in zip(copies, banks, strict=True)},
    )


def audit_scores(
    space: str, scores: np.ndarray, is_train: np.ndarray, patients: np.ndarray, *, permutations: int, seed: int
) -> tuple[Figure, ...]:
    """Membership inference from one score per real image, such as a discriminator's: scores float [N].

    No copies can be planted: the network that gives the scores has been trained.
    """
    numbers = np.unique(patients, return_inverse=True)[1]
    members = copying.exchange_roles(is_train, numbers, permutations, seed)
    found = membership.attack(scores[None], members, seed=seed)[0]
    confidence = membership.intervals(scores, is_train, numbers, seed=seed)
    return tuple(
        Figure(
            space,
            name,
            float(found[0, column]),
            float(found[1:, column].mean()),
            _quantiles(found[1:, column]),
            confidence[name],
            float(copying.p_values(found[:, column], greater=True)),
        )
        for column, name in enumerate(membership.NAMES)
    )


@dataclasses.dataclass(frozen=True)
class _Result:
    values: np.ndarray  # [D]
    p_values: np.ndarray  # [D]
    expected: float
    interval: tuple[float, float] | None


class _Tests:
    """All tests on sets that are made of `rows`, given as how often each row is in them: weights float32 [D, rows]."""

    def __init__(self, exchange: copying.Exchange, rows: np.ndarray, num_synthetic: int, seed: int):
        self._exchange, self._num_synthetic, self._seed = exchange, num_synthetic, seed
        found = exchange.find(rows)
        self._values = exchange.values(found)
        self.to_train, indices = exchange.find_train(rows, found)
        self._authenticity = copying.Authenticity(exchange)
        self._copied = self._authenticity.copied(self.to_train, indices)
        self._data_copying = copying.DataCopying(exchange, seed=seed)
        self._parts = self._data_copying.parts(rows, self.to_train)
        # For the attack: of each real image the nearest synthetic ones, and its distances to all planted copies.
        count = min(_KEPT_NEIGHBOURS, num_synthetic)
        self._synthetic = nearest.find_nearest(exchange.reals, rows[:num_synthetic], count)
        self._planted = nearest.pairwise(exchange.reals, rows[num_synthetic:])

    def run(self, weights: np.ndarray) -> dict[str, _Result]:
        number = float(weights[0].sum())
        results = {}
        for name, greater in copying.EXCHANGED.items():
            figures = weights @ self._values[name] / number
            p = copying.p_values(figures, greater=greater)
            if name == "distance_ratio":
                figures = np.exp(figures)
            results[name] = _Result(figures[:, 0], p, float(figures[0, 1:].mean()), _quantiles(figures[0, 1:]))
        copied = weights @ self._copied / number
        p = self._authenticity.p_values(copied, int(number))
        results[AUTHENTICITY] = _Result(1 - copied, p, self._authenticity.expected, None)
        results[DATA_COPYING] = _Result(*self._data_copying.scores(weights @ self._parts), 0.0, None)
        attacks = membership.attack(self.membership_scores(weights), self._exchange.members, seed=self._seed)
        for column, name in enumerate(membership.NAMES):
            figures = attacks[..., column]
            p = copying.p_values(figures, greater=True)
            results[name] = _Result(figures[:, 0], p, float(figures[0, 1:].mean()), _quantiles(figures[0, 1:]))
        return results

    def membership_scores(self, weights: np.ndarray) -> np.ndarray:
        """Minus the distance of each real image to the nearest image of each set: float32 [D, N]."""
        scores = np.empty([len(weights), len(self._exchange.reals)], np.float32)
        indices, distances = self._synthetic.indices, self._synthetic.distances
        for row, weight in enumerate(weights):
            kept = weight[indices] > 0
            first = np.where(kept.any(axis=1), kept.argmax(axis=1), indices.shape[1] - 1)[:, None]
            own = np.take_along_axis(distances, first, axis=1)[:, 0]
            planted = np.flatnonzero(weight[self._num_synthetic :])
            if len(planted):
                own = np.minimum(own, self._planted[:, planted].min(axis=1))
            scores[row] = -own
        return scores


def _power(kind: str, rate: float, copies: int, p_values: np.ndarray) -> Power:
    hits, draws = int((p_values <= ALPHA).sum()), len(p_values)
    exact = stats.binomtest(hits, draws).proportion_ci(method="exact")
    return Power(kind, rate, copies, hits / draws, (float(exact.low), float(exact.high)))


def _quantiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
