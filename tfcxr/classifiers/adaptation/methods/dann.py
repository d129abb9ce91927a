"""DANN: features from which a discriminator cannot tell the domain.

Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016, arXiv 1505.07818.
"""

import tensorflow as tf

from tfcxr.classifiers.adaptation.methods.discriminator import DomainDiscriminator
from tfcxr.classifiers.adaptation.methods.method import Batch, Method, Setting


class Dann(Method):
    """cls + alpha domain(features), reversed for the backbone."""

    def __init__(self, setting: Setting):
        """Makes the discriminator."""
        super().__init__(setting)
        self.weights = {"domain": self.alpha}
        self.discriminator = DomainDiscriminator(setting.feature_width, setting.seed)
        self.layers = [self.discriminator]

    def losses(self, batch: Batch) -> dict[str, tf.Tensor]:
        """domain."""
        return {"domain": self.discriminator.loss(batch.source_features, batch.target_features, batch.progress)}
