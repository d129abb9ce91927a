"""Losses of pairs against NumPy, and what they do when features collapse."""

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.classifiers.pretraining import methods

RANDOM = np.random.default_rng(3)
A, B = RANDOM.normal(size=(2, 5, 7))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_nt_xent_is_equation_1():
    """l(i, j) = -log(exp(s_ij / t) / sum over k other than i of exp(s_ik / t)), mean over both orders of all pairs."""
    z, expected, found = unit(np.concatenate([A, B])), [], []
    for i in range(10):
        j = (i + 5) % 10
        scores = {k: np.exp(z[i] @ z[k] / 0.3) for k in range(10) if k != i}
        expected.append(-np.log(scores[j] / sum(scores.values())))
        found.append(max(scores, key=scores.get) == j)
    loss, accuracy = methods.nt_xent(tf.constant(A, tf.float32), tf.constant(B, tf.float32), 0.3)
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)
    assert float(accuracy) == pytest.approx(np.mean(found))


def test_nt_xent_of_two_images_by_hand():
    """Views of one image are equal, those of two orthogonal: each view has one cosine of 1 and two of 0."""
    a = tf.constant([[2.0, 0], [0, 3]])
    loss, accuracy = methods.nt_xent(a, a / 2, 0.5)
    assert float(loss) == pytest.approx(-2 + np.log(np.exp(2) + 2), rel=1e-6)
    assert float(accuracy) == 1


def test_negative_cosine_sends_no_gradient_to_its_target():
    p, z = tf.constant(A, tf.float32), tf.constant(B, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([p, z])
        value = methods.negative_cosine(p, z)
    to_p, to_z = tape.gradient(value, [p, z])
    assert float(value) == pytest.approx(-np.mean(np.sum(unit(A) * unit(B), axis=1)), rel=1e-5)
    assert to_z is None
    assert np.abs(to_p).max() > 0


def test_simsiam_is_the_mean_of_both_directions():
    method = methods.SimSiam(7, 32, 0.1, seed=1)
    a, b = tf.constant(A, tf.float32), tf.constant(B, tf.float32)
    z = method.projector(tf.concat([a, b], 0), training=True).numpy()
    p = method.predictor(z, training=True).numpy()
    cosine = np.sum(unit(p) * unit(np.concatenate([z[5:], z[:5]])), axis=1)
    found = method.losses(a, b)
    assert float(found["loss"]) == pytest.approx(-cosine.mean(), rel=1e-4)
    # The projections end in BatchNorm without scale and shift; the predictor has a bottleneck of a quarter.
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-5)
    assert [layer.units for layer in method.predictor.layers if hasattr(layer, "units")] == [8, 32]


def test_spread_is_0_for_equal_vectors_and_1_for_even_ones():
    assert float(methods.spread(tf.ones([6, 4]))) == pytest.approx(0, abs=1e-6)
    many = tf.constant(RANDOM.normal(size=(4000, 16)), tf.float32)
    assert float(methods.spread(many)) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", list(methods.METHODS))
def test_weights_depend_on_the_seed_alone(name):
    def weights(seed):
        return [w for layer in methods.METHODS[name](6, 8, 0.1, seed).layers for w in layer.get_weights()]

    for a, b in zip(weights(1), weights(1), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(weights(1), weights(2), strict=True))
