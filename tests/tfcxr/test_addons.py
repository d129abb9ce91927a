"""Both halves of the module, TensorFlow Addons and plain TensorFlow: numbers by hand, and equal to each other."""

import math
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tfcxr import addons

HALVES = ["plain", "tfa"] if addons._tfa else ["plain"]


@pytest.fixture(params=HALVES)
def half(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(addons, "_tfa", None)


def both(monkeypatch, function):
    """The function's results with tfa and without."""
    if not addons._tfa:
        pytest.skip("TensorFlow Addons is not installed")
    with_tfa = function()
    monkeypatch.setattr(addons, "_tfa", None)
    return with_tfa, function()


def test_importing_it_writes_nothing():
    done = subprocess.run([sys.executable, "-c", "import tfcxr.addons"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_quarter_turn(half):
    images = np.arange(24, dtype=np.float32).reshape(2, 3, 4, 1)[:, :, :3]
    turned = addons.rotate(images, [math.pi / 2, -math.pi / 2])
    np.testing.assert_allclose(turned[0], np.rot90(images[0]), atol=1e-4)
    np.testing.assert_allclose(turned[1], np.rot90(images[1], -1), atol=1e-4)


def test_a_blurred_point_is_the_gaussian(half):
    image = np.zeros((1, 9, 9, 2), np.float32)
    image[0, 4, 4, 1] = 1
    weights = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    blurred = addons.gaussian_blur(image, 5, 1.5)
    np.testing.assert_allclose(blurred[0, 2:7, 2:7, 1], np.outer(weights, weights), atol=1e-6)
    assert float(tf.reduce_sum(blurred)) == pytest.approx(1)
    # The mirrored border keeps an even surface even.
    np.testing.assert_allclose(addons.gaussian_blur(np.ones((1, 9, 9, 1), np.float32), 5, 1.5), 1, atol=1e-6)


def test_a_square_is_cut_out(half):
    cut = addons.cutout(np.ones((2, 6, 6, 1), np.uint8), 4, [[3, 2], [0, 6]])
    assert cut.dtype == tf.uint8
    expected = np.ones((2, 6, 6), np.uint8)
    expected[0, 1:5, 0:4] = 0
    expected[1, :2, 4:] = 0
    np.testing.assert_array_equal(cut[..., 0], expected)


def test_equalized_like_pillow(half):
    images = np.random.default_rng(1).normal(90, 25, (2, 32, 40, 3)).clip(0, 255).astype(np.uint8)
    images[1, ..., 0] = 7  # one grey value only
    images[1, ..., 1] = np.where(np.arange(40) < 20, 3, 250)
    found = addons.equalize(images)
    for image, result in zip(images, found, strict=True):
        np.testing.assert_array_equal(result, np.asarray(ImageOps.equalize(Image.fromarray(image))))


def test_contrastive_loss_by_hand(half):
    loss = addons.contrastive_loss(tf.constant([1.0, 1, 0, 0]), tf.constant([0.5, 2, 0.5, 2]), 1.5)
    np.testing.assert_allclose(loss, [0.25, 4, 1, 0])


def test_triplet_loss_by_hand(half):
    # Pairs 0-1 and 1-0, 2 apart. From 0 the negatives are at 3 and 9: the nearer is farther than the positive. From 1
    # they are at 1 and 7: the nearest that is farther is at 7. Label 8 occurs once: a negative, never an anchor.
    embeddings = tf.constant([[0.0], [2], [3], [9]])
    assert float(addons.triplet_loss(tf.constant([5, 5, 7, 8]), embeddings, 2.0)) == pytest.approx((1 + 0) / 2)
    # No negative is farther: the farthest counts. 0-1 are 9 apart; negatives at 3 from 0, at 6 from 1.
    far = tf.constant([[0.0], [9], [3]])
    assert float(addons.triplet_loss(tf.constant([5, 5, 7]), far, 2.0)) == pytest.approx((2 + 9 - 3 + 2 + 9 - 6) / 2)


def test_focal_loss_by_hand(half):
    logits = tf.constant([[0.0, math.log(3)], [-math.log(4), 0]])  # probabilities 1/2, 3/4, 1/5, 1/2
    found = addons.focal_loss(tf.constant([[1.0, 0], [0, 1]]), logits, alpha=0.3, gamma=2.0)
    expected = [[0.3 * 0.25 * math.log(2), 0.7 * 0.5625 * math.log(4)], [0.7 * 0.04 * -math.log(0.8), 0]]
    expected[1][1] = expected[0][0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    plain = addons.focal_loss(tf.ones([1, 1]), tf.zeros([1, 1]), alpha=None, gamma=0.0)
    np.testing.assert_allclose(plain, [[math.log(2)]], rtol=1e-6)


def test_focal_losses_are_equal(monkeypatch):
    logits = tf.constant(4 * np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32))
    members = tf.cast(np.random.default_rng(1).random((50, 3)) < 0.3, tf.float32)

    def results():
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = addons.focal_loss(members, logits)
        return [loss, tape.gradient(loss, logits)]

    for with_tfa, plain in zip(*both(monkeypatch, results), strict=True):
        np.testing.assert_allclose(with_tfa, plain, rtol=1e-4, atol=1e-6)


def test_lamb_by_hand(half):
    """The first step: m / sqrt(v) is the gradient's sign; weight decay; then scaled to the weights' length."""
    weights, bias = tf.Variable([3.0, -4.0], name="weights"), tf.Variable([1.0], name="bias")
    optimizer = addons.make_lamb(0.1, weight_decay=0.5, exclude=["bias"])
    optimizer.apply_gradients([(tf.constant([2.0, 2.0]), weights), (tf.constant([-8.0]), bias)])
    direction = np.array([1 + 0.5 * 3, 1 - 0.5 * 4])
    np.testing.assert_allclose(weights, [3, -4] - 0.1 * 5 / np.linalg.norm(direction) * direction, rtol=1e-5)
    np.testing.assert_allclose(bias, [1.1], rtol=1e-5)


def test_images_are_the_same_with_and_without_tfa(monkeypatch):
    random = np.random.default_rng(0)
    images = random.uniform(-1, 1, (4, 20, 26, 3)).astype(np.float32)
    grey = random.integers(0, 256, (4, 20, 26, 1)).astype(np.uint8)

    @tf.function
    def all_of_them():
        return (
            addons.rotate(images, tf.constant([0.3, -1.2, 3.0, 0.0])),
            addons.rotate(grey, tf.constant(0.7)),
            addons.gaussian_blur(images, 7, 0.8),
            addons.cutout(images, 10, tf.constant([[0, 0], [19, 25], [10, 3], [7, 26]])),
            addons.equalize(grey),
        )

    def fresh():
        return [tensor.numpy() for tensor in tf.function(all_of_them.python_function)()]

    for with_tfa, plain in zip(*both(monkeypatch, fresh), strict=True):
        assert with_tfa.dtype == plain.dtype
        np.testing.assert_allclose(with_tfa, plain, atol=1e-5)


def test_losses_and_gradients_are_the_same_with_and_without_tfa(monkeypatch):
    random = np.random.default_rng(0)
    vectors = tf.math.l2_normalize(tf.constant(random.normal(size=(24, 6)), tf.float32), axis=1)
    labels = tf.constant(random.integers(0, 4, 24))

    def results():
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(vectors)
            triplet = addons.triplet_loss(labels, vectors, 0.4)
            pairs = addons.contrastive_loss(tf.cast(labels == 1, tf.float32), tf.norm(vectors, axis=1) + vectors[:, 0])
        return [triplet, pairs, tape.gradient(triplet, vectors), tape.gradient(pairs, vectors)]

    for with_tfa, plain in zip(*both(monkeypatch, results), strict=True):
        np.testing.assert_allclose(with_tfa, plain, atol=1e-5)


def test_lamb_goes_on_from_a_checkpoint_of_the_other_half(monkeypatch, tmp_path):
    if not addons._tfa:
        pytest.skip("TensorFlow Addons is not installed")
    gradients = [tf.constant(g, tf.float32) for g in np.random.default_rng(0).normal(size=(6, 3, 2))]

    def start():
        variable = tf.Variable(np.arange(6, dtype=np.float32).reshape(3, 2) - 2, name="kernel")
        optimizer = addons.make_lamb(0.05, weight_decay=0.01)
        return variable, optimizer, tf.train.Checkpoint(variable=variable, optimizer=optimizer)

    variable, optimizer, checkpoint = start()
    for gradient in gradients[:3]:
        optimizer.apply_gradients([(gradient, variable)])
    path = checkpoint.write(str(tmp_path / "checkpoint"))
    for gradient in gradients[3:]:
        optimizer.apply_gradients([(gradient, variable)])

    monkeypatch.setattr(addons, "_tfa", None)
    other, plain, checkpoint = start()
    checkpoint.restore(path)
    for gradient in gradients[3:]:
        plain.apply_gradients([(gradient, other)])
    assert int(plain.iterations) == 6
    np.testing.assert_allclose(other, variable, rtol=1e-5)
