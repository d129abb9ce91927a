"""Grad-CAM against hand-computed numbers, on images with a planted square, and on both kinds of classifiers."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfcxr.classifiers.networks import models, preprocessing
from tfcxr.serving import grad_cam


def test_grad_cam_by_hand():
    # Two channels of 2 x 2; the logit of class 1 is 4 * mean(channel 0)^2 - 2 * mean(channel 1).
    maps = tf.constant([[[[1.0, 0.0], [3.0, 4.0]], [[0.0, 8.0], [4.0, 0.0]]]])

    def classify(maps):
        pooled = tf.reduce_mean(maps, axis=[1, 2])
        return tf.stack([pooled[:, 1], 4 * pooled[:, 0] ** 2 - 2 * pooled[:, 1]], axis=1)

    # Class 1: d/d(channel 0) = 8 * 2 / 4 = 4 at each place, d/d(channel 1) = -2 / 4; ReLU of 4 a - b / 2.
    heat = grad_cam.grad_cam(maps, classify, tf.constant([1]))
    np.testing.assert_allclose(heat, np.array([[[4, 10], [0, 16]]]) / 16, atol=1e-6)
    heat = grad_cam.grad_cam(maps, classify, tf.constant([0]))
    np.testing.assert_allclose(heat, np.array([[[0, 4], [8, 0]]]) / 8, atol=1e-6)


def test_a_planted_square_is_found_and_speaks_for_one_class_only():
    images = np.random.default_rng(0).uniform(0, 0.2, (2, 32, 32, 1)).astype(np.float32)
    images[0, 4:12, 20:28] = 1  # rows, columns
    images[1, 24:32, 0:8] = 1
    maps = tf.nn.avg_pool2d(images, 4, 4, "VALID")  # a convolution that sees brightness

    def classify(maps):
        return tf.reduce_mean(maps, axis=[1, 2]) * tf.constant([[2.0, -1.0]])

    heat = grad_cam.grad_cam(maps, classify, tf.constant([0, 0])).numpy()
    expected = np.zeros([2, 8, 8], bool)
    expected[0, 1:3, 5:7] = expected[1, 6:8, 0:2] = True
    np.testing.assert_array_equal(heat > 0.5, expected)
    assert not grad_cam.grad_cam(maps, classify, tf.constant([1, 1])).numpy().any()


@pytest.mark.parametrize("is_dcan", [False, True])
def test_explainer_looks_at_the_last_feature_map(is_dcan):
    config = models.ModelConfig(("A", "B", "C"), "v", 16, 64, "resnet_tiny", attention=is_dcan, correction=is_dcan)
    classifier = models.Classifier(config)
    # Without this the maps of the attended network would be near those of the plain one.
    for layer in classifier.backbone.attentions if is_dcan else ():
        kernel, bias = layer.shared.get_weights()
        layer.shared.set_weights([kernel * 300, bias - 4])
    images = np.random.default_rng(0).random((2, 16, 16, 1), np.float32)
    class_id = np.array([2, 0])
    heat = grad_cam.make_explainer(classifier)(tf.constant(images), tf.constant(class_id)).numpy()
    assert heat.shape == (2, 4, 4)
    assert heat.any()

    # The head sees the mean of the map only, so the weights are the gradient with respect to the pooled features / 16.
    framed = preprocessing.frame(tf.constant(images), 64, "crop")
    features = classifier.features(framed)
    with tf.GradientTape() as tape:
        tape.watch(features)
        logit = tf.gather(classifier.classify(features), class_id, axis=1, batch_dims=1)
    weights = tape.gradient(logit, features).numpy() / 16
    pooled = []

    def record(inputs):
        pooled.append(inputs.numpy())
        return tf.reduce_mean(inputs, axis=[1, 2])

    classifier.base.layers[-1].call = record  # what is pooled, taken from the network as it is used elsewhere
    classifier.features(framed)
    raw = np.maximum((weights[:, None, None] * pooled[-1]).sum(axis=-1), 0)
    highest = raw.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(heat, raw / np.where(highest > 0, highest, 1), atol=1e-4)


def test_overlay_is_hot_where_the_map_is(tmp_path):
    picture = np.full((60, 90), 0.5)
    heat = np.zeros([4, 4])
    heat[0, 0] = 1
    assert grad_cam.cropped_part(32, "whole", (0, 90, -15, 75)) == (0, 90, -15, 75)
    part = grad_cam.cropped_part(32, "crop", (0, 90, -15, 75))  # of the picture padded to a square
    np.testing.assert_allclose(part, (90 * 2 / 37, 90 * 34 / 37, -15 + 90 * 2 / 37, -15 + 90 * 34 / 37))
    grad_cam.draw_overlay(tmp_path / "a.png", picture, {"A, 0.9": heat}, part, "a $ name")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    red = (pixels[..., 0] - pixels[..., 2] > 60) & (np.arange(pixels.shape[1]) < 0.85 * pixels.shape[1])
    rows, columns = np.nonzero(red)
    # Upper left part of the right picture.
    assert len(rows) > 100
    assert columns.mean() > 0.45 * pixels.shape[1] and columns.mean() < 0.7 * pixels.shape[1]
    assert rows.mean() < 0.5 * pixels.shape[0]
    # Six maps and the plain picture: two rows of four.
    six = {str(i): np.roll(heat, i, axis=1) for i in range(6)}
    grad_cam.draw_overlay(tmp_path / "b.png", np.full((60, 60), 0.5), six, (0, 60, 0, 60), "many")
    assert Image.open(tmp_path / "b.png").size == (1800, 890)
