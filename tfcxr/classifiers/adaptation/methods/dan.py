"""DAN: features of both domains brought together by their maximum mean discrepancy.

Long et al., "Learning Transferable Features with Deep Adaptation Networks", ICML 2015, arXiv 1502.02791, equation 1:
cls + alpha MMD(features) with a family of Gaussian kernels. Here the kernels have equal weights, the features are the
pooled ones, and the estimate takes all pairs unless told otherwise: the paper's linear-time estimate saves time that a
batch of some dozens does not need saved, and varies much more.
"""

import tensorflow as tf

from tfcxr.classifiers.adaptation.methods.method import Batch, Method, Setting


class Dan(Method):
    """cls + alpha MMD(source features, target features)."""

    uses_mmd = True

    def __init__(self, setting: Setting):
        """No layers."""
        super().__init__(setting)
        self.weights = {"mmd_features": self.alpha}

    def losses(self, batch: Batch) -> dict[str, tf.Tensor]:
        """mmd_features."""
        return {"mmd_features": self.discrepancy(batch.source_features, batch.target_features)}
