"""Exposure and display."""

import numpy as np
import pytest

from tfrecords_builder.simulator import projection


def exposure(**changes):
    values = {"photons": 1e9, "scatter": 0.0, "blur": 0.0, "low": 0, "high": 100, "contrast": 0, "gamma": 1.0}
    return projection.Exposure(**(values | changes))


def ramp(n=64):
    return np.broadcast_to(np.linspace(0, 4, n, dtype=np.float32), (n, n)).copy()


def test_beer_lambert_is_undone_by_the_logarithm():
    grey = projection.expose(ramp(), exposure(), 0.3, np.random.default_rng(0))
    assert np.corrcoef(grey[10, 8:-8], ramp()[10, 8:-8])[0, 1] > 0.999
    assert grey.min() >= 0
    assert grey.max() <= 1
    assert grey[0, -1] > grey[0, 0]  # what absorbs more is whiter


def test_scatter_lowers_contrast_and_few_photons_add_noise():
    def log_noise(**changes):
        flat = np.full((64, 64), 2.0, np.float32)
        return projection.expose(
            np.hstack([flat, flat + 1])[:, 32:96], exposure(**changes), 0.3, np.random.default_rng(0)
        )

    clean, noisy = log_noise(), log_noise(photons=1e3)
    assert noisy[:, :20].std() > 5 * clean[:, :20].std()
    edge = np.full((64, 64), 2.0, np.float32)
    edge[:, 32:] = 3.0
    signal = [np.exp(-edge), np.exp(-edge) + 0.5 * projection._blur_broad(np.exp(-edge), 20.0)]
    ratios = [s[:, :20].mean() / s[:, 44:].mean() for s in signal]
    assert ratios[1] < ratios[0]


@pytest.mark.parametrize("contrast", [0.0, 2.0])
@pytest.mark.parametrize("equalise", [0.0, 0.5])
def test_display_is_monotone(contrast, equalise):
    shown = projection.display(ramp(), exposure(contrast=contrast, equalise=equalise, gamma=0.8))
    assert (np.diff(shown[0]) >= -1e-6).all()
    assert np.isfinite(shown).all()


def test_collimation_is_black_and_marker_white():
    shown = projection.display(ramp(), exposure(collimation=(0.1, 0.0, 0.0, 0.25), marker="L", marker_place=(0.3, 0.3)))
    assert not shown[:, :6].any()
    assert not shown[48:].any()
    assert shown[15:24, 15:24].max() > 0.5


def test_average_and_bytes():
    image = np.arange(16, dtype=np.float32).reshape(4, 4) / 15
    np.testing.assert_allclose(projection.average(image, 2), np.array([[2.5, 4.5], [10.5, 12.5]]) / 15, rtol=1e-6)
    assert projection.to_bytes(np.array([-0.1, 0.5, 1.2])).tolist() == [0, 128, 255]
