"""What every extractor of features is: images in, features out, in one range and with one name."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

_RANGE_TOLERANCE = 1e-5  # of 8-bit values scaled in float32


class Extractor:
    """Images float [N, R, R, 1] in [-1, 1] -> features [N, F].

    Attributes:
      name: of the features; see the module.
      num_fit_images: images that `fit` wants; 0 if the extractor needs no fit.
    """

    name: str
    num_fit_images = 0

    def fit(self, images: np.ndarray) -> None:
        """Adapts the extractor to real images [N, R, R, 1] in [-1, 1]; most extractors have nothing to adapt."""

    def state(self) -> dict[str, np.ndarray]:
        """What `fit` found, for `restore`."""
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes what `state` gave. Raises ValueError if it is of another extractor."""
        if state:
            raise ValueError(f"{self.name}: has no state")

    def __call__(self, images: np.ndarray | tf.Tensor) -> np.ndarray:
        """Features [N, F] of images [N, R, R, 1] in [-1, 1]. Raises ValueError for another shape or range."""
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[3] != 1:
            raise ValueError(f"images: have shape {list(images.shape)}, not [N, R, R, 1]")
        if len(images) and not (images.min() >= -1.0 - _RANGE_TOLERANCE and images.max() <= 1.0 + _RANGE_TOLERANCE):
            raise ValueError(f"images: values are in [{images.min():g}, {images.max():g}], not [-1, 1]")
        return self._extract(images)

    def _extract(self, images: np.ndarray) -> np.ndarray:
        raise NotImplementedError
