"""Copies of training images, plain and disguised, with which an audit is calibrated.

Whatever an audit finds in them it would have found in a set that holds such copies; what it misses there it cannot rule
out.
"""

from collections.abc import Sequence

import numpy as np

from tfrecords_builder.images import pixel_ranges

KINDS = ("exact", "mirrored", "shifted", "noised", "contrast", "mixed")
RATES = (0.001, 0.01, 0.1)  # of the set

_NOISE = 0.1  # standard deviation; images have the range [-1, 1]
_GAMMAS = (0.75, 1.33)
_MAX_SHIFT = 1 / 16  # of the side
_RANK = 16


def make_copies(images: np.ndarray, kind: str, *, seed: int) -> np.ndarray:
    """A copy of each image, disguised in one way.

    Args:
        images: training images, float32 [N, R, R, 1] in [-1, 1].
        kind: exact; mirrored: left and right exchanged; shifted: moved by 1 to R/16 pixels in both directions, borders
            repeated; noised: Gaussian noise of 13 grey levels; contrast: gamma 0.75 or 1.33; mixed: half of the image's
            share in the first 16 principal components of `images` comes from another one, so that its broad shape
            changes and its details stay.
        seed: of what is random.

    Returns:
        float32 [N, R, R, 1] in [-1, 1], grey levels of 8 bits, as in records.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    if kind == "mirrored":
        images = images[:, :, ::-1]
    elif kind == "shifted":
        images = np.stack([_shift(image, rng) for image in images])
    elif kind == "noised":
        images = images + rng.normal(0, _NOISE, images.shape)
    elif kind == "contrast":
        gammas = rng.choice(_GAMMAS, len(images))[:, None, None, None]
        images = 2 * ((images + 1) / 2) ** gammas - 1
    elif kind == "mixed":
        images = _mix(images, rng)
    grey = pixel_ranges.signed_to_uint8(np.clip(images, -1, 1).astype(np.float32))
    return pixel_ranges.uint8_to_signed(grey).numpy()


def choose_patients_images(patients: Sequence[int] | np.ndarray, number: int, seed: int) -> np.ndarray:
    """Positions of at most `number` images, of as many patients as possible: sorted int64; `patients`: int [N]."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(patients))
    _, first = np.unique(np.asarray(patients)[order], return_index=True)
    rest = np.setdiff1d(np.arange(len(order)), first)
    return np.sort(order[np.concatenate([rng.permutation(first), rest])[:number]])


def _shift(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    side = len(image)
    by = rng.integers(1, max(1, round(side * _MAX_SHIFT)) + 1, 2) * rng.choice([-1, 1], 2)
    rows, columns = (np.clip(np.arange(side) + step, 0, side - 1) for step in by)
    return image[rows][:, columns]


def _mix(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(np.float64)
    centred = flat - flat.mean(axis=0)
    components = np.linalg.svd(centred, full_matrices=False)[2][:_RANK]
    coarse = centred @ components.T
    # Each image's partner is another one.
    order = rng.permutation(len(images))
    partner = np.empty_like(order)
    partner[order] = np.roll(order, 1)
    return (flat + 0.5 * (coarse[partner] - coarse) @ components).reshape(images.shape)
