"""The progress measure against an independent formula."""

import numpy as np
import pytest
import scipy.linalg

from tfcxr.gan import frechet


def test_distance_equals_the_textbook_formula():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200, 5)) * np.array([1, 2, 3, 4, 5]) + np.array([[[0.0]], [[0.7]]])
    statistics = [(x.mean(0), np.cov(x, rowvar=False)) for x in (a, b)]
    (ma, ca), (mb, cb) = statistics
    expected = np.sum((ma - mb) ** 2) + np.trace(ca + cb - 2 * scipy.linalg.sqrtm(ca @ cb).real)
    assert frechet.frechet_distance(ma, ca, mb, cb) == pytest.approx(expected, rel=1e-6)


def test_zero_for_the_same_images_and_the_squared_shift_for_shifted_ones():
    images = np.random.default_rng(1).uniform(-0.5, 0.5, [100, 8, 8, 1])
    measure = frechet.PixelFrechet(images)
    assert measure(images) == pytest.approx(0, abs=1e-6)
    # All 64 components of 8x8 pixels are kept, so the shift is seen whole: 64·0.1².
    assert measure(images + 0.1) == pytest.approx(0.64, rel=1e-4)


def test_fewer_images_than_components():
    images = np.random.default_rng(2).uniform(-1, 1, [3, 8, 8, 1])
    assert np.isfinite(frechet.PixelFrechet(images)(images[::-1]))
