"""Distances between two sets of feature vectors, in float64.

Fréchet distance (Heusel et al. 2017, arXiv 1706.08500), kernel distance KID (Bińkowski et al. 2018, arXiv 1801.01401),
precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991), density and coverage (Naeem et al. 2020,
arXiv 2002.09797). Arrays that are no [N, D] of finite numbers, or too few rows, are a ValueError naming the argument.
"""

import dataclasses

import numpy as np

NEIGHBOURS = 5  # Naeem et al.'s k; Kynkäänniemi et al. use 3
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000

_BLOCK_BYTES = 64 * 2**20
# Squared distances come from a matrix product; differences below this share of the norms are rounding.
_ROUNDING = 1e-12
# A vector on a ball's surface counts as inside, also if its distance was rounded up.
_TOLERANCE = 1e-9


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased covariance.

    Args:
        features: [N, D], N at least 2. With N <= D the covariance is singular, which `frechet_distance` takes.

    Returns:
        float64 [D] and [D, D].
    """
    features = _checked(features, "features", 2)
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))


def frechet_distance(
    mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, covariance_b: np.ndarray
) -> float:
    """Squared Fréchet distance of two Gaussians, |μa - μb|² + tr(Ca + Cb - 2 (Ca Cb)^½) (Dowson and Landau 1982).

    Args:
        mean_a, mean_b: [D].
        covariance_a, covariance_b: [D, D], symmetric; may be singular or zero.

    Returns:
        At least 0; 0 for equal Gaussians. Of samples it is biased upwards, the more the fewer there are: compare
        figures of the same number of images only.

    Raises:
        ValueError: a value is not finite.
    """
    if not all(np.isfinite(value).all() for value in (mean_a, covariance_a, mean_b, covariance_b)):
        raise ValueError("frechet_distance: means and covariances must be finite")
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    # (Ca Cb)^½ has the trace of (Ca^½ Cb Ca^½)^½, which is symmetric: no complex root, whatever the ranks.
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance_b @ root), 0)).sum()
    difference = mean_a - mean_b
    distance = difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross
    return max(float(distance), 0.0)


@dataclasses.dataclass(frozen=True)
class KernelDistance:
    """What `kernel_distance` returns.

    Attributes:
        mean: of the subsets' distances: the KID. May be slightly below 0, since the estimate is unbiased.
        std: standard deviation of the subsets' distances.
        subsets, subset_size: how many there were, and of how many images of each set.
    """

    mean: float
    std: float
    subsets: int
    subset_size: int


def kernel_distance(
    real: np.ndarray,
    synthetic: np.ndarray,
    *,
    subsets: int = KID_SUBSETS,
    subset_size: int = KID_SUBSET_SIZE,
    seed: int = 0,
) -> KernelDistance:
    """KID: the squared maximum mean discrepancy with kernel k(x, y) = (x·y / D + 1)³, unbiased (Bińkowski 2018, eq. 4).

    Its expectation does not depend on the number of images, unlike that of the Fréchet distance. Memory beyond the
    features: 2 blocks of subset_size² numbers.

    Args:
        real, synthetic: [N, D] and [M, D], at least 4 rows each.
        subsets: how many pairs of random subsets are compared.
        subset_size: rows of each, drawn without replacement; at most half of the smaller set, so that subsets differ.
        seed: of the draws.
    """
    real, synthetic = _checked_pair(real, synthetic, 4)
    size = min(subset_size, len(real) // 2, len(synthetic) // 2)
    rng = np.random.default_rng(seed)
    values = [
        _discrepancy(
            real[rng.choice(len(real), size, replace=False)],
            synthetic[rng.choice(len(synthetic), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(values)), float(np.std(values)), subsets, size)


def _discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a, b):
        base = a @ b.T
        base /= a.shape[1]
        base += 1.0
        values = np.square(base)
        values *= base  # base**3 takes five times as long
        return values

    def mean_of_pairs(a):
        values = kernel(a, a)
        return (values.sum() - np.trace(values)) / (len(a) * (len(a) - 1))

    return mean_of_pairs(x) + mean_of_pairs(y) - 2.0 * kernel(x, y).mean()


@dataclasses.dataclass(frozen=True)
class ManifoldMeasures:
    """What `manifold_measures` returns; the first two and coverage are in [0, 1].

    Attributes:
        precision: share of synthetic vectors within a real vector's ball: do they look real?
        recall: share of real vectors within a synthetic vector's ball: is every kind of real image there?
        density: mean number of real balls around a synthetic vector, over k; near 1 for sets of one distribution, may
            exceed 1. An outlier among the reals raises it less than it raises precision.
        coverage: share of real vectors with a synthetic one in their ball.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_measures(real: np.ndarray, synthetic: np.ndarray, *, neighbours: int = NEIGHBOURS) -> ManifoldMeasures:
    """Precision, recall (Kynkäänniemi 2019, eqs. 1 to 3), density and coverage (Naeem 2020, eqs. 3 and 5).

    A vector's ball reaches to its k-th nearest neighbour in its own set, itself left out, and holds its surface, as in
    Kynkäänniemi's definition. (Naeem's program leaves the surface out, which differs for copies only.) So a set
    compared with itself has precision, recall and coverage 1 and density (k + 1) / k, and two sets of one and the same
    constant vector are within each other.

    Memory: float64 copies of both sets, and at any time at most 4 blocks of 64 MiB (or of one row) of distances.

    Args:
        real, synthetic: [N, D] and [M, D], more than `neighbours` rows each. Recall and coverage fall with fewer
            synthetic vectors: compare figures of the same numbers only.
        neighbours: k.
    """
    if neighbours < 1:
        raise ValueError(f"neighbours={neighbours}: must be at least 1")
    real, synthetic = _checked_pair(real, synthetic, neighbours + 1)
    # Distances do not change, and keep more digits where all vectors are far from the origin.
    centre = real.mean(axis=0)
    real, synthetic = real - centre, synthetic - centre
    real_radii = _squared_radii(real, neighbours)
    synthetic_radii = _squared_radii(synthetic, neighbours)
    precise = np.zeros(len(synthetic), bool)
    balls = np.zeros(len(synthetic), np.int64)
    recalled = np.zeros(len(real), bool)
    covered = np.zeros(len(real), bool)
    for part, distances in _distance_blocks(real, synthetic):
        in_real_ball = distances <= real_radii[part, None]
        precise |= in_real_ball.any(axis=0)
        balls += in_real_ball.sum(axis=0)
        covered[part] = in_real_ball.any(axis=1)
        recalled[part] = (distances <= synthetic_radii).any(axis=1)
    return ManifoldMeasures(
        precision=float(precise.mean()),
        recall=float(recalled.mean()),
        density=float(balls.mean() / neighbours),
        coverage=float(covered.mean()),
    )


