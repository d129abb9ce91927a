"""Texture features in the manner of radiomics: they need no network, and see what a network's features may overlook.

Haralick's features of grey-level co-occurrence matrices (Haralick et al. 1973, IEEE Trans. SMC 3(6)), local binary
patterns (Ojala et al. 2002, IEEE TPAMI 24(7)), statistics of grey values and gradients, and the radial power spectrum.
The matrices and patterns are scikit-image's.
"""

import warnings
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from scipy import special, stats
from skimage import feature

from tfcxr.fidelity.extractor import Extractor
from tfcxr.fidelity.feature_names import TEXTURE
from tfrecords_builder.images import pixel_ranges

LEVELS = 32  # grey values are counted in so many bins of the whole range, not of each image's
DISTANCES = (1, 2, 4)  # in pixels, of co-occurrence matrices; means over the four directions

_ANGLES = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
_HARALICK = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")
_PATTERNS = 10  # uniform ones of 8 neighbours; the last is left out, since their shares add up to 1
_BANDS = 6
_QUANTILES = (0.5, 0.9, 0.99)
_FIT_IMAGES = 2000


class Texture(Extractor):
    """48 features (fewer of images below 64 px, where bands of the spectrum are empty), float64.

    They have different units, so each is scaled to mean 0 and standard deviation 1 of the real set that `fit` gets.
    """

    name = TEXTURE
    num_fit_images = _FIT_IMAGES

    def __init__(self) -> None:
        """Not fitted yet."""
        self._centre: np.ndarray | None = None
        self._scale: np.ndarray | None = None

    def fit(self, images: np.ndarray) -> None:
        """Learns the scales from `images`, [N, R, R, 1] in [-1, 1]."""
        values = compute(images)
        spread = values.std(axis=0)
        # A feature that is the same in all images has no scale, and is left as it is.
        self._centre, self._scale = values.mean(axis=0), np.where(spread > 1e-9, spread, 1.0)

    def state(self) -> dict[str, np.ndarray]:
        """Means and scales [F]."""
        if self._centre is None or self._scale is None:
            raise ValueError(f"{self.name}: fit comes first")
        return {"centre": self._centre, "scale": self._scale}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes what `state` gave for images of the same size."""
        if set(state) != {"centre", "scale"}:
            raise ValueError(f"{self.name}: the state is of other features")
        self._centre, self._scale = state["centre"], state["scale"]

    def _extract(self, images: np.ndarray) -> np.ndarray:
        state = self.state()
        return (compute(images) - state["centre"]) / state["scale"]


def compute(images: np.ndarray) -> np.ndarray:
    """The features before scaling, float64 [N, F], of images [N, R, R, 1] in [-1, 1], R at least 8."""
    grey = pixel_ranges.signed_to_uint8(tf.constant(images, tf.float32)).numpy()[..., 0]
    return np.concatenate([_first_order(grey), np.stack([_of_image(image) for image in grey])], axis=1)


def _of_image(image: np.ndarray) -> np.ndarray:
    return np.concatenate([_haralick(image), _patterns(image), _gradients(image), _power(image)])


def _first_order(images: np.ndarray) -> np.ndarray:
    """Mean, standard deviation, skewness, excess kurtosis and entropy (bits) of the grey values, [N, 5]."""
    flat = images.reshape(len(images), -1)
    shares = np.stack([np.bincount(row // (256 // LEVELS), minlength=LEVELS) for row in flat]) / flat.shape[1]
    unit = flat / 255.0
    with warnings.catch_warnings():  # of an image of one grey value, whose skewness is not defined
        warnings.simplefilter("ignore", RuntimeWarning)
        shape = np.nan_to_num(np.stack([stats.skew(unit, axis=1), stats.kurtosis(unit, axis=1)], axis=1))
    return np.column_stack([unit.mean(axis=1), unit.std(axis=1), shape, _entropy(shares, axis=1)])


def _entropy(shares: np.ndarray, axis: int) -> np.ndarray:
    """Entropy in bits."""
    return special.entr(shares).sum(axis=axis) / np.log(2)


def _haralick(image: np.ndarray) -> np.ndarray:
    """Means over the directions, for each distance: Haralick's properties, and the matrix's entropy in bits."""
    matrices = feature.graycomatrix(
        image // (256 // LEVELS), DISTANCES, _ANGLES, levels=LEVELS, symmetric=True, normed=True
    )
    properties = [feature.graycoprops(matrices, name).mean(axis=1) for name in _HARALICK]
    entropy = _entropy(matrices.reshape(LEVELS**2, len(DISTANCES), len(_ANGLES)), axis=0).mean(axis=1)
    return np.concatenate([*properties, entropy])


def _patterns(image: np.ndarray) -> np.ndarray:
    """Shares of the uniform local binary patterns of 8 neighbours at a distance of one pixel."""
    codes = feature.local_binary_pattern(image, 8, 1, method="uniform").astype(np.int64)
    codes = codes[1:-1, 1:-1]  # pixels at the border lack neighbours
    return np.bincount(codes.ravel(), minlength=_PATTERNS)[: _PATTERNS - 1] / codes.size


def _gradients(image: np.ndarray) -> np.ndarray:
    """Mean, standard deviation and quantiles of the gradient's length, in grey levels per pixel; logarithms."""
    length = np.hypot(*np.gradient(image.astype(np.float64)))
    return np.log1p([length.mean(), length.std(), *np.quantile(length, _QUANTILES)])


def _power(image: np.ndarray) -> np.ndarray:
    """Decimal logarithm of the mean power in bands of frequency that grow by one factor, and its slope."""
    side = len(image)
    window = np.outer(np.hanning(side), np.hanning(side))
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2 / side**2
    frequency = np.fft.fftfreq(side, 1 / side)
    radius = np.hypot(frequency[:, None], frequency)
    edges = np.geomspace(1, side / 2, _BANDS + 1)
    band = np.digitize(radius, edges[:-1]) - 1
    band[radius > side / 2] = -1
    members = [power[band == index] for index in range(_BANDS)]
    centres = np.log10(np.sqrt(edges[1:] * edges[:-1]))
    found = [
        (centre, np.log10(values.mean() + 1e-3)) for centre, values in zip(centres, members, strict=True) if values.size
    ]
    x, y = np.array(found).T
    return np.append(y, np.polyfit(x, y, 1)[0])
