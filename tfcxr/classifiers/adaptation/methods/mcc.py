"""MCC: target predictions that do not waver between classes; no alignment of domains at all.

Jin et al., "Minimum Class Confusion for Versatile Domain Adaptation", ECCV 2020, arXiv 1912.03699, section 3.
"""

import tensorflow as tf

from tfcxr.classifiers.adaptation.methods.method import Batch, Method, Setting
from tfcxr.classifiers.training import losses

TEMPERATURE = 2.5


class Mcc(Method):
    """cls + alpha confusion(target logits)."""

    def __init__(self, setting: Setting):
        """No layers."""
        super().__init__(setting)
        self.weights = {"confusion": self.alpha}

    def losses(self, batch: Batch) -> dict[str, tf.Tensor]:
        """confusion."""
        return {"confusion": class_confusion(batch.target_logits)}


def class_confusion(logits: tf.Tensor) -> tf.Tensor:
    """How much probability two different classes share, over a batch.

    The predictions, softened by the temperature, are weighed by their certainty; C[j, k] = sum of w p[j] p[k] over the
    batch; each row of C is divided by its sum; what lies off the diagonal is the confusion.

    Args:
        logits: float32 [n, K].

    Returns:
        float32 scalar in [0, 1): the mean over the K rows.
    """
    probabilities = tf.nn.softmax(logits / TEMPERATURE)
    weighted = probabilities * losses.certainty_weights(probabilities)[:, tf.newaxis]
    confusion = tf.matmul(weighted, probabilities, transpose_a=True)
    confusion /= tf.reduce_sum(confusion, axis=1, keepdims=True)
    return 1.0 - tf.reduce_mean(tf.linalg.diag_part(confusion))
