"""Framing, augmentation and normalisation."""

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.classifiers.networks import preprocessing
from tfrecords_builder.images import image_ops


def test_the_published_sizes():
    assert [preprocessing.framed_size(s, "crop") for s in (224, 64, 32)] == [256, 73, 37]
    assert [preprocessing.framed_size(s, "whole") for s in (224, 64, 32)] == [224, 64, 32]


def test_evaluation_is_the_centre_of_the_resized_image():
    image = tf.reshape(tf.range(16.0 * 16), [1, 16, 16, 1])  # 16 is what a crop of 14 is resized to
    np.testing.assert_allclose(preprocessing.frame(image, 14, "crop"), image[:, 1:15, 1:15])


def test_evaluation_of_the_whole_image_is_a_plain_resize():
    images = tf.random.stateless_uniform([6, 14, 14, 1], [0, 5])
    np.testing.assert_allclose(preprocessing.frame(images, 14, "whole"), images, atol=1e-6)
    larger = tf.random.stateless_uniform([2, 28, 28, 1], [0, 6])
    resized = preprocessing.frame(larger, 14, "whole")
    np.testing.assert_allclose(resized, image_ops.resize(larger, 14, 14))
    assert resized.shape == [2, 14, 14, 1]


def test_ten_crops_of_the_whole_image_are_it_and_its_mirror_image():
    images = tf.random.stateless_uniform([1, 14, 14, 1], [0, 5])
    crops = preprocessing.ten_crops(images, 14, "whole")
    np.testing.assert_allclose(crops, tf.concat([images] * 5 + [images[:, :, ::-1]] * 5, axis=0), atol=1e-6)


@pytest.mark.parametrize("flip", [False, True])
def test_training_shifts_the_whole_image_and_repeats_its_edge(flip):
    """Of a side of 28 by up to 2 pixels each way, as by hand with NumPy."""
    image = np.arange(28.0 * 28, dtype=np.float32).reshape(28, 28)
    padded = np.pad(image, 2, mode="edge")
    possible = {(y, x, 1): padded[y : y + 28, x : x + 28] for y in range(5) for x in range(5)}
    if flip:
        possible |= {(y, x, -1): part[:, ::-1] for (y, x, _), part in possible.items()}
    many, index = tf.repeat(image[None, ..., None], 400, axis=0), tf.range(400, dtype=tf.int64)
    settings = {"image_size": 28, "framing": "whole", "seed": 3, "flip": flip}
    seen = preprocessing.augment(many, index, **settings).numpy()
    found = [[k for k, part in possible.items() if np.abs(part - one[..., 0]).max() < 1e-3] for one in seen]
    assert all(len(keys) == 1 for keys in found)
    assert {keys[0] for keys in found} == possible.keys()
    again = preprocessing.augment(many[:5], index[20:25], **settings)
    np.testing.assert_array_equal(again, seen[20:25])


def test_ten_crops_are_corners_centre_and_their_mirrors():
    images = tf.random.stateless_uniform([2, 16, 16, 1], [0, 0])  # 16 is what a crop of 14 is resized to
    crops = preprocessing.ten_crops(images, 14, "crop").numpy().reshape(2, 10, 14, 14, 1)
    for image, of_image in zip(images.numpy(), crops, strict=True):
        five = [image[y : y + 14, x : x + 14] for y, x in ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))]
        for crop, expected in zip(of_image, [*five, *(part[:, ::-1] for part in five)], strict=True):
            np.testing.assert_array_equal(crop, expected)


def test_crops_lie_inside_and_depend_on_seed_and_index_only():
    images = tf.reshape(tf.range(16.0 * 16), [1, 16, 16, 1])
    many = tf.repeat(images, 40, axis=0)
    index = tf.range(40, dtype=tf.int64)
    crops = preprocessing.augment(many, index, image_size=14, framing="crop", seed=3, flip=False).numpy()
    corners = {tuple(np.argwhere(images[0, :, :, 0] == crop[0, 0, 0])[0]) for crop in crops}
    assert corners == {(y, x) for y in range(3) for x in range(3)}
    for crop in crops:
        y, x = np.argwhere(images[0, :, :, 0] == crop[0, 0, 0])[0]
        np.testing.assert_array_equal(crop, images[0, y : y + 14, x : x + 14])
    again = preprocessing.augment(many[:5], index[20:25], image_size=14, framing="crop", seed=3, flip=False)
    np.testing.assert_array_equal(again, crops[20:25])
    assert not np.array_equal(
        preprocessing.augment(many, index, image_size=14, framing="crop", seed=4, flip=False), crops
    )


def test_flip_mirrors_about_half_of_the_same_crops():
    images = tf.random.stateless_uniform([40, 16, 16, 1], [1, 2])
    index = tf.range(40, dtype=tf.int64)
    plain = preprocessing.augment(images, index, image_size=14, framing="crop", seed=0, flip=False).numpy()
    flipped = preprocessing.augment(images, index, image_size=14, framing="crop", seed=0, flip=True).numpy()
    mirrored = [np.array_equal(f, p[:, ::-1]) for f, p in zip(flipped, plain, strict=True)]
    assert all(m or np.array_equal(f, p) for m, f, p in zip(mirrored, flipped, plain, strict=True))
    assert 8 < sum(mirrored) < 32


@pytest.mark.parametrize("mode, module", [("caffe", "resnet50"), ("torch", "densenet")])
def test_normalisation_is_what_keras_does_to_grey_as_rgb(mode, module):
    grey = np.random.default_rng(0).random((2, 3, 3, 1)).astype(np.float32)
    expected = getattr(tf.keras.applications, module).preprocess_input(np.repeat(grey * 255, 3, axis=-1))
    np.testing.assert_allclose(preprocessing.Normalise(mode)(grey), expected, rtol=1e-5, atol=1e-4)
