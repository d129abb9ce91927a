"""A quick measure of progress: the Fréchet distance of Gaussians fitted to PCA components of the pixels.

It needs no network and costs a second, but sees no more than means and covariances of smooth structure: a measure for
watching a run, not for comparing with published FIDs (Heusel et al. 2017, whose formula it shares). Its name says what
it is.
"""

import numpy as np

from tfcxr.fidelity import distances, features

NAME = "frechet_pixel_pca64"


class PixelFrechet:
    """Distance of image sets from one real set, on the real set's principal components."""

    def __init__(self, reals: np.ndarray):
        """`reals`: [N, R, R, 1] in [-1, 1], N at least 2."""
        self._extractor = features.PixelPca(reals.shape[1])
        self._extractor.fit(reals)
        self._moments = distances.moments(self._extractor(reals))

    def __call__(self, images: np.ndarray) -> float:
        """Distance of `images` [M, R, R, 1], clipped to [-1, 1]; 0 is perfect. Biased upwards by a small M."""
        return distances.frechet_distance(*self._moments, *distances.moments(self._extractor(np.clip(images, -1, 1))))
