"""CDAN: a discriminator that sees features together with what they are classified as.

Long et al., "Conditional Adversarial Domain Adaptation", NeurIPS 2018, arXiv 1705.10667: the multilinear map, its
randomised form where it would be wider than 4,096, and entropy conditioning (CDAN+E). Probabilities are inputs of the
map, not trained through it.
"""

import math

import tensorflow as tf

from tfcxr.classifiers.adaptation.methods.discriminator import DomainDiscriminator
from tfcxr.classifiers.adaptation.methods.method import Batch, Method, Setting
from tfcxr.classifiers.training import losses

MOST_EXACT = 4096
_RANDOMISED = 1024


class Cdan(Method):
    """cls + alpha domain(features x probabilities), reversed for the backbone."""

    weigh_by_certainty = False

    def __init__(self, setting: Setting):
        """Makes the discriminator and, where needed, the fixed random projections."""
        super().__init__(setting)
        self.weights = {"domain": self.alpha}
        width = setting.feature_width * setting.num_classes
        self._projections = None
        if width > MOST_EXACT:
            width = _RANDOMISED
            # Drawn again, the same, where a run goes on.
            self._projections = [
                tf.random.stateless_normal([size, width], [setting.seed, number])
                for number, size in enumerate((setting.feature_width, setting.num_classes))
            ]
        self.discriminator = DomainDiscriminator(width, setting.seed)
        self.layers = [self.discriminator]

    def losses(self, batch: Batch) -> dict[str, tf.Tensor]:
        """domain."""
        probabilities = [tf.stop_gradient(tf.nn.softmax(g)) for g in (batch.source_logits, batch.target_logits)]
        weights = None
        if self.weigh_by_certainty:
            weights = (losses.certainty_weights(probabilities[0]), losses.certainty_weights(probabilities[1]))
        source = self.joint(batch.source_features, probabilities[0])
        target = self.joint(batch.target_features, probabilities[1])
        return {"domain": self.discriminator.loss(source, target, batch.progress, weights)}

    def joint(self, features: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
        """All products of a feature and a probability [n, F K], or 1,024 random combinations of them / sqrt(1,024)."""
        if self._projections is None:
            products = features[:, :, tf.newaxis] * probabilities[:, tf.newaxis, :]
            return tf.reshape(products, [-1, self.setting.feature_width * self.setting.num_classes])
        of_features, of_probabilities = self._projections
        return (features @ of_features) * (probabilities @ of_probabilities) / math.sqrt(_RANDOMISED)


class CdanE(Cdan):
    """CDAN+E: images weigh 1 + exp(-entropy) in the discriminator's loss, so that certain ones lead."""

    weigh_by_certainty = True
