"""The ranges in which pixels come, every conversion between them, and the one check.

uint8   0..255    files and records
unit    [0, 1]    what classifiers take; float32
signed  [-1, 1]   what GANs make and measures of fidelity take; float32
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrecords_builder.errors import InputError

# 8-bit values that were scaled in float32 may leave a range by a rounding error.
TOLERANCE = 1e-5


class Range(NamedTuple):
    """Lowest and highest value of a pixel, and how 8-bit values get there."""

    low: float
    high: float
    remedy: str


UNIT = Range(0.0, 1.0, "divide 8-bit values by 255")
SIGNED = Range(-1.0, 1.0, "divide 8-bit values by 127.5 and subtract 1")


def uint8_to_unit(images: tf.Tensor) -> tf.Tensor:
    """uint8 (or float in 0..255) of any shape to float32 in [0, 1]: x / 255."""
    return tf.cast(images, tf.float32) / 255.0


def uint8_to_signed(images: tf.Tensor) -> tf.Tensor:
    """uint8 of any shape to float32 in [-1, 1]: x / 127.5 - 1."""
    return tf.cast(images, tf.float32) * (1 / 127.5) - 1


def signed_to_uint8(images: tf.Tensor) -> tf.Tensor:
    """Float in [-1, 1] of any shape to uint8 by rint((x + 1) / 2 · 255); values outside are clipped."""
    return tf.cast(tf.clip_by_value(tf.math.rint((images + 1) * 127.5), 0, 255), tf.uint8)


def signed_to_unit(images: tf.Tensor) -> tf.Tensor:
    """Float in [-1, 1] of any shape to [0, 1]; values outside are clipped."""
    return tf.clip_by_value((images + 1.0) / 2.0, 0.0, 1.0)


def round_to_uint8(images: tf.Tensor) -> tf.Tensor:
    """Rounds floats in [0, 255] of any shape to uint8; values outside are clipped."""
    return tf.cast(tf.round(tf.clip_by_value(images, 0.0, 255.0)), tf.uint8)


def is_within(images: tf.Tensor, expected: Range) -> tf.Tensor:
    """Scalar bool: whether all values are in a range, but for rounding errors; false if one is not a number."""
    return tf.reduce_all((images >= expected.low - TOLERANCE) & (images <= expected.high + TOLERANCE))


def assert_within(images: tf.Tensor, expected: Range) -> tf.Operation:
    """An operation for graphs, such as those of exports, that fails where a value is outside of a range."""
    text = f"images must be in [{expected.low:g}, {expected.high:g}]; {expected.remedy}"
    return tf.debugging.Assert(is_within(images, expected), [text])


def check_images(images: np.ndarray | tf.Tensor, name: str, expected: Range) -> None:
    """Checks that images are grey, floating and in a range.

    While a graph is traced the values are not known: then only shape and type are checked, as far as they are known.

    Args:
        images: float [N, H, W, 1].
        name: of the tensor, for messages.
        expected: UNIT or SIGNED.

    Raises:
        InputError: another shape, type or range; the message names the tensor, what it has and what is expected. While
            a graph is traced it is a plain ValueError, the only one of the two that AutoGraph passes on.
    """
    refusal = InputError if tf.executing_eagerly() else ValueError
    span = f"[{expected.low:g}, {expected.high:g}]"
    if not hasattr(images, "shape"):
        raise refusal(f"{name}: are a {type(images).__name__}, expected an array of images [N, H, W, 1] in {span}")
    shape = tf.TensorShape(images.shape)
    if shape.rank is not None and (shape.rank != 4 or shape[3] not in (1, None)):
        colour = "; make them grey first, such as by tf.image.rgb_to_grayscale" if shape[-1:] == [3] else ""
        raise refusal(
            f"{name}: have shape {shape.as_list()}, expected grey images [N, H, W, 1] with values in {span}{colour}"
        )
    kind = tf.as_dtype(images.dtype)
    if not kind.is_floating:
        raise refusal(f"{name}: are {kind.name}, expected floats in {span}; {expected.remedy}")
    known = isinstance(images, np.ndarray) or (isinstance(images, tf.Tensor) and hasattr(images, "numpy"))
    if known and tf.executing_eagerly() and not bool(is_within(images, expected)):
        low, high = float(tf.reduce_min(images)), float(tf.reduce_max(images))
        raise refusal(f"{name}: values are in [{low:g}, {high:g}], not {span}; {expected.remedy}")
