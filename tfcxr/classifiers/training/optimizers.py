"""SGD as PyTorch defines it, and Adam, with learning-rate multipliers per group of layers."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


class CoupledSGD(tf.keras.optimizers.Optimizer):
    """SGD in PyTorch's form: g += decay w; v = momentum v + g; w -= lr (g + momentum v with nesterov, else v).

    Unlike Keras's SGD, the learning rate is outside the velocity (it matters where the rate changes), and the decay
    goes through the velocity as well. It applies to every variable, BatchNorm and biases included.
    """

    def __init__(
        self,
        learning_rate: float | tf.keras.optimizers.schedules.LearningRateSchedule,
        *,
        momentum: float = 0.9,
        nesterov: bool = False,
        coupled_decay: float = 0.0,
        name: str = "CoupledSGD",
    ):
        """Makes the optimizer.

        Args:
            learning_rate: a number or a schedule of the step.
            momentum: in [0, 1).
            nesterov: step along g + momentum v rather than v.
            coupled_decay: weight decay; not Keras's `weight_decay`, which is decoupled.
            name: of the optimizer.
        """
        # XLA makes training slower on CPUs, and Keras would turn it on by itself on GPUs. Keras's weight decay is 0 by
        # default, and would still multiply and subtract every weight in every step.
        super().__init__(name=name, weight_decay=None, jit_compile=False)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.momentum, self.nesterov, self.coupled_decay = momentum, nesterov, coupled_decay

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Makes one velocity for each variable."""
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self.velocities = [self.add_variable_from_reference(variable, "velocity") for variable in var_list]
        self._built = True

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Updates one variable."""
        gradient = tf.convert_to_tensor(gradient)
        if self.coupled_decay:
            gradient += self.coupled_decay * variable
        self._step(gradient, variable)

    def _step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Updates velocity and variable along a gradient that holds the decay."""
        rate = tf.cast(self.learning_rate, variable.dtype)
        velocity = self.velocities[self._index_dict[self._var_key(variable)]]
        # One fused pass over memory in just this form; written out, the update takes longer than ResNet-50's gradients
        # of a small batch at 32 px.
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=velocity.handle,
            lr=rate,
            grad=gradient,
            momentum=tf.cast(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "coupled_decay": self.coupled_decay,
        }


class Lars(CoupledSGD):
    """LARS (You et al., "Large Batch Training of Convolutional Networks", arXiv 1708.03888, algorithm 1).

    Each variable's step is in proportion to its length: g += decay w; r = trust ||w|| / (||gradient|| + decay ||w||);
    v = momentum v + r g; w -= lr v. Vectors, such as biases and those of BatchNorm, get neither the decay nor r, as in
    Chen et al. 2020 (SimCLR, appendix B.6). The learning rate is outside the velocity, as in CoupledSGD.
    """

    def __init__(self, learning_rate: Any, *, trust: float = 0.001, name: str = "Lars", **arguments: Any):
        """`trust`: the coefficient of r; others as of CoupledSGD, without nesterov."""
        super().__init__(learning_rate, name=name, **arguments)
        self.trust = trust

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Updates one variable."""
        gradient = tf.convert_to_tensor(gradient)
        if variable.shape.rank > 1:
            length, slope = tf.norm(variable), tf.norm(gradient)
            ratio = tf.math.divide_no_nan(self.trust * length, slope + self.coupled_decay * length)
            ratio = tf.where((length > 0) & (slope > 0), ratio, 1.0)
            gradient = ratio * (gradient + self.coupled_decay * variable)
        self._step(gradient, variable)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "trust": self.trust}


class InverseDecay(tf.keras.optimizers.schedules.LearningRateSchedule):
    """lr (1 + p)^-power with p = step / steps, as DCAN."""

    def __init__(self, learning_rate: float, steps: int, power: float = 0.75):
        """`learning_rate` at step 0; `steps` of the whole training."""
        self.learning_rate, self.steps, self.power = learning_rate, steps, power

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The rate at `step`, float32."""
        progress = tf.cast(step, tf.float32) / float(self.steps)
        return self.learning_rate * tf.pow(1.0 + progress, -self.power)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {"learning_rate": self.learning_rate, "steps": self.steps, "power": self.power}


class ScaledRate(tf.keras.optimizers.schedules.LearningRateSchedule):
    """A schedule times a variable, which may be changed while training."""

    def __init__(self, schedule: float | tf.keras.optimizers.schedules.LearningRateSchedule, scale: tf.Variable):
        """`schedule`: see `make_schedule`; `scale`: float32 scalar."""
        self.schedule, self.scale = schedule, scale

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The rate at `step`, float32."""
        rate = self.schedule(step) if callable(self.schedule) else self.schedule
        return tf.cast(rate, tf.float32) * self.scale

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {"schedule": self.schedule, "scale": self.scale}


@dataclasses.dataclass(frozen=True)
class Group:
    """Layers (or models) that share multipliers of the learning rate and of the weight decay."""

    layers: Sequence[tf.keras.layers.Layer]
    rate: float = 1.0
    decay: float = 1.0


def make_schedule(
    kind: str, learning_rate: float, steps: int, warmup: int = 0
) -> float | tf.keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate over `steps`: constant, cosine (to 0) or inverse (DCAN's).

    `warmup`: of cosine, the first so many of the steps, over which it rises from 0. Raises ValueError for another kind.
    """
    if kind == "constant":
        return learning_rate
    if kind == "cosine" and warmup:
        return tf.keras.optimizers.schedules.CosineDecay(
            0.0, decay_steps=max(1, steps - warmup), warmup_target=learning_rate, warmup_steps=warmup
        )
    if kind == "cosine":
        return tf.keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps=max(1, steps))
    if kind == "inverse":
        return InverseDecay(learning_rate, max(1, steps))
    raise ValueError(f"kind={kind!r}: must be constant, cosine or inverse")


