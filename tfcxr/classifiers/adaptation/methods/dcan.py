"""DCAN, and the thesis's variant of it: DCAN without its regulariser.

Li et al., "Domain Conditioned Adaptation Network", AAAI 2020, arXiv 2005.06717:
cls + alpha (MMD_features + MMD_probabilities + L_reg) + beta entropy, on a network with domain conditioned channel
attention, whose target features and logits are corrected.
"""

import tensorflow as tf

from tfcxr.classifiers.adaptation.methods.method import Batch, Method, Setting
from tfcxr.classifiers.training import losses

_KEPT = 0.8  # the regulariser keeps each image with probability 0.8 / K


class DcanNoReg(Method):
    """cls + alpha (mmd_features + mmd_probabilities) + beta entropy."""

    corrected = True
    uses_mmd = True
    default_mmd = "linear"
    default_alpha = 1.5

    def __init__(self, setting: Setting):
        """No layers: attention and corrections belong to the classifier."""
        super().__init__(setting)
        self.weights = {"mmd_features": self.alpha, "mmd_probabilities": self.alpha, "entropy": setting.beta}

    def losses(self, batch: Batch) -> dict[str, tf.Tensor]:
        """mmd_features, mmd_probabilities, entropy."""
        probabilities = tf.nn.softmax(batch.target_logits)
        return {
            "mmd_features": self.discrepancy(batch.source_features, batch.target_features),
            "mmd_probabilities": self.discrepancy(
                tf.nn.softmax(batch.source_logits),
                probabilities,
                num_kernels=losses.PROBABILITY_KERNELS,
                width=losses.PROBABILITY_WIDTH,
            ),
            "entropy": losses.entropy(probabilities),
        }


class Dcan(DcanNoReg):
    """As DcanNoReg, + alpha reg."""

    def __init__(self, setting: Setting):
        """As `DcanNoReg`."""
        super().__init__(setting)
        self.weights = {**self.weights, "reg": self.alpha}

    def losses(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Those of `DcanNoReg`, and reg."""
        return {**super().losses(batch), "reg": self._regulariser(batch)}

    def _regulariser(self, batch: Batch) -> tf.Tensor:
        """Correcting source features should change nothing: they are where the target is to go."""
        num_classes = self.setting.num_classes
        corrected, corrected_logits = batch.correct(batch.source_features)
        seed = tf.stack([tf.constant(self.setting.seed, tf.int64), batch.number])
        draws = tf.random.stateless_uniform([num_classes, tf.shape(corrected)[0]], seed)
        keep = tf.ensure_shape(draws < _KEPT / num_classes, [num_classes, None])

        def change(base: tf.Tensor, after: tf.Tensor, num_kernels: int, width: float | None) -> tf.Tensor:
            return losses.regulariser(
                base, after, batch.labels, keep, num_kernels=num_kernels, width=width, form=self.setting.reg
            )

        on_features = change(batch.source_features, corrected, losses.FEATURE_KERNELS, None)
        on_logits = change(batch.source_logits, corrected_logits, losses.PROBABILITY_KERNELS, losses.PROBABILITY_WIDTH)
        return on_features + on_logits
