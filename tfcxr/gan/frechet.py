"""A quick measure of progress: the Fréchet distance of Gaussians fitted to PCA components of the pixels.

It needs no network and costs a second, but sees no more than means and covariances of smooth structure: a measure for
watching a run, not for comparing with published FIDs (Heusel et al. 2017, whose formula it shares). Its name says what
it is.
"""

import numpy as np

NAME = "frechet_pixel_pca64"
COMPONENTS = 64


def frechet_distance(mean_a, covariance_a, mean_b, covariance_b) -> float:
    """|μa - μb|² + tr(Ca + Cb - 2 (Ca Cb)^½), for means [D] and covariances [D, D]."""
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    # (Ca Cb)^½ has the trace of (Ca^½ Cb Ca^½)^½, which is symmetric.
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance_b @ root), 0)).sum()
    difference = mean_a - mean_b
    return float(difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross)


class PixelFrechet:
    """Distance of image sets from one real set, on the real set's principal components."""

    def __init__(self, reals: np.ndarray):
        """`reals`: [N, R, R, 1] in [-1, 1], N at least 2."""
        flat = _flat(reals)
        self._centre = flat.mean(axis=0)
        _, _, components = np.linalg.svd(flat - self._centre, full_matrices=False)
        self._components = components[:COMPONENTS].T
        self._mean, self._covariance = self._statistics(flat)

    def __call__(self, images: np.ndarray) -> float:
        """Distance of `images` [M, R, R, 1], clipped to [-1, 1]; 0 is perfect. Biased upwards by a small M."""
        return frechet_distance(self._mean, self._covariance, *self._statistics(_flat(np.clip(images, -1, 1))))

    def _statistics(self, flat):
        projected = (flat - self._centre) @ self._components
        return projected.mean(axis=0), np.atleast_2d(np.cov(projected, rowvar=False))


def _flat(images):
    images = np.asarray(images, np.float64)
    return images.reshape(len(images), -1)
