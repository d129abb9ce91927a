"""What the number of images does to FID and KID: bootstrap intervals, FID at several numbers, and FID-infinity.

Arrays that are no [N, D] of finite numbers are a ValueError, as in distances.py.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfcxr.fidelity import distances

RESAMPLES = 100
POINTS = 8  # numbers of images at which the FID is measured
SMALLEST = 4  # the smallest of them is this part of all images

_BLOCK_ROWS = 512


@dataclasses.dataclass(frozen=True)
class Intervals:
    """What `bootstrap` returns: 95% intervals, of figures of as many images."""

    fid: tuple[float, float]
    kid: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class ByNumber:
    """What `frechet_by_number` returns.

    Attributes:
        numbers: of images of each set, rising, int.
        values: Fréchet distance at each; means over disjoint parts of the sets, where there is room for several.
        infinity: FID-infinity, which may be below 0 by chance.
        slope: of the line in 1 / number: the bias at N images is about slope / N.
    """

    numbers: Sequence[int]
    values: Sequence[float]
    infinity: float
    slope: float


def bootstrap(
    real: np.ndarray,
    other: np.ndarray,
    *,
    real_groups: np.ndarray,
    other_groups: np.ndarray,
    fid: float,
    kid: float,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Intervals:
    """Intervals of FID and KID by the bootstrap of both sets, whole groups (patients) at a time.

    A resample holds some images several times, which biases its Fréchet distance upwards like a smaller set. So the
    spread of the resamples about their median is laid around the figures of the sets themselves. In the kernel
    distance, pairs of an image and its own copy are left out.

    Time: a Fréchet distance for each resample, that is O(N D² + D³). Memory: weights, and blocks of 512 rows.

    Args:
        real, other: features [N, D] and [M, D].
        real_groups, other_groups: patient of each image, int [N] and [M].
        fid, kid: of the sets.
        resamples: number of resamples.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    real, other = np.asarray(real, np.float64), np.asarray(other, np.float64)
    real_weights, other_weights = (_draw(rng, groups, resamples) for groups in (real_groups, other_groups))
    fids = [
        distances.frechet_distance(*_moments(real, real_weights[:, b]), *_moments(other, other_weights[:, b]))
        for b in range(resamples)
    ]
    kids = (
        _kernel_mean(real, real, real_weights, real_weights, within=True)
        + _kernel_mean(other, other, other_weights, other_weights, within=True)
        - 2 * _kernel_mean(real, other, real_weights, other_weights, within=False)
    )
    low, high = _around(fid, np.array(fids))
    return Intervals((max(low, 0.0), max(high, 0.0)), _around(kid, kids[np.isfinite(kids)]))


def frechet_by_number(real: np.ndarray, other: np.ndarray, *, seed: int = 0) -> ByNumber:
    """The Fréchet distance at several numbers of images, and its extrapolation to infinitely many, FID-infinity.

    Chong and Forsyth 2020 (arXiv 1911.07023): the bias is linear in 1 / N, so the intercept of a line in 1 / N is free
    of it. They cut the synthetic set only; here both are cut to N, since both bias the distance. 8 numbers from a
    quarter of the images to all, evenly spaced in 1 / N. The line holds where N is large against the number of
    features.

    Args:
        real, other: features [N, D] and [M, D], at least 4 rows each; cut to the smaller number.
        seed: of the random order in which images are taken.
    """
    rng = np.random.default_rng(seed)
    most = min(len(real), len(other))
    if most < 4:
        raise ValueError(f"{most} images; at least 4 are needed")
    real, other = rng.permutation(real)[:most], rng.permutation(other)[:most]
    least = max(2, most // SMALLEST)
    numbers = sorted({round(1 / share) for share in np.linspace(1 / most, 1 / least, POINTS)})
    values = []
    for number in numbers:
        parts = [slice(start, start + number) for start in range(0, most - number + 1, number)]
        found = [
            distances.frechet_distance(*distances.moments(real[part]), *distances.moments(other[part]))
            for part in parts
        ]
        values.append(float(np.mean(found)))
    infinity, slope = extrapolate(numbers, values)
    return ByNumber(numbers, values, infinity, slope)


def extrapolate(numbers: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope of the least-squares line through `values` over 1 / `numbers`."""
    if len(numbers) < 2:
        return float(values[0]), 0.0
    slope, intercept = np.polyfit(1 / np.asarray(numbers, np.float64), values, 1)
    return float(intercept), float(slope)


def _draw(rng: np.random.Generator, groups: np.ndarray, resamples: int) -> np.ndarray:
    """How often each image is in each resample, int64 [N, B]: whole groups are drawn with replacement."""
    _, index = np.unique(groups, return_inverse=True)
    count = int(index.max()) + 1
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn.T[index]


def _moments(features: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased covariance of the rows, each as often as its weight says."""
    chosen = weights > 0
    features, weights = features[chosen], weights[chosen]
    total = weights.sum()
    mean = weights @ features / total
    centred = (features - mean) * np.sqrt(weights)[:, None]
    return mean, centred.T @ centred / max(total - 1, 1)


def _kernel_mean(
    a: np.ndarray, b: np.ndarray, a_weights: np.ndarray, b_weights: np.ndarray, *, within: bool
) -> np.ndarray:
    """Mean kernel of the pairs of each resample [B]; `within` one set, without pairs of an image and itself."""
    total = np.zeros(a_weights.shape[1])
    for start in range(0, len(a), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        base = a[rows] @ b.T / a.shape[1] + 1.0
        kernel = base * base * base
        if within:
            kernel[np.arange(len(kernel)), np.arange(start, start + len(kernel))] = 0.0
        total += np.einsum("nb,nb->b", a_weights[rows], kernel @ b_weights)
    pairs = a_weights.sum(axis=0) * b_weights.sum(axis=0)
    if within:
        pairs = pairs - np.square(a_weights).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample of one image only has no pairs
        return total / pairs


def _around(value: float, resampled: np.ndarray) -> tuple[float, float]:
    low, middle, high = np.quantile(resampled, (0.025, 0.5, 0.975))
    return float(value + low - middle), float(value + high - middle)
