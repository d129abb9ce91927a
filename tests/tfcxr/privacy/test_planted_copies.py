"""What the planted copies have in common with their originals."""

import numpy as np
import pytest

from tfcxr.privacy import planted_copies


@pytest.fixture(scope="module")
def images():
    grey = np.random.default_rng(0).integers(20, 235, [40, 16, 16, 1])
    return (grey / 127.5 - 1).astype(np.float32)


def test_each_kind_is_what_it_says(images):
    copies = {kind: planted_copies.make_copies(images, kind, seed=1) for kind in planted_copies.KINDS}
    for kind, made in copies.items():
        assert made.shape == images.shape, kind
        assert made.dtype == np.float32
        assert np.abs((made + 1) * 127.5 - np.round((made + 1) * 127.5)).max() < 1e-3, kind
        assert np.array_equal(made, planted_copies.make_copies(images, kind, seed=1))
        assert (np.abs(made - images).max(axis=(1, 2, 3)) > 0.01).all() == (kind != "exact"), kind
    assert copies["exact"] == pytest.approx(images, abs=1e-6)
    assert copies["mirrored"][:, :, ::-1] == pytest.approx(images, abs=1e-6)
    inner = copies["shifted"][:, 1:-1, 1:-1]
    moved = [images[:, 1 + a : 15 + a, 1 + b : 15 + b] for a in (-1, 1) for b in (-1, 1)]
    assert np.abs(np.stack(moved) - inner).max(axis=(2, 3, 4)).min(axis=0).max() < 1e-5
    assert (copies["noised"] - images).std() == pytest.approx(0.1, rel=0.05)
    # Contrast keeps the order of grey values.
    order = np.argsort(images.reshape(40, -1), axis=1)
    assert (np.diff(np.take_along_axis(copies["contrast"].reshape(40, -1), order, axis=1), axis=1) >= 0).all()
    # What was mixed in lies in 16 directions, but for the rounding to grey levels.
    spectrum = np.linalg.svd((copies["mixed"] - images).reshape(40, -1), compute_uv=False)
    assert spectrum[15] > 10 * spectrum[16]


def test_images_of_many_patients_are_chosen():
    patients = np.repeat(np.arange(10), 5)
    chosen = planted_copies.choose_patients_images(patients, 10, 0)
    assert np.array_equal(patients[chosen], np.arange(10))
    assert len(np.unique(planted_copies.choose_patients_images(patients, 20, 0))) == 20
    assert len(planted_copies.choose_patients_images(patients, 99, 0)) == 50
