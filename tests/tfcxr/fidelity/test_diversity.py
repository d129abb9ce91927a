"""MS-SSIM and near duplicates: known cases, and a loop."""

import numpy as np
import pytest
from scipy.spatial import distance

from tests import fakes
from tfcxr import data
from tfcxr.fidelity import distances, diversity


def noise(number, side, seed=0):
    return np.random.default_rng(seed).integers(0, 256, [number, side, side, 1], np.uint8)


def test_as_many_scales_as_the_filter_fits():
    sides = (8, 16, 21, 22, 32, 64, 128, 176, 256, 512)
    assert [diversity.ms_ssim_scales(side) for side in sides] == [1, 1, 1, 2, 2, 3, 4, 5, 5, 5]


@pytest.mark.parametrize("side", [8, 16, 32, 64])
def test_equal_images_have_one_and_noise_has_little(side):
    images = noise(6, side)
    np.testing.assert_allclose(diversity.ms_ssim(images, images), 1, atol=1e-6)
    assert diversity.ms_ssim(images, images[::-1].copy()).max() < 0.5


def test_even_images_differ_by_luminance_only():
    # SSIM of two constant images is (2ab + C) / (a² + b² + C), C = (0.01 · 255)²; contrast and structure are 1.
    a, b = np.full([1, 16, 16, 1], 50, np.uint8), np.full([1, 16, 16, 1], 100, np.uint8)
    c = 2.55**2
    assert diversity.ms_ssim(a, b)[0] == pytest.approx((2 * 50 * 100 + c) / (50**2 + 100**2 + c), abs=1e-4)


def test_pairs_are_of_two_patients():
    patients = np.repeat(np.arange(4), 5)
    pairs = diversity.draw_pairs(patients, seed=0)
    assert pairs.shape == (diversity.PAIRS, 2)
    assert (patients[pairs[:, 0]] != patients[pairs[:, 1]]).all()
    assert not len(diversity.draw_pairs(np.zeros(9, int), seed=0))


def test_the_mean_over_pairs_of_a_record_set(tmp_path):
    same = np.repeat(noise(1, 16)[..., 0], 8, axis=0)
    record_set = data.RecordSet(fakes.write_images(tmp_path / "same", same))
    each = np.arange(8)
    found = diversity.mean_ms_ssim(record_set, "train", each, each, seed=0)
    assert found["mean"] == pytest.approx(1, abs=1e-6)
    assert found["pairs"] == diversity.PAIRS
    record_set = data.RecordSet(fakes.write_images(tmp_path / "noise", noise(8, 16)[..., 0]))
    assert diversity.mean_ms_ssim(record_set, "train", each, each, seed=0)["mean"] < 0.3
    assert diversity.mean_ms_ssim(record_set, "train", each, np.zeros(8, int), seed=0) is None


def test_nearest_others_equal_a_loop_and_copies_are_at_zero():
    rows = np.random.default_rng(0).normal(size=[40, 5]) + 1000
    rows[7] = rows[31]
    groups = np.arange(40) // 2
    apart = distance.cdist(rows, rows)
    apart[groups[:, None] == groups] = np.inf
    found = distances.nearest_others(rows, groups)
    np.testing.assert_allclose(found, apart.min(axis=1), atol=1e-9)
    assert found[7] == found[31] == 0
    assert np.isinf(distances.nearest_others(rows, np.zeros(40, int))).all()


def test_planted_copies_are_counted_and_images_of_one_patient_are_not():
    rng = np.random.default_rng(3)
    real, synthetic = rng.normal(size=[200, 6]), rng.normal(size=[200, 6])
    real[1::2] = real[::2] + 1e-3  # each patient has two images that are alike
    patients = np.arange(200) // 2
    synthetic[:10] = synthetic[10:20] + 1e-4  # 10 copies: 20 images with a duplicate
    found = diversity.find_near_duplicates(real, patients, {"synthetic": (synthetic, np.arange(200))})
    assert found["real"].share == pytest.approx(0.01, abs=0.01)
    assert found["synthetic"].threshold == found["real"].threshold > 0.01
    assert 0.1 <= found["synthetic"].share < 0.14
