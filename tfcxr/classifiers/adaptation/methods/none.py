"""No alignment: the classification loss of the source images alone, in the same loop as the methods."""

import tensorflow as tf

from tfcxr.classifiers.adaptation.methods.method import Batch, Method


class NoAlignment(Method):
    """Adds nothing."""

    uses_target = False

    def losses(self, batch: Batch) -> dict[str, tf.Tensor]:
        """No terms."""
        return {}
