"""Interpolation, truncation and titled sheets: numbers that can be worked out by hand."""

import numpy as np

from tfcxr.gan import image_grids, interpolation, latent_sampling


def test_spherical_interpolation_keeps_the_angle_steps_and_the_norm():
    path = interpolation.between_latents(np.array([2.0, 0, 0]), np.array([0, 2.0, 0]), 5)
    assert path.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 2, atol=1e-6)
    np.testing.assert_allclose(np.degrees(np.arctan2(path[:, 1], path[:, 0])), [0, 22.5, 45, 67.5, 90], atol=1e-4)


def test_the_ends_are_those_given_and_parallel_latents_make_no_nan():
    first, last = np.random.default_rng(0).standard_normal([2, 16])
    path = interpolation.between_latents(first, last, 7)
    np.testing.assert_allclose(path[[0, -1]], [first, last], atol=1e-6)
    np.testing.assert_allclose(interpolation.between_latents(first, 3 * first, 3)[1], 2 * first, rtol=1e-5)
    assert interpolation.between_latents(np.zeros(4), last[:4], 3)[1].tolist() == (last[:4] / 2).astype("f4").tolist()


def test_labels_go_in_a_straight_line():
    np.testing.assert_allclose(
        interpolation.between_labels(np.array([1, 0, 1]), np.array([0, 1, 1]), 3), [[1, 0, 1], [0.5, 0.5, 1], [0, 1, 1]]
    )


def test_truncation_scales_the_latents_of_the_same_numbers():
    whole = latent_sampling.numbered_latents(3, np.arange(50), 64).numpy()
    np.testing.assert_array_equal(latent_sampling.numbered_latents(3, np.arange(50), 64, 1.0).numpy(), whole)
    half = latent_sampling.numbered_latents(3, [7, 2], 64, 0.5).numpy()
    np.testing.assert_array_equal(half, whole[[7, 2]] / 2)
    assert abs(whole.std() - 1) < 0.05


def test_a_titled_grid_has_its_tiles_right_of_a_margin_with_ink():
    black = np.zeros([2, 8, 8, 1], np.uint8)
    grid = image_grids.titled_grid([("Edema|Pleural Effusion", black), ("\u5fc3", black[:1])], 3)
    tiles = image_grids.image_grid(np.concatenate([black, black * 0 + 255]), 3)
    margin = grid.shape[1] - tiles.shape[1]
    assert grid.shape[0] == tiles.shape[0] == 2 * 98 + 2
    assert margin > 60  # "Pleural Effusion", not all labels in one line
    assert margin < 160
    assert (grid[:98, :margin] < 128).sum() > 50
    assert not grid[2:98, margin + 2 : margin + 98].any()
    assert (grid[100:, margin + 98 + 2 :] == 255).all()
