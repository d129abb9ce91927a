"""How different the images of a class are: MS-SSIM of random pairs, and the share of near duplicates."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfcxr import data
from tfcxr.fidelity import distances, features
from tfrecords_builder.images import pixel_ranges

PAIRS = 100  # of each class, as Odena et al. take
DUPLICATE_QUANTILE = 0.01

# Wang, Simoncelli and Bovik 2003, "Multi-scale structural similarity for image quality assessment", section 3.2.
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_FILTER_SIDE = 11
_BATCH = 50


@dataclasses.dataclass(frozen=True)
class NearDuplicates:
    """Attributes: threshold: distance below which two images are near duplicates; share: of the images with one."""

    threshold: float
    share: float


def ms_ssim_scales(side: int) -> int:
    """Scales of MS-SSIM for images of this side: as many of the five as leave room for the filter of 11 px.

    1 below 22 px, 2 at 32 px, 3 at 64, 4 at 128, 5 from 176 on.
    """
    return max(1, sum(side >> scale >= _FILTER_SIDE for scale in range(len(_WEIGHTS))))


def ms_ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Multi-scale structural similarity (Wang et al. 2003) of pairs, float64 [N]: 1 for equal images.

    As many scales as `ms_ssim_scales` says, their weights scaled to the sum 1; so figures of another resolution are not
    comparable.

    Args:
        first, second: uint8 [N, R, R, 1], R at least 8.
    """
    side = first.shape[1]
    weights = np.array(_WEIGHTS[: ms_ssim_scales(side)])
    found = [
        tf.image.ssim_multiscale(
            tf.constant(first[start : start + _BATCH]),
            tf.constant(second[start : start + _BATCH]),
            255,
            power_factors=(weights / weights.sum()).tolist(),
            filter_size=min(_FILTER_SIDE, side),
        ).numpy()
        for start in range(0, len(first), _BATCH)
    ]
    return np.concatenate(found).astype(np.float64)


def draw_pairs(patients: np.ndarray, seed: int, pairs: int = PAIRS) -> np.ndarray:
    """Random pairs of images of different patients: int64 [P, 2], P at most `pairs`; `patients`: int [N]."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(patients), size=(20 * pairs, 2))
    return drawn[patients[drawn[:, 0]] != patients[drawn[:, 1]]][:pairs]


def mean_ms_ssim(
    record_set: data.RecordSet, split: str, positions: np.ndarray, patients: np.ndarray, *, seed: int
) -> dict[str, float | int] | None:
    """Mean MS-SSIM of random pairs within a class (Odena et al. 2017, arXiv 1610.09585): the higher, the less diverse.

    Args:
        record_set, split: where the images are.
        positions: of the class's images in the split, int64 [N].
        patients: of each, int [N]; a pair is of two patients.
        seed: of the pairs.

    Returns:
        {"mean", "standard_error", "pairs"}; None if there is no pair of different patients.
    """
    pairs = positions[draw_pairs(patients, seed)]
    if not len(pairs):
        return None
    wanted, index = np.unique(pairs, return_inverse=True)
    images = [pixel_ranges.signed_to_uint8(batch).numpy() for batch in features.read_images(record_set, split, wanted)]
    first, second = np.concatenate(images)[index.reshape(pairs.shape)].swapaxes(0, 1)
    values = ms_ssim(first, second)
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return {"mean": float(values.mean()), "standard_error": error, "pairs": len(values)}


def find_near_duplicates(
    real: np.ndarray, real_patients: np.ndarray, sets: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, NearDuplicates]:
    """The share of images of a class that are nearer to another one of their set than real ones mostly are.

    Only images of other patients count, so that several images of one patient are no duplicates. The threshold is the
    distance below which 1% of the real images have one; so real sets are at about 1%, whatever the features.

    Args:
        real: features of real images of a class [N, D].
        real_patients: of each, int [N].
        sets: features and patients of the sets to measure, best as many images as the reals are, since neighbours come
            nearer in larger sets.

    Returns:
        Of each set, and of the reals as "real".
    """
    own = distances.nearest_others(real, real_patients)
    threshold = float(np.quantile(own[np.isfinite(own)], DUPLICATE_QUANTILE)) if np.isfinite(own).any() else 0.0
    nearest = {"real": own, **{name: distances.nearest_others(*one) for name, one in sets.items()}}
    return {name: NearDuplicates(threshold, float(np.mean(each <= threshold))) for name, each in nearest.items()}
