"""One training step of a GAN, and everything that a checkpoint of it must hold.

What is random in step t is drawn from (seed, t) by stateless operations: a run that goes on from a checkpoint makes
the same steps as one that was never stopped.
"""

import dataclasses

import tensorflow as tf

from tfcxr.gan import losses, networks

LOSSES = ("wgan_gp", "logistic_ns", "logistic_r1", "hinge", "hinge_gp")

# The sums that `StepRunner.run` returns, besides the number of penalties.
MEASURES = ("loss/G", "loss/D", "scores/real", "scores/fake", "norm/G", "norm/D")
PENALTY_MEASURES = ("penalty/value", "penalty/gradient_norm")


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """The settings of one step.

    Attributes:
      batch_size: images per step of each network; at most 4 or divisible by 4.
      loss: one of `LOSSES`.
      learning_rate: of both networks.
      beta2: of Adam; β1 is 0.
      ema_decay: per step, of the averaged generator.
      ema_rampup: the average looks back over at most this fraction of the steps so far (Karras 2020b, training
        configuration); None: always as `ema_decay` says, so that short runs end with a mean over most of their way.
      r1_gamma, r2_gamma: weights of the zero-centred penalties on reals and fakes ('logistic_r1').
      reg_interval: the penalty is applied in every so many-th step, times that number (Karras 2020, section 3.1).
      mirror: flip each real image left to right with probability 1/2.
      seed: of everything random.
    """

    batch_size: int = 64
    loss: str = "wgan_gp"
    learning_rate: float = 0.005
    beta2: float = 0.99
    ema_decay: float = 0.999
    ema_rampup: float | None = None
    r1_gamma: float = 10.0
    r2_gamma: float = 0.0
    reg_interval: int = 1
    mirror: bool = False
    seed: int = 0

    def __post_init__(self):
        if self.batch_size < 1 or (self.batch_size > 4 and self.batch_size % 4):
            raise ValueError(f"batch_size={self.batch_size}: must be at most 4 or divisible by 4")
        if self.loss not in LOSSES:
            raise ValueError(f"loss={self.loss!r}: must be one of {', '.join(LOSSES)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate={self.learning_rate}: must be positive")
        for name in ("beta2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be in [0, 1)")
        if self.ema_rampup is not None and not 0 < self.ema_rampup <= 1:
            raise ValueError(f"ema_rampup={self.ema_rampup}: must be in (0, 1]")
        if self.reg_interval < 1:
            raise ValueError(f"reg_interval={self.reg_interval}: must be at least 1")
        if self.r1_gamma < 0 or self.r2_gamma < 0:
            raise ValueError(f"r1_gamma={self.r1_gamma}, r2_gamma={self.r2_gamma}: must not be negative")


def to_float(images: tf.Tensor) -> tf.Tensor:
    """uint8 0..255 to float32 in [-1, 1]."""
    return tf.cast(images, tf.float32) * (1 / 127.5) - 1


def to_uint8(images: tf.Tensor) -> tf.Tensor:
    """Float in [-1, 1] to uint8 by rint((x + 1) / 2 · 255), clipped."""
    return tf.cast(tf.clip_by_value(tf.math.rint((images + 1) * 127.5), 0, 255), tf.uint8)


class GanState(tf.train.Checkpoint):
    """Both networks, the averaged generator, both optimizers and the step: all that changes while training.

    The optimizer is the 'legacy' Adam of Keras 2.15: it computes lr·sqrt(1-β2^t)/(1-β1^t)·m/(sqrt(v) + ε) as
    TensorFlow 1 and the newer Keras Adam do, in one fused operation per variable.
    """

    def __init__(self, network: networks.NetworkConfig, step: StepConfig):
        def adam():
            return tf.keras.optimizers.legacy.Adam(step.learning_rate, beta_1=0.0, beta_2=step.beta2, epsilon=1e-8)

        super().__init__(
            generator=networks.build_generator(network),
            discriminator=networks.build_discriminator(network),
            ema=networks.build_generator(network),
            generator_optimizer=adam(),
            discriminator_optimizer=adam(),
            step=tf.Variable(0, dtype=tf.int64, name="step"),
        )
        # The slots exist from the start, so that a checkpoint restores into them at once.
        self.generator_optimizer._create_all_weights(self.generator.trainable_variables)
        self.discriminator_optimizer._create_all_weights(self.discriminator.trainable_variables)


