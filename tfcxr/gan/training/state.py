"""Everything that changes while a GAN trains, in one checkpoint."""

import json
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from tfcxr.gan.networks import build_networks, network_config

Rate: TypeAlias = float | tf.keras.optimizers.schedules.LearningRateSchedule  # a schedule's are the optimizer's steps


class History(tf.train.experimental.PythonState):
    """What the outer loop remembers, JSON values by name; no variable, since workers cannot share strings."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {"ticks": [], "warnings": {}}

    def serialize(self) -> str:
        """As stored."""
        return json.dumps(self.values)

    def deserialize(self, string_value: str) -> None:
        """Takes what was stored."""
        self.values = json.loads(string_value)


class GanState(tf.train.Checkpoint):
    """Both networks, the averaged generator, both optimizers, counters, augmentation strength and history.

    With what is drawn being a function of (seed, step) and the data of (seed, images shown), nothing else changes.

    The optimizer is the 'legacy' Adam of Keras 2.15: it computes lr·sqrt(1-β2^t)/(1-β1^t)·m/(sqrt(v) + ε) as
    TensorFlow 1 and the newer Keras Adam do, in one fused operation per variable. With `mixed_float16` it scales the
    losses dynamically.

    Attributes:
        generator, discriminator: Keras models of `networks`, computing in the given precision.
        ema: the averaged generator, float32.
        step: int64 [], steps of the generator.
        images_shown: int64 [], real images that the discriminator has seen; 1000 are a kimg.
        augment_probability: float32 [], see `augment`.
        sign_sum: float32 [], of ADA since its last move.
        history: what the outer loop remembers (ticks, patience, warnings).
    """

    def __init__(
        self,
        network: network_config.NetworkConfig,
        *,
        learning_rates: tuple[Rate, Rate] = (0.005, 0.005),
        beta2: float = 0.99,
        precision: str = "float32",
        augment_probability: float = 0.0,
    ):
        """`learning_rates`: of the generator and the discriminator; `precision`: a Keras policy."""

        def adam(learning_rate: Rate, variables: list[tf.Variable]) -> Any:
            adam = tf.keras.optimizers.legacy.Adam(learning_rate, beta_1=0.0, beta_2=beta2, epsilon=1e-8)
            # The slots exist from the start, so that a checkpoint restores into them at once.
            adam._create_all_weights(variables)
            return tf.keras.mixed_precision.LossScaleOptimizer(adam) if precision == "mixed_float16" else adam

        generator = build_networks.build_generator(network, precision)
        discriminator = build_networks.build_discriminator(network, precision)
        super().__init__(
            generator=generator,
            discriminator=discriminator,
            ema=build_networks.build_generator(network),
            generator_optimizer=adam(learning_rates[0], generator.trainable_variables),
            discriminator_optimizer=adam(learning_rates[1], discriminator.trainable_variables),
            step=tf.Variable(0, dtype=tf.int64, name="step"),
            images_shown=tf.Variable(0, dtype=tf.int64, name="images_shown"),
            augment_probability=tf.Variable(augment_probability, dtype=tf.float32, name="augment_probability"),
            sign_sum=tf.Variable(0.0, name="sign_sum"),
            history=History(),
        )

    def set_learning_rates(self, generator: Rate, discriminator: Rate) -> None:
        """From the next step on."""
        self.generator_optimizer.learning_rate = generator
        self.discriminator_optimizer.learning_rate = discriminator

    def learning_rates(self) -> tuple[float, float]:
        """Of the generator and the discriminator, in the next step."""
        rates = []
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            rate = optimizer.learning_rate
            value = rate(optimizer.iterations) if callable(rate) else rate
            rates.append(float(str(np.float32(value))))  # 0.005, not 0.004999999888
        return rates[0], rates[1]

    def forget_moments(self) -> None:
        """Both optimizers begin anew (Karras 2018: where a layer starts, and where its fade ends)."""
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            inner: Any = getattr(optimizer, "inner_optimizer", optimizer)
            for variable in inner.variables():
                variable.assign(tf.zeros_like(variable))
