"""Mean teacher: target images are to look to the network as they look to the mean of its own former weights.

Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, arXiv 1703.01780; for domain adaptation:
French et al., "Self-ensembling for visual domain adaptation", ICLR 2018, arXiv 1706.05208, section 3, which leaves out
images of which the teacher is not certain. As theirs, the teacher sees target images with the statistics of BatchNorm
of their batch: with statistics that the source shares, its first predictions are of few classes, and it soon teaches
nothing else. Their loss against predicting one class is not needed then, and not here.
"""

import tensorflow as tf

from tfcxr.classifiers.adaptation.methods.method import Batch, Method, Setting


class MeanTeacher(Method):
    """cls + alpha consistency: squared difference of probabilities, of strong views from the teacher's of the weak."""

    sees_strong_views = True
    averages = True
    default_alpha = 3.0

    def __init__(self, setting: Setting):
        """No layers: the teacher is the classifier that is kept, see Method.averages."""
        super().__init__(setting)
        self.weights = {"consistency": self.alpha, "certain": 0.0}

    def losses(self, batch: Batch) -> dict[str, tf.Tensor]:
        """consistency; certain, of weight 0: the share of the target images that counted."""
        teacher = tf.nn.softmax(batch.teacher_logits)
        certain = tf.cast(tf.reduce_max(teacher, axis=1) >= self.setting.threshold, tf.float32)
        each = tf.reduce_sum(tf.math.squared_difference(tf.nn.softmax(batch.strong_logits), teacher), axis=1)
        return {"consistency": tf.reduce_mean(certain * each), "certain": tf.reduce_mean(certain)}
