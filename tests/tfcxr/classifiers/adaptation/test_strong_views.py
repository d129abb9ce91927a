"""Strong views: drawn by seed and step, of the same images, in their range."""

import numpy as np
import tensorflow as tf

from tfcxr.classifiers.adaptation import strong_views


def test_views_depend_on_seed_and_step_and_stay_in_range():
    images = tf.random.stateless_uniform([6, 32, 32, 1], [0, 0])
    views = strong_views.draw(images, 5, tf.constant(7, tf.int64))
    assert views.shape == (6, 32, 32, 1)
    assert 0 <= float(tf.reduce_min(views)) <= float(tf.reduce_max(views)) <= 1
    np.testing.assert_array_equal(strong_views.draw(images, 5, tf.constant(7, tf.int64)), views)
    for seed, number in ((6, 7), (5, 8)):
        other = strong_views.draw(images, seed, tf.constant(number, tf.int64))
        assert np.abs(other - views).max() > 0.1
    means = np.mean(views, axis=(1, 2, 3))
    assert np.ptp(means) > 0.02  # each image has its own draws


def test_an_even_image_gets_a_hole_of_its_own_grey():
    """Nothing is left to see of rotation, blur and contrast in the middle, and the square is not black."""
    images = tf.fill([4, 32, 32, 1], 0.5)
    views = strong_views.draw(images, 0, tf.constant(0, tf.int64)).numpy()
    middle = views[:, 10:22, 10:22, 0]
    assert middle.min() > 0.2
