"""Conversions between the ranges of pixels, and the check of what a network is given."""

import numpy as np
import pytest
import tensorflow as tf

from tfrecords_builder.errors import InputError
from tfrecords_builder.images import pixel_ranges


def test_every_8_bit_value_survives_each_way():
    pixels = tf.cast(tf.reshape(tf.range(256), [4, 8, 8, 1]), tf.uint8)
    signed, unit = pixel_ranges.uint8_to_signed(pixels), pixel_ranges.uint8_to_unit(pixels)
    assert (float(tf.reduce_min(signed)), float(tf.reduce_max(signed))) == (-1, 1)
    assert (float(tf.reduce_min(unit)), float(tf.reduce_max(unit))) == (0, 1)
    np.testing.assert_array_equal(pixel_ranges.signed_to_uint8(signed), pixels)
    np.testing.assert_array_equal(pixel_ranges.round_to_uint8(unit * 255), pixels)
    np.testing.assert_allclose(pixel_ranges.signed_to_unit(signed), unit, atol=1e-7)


def test_values_are_rounded_and_clipped():
    assert pixel_ranges.signed_to_uint8(tf.constant([-1.5, 0.0, 3.0])).numpy().tolist() == [0, 128, 255]
    assert pixel_ranges.signed_to_unit(tf.constant([-1.5, 0.0, 3.0])).numpy().tolist() == [0, 0.5, 1]
    assert pixel_ranges.round_to_uint8([-3.0, 1.5, 2.5, 254.6, 300.0]).numpy().tolist() == [0, 2, 2, 255, 255]


def test_images_in_range_are_taken():
    for value, expected in ((0.0, pixel_ranges.UNIT), (1 + 1e-6, pixel_ranges.UNIT), (-1.0, pixel_ranges.SIGNED)):
        pixel_ranges.check_images(np.full([1, 2, 2, 1], value, np.float32), "images", expected)
    pixel_ranges.check_images(np.zeros([0, 2, 2, 1]), "images", pixel_ranges.UNIT)


@pytest.mark.parametrize(
    ("images", "expected", "words"),
    [
        (np.full([1, 2, 2, 1], 255.0), pixel_ranges.UNIT, r"reals: values are in \[255, 255\], not \[0, 1\]; divide"),
        (
            np.full([1, 2, 2, 1], 255.0),
            pixel_ranges.SIGNED,
            r"not \[-1, 1\]; divide 8-bit values by 127.5",
        ),
        (np.full([1, 2, 2, 1], -0.5), pixel_ranges.UNIT, r"\[-0.5, -0.5\], not \[0, 1\]"),
        (np.full([1, 2, 2, 1], np.nan), pixel_ranges.UNIT, r"not \[0, 1\]"),
        (np.zeros([1, 2, 2, 1], np.uint8), pixel_ranges.UNIT, r"reals: are uint8, expected floats in \[0, 1\]"),
        (
            np.zeros([4, 8, 8, 3]),
            pixel_ranges.UNIT,
            r"have shape \[4, 8, 8, 3\], expected grey images \[N, H, W, 1\]",
        ),
        (np.zeros([8, 8, 1]), pixel_ranges.UNIT, r"reals: have shape \[8, 8, 1\], expected grey images"),
    ],
)
@pytest.mark.parametrize("convert", [np.asarray, tf.constant])
def test_other_images_are_refused_by_name(images, expected, words, convert):
    with pytest.raises(InputError, match=words):
        pixel_ranges.check_images(convert(images), "reals", expected)


def test_a_list_is_no_images():
    with pytest.raises(InputError, match="reals: are a list, expected an array of images"):
        pixel_ranges.check_images([[0.0]], "reals", pixel_ranges.UNIT)


def test_what_is_known_is_checked_while_a_graph_is_traced():
    @tf.function
    def traced(images):
        pixel_ranges.check_images(images, "images", pixel_ranges.UNIT)
        return images

    assert float(tf.reduce_max(traced(tf.fill([1, 2, 2, 1], 2.0)))) == 2  # values are not known then
    with pytest.raises(ValueError, match=r"shape \[1, 2, 2, 3\]"):
        traced(tf.zeros([1, 2, 2, 3]))
