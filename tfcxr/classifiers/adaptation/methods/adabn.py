"""AdaBN: the source's weights with the target's statistics, of BatchNorm or of the features; nothing is trained.

Li et al., "Adaptive Batch Normalization for practical domain adaptation", Pattern Recognition 80, 2018, arXiv
1603.04779. The statistics are the running means of BatchNorm over batches of target images: after some 50 of them
nothing is left of the source's.
"""

import numpy as np
import tensorflow as tf

from tfcxr.classifiers.adaptation.methods.method import Batch, Method

_EPSILON = 1e-3  # of Keras's BatchNorm


class AdaBn(Method):
    """Adds nothing, and takes no step."""

    uses_target = False
    trains = False

    def losses(self, batch: Batch) -> dict[str, tf.Tensor]:
        """No terms."""
        return {}


class AdaBnHead(AdaBn):
    """AdaBN of a BatchNorm that is thought of between the pooled features and the head, and becomes part of the head.

    The backbone stays as it is: the method of a linear probe, whose frozen network has statistics of neither domain.
    """

    moves_head = True

    def move_head(
        self, kernel: np.ndarray, bias: np.ndarray, source: np.ndarray, target: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The head that says of target features what the given one says of source features at the same place.

        With means m and standard deviations s of each feature, it is the given head of (x - m_target) s_source /
        s_target + m_source.

        Args:
            kernel, bias: float32 [F, K] and [K].
            source, target: float32 [N, F] and [M, F], features of images of each domain.
            weights: float [N], how much each source image counts.

        Returns:
            Kernel and bias, float32 of the same shapes.
        """
        source_mean, source_spread = _moments(source, weights)
        target_mean, target_spread = _moments(target, np.ones(len(target)))
        scale = source_spread / target_spread
        shift = source_mean - target_mean * scale
        return (scale[:, np.newaxis] * kernel).astype(np.float32), (bias + shift @ kernel).astype(np.float32)


def _moments(features: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = features.astype(np.float64)
    mean = np.average(values, axis=0, weights=weights)
    return mean, np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weights) + _EPSILON)
