"""Strongly changed views of images, for methods that want the same prediction for an image however it is shown.

The changes suit radiographs: they keep left and right, and where the dense and the airy parts are. RandAugment's, of
which FixMatch (Sohn et al. 2020, arXiv 2001.07685) takes two at random, also solarise and shear.
"""

import math

import tensorflow as tf

from tfcxr import addons

_ANGLE = math.radians(15)
_CONTRAST, _BRIGHTNESS = 0.5, 0.15  # at most so far from 1 and 0
_BLUR = 1 / 32  # standard deviation as a share of the side
_HOLE = 0.25  # likewise


def draw(images: tf.Tensor, seed: int, number: tf.Tensor) -> tf.Tensor:
    """Rotates, blurs half of them, changes contrast and brightness, and cuts a grey square out of each.

    Args:
        images: float32 [N, S, S, 1] in [0, 1].
        seed: of the draws.
        number: int64 scalar, the step: the same seed and number give the same views.

    Returns:
        float32 [N, S, S, 1] in [0, 1].
    """
    size = images.shape[1]
    seeds = tf.stack([tf.constant(seed, tf.int64), number])
    drawn = tf.random.stateless_uniform([6, tf.shape(images)[0]], seeds)
    signed = 2 * drawn - 1
    views = addons.rotate(images, _ANGLE * signed[0])
    sigma = max(_BLUR * size, 0.5)
    kernel = 2 * min(math.ceil(2 * sigma), size - 1) + 1
    views = tf.where(_of_each(drawn[1]) < 0.5, addons.gaussian_blur(views, kernel, sigma), views)
    mean = tf.reduce_mean(views, axis=[1, 2, 3], keepdims=True)
    views = mean + _of_each(1 + _CONTRAST * signed[2]) * (views - mean) + _of_each(_BRIGHTNESS * signed[3])
    # What is cut out becomes 0; the square shall be as grey as the image is on average.
    centres = tf.cast(drawn[4:] * size, tf.int32)
    views = mean + addons.cutout(views - mean, 2 * max(round(_HOLE * size / 2), 1), tf.transpose(centres))
    return tf.clip_by_value(views, 0.0, 1.0)


def _of_each(values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(values, [-1, 1, 1, 1])