class StepRunner:
    """Runs steps on a state."""

    def __init__(self, state: GanState, config: StepConfig, label_table: tf.Tensor):
        """`label_table` [M, L] float32: the labels of the training images, from which the generator's step draws."""
        self._state, self._config, self._labels = state, config, tf.constant(label_table, tf.float32)

    @tf.function(reduce_retracing=True)
    def run(self, batches, count):
        """Makes `count` steps with the next batches of an iterator of {image uint8 [B, R, R, 1], vector float32 [B,
        L]}.

        Nothing leaves the graph between steps. Returns the sums over the steps of `MEASURES` [6], of
        `PENALTY_MEASURES` [2], and the number of penalties that the latter sum.
        """
        sums, penalty_sums = tf.zeros([len(MEASURES)]), tf.zeros([len(PENALTY_MEASURES)])
        penalties = tf.constant(0)
        for _ in tf.range(count):
            batch = next(batches)
            measures, penalty, done = self._step(batch["image"], batch["vector"])
            sums += measures
            penalty_sums += penalty
            penalties += done
        return sums, penalty_sums, penalties

    def _random(self, salt: int):
        """A seed of its own for each use within a step."""
        return tf.stack([tf.constant(self._config.seed * 16 + salt, tf.int64), self._state.step])

    def _latents(self, size, salt: int):
        return tf.random.stateless_normal([size, self._state.generator.input_shape[0][1]], self._random(salt))

    def _step(self, images, labels):
        state, config = self._state, self._config
        reals = to_float(images)
        if config.mirror:
            flip = tf.random.stateless_uniform([tf.shape(reals)[0], 1, 1, 1], self._random(0)) < 0.5
            reals = tf.where(flip, tf.reverse(reals, [2]), reals)
        d_measures, penalty, done = self._discriminator_step(reals, labels)
        with tf.control_dependencies([d_measures["loss/D"]]):
            g_measures = self._generator_step(tf.shape(reals)[0])
        self._average()
        state.step.assign_add(1)
        measures = {**d_measures, **g_measures}
        return tf.stack([measures[name] for name in MEASURES]), penalty, done

    def _discriminator_step(self, reals, labels):
        state, config = self._state, self._config
        discriminator = state.discriminator
        variables = discriminator.trainable_variables
        fakes = state.generator([self._latents(tf.shape(reals)[0], 1), labels], training=True)
        discriminator_loss = {"wgan_gp": losses.wgan_discriminator, "hinge": losses.hinge_discriminator}
        discriminator_loss["hinge_gp"] = losses.hinge_discriminator
        with tf.GradientTape() as tape:
            real_scores = discriminator([reals, labels], training=True)
            fake_scores = discriminator([fakes, labels], training=True)
            values = discriminator_loss.get(config.loss, losses.logistic_discriminator)(real_scores, fake_scores)
            loss = tf.reduce_mean(values)
        gradients = tape.gradient(loss, variables)
        penalty, done = tf.zeros([len(PENALTY_MEASURES)]), tf.constant(0)
        if config.loss in ("wgan_gp", "hinge_gp", "logistic_r1"):
            if config.reg_interval == 1:
                gradients, penalty, done = self._penalised(gradients, reals, fakes, labels)
            else:
                gradients, penalty, done = tf.cond(
                    tf.equal(state.step % config.reg_interval, 0),
                    lambda: self._penalised(gradients, reals, fakes, labels),
                    lambda: (gradients, penalty, done),
                )
        norm = tf.linalg.global_norm(gradients)
        state.discriminator_optimizer.apply_gradients(zip(gradients, variables, strict=True))
        measures = {
            "loss/D": loss,
            "scores/real": tf.reduce_mean(real_scores),
            "scores/fake": tf.reduce_mean(fake_scores),
            "norm/D": norm,
        }
        return measures, penalty, done

    def _penalised(self, gradients, reals, fakes, labels):
        """The gradients with those of the penalty added, and the penalty's measures."""
        config, discriminator = self._config, self._state.discriminator
        with tf.GradientTape() as tape:
            if config.loss == "logistic_r1":
                values, norms = losses.zero_centred_penalty(discriminator, reals, labels, gamma=config.r1_gamma)
                if config.r2_gamma:
                    values += losses.zero_centred_penalty(discriminator, fakes, labels, gamma=config.r2_gamma)[0]
            else:
                mix = tf.random.stateless_uniform([tf.shape(reals)[0], 1, 1, 1], self._random(2))
                mixed = losses.interpolate(reals, fakes, mix)
                values, norms = losses.gradient_penalty(discriminator, mixed, labels)
            penalty = tf.reduce_mean(values)
            weighted = penalty * config.reg_interval
        # The last bias adds a constant to the score: the penalty does not depend on it.
        added = tape.gradient(weighted, discriminator.trainable_variables, unconnected_gradients="zero")
        total = [a + b for a, b in zip(gradients, added, strict=True)]
        return total, tf.stack([penalty, tf.reduce_mean(norms)]), tf.constant(1)

    def _generator_step(self, size):
        state, config = self._state, self._config
        rows = tf.random.stateless_uniform([size], self._random(3), 0, tf.shape(self._labels)[0], tf.int32)
        labels = tf.gather(self._labels, rows)
        latents = self._latents(size, 4)
        logistic = config.loss.startswith("logistic")
        generator_loss = losses.logistic_generator if logistic else losses.wgan_generator
        variables = state.generator.trainable_variables
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            images = state.generator([latents, labels], training=True)
            loss = tf.reduce_mean(generator_loss(state.discriminator([images, labels], training=True)))
        gradients = tape.gradient(loss, variables)
        state.generator_optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"loss/G": loss, "norm/G": tf.linalg.global_norm(gradients)}

    def _average(self):
        state, rate = self._state, 1 - self._config.ema_decay
        if self._config.ema_rampup is not None:
            looked_back = self._config.ema_rampup * tf.cast(state.step + 1, tf.float32)
            rate = tf.maximum(rate, 1 / tf.maximum(looked_back, 1.0))
        pairs = zip(state.ema.trainable_variables, state.generator.trainable_variables, strict=True)
        for average, current in pairs:
            average.assign_add((current - average) * rate)
