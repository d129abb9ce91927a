"""AdaBN: the source's weights with the target's statistics of BatchNorm; nothing is trained.

Li et al., "Adaptive Batch Normalization for practical domain adaptation", Pattern Recognition 80, 2018, arXiv
1603.04779. The statistics are the running means of BatchNorm over batches of target images: after some 50 of them
nothing is left of the source's.
"""

import tensorflow as tf

from tfcxr.classifiers.adaptation.methods.method import Batch, Method


class AdaBn(Method):
    """Adds nothing, and takes no step."""

    uses_target = False
    trains = False

    def losses(self, batch: Batch) -> dict[str, tf.Tensor]:
        """No terms."""
        return {}
