"""The distances against plain loops written from the papers, and cases worked out by hand."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
from scipy.spatial import distance

from tfcxr.fidelity import distances


def sets(seed, n=60, m=50, width=7, shift=0.3):
    rng = np.random.default_rng(seed)
    scale = np.linspace(0.5, 2, width)
    return rng.normal(size=[n, width]) * scale, rng.normal(size=[m, width]) * scale[::-1] + shift


def loop_kid(x, y):
    """The unbiased estimate, a pair at a time."""
    d = x.shape[1]

    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / d + 1) ** 3

    xx = [k(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]
    yy = [k(y[i], y[j]) for i in range(len(y)) for j in range(len(y)) if i != j]
    xy = [k(a, b) for a in x for b in y]
    return np.mean(xx) + np.mean(yy) - 2 * np.mean(xy)


def loop_manifold(real, fake, k):
    """The four definitions with distances taken one by one."""

    def radius(points, i):
        return sorted(distance.euclidean(points[i], q) for j, q in enumerate(points) if j != i)[k - 1]

    real_radii = [radius(real, i) for i in range(len(real))]
    fake_radii = [radius(fake, j) for j in range(len(fake))]
    apart = [[distance.euclidean(x, y) for y in fake] for x in real]
    n, m = range(len(real)), range(len(fake))
    precision = sum(any(apart[i][j] <= real_radii[i] for i in n) for j in m) / len(fake)
    recall = sum(any(apart[i][j] <= fake_radii[j] for j in m) for i in n) / len(real)
    density = sum(apart[i][j] <= real_radii[i] for i in n for j in m) / (k * len(fake))
    coverage = sum(min(apart[i]) <= real_radii[i] for i in n) / len(real)
    return precision, recall, density, coverage


@pytest.mark.parametrize("seed", [0, 1])
def test_frechet_equals_the_textbook_formula(seed):
    a, b = sets(seed)
    expected = (
        np.sum((a.mean(0) - b.mean(0)) ** 2)
        + np.trace(np.cov(a.T) + np.cov(b.T))
        - 2 * np.trace(scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real)
    )
    got = distances.frechet_distance(*distances.moments(a), *distances.moments(b))
    assert got == pytest.approx(expected, rel=1e-9)


def test_frechet_of_one_dimension_by_hand():
    # Means 1 and 2, unbiased variances 2 and 8: 1 + 2 + 8 - 2·√16 = 3.
    a, b = np.array([[0.0], [2.0]]), np.array([[0.0], [4.0]])
    assert distances.frechet_distance(*distances.moments(a), *distances.moments(b)) == pytest.approx(3.0, rel=1e-12)


def test_frechet_of_degenerate_sets():
    rng = np.random.default_rng(2)
    few = rng.normal(size=[5, 40])  # fewer images than dimensions: singular covariance
    statistics = distances.moments(few)
    assert distances.frechet_distance(*statistics, *statistics) == pytest.approx(0, abs=1e-5)
    other = distances.moments(few + 2.0)
    assert distances.frechet_distance(*statistics, *other) == pytest.approx(160, rel=1e-6)
    constant = distances.moments(np.full([5, 3], 7.0))
    assert distances.frechet_distance(*constant, *constant) == 0
    assert distances.frechet_distance(*constant, np.full(3, 8.0), np.eye(3)) == pytest.approx(6)


def test_kid_equals_a_plain_loop():
    # Subsets of half the rows: the same draws by hand.
    a, b = sets(3, n=20, m=20)
    got = distances.kernel_distance(a, b, subsets=3, subset_size=8, seed=5)
    rng = np.random.default_rng(5)
    values = [loop_kid(a[rng.choice(20, 8, replace=False)], b[rng.choice(20, 8, replace=False)]) for _ in range(3)]
    assert got.mean == pytest.approx(np.mean(values), rel=1e-10)
    assert got.std == pytest.approx(np.std(values), rel=1e-10)
    assert (got.subsets, got.subset_size) == (3, 8)


def test_kid_by_hand_and_its_bias():
    # One dimension, reals all 1, synthetic all 2: (1 + 1)³ + (4 + 1)³ - 2 (2 + 1)³ = 79, in every subset.
    got = distances.kernel_distance(np.full([6, 1], 1.0), np.full([8, 1], 2.0))
    assert (got.mean, got.std, got.subset_size) == (79.0, 0.0, 3)
    # Unbiased: sets of one distribution average to 0, far below their distance to a shifted one.
    rng = np.random.default_rng(4)
    pairs = [distances.kernel_distance(*rng.normal(size=[2, 100, 4]), subsets=4).mean for _ in range(40)]
    assert abs(np.mean(pairs)) < 3 * np.std(pairs) / np.sqrt(len(pairs))
    assert distances.kernel_distance(rng.normal(size=[100, 4]), rng.normal(1, size=[100, 4])).mean > 5 * np.std(pairs)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("block_bytes", [8, 8 * 50 * 7, 2**26])
def test_manifold_measures_equal_plain_loops_whatever_the_block(monkeypatch, k, block_bytes):
    monkeypatch.setattr(distances, "_BLOCK_BYTES", block_bytes)
    a, b = sets(6, shift=1.0)
    got = distances.manifold_measures(a, b, neighbours=k)
    expected = loop_manifold(a, b, k)
    assert 0 < expected[0] < 1
    assert (got.precision, got.recall, got.density, got.coverage) == pytest.approx(expected, rel=1e-12)


def test_manifold_measures_by_hand():
    # k = 1. Reals 0, 1, 10: radii 1, 1, 9. Synthetic 0.5, 30, 31: radii 29.5, 1, 1.
    real, fake = np.array([[0.0], [1.0], [10.0]]), np.array([[0.5], [30.0], [31.0]])
    got = distances.manifold_measures(real, fake, neighbours=1)
    # Only 0.5 lies in real balls, in those of 0 and 1 (10 reaches down to 1); all reals lie within 29.5 of 0.5.
    assert got == distances.ManifoldMeasures(precision=1 / 3, recall=1.0, density=2 / 3, coverage=2 / 3)


def test_manifold_measures_of_identical_far_and_constant_sets():
    a, _ = sets(7)
    same = distances.manifold_measures(a + 1e4, a + 1e4, neighbours=5)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert same.density == pytest.approx(6 / 5, rel=1e-12)
    assert distances.manifold_measures(a, a + 1e3) == distances.ManifoldMeasures(0, 0, 0, 0)
    # All radii are 0; rounding must not tell equal vectors apart.
    constant = np.full([9, 5], 0.1)
    assert distances.manifold_measures(constant, constant).precision == 1
    assert distances.manifold_measures(constant, constant).recall == 1
    assert distances.manifold_measures(constant, constant + 1e-3).coverage == 0


def test_a_mode_that_is_missing_lowers_recall_and_coverage_only():
    rng = np.random.default_rng(8)
    real = np.concatenate([rng.normal(size=[100, 4]), rng.normal(size=[100, 4]) + 50])
    got = distances.manifold_measures(real, rng.normal(size=[200, 4]))
    assert got.precision > 0.9
    assert got.recall < 0.55
    assert got.coverage < 0.55


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda a: distances.moments(a[:1]), "features: has 1 images; at least 2"),
        (lambda a: distances.moments(a[0]), r"features: has shape \[7\]"),
        (lambda a: distances.moments(np.where(a > 1, np.nan, a)), "features: has values that are not finite"),
        (lambda a: distances.kernel_distance(a, a[:3]), "synthetic: has 3 images; at least 4"),
        (lambda a: distances.kernel_distance(a, a[:, :3]), "synthetic: has 3 features, the real images have 7"),
        (lambda a: distances.manifold_measures(a[:5], a), "real: has 5 images; at least 6"),
        (lambda a: distances.manifold_measures(a, a, neighbours=0), "neighbours=0"),
        (lambda a: distances.manifold_measures(a, a * np.inf), "synthetic: has values that are not finite"),
        (lambda a: distances.frechet_distance(a[0] * np.nan, np.eye(7), a[0], np.eye(7)), "must be finite"),
    ],
)
def test_what_cannot_be_measured_is_named(call, words):
    with pytest.raises(ValueError, match=words), np.errstate(invalid="ignore"):
        call(sets(9)[0])


@pytest.mark.large
@pytest.mark.parametrize("seed", [0, 1])
def test_manifold_measures_equal_those_of_the_program_of_naeem_et_al(seed):
    prdc = pytest.importorskip("prdc", reason="needs the extra `peers`")
    real, fake = sets(seed, n=900, m=700, width=12)
    expected = prdc.compute_prdc(real, fake, nearest_k=5)
    got = dataclasses.asdict(distances.manifold_measures(real, fake, neighbours=5))
    assert got == pytest.approx({name: float(value) for name, value in expected.items()})