def nearest_others(features: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Euclidean distance of each row to the nearest row of another group, such as another patient; float64 [N].

    Equal rows are at distance 0. Infinite where there is no other group.

    Args:
        features: [N, D].
        groups: int [N].
    """
    features = _checked(features, "features", 1)
    features = features - features.mean(axis=0)
    nearest = np.empty(len(features))
    for part, squares in _distance_blocks(features, features):
        squares[groups[part, None] == groups] = np.inf
        nearest[part] = squares.min(axis=1)
    return np.sqrt(nearest)


def _squared_radii(features: np.ndarray, neighbours: int) -> np.ndarray:
    """Squared distance to each row's k-th nearest other row, widened by the tolerance; [N]."""
    radii = np.empty(len(features))
    for part, distances in _distance_blocks(features, features):
        distances[np.arange(len(distances)), np.arange(part.start, part.stop)] = np.inf
        distances.partition(neighbours - 1, axis=1)
        radii[part] = distances[:, neighbours - 1]
    return radii * (1.0 + _TOLERANCE)


def _distance_blocks(a: np.ndarray, b: np.ndarray):
    """Yields (slice of a's rows, squared distances [rows, M]) in blocks of at most _BLOCK_BYTES."""
    squares_a, squares_b = np.square(a).sum(axis=1), np.square(b).sum(axis=1)
    rows = max(1, _BLOCK_BYTES // (8 * len(b)))
    for start in range(0, len(a), rows):
        part = slice(start, min(start + rows, len(a)))
        scale = squares_a[part, None] + squares_b
        distances = a[part] @ b.T
        distances *= -2.0
        distances += scale
        scale *= _ROUNDING
        distances[distances <= scale] = 0.0
        yield part, distances


def _checked(features: np.ndarray, name: str, least: int) -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"{name}: has shape {list(features.shape)}, not [images, features]")
    if len(features) < least:
        raise ValueError(f"{name}: has {len(features)} images; at least {least} are needed")
    if not np.isfinite(features).all():
        raise ValueError(f"{name}: has values that are not finite")
    return features


def _checked_pair(real: np.ndarray, synthetic: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    real, synthetic = _checked(real, "real", least), _checked(synthetic, "synthetic", least)
    if real.shape[1] != synthetic.shape[1]:
        raise ValueError(f"synthetic: has {synthetic.shape[1]} features, the real images have {real.shape[1]}")
    return real, synthetic