class GroupedOptimizer(tf.Module):
    """One optimizer of Keras for each group.

    A `tf.train.Checkpoint` of this object holds the slots and step counts of all groups. tensorflow-addons'
    MultiOptimizer would leave them out, and tells variables apart by names, which differ on a second device.

    Attributes:
        optimizers: of the groups that have something to train.
        variables_to_train: what `apply` expects gradients of, in that order.
        scale: variable by which all learning rates are multiplied, 1 at first; None if they cannot be changed.
    """

    def __init__(self, groups: Sequence[Group], make: Callable[[Group], Any]):
        """Makes the optimizers and their slots.

        Args:
            groups: disjoint groups; their layers have been built.
            make: makes the optimizer of a group, of tf.keras.optimizers or tf.keras.optimizers.legacy.

        Raises:
            ValueError: a variable in two groups.
        """
        super().__init__(name="grouped_optimizer")
        self.variables_to_train: list[tf.Variable] = []
        self.optimizers = []
        self.scale: tf.Variable | None = None
        self._sizes = []
        for group in groups:
            variables = [v for layer in group.layers for v in layer.trainable_variables]
            if not variables:
                continue
            optimizer = make(group)
            if isinstance(optimizer, tf.keras.optimizers.legacy.Optimizer):
                optimizer._create_all_weights(variables)  # it has no other way; a checkpoint needs them
            else:
                optimizer.build(variables)
            self.optimizers.append(optimizer)
            self.variables_to_train += variables
            self._sizes.append(len(variables))
        places = [id(v) for v in self.variables_to_train]
        if len(set(places)) < len(places):
            twice = sorted({v.name for v in self.variables_to_train if places.count(id(v)) > 1})
            raise ValueError(f"groups: in two of them: {', '.join(twice[:3])}")

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Takes one step; `gradients` belong to `variables_to_train`.

        On several devices, each gives the gradients of the mean loss of its share, and the step is along their mean.
        """
        devices = tf.distribute.get_strategy().num_replicas_in_sync
        if devices > 1:
            gradients = [gradient / devices for gradient in gradients]  # Keras sums over the devices
        pairs = zip(gradients, self.variables_to_train, strict=True)
        for optimizer, size in zip(self.optimizers, self._sizes, strict=True):
            optimizer.apply_gradients(list(itertools.islice(pairs, size)))

    @property
    def rate(self) -> tf.Tensor:
        """Current learning rate of the first group."""
        rate = self.optimizers[0].learning_rate
        # Legacy optimizers give the schedule itself.
        return tf.convert_to_tensor(rate(self.optimizers[0].iterations) if callable(rate) else rate)


class GroupedSGD(GroupedOptimizer):
    """One CoupledSGD for each group."""

    def __init__(
        self,
        groups: Sequence[Group],
        *,
        learning_rate: float,
        steps: int,
        schedule: str = "constant",
        scaled: bool = False,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ):
        """Makes the optimizers and their velocities.

        Args:
            groups: disjoint groups; their layers have been built.
            learning_rate: at step 0, of a group with multiplier 1.
            steps: length of the schedule.
            schedule: see `make_schedule`.
            scaled: whether the learning rates may be changed while training, see `scale`.
            momentum: see CoupledSGD.
            nesterov: see CoupledSGD.
            weight_decay: coupled decay of a group with multiplier 1.

        Raises:
            ValueError: a variable in two groups.
        """
        scale = _make_scale(scaled)

        def make(group: Group) -> CoupledSGD:
            rate = _scale_rate(make_schedule(schedule, learning_rate * group.rate, steps), scale)
            return CoupledSGD(rate, momentum=momentum, nesterov=nesterov, coupled_decay=weight_decay * group.decay)

        super().__init__(groups, make)
        self.scale = scale


class GroupedAdam(GroupedOptimizer):
    """One Adam (Kingma and Ba, ICLR 2015) for each group, with Keras's constants and without weight decay."""

    def __init__(
        self,
        groups: Sequence[Group],
        *,
        learning_rate: float,
        steps: int,
        schedule: str = "constant",
        scaled: bool = False,
    ):
        """Makes the optimizers and their moments; arguments and errors as of GroupedSGD."""
        scale = _make_scale(scaled)

        def make(group: Group) -> tf.keras.optimizers.Adam:
            rate = _scale_rate(make_schedule(schedule, learning_rate * group.rate, steps), scale)
            return tf.keras.optimizers.Adam(rate, jit_compile=False)  # see CoupledSGD

        super().__init__(groups, make)
        self.scale = scale


def _make_scale(scaled: bool) -> tf.Variable | None:
    return tf.Variable(1.0, trainable=False, name="scale") if scaled else None


def _scale_rate(schedule: Any, scale: tf.Variable | None) -> Any:
    return schedule if scale is None else ScaledRate(schedule, scale)
