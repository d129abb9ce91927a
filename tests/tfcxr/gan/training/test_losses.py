"""Losses against numbers worked out by hand."""

import numpy as np
import tensorflow as tf

from tfcxr.gan.training import losses

REAL, FAKE = tf.constant([[2.0], [0.5]]), tf.constant([[-1.0], [3.0]])


class Quadratic:
    """D(x) = a/2·Σx²: the gradient is a·x."""

    def __init__(self, a):
        self.a = a

    def __call__(self, images):
        return 0.5 * self.a * tf.reduce_sum(tf.square(images), axis=[1, 2, 3])


def image(*values):
    return tf.reshape(tf.constant(values, tf.float32), [1, 1, len(values), 1])


def test_wgan():
    np.testing.assert_allclose(losses.wgan_generator(FAKE), [1.0, -3.0])
    # fake - real + 0.001·real²
    np.testing.assert_allclose(losses.wgan_discriminator(REAL, FAKE), [-3 + 0.004, 2.5 + 0.00025], rtol=1e-6)


def test_logistic():
    np.testing.assert_allclose(losses.logistic_generator(FAKE), np.log1p(np.exp([1.0, -3.0])), rtol=1e-6)
    expected = np.log1p(np.exp([-1.0, 3.0])) + np.log1p(np.exp([-2.0, -0.5]))
    np.testing.assert_allclose(losses.logistic_discriminator(REAL, FAKE), expected, rtol=1e-6)


def test_hinge():
    np.testing.assert_allclose(losses.hinge_discriminator(REAL, FAKE), [0.0, 4.5])


def test_gradient_penalty_of_a_known_gradient():
    # |∇| = 2·|(3, 4)| = 10
    penalty, norms = losses.gradient_penalty(Quadratic(2.0), image(3, 4))
    np.testing.assert_allclose(norms, [10.0], rtol=1e-6)
    np.testing.assert_allclose(penalty, [10 * 81.0], rtol=1e-6)
    np.testing.assert_allclose(losses.gradient_penalty(Quadratic(2.0), image(3, 4), scale=0.5)[0], [160.0], rtol=1e-6)


def test_gradient_penalty_of_a_zero_gradient_is_finite():
    a = tf.Variable(0.0)
    with tf.GradientTape() as tape:
        penalty, _ = losses.gradient_penalty(Quadratic(a), image(3, 4))
    np.testing.assert_allclose(penalty, [10.0])
    assert np.isfinite(tape.gradient(penalty, a).numpy())


def test_zero_centred_penalty_and_its_second_order_gradient():
    a = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        penalty, norms = losses.zero_centred_penalty(Quadratic(a), image(3, 4), gamma=0.5)
    np.testing.assert_allclose(norms, [10.0], rtol=1e-6)
    np.testing.assert_allclose(penalty, [25.0], rtol=1e-6)
    # d/da gamma/2·a²·25 = gamma·a·25
    np.testing.assert_allclose(tape.gradient(penalty, a), 25.0, rtol=1e-6)


def test_interpolation_starts_at_the_reals():
    points = losses.interpolate(image(0, 0), image(4, 8), tf.constant(0.25))
    np.testing.assert_allclose(tf.reshape(points, [-1]), [1.0, 2.0])


def test_auxiliary_loss_shares_the_weight_among_the_labels():
    # softmax = (1, 2, 5)/8
    logits = tf.math.log([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]])
    loss = losses.auxiliary_loss(logits, tf.constant([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]))
    np.testing.assert_allclose(loss, [np.log(8 / 5), (np.log(8) + np.log(4)) / 2], rtol=1e-6)


def test_auxiliary_loss_pulls_the_softmax_towards_the_labels():
    logits = tf.constant([[0.0, 0.0, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.auxiliary_loss(logits, tf.constant([[1, 0, 1, 0]]))
    # softmax - y/Σy
    np.testing.assert_allclose(tape.gradient(loss, logits), [[-0.25, 0.25, -0.25, 0.25]], rtol=1e-6)
