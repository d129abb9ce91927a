"""The progress measure; the formula itself is tested with the other distances."""

import numpy as np
import pytest

from tfcxr.gan import frechet


def test_zero_for_the_same_images_and_the_squared_shift_for_shifted_ones():
    images = np.random.default_rng(1).uniform(-0.5, 0.5, [100, 8, 8, 1])
    measure = frechet.PixelFrechet(images)
    assert measure(images) == pytest.approx(0, abs=1e-6)
    # All 64 components of 8x8 pixels are kept, so the shift is seen whole: 64·0.1².
    assert measure(images + 0.1) == pytest.approx(0.64, rel=1e-4)


def test_fewer_images_than_components():
    images = np.random.default_rng(2).uniform(-1, 1, [3, 8, 8, 1])
    assert np.isfinite(frechet.PixelFrechet(images)(images[::-1]))
