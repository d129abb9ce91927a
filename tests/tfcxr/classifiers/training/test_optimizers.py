"""SGD step by step against PyTorch's formula in NumPy, groups, schedules, and velocities through a checkpoint."""

import numpy as np
import pytest
import tensorflow as tf

from tfcxr import addons
from tfcxr.classifiers.training import optimizers


def make_layers():
    layers = []
    for i in range(2):
        layer = tf.keras.layers.Dense(2, name=f"layer{i}")
        layer(tf.zeros([1, 3]))
        layers.append(layer)
    return layers


def gradients_at(step, variables):
    return [np.random.default_rng([step, i]).normal(size=v.shape).astype(np.float32) for i, v in enumerate(variables)]


def numpy_sgd(weights, steps, rates, decays, momentum, nesterov, schedule):
    """`weights`: list of arrays; `rates` and `decays`: one for each array."""
    weights = [w.astype(np.float64) for w in weights]
    velocities = [np.zeros_like(w) for w in weights]
    for step in range(steps):
        for i, gradient in enumerate(gradients_at(step, weights)):
            gradient = gradient + decays[i] * weights[i]
            velocities[i] = momentum * velocities[i] + gradient
            change = gradient + momentum * velocities[i] if nesterov else velocities[i]
            weights[i] = weights[i] - rates[i] * schedule(step) * change
    return weights


SCHEDULES = {
    "constant": lambda step: 1.0,
    "cosine": lambda step: 0.5 * (1 + np.cos(np.pi * step / 10)),
    "inverse": lambda step: (1 + step / 10) ** -0.75,
}


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("nesterov", [False, True])
def test_steps_equal_pytorchs_formula(schedule, nesterov):
    first, second = make_layers()
    optimizer = optimizers.GroupedSGD(
        [optimizers.Group([first], 1.0, 2.0), optimizers.Group([second], 10.0, 1.0)],
        learning_rate=0.01, steps=10, schedule=schedule, nesterov=nesterov, weight_decay=0.05,
    )  # fmt: skip
    start = [v.numpy() for v in optimizer.variables_to_train]
    expected = numpy_sgd(start, 10, [0.01] * 2 + [0.1] * 2, [0.1] * 2 + [0.05] * 2, 0.9, nesterov, SCHEDULES[schedule])
    apply = tf.function(optimizer.apply)
    for step in range(10):
        apply([tf.constant(g) for g in gradients_at(step, start)])
    for variable, value in zip(optimizer.variables_to_train, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=2e-5, atol=2e-6)


