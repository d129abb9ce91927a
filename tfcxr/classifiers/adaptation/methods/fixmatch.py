"""FixMatch: a network that teaches itself by those of its predictions for the target of which it is certain.

Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence", NeurIPS 2020, arXiv
2001.07685, equation 4, with the target images as the unlabelled ones. Predictions for the target are first aligned with
the shares of classes that are predicted for the source (distribution alignment: Berthelot et al., "AdaMatch", ICLR
2022, arXiv 2106.04732, section 3.2). Without that, classes that look familiar become labels of ever more images.
"""

import tensorflow as tf

from tfcxr.classifiers.adaptation.methods.method import Batch, Method, Setting


class FixMatch(Method):
    """cls + alpha pseudo_labels: cross entropy of strong views with what the weak view says, if it is certain."""

    sees_strong_views = True

    def __init__(self, setting: Setting):
        """No layers."""
        super().__init__(setting)
        self.weights = {"pseudo_labels": self.alpha, "certain": 0.0}

    def losses(self, batch: Batch) -> dict[str, tf.Tensor]:
        """pseudo_labels; certain, of weight 0: the share of the target images that had one."""
        probabilities = align(tf.nn.softmax(batch.teacher_logits), tf.nn.softmax(batch.source_logits))
        certain = tf.cast(tf.reduce_max(probabilities, axis=1) >= self.setting.threshold, tf.float32)
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.argmax(probabilities, axis=1), batch.strong_logits)
        return {"pseudo_labels": tf.reduce_mean(certain * each), "certain": tf.reduce_mean(certain)}


def align(target: tf.Tensor, source: tf.Tensor) -> tf.Tensor:
    """Probabilities float32 [n, K] times the ratio of the mean of `source` [m, K] and their own, scaled to sum to 1.

    Without gradient.
    """
    weighted = target * (tf.reduce_mean(source, axis=0) / tf.maximum(tf.reduce_mean(target, axis=0), 1e-6))
    return tf.stop_gradient(weighted / tf.reduce_sum(weighted, axis=1, keepdims=True))
