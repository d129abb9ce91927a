import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfrecords_builder.images import image_ops


def _encode(picture, mode, file_format):
    stream = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(stream, file_format)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_decode_grey_png_is_bt601(mode):
    colour = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(colour).convert(mode).convert("RGB")) @ np.array([0.299, 0.587, 0.114])
    decoded = tf.function(image_ops.decode_grey)(_encode(colour, mode, "PNG")).numpy()
    assert decoded.dtype == np.uint8 and decoded.shape == (9, 13, 1)
    assert np.abs(decoded[..., 0] - expected).max() <= 0.51


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_decode_grey_jpeg(mode):
    grey = np.tile(np.linspace(20, 220, 32).astype(np.uint8), (24, 1))
    decoded = image_ops.decode_grey(_encode(grey, mode, "JPEG")).numpy()
    assert decoded.shape == (24, 32, 1) and np.abs(decoded[..., 0].astype(int) - grey).max() <= 4


def test_decode_grey_refuses_other_bytes():
    with pytest.raises(tf.errors.InvalidArgumentError):
        image_ops.decode_grey(b"no image")


def test_decode_grey_float_keeps_16_bits():
    deep = np.array([[0, 1, 257], [32768, 65278, 65535]], np.uint16)
    stream = io.BytesIO()
    Image.fromarray(deep).save(stream, "PNG")
    decode = tf.function(image_ops.decode_grey_float)
    np.testing.assert_allclose(decode(stream.getvalue())[..., 0], deep / 257, atol=1e-4)
    shallow = image_ops.encode_png(np.array([[[7], [200]]], np.uint8))
    np.testing.assert_array_equal(decode(shallow)[..., 0], [[7, 200]])
    for damaged in (b"", b"\x89PNG", stream.getvalue()[:40]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(damaged)


def test_resize_is_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))[..., None]  # the highest frequency there is
    small = image_ops.resize(stripes, 8, 8).numpy()
    assert small.dtype == np.float32 and small.shape == (8, 8, 1)
    assert np.abs(small - 127.5).max() < 5  # the outermost pixels see half a filter


def test_resize_keeps_range_mean_and_shape():
    picture = np.random.default_rng(0).integers(0, 256, (3, 40, 56, 1)).astype(np.float32)
    small = image_ops.resize(picture, 16, 16).numpy()
    assert small.shape == (3, 16, 16, 1)
    assert small.min() >= 0 and small.max() <= 255 and abs(small.mean() - picture.mean()) < 2
    np.testing.assert_array_equal(image_ops.resize(picture, 40, 56), picture)
    np.testing.assert_allclose(image_ops.resize(picture[1], 16, 16), small[1], atol=1e-4)


def test_png_round_trip():
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    np.testing.assert_array_equal(image_ops.decode_grey(image_ops.encode_png(picture)), picture)


def test_a_huge_picture_in_a_small_file_is_refused_before_decoding():
    """In a graph, as exports have it; declared sizes that would overflow as well."""
    decode = tf.function(image_ops.decode_grey_float, input_signature=[tf.TensorSpec([], tf.string)])
    png, jpeg = (_encode(np.zeros((4, 6), np.uint8), "L", kind) for kind in ("PNG", "JPEG"))
    assert decode(png).shape == decode(jpeg).shape == (4, 6, 1)
    place = jpeg.index(b"\xff\xc0") + 5
    for size in ((10_000, 10_000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="declares more than 50,000,000 pixels"):
            decode(png[:16] + struct.pack(">II", *size) + png[24:])
    with pytest.raises(tf.errors.InvalidArgumentError, match="declares more than 50,000,000 pixels"):
        decode(jpeg[:place] + struct.pack(">HH", 10_000, 10_000) + jpeg[place + 4 :])
    for kind in ("GIF", "BMP"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="image_bytes must be PNG or JPEG files"):
            decode(_encode(np.zeros((4, 6), np.uint8), "L", kind))
    for data in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(data)