def test_adam_has_a_rate_for_each_group_which_a_scale_changes():
    """With gradients of one size, each step is the rate times the gradient's sign (Kingma and Ba 2015)."""
    layers = make_layers()
    groups = [optimizers.Group([layer], rate) for layer, rate in zip(layers, (1.0, 10.0), strict=True)]
    optimizer = optimizers.GroupedAdam(groups, learning_rate=0.01, steps=1, scaled=True)
    before = [v.numpy() for v in optimizer.variables_to_train]
    apply = tf.function(optimizer.apply)
    gradients = [tf.ones_like(v) * (-2.0) ** i for i, v in enumerate(before)]
    apply(gradients)
    optimizer.scale.assign(0.1)
    apply(gradients)
    for v, start, gradient, rate in zip(optimizer.variables_to_train, before, gradients, [1, 1, 10, 10], strict=True):
        np.testing.assert_allclose(v, start - 0.011 * rate * np.sign(gradient), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(optimizer.rate, 0.001, rtol=1e-5)


def test_cosine_ends_at_zero():
    schedule = optimizers.make_schedule("cosine", 0.3, 7)
    np.testing.assert_allclose(schedule(7), 0.0, atol=1e-8)


def test_velocities_and_step_survive_a_checkpoint(tmp_path):
    def make():
        layers = make_layers()
        for layer in layers:
            layer.set_weights([np.ones_like(w) for w in layer.get_weights()])
        groups = [optimizers.Group([layer]) for layer in layers]
        optimizer = optimizers.GroupedSGD(groups, learning_rate=0.1, steps=10, schedule="cosine")
        return optimizer, tf.train.Checkpoint(optimizer=optimizer, layers=layers)

    unbroken, checkpoint = make()
    for step in range(3):
        unbroken.apply([tf.constant(g) for g in gradients_at(step, unbroken.variables_to_train)])
    path = checkpoint.save(str(tmp_path / "checkpoint"))
    restored, other = make()
    other.restore(path).assert_consumed()
    assert all(v.numpy().any() for o in restored.optimizers for v in o.velocities)
    for optimizer in (unbroken, restored):
        for step in range(3, 6):
            optimizer.apply([tf.constant(g) for g in gradients_at(step, optimizer.variables_to_train)])
    for a, b in zip(unbroken.variables_to_train, restored.variables_to_train, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_variable_in_two_groups_is_refused():
    layer = make_layers()[0]
    with pytest.raises(ValueError, match="layer0/kernel"):
        optimizers.GroupedSGD([optimizers.Group([layer]), optimizers.Group([layer])], learning_rate=0.1, steps=1)


def test_warm_up_rises_from_zero_and_then_the_cosine_falls():
    schedule = optimizers.make_schedule("cosine", 0.4, 12, warmup=4)
    found = [float(schedule(step)) for step in range(13)]
    np.testing.assert_allclose(found[:5], [0, 0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(found[4:], [0.2 * (1 + np.cos(np.pi * i / 8)) for i in range(9)], atol=1e-7)


def test_lars_steps_by_hand():
    """Two steps with a rate that changes; a vector is trained as by SGD without decay."""
    layer = tf.keras.layers.Dense(2)
    layer(tf.zeros([1, 3]))
    rate, trust, decay, momentum = (0.5, 0.25), 0.02, 0.1, 0.9
    schedule = tf.keras.optimizers.schedules.PiecewiseConstantDecay([0], list(rate))
    optimizer = optimizers.GroupedOptimizer(
        [optimizers.Group([layer])],
        lambda _: optimizers.Lars(schedule, trust=trust, momentum=momentum, coupled_decay=decay),
    )
    layer.set_weights([np.array([[1.0, -2], [3, 0], [0.5, 1]]), np.array([0.3, -0.4])])
    kernel, bias = layer.get_weights()
    velocities = [0.0, 0.0]
    for step in range(2):
        gradients = gradients_at(step, [kernel, bias])
        optimizer.apply([tf.constant(g) for g in gradients])
        length = np.linalg.norm(kernel)
        ratio = trust * length / (np.linalg.norm(gradients[0]) + decay * length)
        velocities[0] = momentum * velocities[0] + ratio * (gradients[0] + decay * kernel)
        velocities[1] = momentum * velocities[1] + gradients[1]
        kernel, bias = kernel - rate[step] * velocities[0], bias - rate[step] * velocities[1]
    np.testing.assert_allclose(layer.get_weights()[0], kernel, rtol=1e-5)
    np.testing.assert_allclose(layer.get_weights()[1], bias, rtol=1e-5)


def test_weights_of_zero_length_take_a_step_of_lars():
    layer = tf.keras.layers.Dense(1, kernel_initializer="zeros")
    layer(tf.zeros([1, 1]))
    optimizer = optimizers.GroupedOptimizer([optimizers.Group([layer])], lambda _: optimizers.Lars(0.5))
    optimizer.apply([tf.constant([[2.0]]), tf.constant([0.0])])
    np.testing.assert_allclose(layer.get_weights()[0], [[-1.0]])


def test_lamb_in_a_group_tells_its_rate_and_keeps_its_slots(tmp_path):
    def make():
        layer = tf.keras.layers.Dense(2, name="dense")
        layer(tf.zeros([1, 3]))
        schedule = optimizers.make_schedule("cosine", 0.4, 12, warmup=4)
        make = lambda _: addons.make_lamb(schedule, exclude=["/bias"])  # noqa: E731
        return layer, optimizers.GroupedOptimizer([optimizers.Group([layer])], make)

    layer, optimizer = make()
    gradients = [tf.constant(g) for g in gradients_at(0, layer.get_weights())]
    assert float(optimizer.rate) == 0
    optimizer.apply(gradients)
    optimizer.apply(gradients)
    assert float(optimizer.rate) == pytest.approx(0.2)
    path = tf.train.Checkpoint(layer=layer, optimizer=optimizer).write(str(tmp_path / "c"))
    optimizer.apply(gradients)
    other, restored = make()
    tf.train.Checkpoint(layer=other, optimizer=restored).restore(path).expect_partial()
    restored.apply(gradients)
    for a, b in zip(layer.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
