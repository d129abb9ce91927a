"""FID-infinity and intervals against cases that are known."""

import numpy as np
import pytest

from tfcxr.fidelity import distances, sample_size


def gaussians(number, width=4, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=[number, width]), rng.normal(size=[number, width]) + shift


def test_a_line_in_one_over_n_is_extrapolated_exactly():
    numbers = [50, 100, 400]
    intercept, slope = sample_size.extrapolate(numbers, [3 + 50 / n for n in numbers])
    assert (intercept, slope) == (pytest.approx(3), pytest.approx(50))
    assert sample_size.extrapolate([7], [2.5]) == (2.5, 0.0)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_fid_infinity_is_the_distance_of_the_distributions(shift):
    # Equal covariances, means `shift` apart in each of 4 directions.
    real, other = gaussians(2000, shift=shift)
    found = sample_size.frechet_by_number(real, other)
    whole = distances.frechet_distance(*distances.moments(real), *distances.moments(other))
    assert found.numbers[0] == 500
    assert found.numbers[-1] == 2000
    assert found.values[-1] == pytest.approx(whole)
    assert len(found.numbers) == sample_size.POINTS
    assert found.values[0] > found.values[-1]
    assert found.slope > 0
    assert found.infinity == pytest.approx(4 * shift**2, abs=0.02 + 0.2 * shift)


def test_the_smallest_sets_are_measured_and_smaller_ones_refused():
    assert sample_size.frechet_by_number(*gaussians(4)).numbers == [2, 3, 4]
    with pytest.raises(ValueError, match="at least 4"):
        sample_size.frechet_by_number(*gaussians(3))


def test_intervals_hold_the_figures_and_narrow_with_more_images():
    widths = []
    for number in (100, 900):
        real, other = gaussians(number, shift=0.5)
        fid = distances.frechet_distance(*distances.moments(real), *distances.moments(other))
        kid = distances.kernel_distance(real, other).mean
        each = np.arange(number)
        found = sample_size.bootstrap(real, other, real_groups=each, other_groups=each, fid=fid, kid=kid)
        assert found.fid[0] < fid < found.fid[1]
        assert found.kid[0] < kid < found.kid[1]
        widths.append((found.fid[1] - found.fid[0], found.kid[1] - found.kid[0]))
    # Three times as narrow for nine times as many images.
    assert widths[0][0] / widths[1][0] == pytest.approx(3, rel=0.4)
    assert widths[0][1] / widths[1][1] == pytest.approx(3, rel=0.4)


def test_the_interval_is_about_as_wide_as_new_samples_spread():
    drawn = []
    for seed in range(60):
        real, other = gaussians(200, shift=0.5, seed=seed)
        drawn.append(distances.frechet_distance(*distances.moments(real), *distances.moments(other)))
    real, other = gaussians(200, shift=0.5)
    each = np.arange(200)
    low, high = sample_size.bootstrap(real, other, real_groups=each, other_groups=each, fid=1, kid=0).fid
    assert high - low == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.35)


def test_whole_patients_are_drawn_and_the_means_are_weighted():
    weights = sample_size._draw(np.random.default_rng(0), np.repeat(np.arange(10), 3), 50)
    assert weights.shape == (30, 50)
    np.testing.assert_array_equal(weights.sum(axis=0), 30)
    np.testing.assert_array_equal(weights[::3], weights[1::3])
    rows, counts = np.random.default_rng(1).normal(size=[6, 3]), np.array([2, 0, 1, 3, 0, 1])
    mean, covariance = sample_size._moments(rows, counts)
    np.testing.assert_allclose(mean, np.repeat(rows, counts, axis=0).mean(axis=0))
    np.testing.assert_allclose(covariance, np.cov(np.repeat(rows, counts, axis=0).T))


def test_the_kernel_mean_equals_a_loop_without_pairs_of_copies():
    rng = np.random.default_rng(2)
    rows, counts = rng.normal(size=[5, 3]), np.array([[2], [0], [1], [3], [1]])
    repeated = np.repeat(np.arange(5), counts[:, 0])
    values = [(rows[i] @ rows[j] / 3 + 1) ** 3 for i in repeated for j in repeated if i != j]
    got = sample_size._kernel_mean(rows, rows, counts, counts, within=True)
    np.testing.assert_allclose(got, [np.mean(values)])
