"""Images as TensorFlow ops: decode to grey, resize, encode. The builder, training and the exports share them.

Grey conversion is the luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B, rounded. TensorFlow's own `channels=1` is
not used: it applies BT.601 to JPEG but other weights to PNG, so the same picture would differ by its file format.
"""

import numpy as np
import tensorflow as tf

from tfrecords_builder.images import headers

# zlib level. On radiographs of 128 px level 3 takes half the time of level 4, a third of a build's, for 11% more bytes
# (256 px: 15%).
_PNG_COMPRESSION = 3
LUMA = (0.299, 0.587, 0.114)


def decode_grey(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes one PNG or JPEG to grey.

    Args:
        encoded: string scalar, the bytes of a file: grey, grey + alpha, RGB, RGBA or palette; an alpha channel is
            ignored; of 16-bit files the high byte is used.

    Returns:
        uint8 [H, W, 1]. The ops work in graph mode and in a SavedModel.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are no such image.
    """
    image = tf.io.decode_image(encoded, channels=0, expand_animations=False)
    image.set_shape([None, None, None])
    return tf.cond(tf.shape(image)[-1] >= 3, lambda: luma(image), lambda: image[..., :1])


def decode_grey_float(encoded: tf.Tensor) -> tf.Tensor:
    """As `decode_grey`, but as build-records and predict read files: float32 [H, W, 1] in [0, 255].

    16-bit PNGs keep their precision, and JPEGs are turned as their EXIF orientation says. The operations fail, before
    anything is decoded, where a file is no PNG or JPEG, or declares more than headers.MAX_PIXELS.
    """
    with tf.control_dependencies([_assert_acceptable(encoded)]):
        encoded = tf.identity(encoded)
    # The header's 25th byte has the depth; zeros make shorter strings long enough to look.
    start = tf.strings.join([tf.strings.substr(encoded, 0, 25), b"\0" * 25])
    is_png = tf.strings.substr(start, 0, 8) == b"\x89PNG\r\n\x1a\n"
    is_deep = is_png & (tf.strings.substr(start, 24, 1) == b"\x10")

    def decode_deep() -> tf.Tensor:
        image = tf.cast(tf.io.decode_png(encoded, channels=3, dtype=tf.uint16), tf.float32) / 257.0
        return tf.minimum(tf.tensordot(image, tf.constant(LUMA), axes=1)[..., tf.newaxis], 255.0)

    image = tf.cond(is_deep, decode_deep, lambda: tf.cast(decode_grey(encoded), tf.float32))
    return orient(image, _find_orientation(encoded))


def orient(image: tf.Tensor, orientation: int | tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image [H, W, C] as its EXIF orientation, 1 to 8, says."""
    number = tf.cast(orientation, tf.int32) - 1
    image = tf.cond(number >= 4, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    # Of 1 to 8: whether rows, and whether columns, are reversed, after rows and columns were exchanged in 5 to 8.
    down = tf.gather(tf.constant([False, False, True, True, False, False, True, True]), number)
    right = tf.gather(tf.constant([False, True, True, False, False, True, True, False]), number)
    image = tf.cond(down, lambda: image[::-1], lambda: image)
    return tf.cond(right, lambda: image[:, ::-1], lambda: image)


def _assert_acceptable(encoded: tf.Tensor) -> tf.Operation:
    """An operation that fails where a file is not to be decoded: a small file may declare a huge picture."""
    is_png = tf.strings.substr(encoded, 0, 8) == headers.PNG_SIGNATURE
    is_jpeg = tf.strings.substr(encoded, 0, 3) == headers.JPEG_SIGNATURE
    known = tf.debugging.Assert(is_png | is_jpeg, ["image_bytes must be PNG or JPEG files"])

    def of_png() -> tf.Tensor:
        size = tf.strings.substr(tf.strings.join([encoded, b"\0" * 24]), 16, 8)
        values = tf.cast(tf.io.decode_raw(size, tf.uint8), tf.int64)
        return tf.reduce_sum(tf.reshape(values, [2, 4]) * [[1 << 24, 1 << 16, 1 << 8, 1]], axis=1)

    with tf.control_dependencies([known]):
        size = tf.cond(is_png, of_png, lambda: tf.cast(tf.io.extract_jpeg_shape(encoded)[:2], tf.int64))
    small = (size[0] <= headers.MAX_PIXELS) & (size[1] <= headers.MAX_PIXELS)
    small &= tf.reduce_prod(tf.minimum(size, headers.MAX_PIXELS)) <= headers.MAX_PIXELS
    return tf.debugging.Assert(small, [f"an image declares more than {headers.MAX_PIXELS:,} pixels:", size])


def _find_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """What `headers.find_orientation` finds, as an operation."""
    start = tf.strings.join([tf.strings.substr(encoded, 0, tf.minimum(tf.strings.length(encoded), 2**16)), b"\0" * 20])
    data = tf.io.decode_raw(start, tf.uint8)
    width = headers.EXIF_TAGS.shape[1]
    windows = tf.stack([data[i : tf.shape(data)[0] - width + i] for i in range(width)], axis=1)

    def places(pattern: np.ndarray, mask: np.ndarray) -> tf.Tensor:
        return tf.where(tf.reduce_all((windows == pattern) | ~mask, axis=1))[:, 0]

    exif = places(np.pad(headers.EXIF, (0, width - len(headers.EXIF))), np.arange(width) < len(headers.EXIF))
    tags = [places(pattern, headers.EXIF_MASKS[i]) for i, pattern in enumerate(headers.EXIF_TAGS)]
    found = tf.sort(tf.concat(tags, axis=0))
    is_jpeg = tf.strings.substr(encoded, 0, 3) == headers.JPEG_SIGNATURE

    def read() -> tf.Tensor:
        after = tf.boolean_mask(found, found > exif[0])
        number = tf.cond(
            tf.size(after) > 0, lambda: tf.reduce_max(windows[after[0]][8:10]), lambda: tf.constant(1, tf.uint8)
        )
        return tf.where((number >= 1) & (number <= 8), tf.cast(number, tf.int32), 1)

    return tf.cond(is_jpeg & (tf.size(exif) > 0), read, lambda: 1)


def luma(image: tf.Tensor) -> tf.Tensor:
    """Grey of uint8 [H, W, 3 or more], of which the first three channels are R, G and B: uint8 [H, W, 1]."""
    weighted = tf.tensordot(tf.cast(image[..., :3], tf.float32), tf.constant(LUMA), axes=1)
    return tf.cast(tf.round(weighted), tf.uint8)[..., tf.newaxis]


def resize(images: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """The one resize of the project: bilinear, with the filter widened to the scale when shrinking (antialiased).

    Aspect is not kept (stretch, as in the reference).

    Args:
        images: [H, W, C] or [N, H, W, C], uint8 or floating.
        height: target height in pixels.
        width: target width in pixels.

    Returns:
        float32 [height, width, C] or [N, height, width, C], in the range of the input.
    """
    resized = tf.image.resize(images, [height, width], method=tf.image.ResizeMethod.BILINEAR, antialias=True)
    return tf.cast(resized, tf.float32)


def encode_png(image: tf.Tensor) -> tf.Tensor:
    """Encodes uint8 [H, W, 1] as an 8-bit grey PNG (string scalar)."""
    return tf.io.encode_png(image, compression=_PNG_COMPRESSION)
