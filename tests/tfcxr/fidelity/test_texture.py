"""Texture features against plain loops, and images whose features are known."""

import numpy as np
import pytest

from tfcxr.fidelity import texture


def signed(grey):
    return (np.asarray(grey, np.float32) / 127.5 - 1)[None, :, :, None]


def loop_cooccurrence(bins, distance):
    """Symmetric shares of pairs, for each of the four directions."""
    side = len(bins)
    found = []
    diagonal = round(distance * np.sin(np.pi / 4))
    for down, right in ((0, distance), (diagonal, diagonal), (distance, 0), (diagonal, -diagonal)):
        counts = np.zeros([texture.LEVELS] * 2)
        for i in range(side):
            for j in range(side):
                if 0 <= i + down < side and 0 <= j + right < side:
                    counts[bins[i, j], bins[i + down, j + right]] += 1
        found.append((counts + counts.T) / (2 * counts.sum()))
    return found


def test_haralicks_features_equal_a_loop():
    grey = np.random.default_rng(0).integers(0, 256, [12, 12])
    got = texture.compute(signed(grey))[0, 5:]
    names = ("contrast", "dissimilarity", "homogeneity", "energy")
    i, j = np.indices([texture.LEVELS] * 2)
    for column, distance in enumerate(texture.DISTANCES):
        matrices = loop_cooccurrence(grey // 8, distance)
        by_hand = {
            "contrast": [np.sum(p * (i - j) ** 2) for p in matrices],
            "dissimilarity": [np.sum(p * abs(i - j)) for p in matrices],
            "homogeneity": [np.sum(p / (1 + (i - j) ** 2)) for p in matrices],
            "energy": [np.sqrt(np.sum(p**2)) for p in matrices],
        }
        for row, name in enumerate(names):
            assert got[3 * row + column] == pytest.approx(np.mean(by_hand[name])), (name, distance)
        entropy = [-np.sum(p[p > 0] * np.log2(p[p > 0])) for p in matrices]
        assert got[3 * 6 + column] == pytest.approx(np.mean(entropy))


def test_first_order_features_of_a_half_black_half_white_image():
    grey = np.zeros([16, 16])
    grey[:, 8:] = 255
    # Mean and standard deviation 1/2, no skew, kurtosis 1 - 3 = -2, one bit.
    np.testing.assert_allclose(texture.compute(signed(grey))[0, :5], [0.5, 0.5, 0, -2, 1], atol=1e-12)


def test_an_even_image_is_finite_and_without_gradient():
    found = texture.compute(signed(np.full([16, 16], 77)))[0]
    assert np.isfinite(found).all()
    assert found[4] == 0
    patterns = found[5 + 21 : 5 + 21 + 9]
    assert patterns[8] == 1  # all eight neighbours are as bright
    np.testing.assert_array_equal(found[5 + 21 + 9 : 5 + 21 + 14], 0)


def test_fine_stripes_have_power_in_the_last_band():
    x = np.arange(64)
    coarse, fine = (127.5 + 100 * np.sin(2 * np.pi * cycles * x / 64) for cycles in (2, 26))
    bands = [texture.compute(signed(np.tile(wave, (64, 1))))[0, -7:-1] for wave in (coarse, fine)]
    assert bands[0].argmax() == 1  # bands begin at 1, 1.8, 3.2, 5.7, 10 and 18 cycles
    assert bands[1].argmax() == 5


def test_features_are_scaled_by_the_real_set_and_restored():
    images = np.random.default_rng(1).uniform(-1, 1, [20, 32, 32, 1]).astype(np.float32)
    extractor = texture.Texture()
    with pytest.raises(ValueError, match="fit comes first"):
        extractor(images)
    extractor.fit(images)
    found = extractor(images)
    varies = found.std(axis=0) > 1e-6
    np.testing.assert_allclose(found[:, varies].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(found[:, varies].std(axis=0), 1, atol=1e-9)
    other = texture.Texture()
    other.restore(extractor.state())
    np.testing.assert_array_equal(other(images), found)
    with pytest.raises(ValueError, match="other features"):
        other.restore({"centre": np.zeros(3)})
