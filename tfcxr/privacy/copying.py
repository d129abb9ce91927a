"""Figures that tell whether synthetic images are nearer to training images than an honest generator's would be.

Tests by exchange: training and holdout patients are alike for a generator that copies nobody, if they were drawn alike.
So a figure is compared with what it would be if other patients had been the training patients, drawn at random among
all of them, whole patients at a time (a permutation test: Ernst, "Permutation Methods", Statistical Science 2004).
Two figures of the literature have tests of their own: `Authenticity` and `DataCopying`.

All figures are means over the synthetic images of a value for each, or follow from sums of such values, so that those
of many changed sets cost one matrix product.
"""

from collections.abc import Iterator

import numpy as np
from scipy import stats
from sklearn import cluster

from tfcxr.privacy import nearest

# Figures of `Exchange`, and whether copying makes them larger.
EXCHANGED = {
    "distance_ratio": False,
    "train_share": True,
    "much_nearer": True,
    "nearer_than_any_holdout": True,
    "matched": True,
}
MATCH_QUANTILE = 0.01

_MUCH = 0.5  # at most this share of the distance to a holdout image
_MAX_RATIO = 10.0  # larger ones of distances count as this one, as do smaller ones than its inverse
_NEIGHBOURS_PER_RATIO = 5
_LEAST_NEIGHBOURS, _MOST_NEIGHBOURS = 16, 128
_CELL_HOLDOUTS = 20
_MOST_CELLS = 10
_LEAST_IN_CELL = 5


