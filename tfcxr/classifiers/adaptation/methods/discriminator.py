"""A domain discriminator trained against the network through a gradient that is reversed on its way back.

Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016, arXiv 1505.07818.
"""

import tensorflow as tf

_HIDDEN = 1024


class DomainDiscriminator(tf.keras.Sequential):
    """Two hidden layers of 1,024 with ReLU: float [n, width] -> logit [n, 1] of being of the source domain."""

    def __init__(self, width: int, seed: int):
        """Makes all weights, from `seed` alone."""

        def dense(units: int, activation: str | None, number: int) -> tf.keras.layers.Dense:
            return tf.keras.layers.Dense(
                units,
                activation,
                kernel_initializer=tf.keras.initializers.GlorotUniform(seed=seed + number),
                dtype="float32",
                name=f"discriminator_{number}",
            )

        layers = [dense(_HIDDEN, "relu", 1), dense(_HIDDEN, "relu", 2), dense(1, None, 3)]
        super().__init__([tf.keras.Input([width]), *layers], name="domain_discriminator")

    def loss(
        self,
        source: tf.Tensor,
        target: tf.Tensor,
        progress: tf.Tensor,
        weights: tuple[tf.Tensor, tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """Binary cross entropy of telling the domains apart; what made the inputs gets its gradient reversed.

        Args:
            source: float32 [n, width].
            target: float32 [n, width].
            progress: scalar in [0, 1], see `reversal_strength`.
            weights: float32 [n] of the source and of the target rows, each of mean 1; None for 1.

        Returns:
            float32 scalar: the mean of both domains' means; log 2 = 0.693 where it cannot tell them apart.
        """
        inputs = reverse_gradient(tf.concat([source, target], axis=0), reversal_strength(progress))
        logits = self(inputs)[:, 0]
        size = tf.shape(source)[0]
        of_source, of_target = tf.nn.softplus(-logits[:size]), tf.nn.softplus(logits[size:])
        if weights is not None:
            of_source, of_target = weights[0] * of_source, weights[1] * of_target
        return 0.5 * (tf.reduce_mean(of_source) + tf.reduce_mean(of_target))


def reversal_strength(progress: tf.Tensor) -> tf.Tensor:
    """2 / (1 + exp(-10 p)) - 1: from 0 to nearly 1, so that a discriminator that knows nothing yet disturbs little."""
    return 2.0 / (1.0 + tf.exp(-10.0 * progress)) - 1.0


@tf.custom_gradient
def reverse_gradient(values: tf.Tensor, strength: tf.Tensor):
    """`values` unchanged; their gradient is multiplied by -strength."""
    return tf.identity(values), lambda gradient: (-strength * gradient, tf.zeros_like(strength))
