"""Training steps of a GAN.

What is random in step t is drawn from (seed, t) by stateless operations: a run that goes on from a checkpoint makes
the same steps as one that was never stopped. It is drawn for the whole batch, of which every device and every pass
takes its rows: whatever shares the work, the step is the same up to the order of sums.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import tensorflow as tf

from tfcxr import data
from tfcxr.gan import choices
from tfcxr.gan.networks import network_config, prog_gan
from tfcxr.gan.training import augment, losses, schedule
from tfcxr.gan.training.state import GanState, Rate
from tfrecords_builder.images import pixel_ranges

# The means that `StepRunner.run` sums, besides those of the penalties and, with prog-GAN, of the label losses.
MEASURES = (
    "loss/G", "loss/D", "scores/real", "scores/fake", "signs/real", "signs/fake", "norm/G", "norm/D",
)  # fmt: skip
LABEL_MEASURES = ("loss/labels_real", "loss/labels_fake", "loss/labels_G")
PENALTY_MEASURES = ("penalty/value", "penalty/gradient_norm")

# ADA moves its probability after so many steps (Karras 2020b, section 3.2).
_ADAPT_EVERY = 4

# What a number is drawn for. Each discriminator step within a step has its own block of eight.
_MIRROR, _D_LATENTS, _MIX, _G_LABELS, _G_LATENTS, _AUGMENT_REAL, _AUGMENT_FAKE, _AUGMENT_G = range(8)


# {image uint8 [B, R, R, 1], vector float32 [B, L]}; scalars by name; of each variable the gradient.
Batch = dict[str, tf.Tensor]
Measures = dict[str, tf.Tensor]
Gradients = list[tf.Tensor]


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """The settings of one step.

    Attributes:
        batch_size: images per step of each network; at most 4 or divisible by 4.
        loss: one of `choices.LOSSES`.
        learning_rate: of the generator, and of the discriminator where `d_learning_rate` is None.
        d_learning_rate: of the discriminator (Heusel 2017, two time scales).
        lr_decay_kimg: after so many thousand images shown both rates have fallen to a half, after twice as many to a
            third, and so on; None: they stay. Not of prog-GAN, whose schedule has rates by resolution.
        beta2: of Adam; β1 is 0.
        ema_decay: per step, of the averaged generator.
        ema_rampup: the average looks back over at most this fraction of the steps so far (Karras 2020b, training
            configuration); None: always as `ema_decay` says, so that short runs end with a mean over most of their way.
        r1_gamma, r2_gamma: weights of the zero-centred penalties on reals and fakes ('logistic_r1').
        reg_interval: the penalty is applied in every so many-th step, times that number (Karras 2020, section 3.1).
        d_steps: discriminator steps, each with images of its own, per step of the generator (Gulrajani 2017: 5).
        passes: a batch is computed in so many parts, one after another, whose gradients are added up: the same step in
            less memory.
        precision: Keras mixed precision policy of what networks compute; variables and scores are float32.
        augment: policies of `augment` that the discriminator's images go through; empty: none.
        augment_probability: of each of them, for each image.
        ada_target: the mean of sign(D(real)) that the probability is moved towards (Karras 2020b); None: it is fixed.
        ada_kimg: thousands of images in which the probability can go from 0 to 1.
        mirror: flip each real image left to right with probability 1/2.
        seed: of everything random.
    """

    batch_size: int = 64
    loss: str = "wgan_gp"
    learning_rate: float = 0.005
    d_learning_rate: float | None = None
    lr_decay_kimg: float | None = None
    beta2: float = 0.99
    ema_decay: float = 0.999
    ema_rampup: float | None = None
    r1_gamma: float = 10.0
    r2_gamma: float = 0.0
    reg_interval: int = 1
    d_steps: int = 1
    passes: int = 1
    precision: str = "float32"
    augment: tuple[str, ...] = ()
    augment_probability: float = 1.0
    ada_target: float | None = None
    ada_kimg: float = 500.0
    mirror: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "augment", tuple(self.augment))
        if self.batch_size < 1 or (self.batch_size > 4 and self.batch_size % 4):
            raise ValueError(f"batch_size={self.batch_size}: must be at most 4 or divisible by 4")
        for name, known in (("loss", choices.LOSSES), ("precision", choices.PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be one of {', '.join(known)}")
        for name in ("learning_rate", "d_learning_rate", "lr_decay_kimg", "ada_kimg"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value}: must be positive")
        for name in ("beta2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be in [0, 1)")
        if self.ema_rampup is not None and not 0 < self.ema_rampup <= 1:
            raise ValueError(f"ema_rampup={self.ema_rampup}: must be in (0, 1]")
        for name in ("reg_interval", "d_steps", "passes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.r1_gamma < 0 or self.r2_gamma < 0:
            raise ValueError(f"r1_gamma={self.r1_gamma}, r2_gamma={self.r2_gamma}: must not be negative")
        if not 0 <= self.augment_probability <= 1:
            raise ValueError(f"augment_probability={self.augment_probability}: must be in [0, 1]")
        if self.ada_target is not None and not self.augment:
            raise ValueError(f"ada_target={self.ada_target}: needs augment policies to adapt")
        if self.ada_target is not None and not -1 < self.ada_target < 1:
            raise ValueError(f"ada_target={self.ada_target}: must be between -1 and 1")
        check_passes(self.batch_size, self.passes)

    def rates(self, learning_rate: float) -> tuple[Rate, Rate]:
        """Of the generator, whose rate starts at `learning_rate`, and the discriminator; a phase may have its own."""
        rates = learning_rate, self.d_learning_rate or learning_rate
        if self.lr_decay_kimg is None:
            return rates
        # A step of the generator shows as many real images as d_steps of the discriminator.
        images = self.batch_size * self.d_steps, self.batch_size
        decay = tf.keras.optimizers.schedules.InverseTimeDecay
        generator, discriminator = (
            decay(rate, 1000 * self.lr_decay_kimg / each, 1.0) for rate, each in zip(rates, images, strict=True)
        )
        return generator, discriminator


def check_passes(batch_size: int, passes: int) -> None:
    """Raises ValueError if batches cannot be computed in so many passes."""
    try:
        data.share_rows(batch_size, passes)
    except ValueError as error:
        raise ValueError(f"passes={passes}: {error}") from error


def make_state(network: network_config.NetworkConfig, config: StepConfig) -> GanState:
    """The state of an untrained GAN; make it in the scope of the strategy that trains it."""
    return GanState(
        network,
        learning_rates=config.rates(config.learning_rate),
        beta2=config.beta2,
        precision=config.precision,
        # ADA starts from no augmentation.
        augment_probability=config.augment_probability if config.ada_target is None else 0.0,
    )


class StepRunner:
    """Runs the steps of one phase of the schedule on a state.

    Attributes:
        measures: names of what `run` sums.
        images_per_step: real images shown per step.
    """

    def __init__(
        self,
        state: GanState,
        config: StepConfig,
        label_table: np.ndarray,
        *,
        network: network_config.NetworkConfig | None = None,
        phase: schedule.Phase | None = None,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        """Args as follow.

        Args:
            state: made in the scope of `strategy`.
            config: settings.
            label_table: float [M, L], the labels of the training images, from which the generator's step draws.
            network: needed with arch 'prog'.
            phase: of prog-GAN's schedule; its batch size replaces that of `config`.
            strategy: shares the batch among its devices; None: the current one.
        """
        self._state, self._config, self._labels = state, config, tf.constant(label_table, tf.float32)
        self._strategy = strategy or tf.distribute.get_strategy()
        self._phase = cast(schedule.Phase, phase)  # is used with arch 'prog' only, which has one
        self._batch_size = phase.batch_size if phase else config.batch_size
        self._grows = network is not None and network.arch == "prog"
        if network is not None and phase is not None and self._grows:
            self._generator = prog_gan.stage_generator(state.generator, network, phase.stage)
            self._discriminator = prog_gan.stage_discriminator(state.discriminator, network, phase.stage)
            self._stages = network.stages
            self._seen = network.seen_labels
        else:
            self._generator, self._discriminator = state.generator, state.discriminator
        # Rows of the whole batch, and of the device's own share of it, for each pass.
        shares = self._strategy.num_replicas_in_sync
        self._own_rows = data.share_rows(self._batch_size // shares, config.passes)
        self._rows = tf.constant(data.share_rows(self._batch_size, shares)[:, self._own_rows])
        self._penalised = config.loss in choices.PENALISED_LOSSES
        self.measures = MEASURES + (LABEL_MEASURES if self._grows else ())
        self.images_per_step = self._batch_size * config.d_steps

    @tf.function(reduce_retracing=True)
    def run(self, batches: Iterator[Batch], count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Makes steps; nothing leaves the graph between them.

        Args:
            batches: iterator of {image uint8 [B, R, R, 1], vector float32 [B, L]}; with several devices the strategy's,
                and B a device's share.
            count: int32 scalar, how many.

        Returns:
            The sums over the steps of `measures`, float64 [len(measures)], and of `PENALTY_MEASURES`, float64 [2], and
            the number of penalties that the latter sum, int32. In float64 sums of float32 are exact, or nearly: they do
            not depend on how many steps a call makes, which goes by the clock.
        """
        sums, penalty_sums = (tf.zeros([len(names)], tf.float64) for names in (self.measures, PENALTY_MEASURES))
        penalties = tf.constant(0)
        for _ in tf.range(count):
            measures, penalty, done = self._step(batches)
            sums += tf.cast(measures, tf.float64)
            penalty_sums += tf.cast(penalty, tf.float64)
            penalties += done
        return sums, penalty_sums, penalties

    @tf.autograph.experimental.do_not_convert  # or more than a second before the first step goes into reading sources
    def _step(self, batches: Iterator[Batch]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        state, config, strategy = self._state, self._config, self._strategy
        if self._grows:
            self._set_lod()
        found: dict[str, tf.Tensor] = {}
        for number in range(config.d_steps):
            batch = next(batches)
            values = strategy.run(self._discriminator_step, (batch["image"], batch["vector"], number))
            for name, value in self._total(values).items():
                found[name] = found.get(name, 0.0) + value / config.d_steps
        found.update(self._total(strategy.run(self._generator_step)))
        self._average()
        if config.ada_target is not None:
            self._adapt(found["signs/real"], config.ada_target)
        due = tf.equal(state.step % config.reg_interval, 0)
        done = tf.cast(due, tf.int32) if self._penalised else tf.constant(0)
        penalty = tf.stack([found[name] for name in PENALTY_MEASURES])
        state.step.assign_add(1)
        state.images_shown.assign_add(self.images_per_step)
        return tf.stack([found[name] for name in self.measures]), penalty, done

    def _total(self, values: Measures) -> Measures:
        return {name: self._strategy.reduce("SUM", value, axis=None) for name, value in values.items()}

    # What follows runs on each device, with its share of the batch; losses are divided by the whole batch's size.

    def _discriminator_step(self, images: tf.Tensor, labels: tf.Tensor, number: int) -> Measures:
        def one_pass(index: int | tf.Tensor) -> tuple[Gradients, Measures]:
            rows, own = self._rows_of_pass(index)
            return self._discriminator_pass(self._part(images, own), self._part(labels, own), rows, number)

        gradients, measures = self._passes(one_pass)
        variables = self._discriminator.trainable_variables
        measures["norm/D"] = self._apply(self._state.discriminator_optimizer, gradients, variables)
        return measures

    def _discriminator_pass(
        self, images: tf.Tensor, labels: tf.Tensor, rows: tf.Tensor | None, number: int
    ) -> tuple[Gradients, Measures]:
        """Gradients of the mean loss, penalty included, and the measures, of some rows of the batch."""
        config, base = self._config, 8 * number
        reals = pixel_ranges.uint8_to_signed(images)
        if config.mirror:
            flip = self._drawn(tf.random.stateless_uniform, [1, 1, 1], base + _MIRROR, rows) < 0.5
            reals = tf.where(flip, tf.reverse(reals, [2]), reals)
        if self._grows:
            reals = prog_gan.at_lod(reals, self._lod(), self._phase.stage, self._stages)
        latents = self._latents(base + _D_LATENTS, rows)
        fakes = self._augmented(self._generator([latents, labels], training=True), base + _AUGMENT_FAKE, rows)
        reals = self._augmented(reals, base + _AUGMENT_REAL, rows)
        variables = self._discriminator.trainable_variables
        optimizer = self._state.discriminator_optimizer
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            real_scores, real_logits = self._scores(reals, labels)
            fake_scores, fake_logits = self._scores(fakes, labels)
            values = _discriminator_loss(config.loss)(real_scores, fake_scores)
            if self._grows:
                real_labels = losses.auxiliary_loss(real_logits, tf.gather(labels, self._seen, axis=1))
                fake_labels = losses.auxiliary_loss(fake_logits, tf.gather(labels, self._seen, axis=1))
                values += real_labels + fake_labels
            loss = self._mean(values)
            scaled = self._scaled(loss, optimizer)
        gradients = self._unscaled(tape.gradient(scaled, variables, unconnected_gradients="zero"), optimizer)
        penalty = tf.zeros([len(PENALTY_MEASURES)])
        if self._penalised and config.reg_interval == 1:
            gradients, penalty = self._with_penalty(gradients, reals, fakes, labels, rows, base)
        elif self._penalised:
            gradients, penalty = tf.cond(
                tf.equal(self._state.step % config.reg_interval, 0),
                lambda: self._with_penalty(gradients, reals, fakes, labels, rows, base),
                lambda: (gradients, penalty),
            )
        measures = {
            "loss/D": loss,
            "scores/real": self._mean(real_scores),
            "scores/fake": self._mean(fake_scores),
            "signs/real": self._mean(tf.sign(real_scores)),
            "signs/fake": self._mean(tf.sign(fake_scores)),
            **dict(zip(PENALTY_MEASURES, tf.unstack(penalty), strict=True)),
        }
        if self._grows:
            measures |= {"loss/labels_real": self._mean(real_labels), "loss/labels_fake": self._mean(fake_labels)}
        return gradients, measures

    def _with_penalty(
        self,
        gradients: Gradients,
        reals: tf.Tensor,
        fakes: tf.Tensor,
        labels: tf.Tensor,
        rows: tf.Tensor | None,
        base: int,
    ) -> tuple[Gradients, tf.Tensor]:
        """The gradients with those of the penalty added, and the penalty's measures."""
        config, optimizer = self._config, self._state.discriminator_optimizer
        variables = self._discriminator.trainable_variables

        def score(images: tf.Tensor) -> tf.Tensor:
            return self._scores(images, labels)[0]

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            if config.loss == "logistic_r1":
                values, norms = losses.zero_centred_penalty(score, reals, gamma=config.r1_gamma)
                if config.r2_gamma:
                    values += losses.zero_centred_penalty(score, fakes, gamma=config.r2_gamma)[0]
            else:
                mix = self._drawn(tf.random.stateless_uniform, [1, 1, 1], base + _MIX, rows)
                scale = prog_gan.gradient_scale(self._phase.stage, self._stages) if self._grows else 1.0
                values, norms = losses.gradient_penalty(score, losses.interpolate(reals, fakes, mix), scale=scale)
            penalty = self._mean(values)
            weighted = self._scaled(penalty * config.reg_interval, optimizer)
        # The last bias adds a constant to the score: the penalty does not depend on it.
        added = self._unscaled(tape.gradient(weighted, variables, unconnected_gradients="zero"), optimizer)
        return [a + b for a, b in zip(gradients, added, strict=True)], tf.stack([penalty, self._mean(norms)])

    def _generator_step(self) -> Measures:
        gradients, measures = self._passes(lambda index: self._generator_pass(self._rows_of_pass(index)[0]))
        variables = self._generator.trainable_variables
        measures["norm/G"] = self._apply(self._state.generator_optimizer, gradients, variables)
        return measures

    def _generator_pass(self, rows: tf.Tensor | None) -> tuple[Gradients, Measures]:
        config, optimizer = self._config, self._state.generator_optimizer
        picks = self._drawn(
            lambda shape, seed: tf.random.stateless_uniform(shape, seed, 0, tf.shape(self._labels)[0], tf.int32),
            [], _G_LABELS, rows,
        )  # fmt: skip
        labels = tf.gather(self._labels, picks)
        latents = self._latents(_G_LATENTS, rows)
        variables = self._generator.trainable_variables
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            images = self._augmented(self._generator([latents, labels], training=True), _AUGMENT_G, rows)
            scores, logits = self._scores(images, labels)
            logistic = config.loss.startswith("logistic")
            values = (losses.logistic_generator if logistic else losses.wgan_generator)(scores)
            if self._grows:
                label_values = losses.auxiliary_loss(logits, tf.gather(labels, self._seen, axis=1))
                values += label_values
            loss = self._mean(values)
            scaled = self._scaled(loss, optimizer)
        gradients = self._unscaled(tape.gradient(scaled, variables, unconnected_gradients="zero"), optimizer)
        measures = {"loss/G": loss}
        if self._grows:
            measures["loss/labels_G"] = self._mean(label_values)
        return gradients, measures

    def _passes(self, one_pass: Callable[[int | tf.Tensor], tuple[Gradients, Measures]]) -> tuple[Gradients, Measures]:
        """The sums of what the passes over a device's share return."""
        total = one_pass(0)
        if self._config.passes == 1:
            return total

        def add_pass(index, total):
            return index + 1, tf.nest.map_structure(tf.add, total, one_pass(index))

        # In turn, so that the memory is that of one pass.
        return tf.while_loop(
            lambda index, _: index < self._config.passes, add_pass, (tf.constant(1), total), parallel_iterations=1
        )[1]

    def _rows_of_pass(self, index: int | tf.Tensor) -> tuple[tf.Tensor | None, tf.Tensor | None]:
        """The rows in the whole batch, and in the device's share; None: all."""
        if self._rows.shape[0] * self._config.passes == 1:
            return None, None
        device = tf.distribute.get_replica_context().replica_id_in_sync_group
        rows = tf.gather(tf.gather(self._rows, device), index)
        return rows, tf.gather(tf.constant(self._own_rows), index) if self._config.passes > 1 else None

    def _part(self, values: tf.Tensor, rows: tf.Tensor | None) -> tf.Tensor:
        return values if rows is None else tf.gather(values, rows)

    def _drawn(self, draw: Callable[..., tf.Tensor], shape: list[int], use: int, rows: tf.Tensor | None) -> tf.Tensor:
        return self._part(draw([self._batch_size, *shape], seed=self._random(use)), rows)

    def _random(self, use: int) -> tf.Tensor:
        """A seed of its own for each use within a step."""
        return tf.stack([tf.constant(self._config.seed * 1024 + use, tf.int64), self._state.step])

    def _latents(self, use: int, rows: tf.Tensor | None) -> tf.Tensor:
        return self._drawn(tf.random.stateless_normal, [self._generator.input_shape[0][1]], use, rows)

    def _augmented(self, images: tf.Tensor, use: int, rows: tf.Tensor | None) -> tf.Tensor:
        if not self._config.augment:
            return images
        probability = tf.convert_to_tensor(self._state.augment_probability)
        part = None if rows is None else (rows, self._batch_size)
        return augment.augment(images, self._config.augment, probability, self._random(use), rows=part)

    def _scores(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Scores [N] and, of prog-GAN, label logits."""
        if self._grows:
            scores, logits = self._discriminator(images, training=True)
        else:
            scores, logits = self._discriminator([images, labels], training=True), None
        return tf.reshape(scores, [-1]), logits

    def _mean(self, values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(values) / self._batch_size

    def _scaled(self, loss: tf.Tensor, optimizer: tf.keras.optimizers.Optimizer) -> tf.Tensor:
        return optimizer.get_scaled_loss(loss) if self._config.precision == "mixed_float16" else loss

    def _unscaled(self, gradients: Gradients, optimizer: tf.keras.optimizers.Optimizer) -> Gradients:
        return optimizer.get_unscaled_gradients(gradients) if self._config.precision == "mixed_float16" else gradients

    def _apply(
        self, optimizer: tf.keras.optimizers.Optimizer, gradients: Gradients, variables: list[tf.Variable]
    ) -> tf.Tensor:
        """Updates the variables; returns this device's share of the norm of the whole batch's gradient."""
        shares = self._strategy.num_replicas_in_sync
        if shares > 1:
            gradients = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
        optimizer.apply_gradients(zip(gradients, variables, strict=True), experimental_aggregate_gradients=False)
        norm = tf.linalg.global_norm(gradients) / shares
        # A step whose gradient overflows is left out by the optimizer, which then scales losses by less.
        return tf.where(tf.math.is_finite(norm), norm, 0.0) if self._config.precision == "mixed_float16" else norm

    # What follows runs once for all devices.

    def _average(self) -> None:
        state, rate = self._state, tf.constant(1 - self._config.ema_decay)
        if self._config.ema_rampup is not None:
            looked_back = self._config.ema_rampup * tf.cast(state.step + 1, tf.float32)
            rate = tf.maximum(rate, 1 / tf.maximum(looked_back, 1.0))

        def move(average: tf.Variable, current: tf.Tensor) -> None:
            average.assign_add((current - average) * rate)

        pairs = zip(state.ema.trainable_variables, state.generator.trainable_variables, strict=True)
        for average, current in pairs:
            self._strategy.extended.update(average, move, args=(current,))

    def _adapt(self, signs: tf.Tensor, target: float) -> None:
        state, config = self._state, self._config
        state.sign_sum.assign_add(signs)

        def adapt() -> None:
            state.augment_probability.assign(
                augment.adapt(
                    state.augment_probability,
                    state.sign_sum / _ADAPT_EVERY,
                    images=_ADAPT_EVERY * self.images_per_step,
                    target=target,
                    images_to_full=config.ada_kimg * 1000,
                )
            )
            state.sign_sum.assign(0.0)

        tf.cond(tf.equal((state.step + 1) % _ADAPT_EVERY, 0), adapt, lambda: None)

    def _lod(self) -> tf.Variable:
        return self._state.generator.get_layer("lod").lod

    def _set_lod(self) -> None:
        phase = self._phase
        way = tf.cast(self._state.images_shown - phase.first_image, tf.float32) / phase.num_images
        lod = self._stages - phase.stage + phase.fade_from + (phase.fade_to - phase.fade_from) * way
        for model in (self._state.generator, self._state.ema, self._state.discriminator):
            model.get_layer("lod").lod.assign(lod)


def _discriminator_loss(loss: str) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    if loss == "wgan_gp":
        return losses.wgan_discriminator
    return losses.hinge_discriminator if loss.startswith("hinge") else losses.logistic_discriminator