class Exchange:
    """Tests by exchange in one feature space.

    Attributes:
        reals: vectors of training and holdout images, float32 [N, F].
        members: which are training images, bool [P + 1, N]: truly, then under each exchange.
        patients: numbers of their patients, int64 [N].
        neighbours: how many nearest real images of an image the figures need.
        holdout_distances: of the holdout images to the nearest training image, float32 [holdouts].
        match_distance: the 1% quantile of those.
    """

    def __init__(
        self, reals: np.ndarray, is_train: np.ndarray, patients: np.ndarray, *, permutations: int = 999, seed: int = 0
    ):
        """Finds out what real images' distances are, truly and under each exchange.

        Args:
            reals: float [N, F].
            is_train: bool [N], the same for all images of a patient.
            patients: int [N].
            permutations: P, number of exchanges.
            seed: of the exchanges.
        """
        self.reals = np.asarray(reals, np.float32)
        self.patients = np.unique(patients, return_inverse=True)[1]
        self.members = exchange_roles(np.asarray(is_train, bool), self.patients, permutations, seed)
        ratio = len(reals) / min(is_train.sum(), (~is_train).sum())
        most = int(np.clip(np.ceil(_NEIGHBOURS_PER_RATIO * ratio), _LEAST_NEIGHBOURS, _MOST_NEIGHBOURS))
        self.neighbours = min(most, len(reals))
        own = nearest.find_nearest_of_others(self.reals, self.patients, self.neighbours)
        nearer, matched = [], []
        for member, (to_train, _) in zip(self.members, self._split(own), strict=True):
            of_holdouts = to_train[~member]
            nearer.append(of_holdouts.min())
            matched.append(np.quantile(of_holdouts, MATCH_QUANTILE))
            if not len(nearer) > 1:
                self.holdout_distances, self.match_distance = of_holdouts, float(matched[0])
        self._nearer, self._matched = nearer, matched

    def find(self, vectors: np.ndarray) -> nearest.Nearest:
        """The nearest real images of vectors [M, F], as many as `values` needs."""
        return nearest.find_nearest(vectors, self.reals, self.neighbours)

    def values(self, found: nearest.Nearest) -> dict[str, np.ndarray]:
        """What each image adds to each figure: float32 [M, P + 1], of which a set's figure is the mean over its images.

        That of distance_ratio is the logarithm of the distance to the nearest training image over that to the nearest
        holdout image; the others are 1 or 0. Where an image's neighbours are all training images (or none), its last
        one stands for a holdout image, which can only make an image look less like a copy.
        """
        width = len(self.members)
        values = {name: np.empty([len(found.distances), width], np.float32) for name in EXCHANGED}
        tiny = np.float32(1e-6 * np.median(found.distances[:, 0]) + 1e-12)
        limit = np.log(_MAX_RATIO)
        for p, (train, holdout) in enumerate(self._split(found)):
            ratio = np.log((train + tiny) / (holdout + tiny))
            values["distance_ratio"][:, p] = np.clip(ratio, -limit, limit)
            values["train_share"][:, p] = (train < holdout) + 0.5 * (train == holdout)
            values["much_nearer"][:, p] = train < _MUCH * holdout
            values["nearer_than_any_holdout"][:, p] = train < self._nearer[p]
            values["matched"][:, p] = train < self._matched[p]
        return values

    def find_train(self, vectors: np.ndarray, found: nearest.Nearest) -> tuple[np.ndarray, np.ndarray]:
        """The nearest training image of each vector: distances float32 [M], and positions among the reals int64 [M]."""
        hits = self.members[0][found.indices]
        first = hits.argmax(axis=1)[:, None]
        distances = np.take_along_axis(found.distances, first, axis=1)[:, 0]
        indices = np.take_along_axis(found.indices, first, axis=1)[:, 0]
        missing = ~hits.any(axis=1)
        if missing.any():
            train = np.flatnonzero(self.members[0])
            again = nearest.find_nearest(vectors[missing], self.reals[train])
            distances[missing], indices[missing] = again.distances[:, 0], train[again.indices[:, 0]]
        return distances, indices

    def _split(self, found: nearest.Nearest) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the distances to the nearest training and holdout image, float32 [M] each, under each exchange."""
        there = found.indices >= 0
        last = np.where(there, found.distances, -1).max(axis=1)
        for member in self.members:
            hits = member[found.indices]
            sides = []
            for hit in (hits & there, ~hits & there):
                first = np.take_along_axis(found.distances, hit.argmax(axis=1)[:, None], axis=1)[:, 0]
                sides.append(np.where(hit.any(axis=1), first, last))
            yield sides[0], sides[1]


def p_values(figures: np.ndarray, *, greater: bool) -> np.ndarray:
    """One-sided p-values [...] of figures [..., P + 1], the true one first: how often an exchange does as much."""
    true, others = figures[..., :1], figures[..., 1:]
    slack = 1e-6 * np.abs(true) + 1e-9  # sums in another order differ in their last digits
    extreme = others >= true - slack if greater else others <= true + slack
    return (1 + extreme.sum(axis=-1)) / figures.shape[-1]


class Authenticity:
    """Share of images that are no copies of training images by the rule of Alaa et al. (ICML 2022, arXiv 2102.08921).

    An image is authentic if it is farther from the nearest training image than that one is from its own nearest other
    training image (their section 4.3). The share among holdout images is the reference: the test asks whether that of
    the synthetic images is lower (normal approximation, the variance of the holdouts' share by patient). A generator
    of less diversity has a lower share as well, without copying.

    Attributes:
        expected: share of authentic ones among the holdout images.
    """

    def __init__(self, exchange: Exchange):
        """`exchange`: of the space, whose real images are taken."""
        train = np.flatnonzero(exchange.members[0])
        vectors = exchange.reals[train]
        own = nearest.find_nearest_of_others(vectors, np.arange(len(train)), 1)
        self._radii = np.zeros(len(exchange.reals), np.float32)
        self._radii[train] = own.distances[:, 0]
        holdout = np.flatnonzero(~exchange.members[0])
        found = nearest.find_nearest(exchange.reals[holdout], vectors)
        copied = self.copied(found.distances[:, 0], train[found.indices[:, 0]])
        groups = np.unique(exchange.patients[holdout], return_inverse=True)[1]
        sums = np.bincount(groups, copied - copied.mean())
        self.expected = 1 - float(copied.mean())
        self._variance = float(np.square(sums).sum()) / len(holdout) ** 2

    def copied(self, distances: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """1.0 for each image that is not authentic, float64 [M], by its nearest training image as of `find_train`."""
        return (distances < self._radii[indices]).astype(np.float64)

    def p_values(self, copied: np.ndarray, number: int) -> np.ndarray:
        """Of shares [...] of images that are not authentic, of `number` images."""
        # Agresti and Coull's two more of either kind, so that no variance is 0.
        share = (copied * number + 2) / (number + 4)
        spread = np.sqrt(share * (1 - share) / number + self._variance + 1 / (4 * len(self._radii) ** 2))
        return stats.norm.sf((copied - (1 - self.expected)) / spread)


class DataCopying:
    """The data-copying test of Meehan, Chaudhuri and Dasgupta (AISTATS 2020, arXiv 2004.05675).

    In each cell of the training images (k-means), the rank test of Mann and Whitney asks whether synthetic images are
    nearer to training images than holdout images are; C_T is the mean of its z-scores, weighted by the holdouts' share
    of each cell (their section 4). Far below 0: copying; far above: underfitting. One image of each holdout patient is
    taken, since the test wants independent ones. Cells with fewer than 5 images of either kind are left out.
    """

    def __init__(self, exchange: Exchange, *, seed: int = 0):
        """`exchange`: of the space, whose real images are taken; `seed`: of the cells."""
        train = exchange.reals[exchange.members[0]]
        holdout = np.flatnonzero(~exchange.members[0])
        rng = np.random.default_rng(seed)
        shuffled = rng.permutation(holdout)
        single = shuffled[np.unique(exchange.patients[shuffled], return_index=True)[1]]
        cells = int(np.clip(len(single) // _CELL_HOLDOUTS, 1, _MOST_CELLS))
        self._cells = cluster.KMeans(cells, n_init=1, random_state=seed).fit(train)
        self._number = cells
        own = self._cells.predict(exchange.reals[single])
        distances = nearest.find_nearest(exchange.reals[single], train).distances[:, 0]
        self._sorted = [np.sort(distances[own == cell]) for cell in range(cells)]

    def parts(self, vectors: np.ndarray, distances: np.ndarray) -> np.ndarray:
        """What `scores` needs of each image, float64 [M, 2 C]: sums of them are what it needs of a set.

        Args:
            vectors: float [M, F].
            distances: to the nearest training image, [M].
        """
        cells = self._cells.predict(np.asarray(vectors, np.float32))
        parts = np.zeros([len(vectors), 2 * self._number])
        for cell, holdouts in enumerate(self._sorted):
            inside = np.flatnonzero(cells == cell)
            below = np.searchsorted(holdouts, distances[inside], "left")
            tied = np.searchsorted(holdouts, distances[inside], "right") - below
            parts[inside, cell] = 1
            parts[inside, self._number + cell] = below + 0.5 * tied
        return parts

    def scores(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """C_T, and its p-value against copying, of sums [..., 2 C] of `parts`; NaN and 1 if no cell has enough."""
        counts, wins = sums[..., : self._number], sums[..., self._number :]
        holdouts = np.array([len(cell) for cell in self._sorted], np.float64)
        weights = np.where((counts >= _LEAST_IN_CELL) & (holdouts >= _LEAST_IN_CELL), holdouts, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.sqrt(counts * holdouts * (counts + holdouts + 1) / 12)
            z = np.where(weights > 0, (wins - counts * holdouts / 2) / spread, 0)
            score = (weights * z).sum(axis=-1) / weights.sum(axis=-1)
            p = stats.norm.cdf(score * weights.sum(axis=-1) / np.sqrt(np.square(weights).sum(axis=-1)))
        return score, np.where(np.isfinite(score), p, 1.0)


def exchange_roles(is_train: np.ndarray, patients: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """Which images are training images: bool [permutations + 1, N], truly, then with the patients' roles exchanged.

    Raises ValueError if images of one patient (numbers from 0, int [N]) are on both sides.
    """
    roles = np.zeros(patients.max() + 1, bool)
    roles[patients] = is_train
    if not np.array_equal(roles[patients], is_train):
        raise ValueError("is_train: images of one patient are on both sides")
    rng = np.random.default_rng(seed)
    return np.stack([is_train, *(rng.permutation(roles)[patients] for _ in range(permutations))])
