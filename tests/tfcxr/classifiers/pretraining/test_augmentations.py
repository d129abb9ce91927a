"""Views: each change alone, by hand; a function of seed and index."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.classifiers.pretraining import augmentations

SIZE = 14  # framed to 16
NONE = augmentations.Augmentation(crop_area=1.0, rotation=0.0, jitter=0.0, blur=0.0, cutout=0.0)
RAMP = np.tile(np.linspace(0, 1, 16, dtype=np.float32)[None, None, :, None], [2, 16, 1, 1])


def view(drawn=0.5, images=RAMP, **changes):
    numbers = np.full([len(images), 12], 0.5, np.float32)
    for place, value in {} if drawn == 0.5 else drawn.items():
        numbers[:, place] = value
    changed = dataclasses.replace(NONE, **changes)
    return augmentations.make_view(images, tf.constant(numbers), image_size=SIZE, augmentation=changed).numpy()


def test_nothing_changes_but_the_size():
    np.testing.assert_allclose(view()[0, 0, :, 0], np.linspace(0, 1, SIZE), atol=1e-5)


def test_a_crop_has_its_area_shape_and_place():
    """A quarter of the image, 4/3 as wide as high, at the top right."""
    shown = view({1: 0.0, 2: 1.0, 3: 0.0, 4: 1.0}, crop_area=0.25)[0, :, :, 0]
    width = 0.5 * math.sqrt(4 / 3)
    np.testing.assert_allclose(shown[0], np.linspace(1 - width, 1, SIZE), atol=1e-5)
    rows = np.transpose(RAMP, [0, 2, 1, 3])
    shown = view({1: 0.0, 2: 1.0, 3: 0.0, 4: 1.0}, images=rows, crop_area=0.25)[0, :, 0, 0]
    np.testing.assert_allclose(shown, np.linspace(0, 0.5 / math.sqrt(4 / 3), SIZE), atol=1e-5)


def test_half_of_the_views_are_mirrored_only_if_asked_to():
    np.testing.assert_allclose(view({5: 0.2}, flip=True)[0, 0, :, 0], np.linspace(1, 0, SIZE), atol=1e-5)
    np.testing.assert_allclose(view({5: 0.6}, flip=True)[0, 0, :, 0], np.linspace(0, 1, SIZE), atol=1e-5)
    np.testing.assert_allclose(view({5: 0.2})[0, 0, :, 0], np.linspace(0, 1, SIZE), atol=1e-5)


def test_a_turn_brings_black_in():
    turned = view({0: 1.0}, images=np.ones([1, 16, 16, 1], np.float32), rotation=45.0)[0, :, :, 0]
    assert turned[0, 0] == turned[-1, -1] == 0
    assert turned[SIZE // 2, SIZE // 2] == pytest.approx(1)


def test_contrast_and_brightness():
    shown = view({6: 1.0, 7: 0.0}, jitter=0.4)[0, 0, :, 0]
    np.testing.assert_allclose(shown, np.clip(0.5 + (np.linspace(0, 1, SIZE) - 0.5) * 1.4 - 0.2, 0, 1), atol=1e-5)


def test_a_blur_comes_in_two_strengths():
    point = np.zeros([1, 14, 14, 1], np.float32)
    point[0, 7, 7] = 1
    peaks = [view({8: chance}, images=np.repeat(point, 2, 0), blur=0.6).max() for chance in (0.1, 0.4, 0.7)]
    assert peaks[0] == pytest.approx(peaks[1]) or peaks[0] > peaks[1]  # at 14 px both have the least width
    assert peaks[2] > peaks[0]
    wide = [augmentations.make_view(np.repeat(point, 1, 0), tf.constant([[0.5] * 8 + [c] + [0.5] * 3]), image_size=224,
            augmentation=dataclasses.replace(NONE, blur=1.0)).numpy() for c in (0.2, 0.8)]  # fmt: skip
    assert wide[1].max() < wide[0].max()


def test_cutout_is_a_black_square_of_a_quarter_of_the_side():
    ones = np.ones([1, 16, 16, 1], np.float32)
    for chance, area in ((0.1, 16), (0.9, 0)):
        shown = view({9: chance, 10: 0.5, 11: 0.5}, images=ones, cutout=0.5)
        assert (shown == 0).sum() == area


def test_views_are_a_function_of_seed_and_index():
    images = np.random.default_rng(0).uniform(size=[3, 16, 16, 1]).astype(np.float32)

    def views(index, seed=1, rows=slice(None)):
        settings = {"image_size": SIZE, "seed": seed, "augmentation": augmentations.Augmentation()}
        return augmentations.make_views(images[rows], images[rows], tf.constant(index, tf.int64), **settings)

    a, b = views([4, 5, 6])
    assert np.abs(a - b).max(axis=(1, 2, 3)).min() > 0.05
    again, _ = views([5], rows=slice(1, 2))
    np.testing.assert_array_equal(again[0], a[1])
    assert np.abs(views([4, 5, 6], seed=2)[0] - a).max() > 0.05
    assert float(tf.reduce_min(a)) >= 0 and float(tf.reduce_max(b)) <= 1
