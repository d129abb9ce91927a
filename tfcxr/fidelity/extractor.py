"""What every extractor of features is: images in, features out, in one range and with one name."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfrecords_builder.images import pixel_ranges


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
        pixel_ranges.check_images(images, "images", pixel_ranges.SIGNED)
        return self._extract(images)

    def _extract(self, images: np.ndarray) -> np.ndarray:
        raise NotImplementedError
