"""Images as TensorFlow ops: decode to grey, resize, encode. The builder, training and the exports share them.

Grey conversion is the luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B, rounded. TensorFlow's own `channels=1` is
not used: it applies BT.601 to JPEG but other weights to PNG, so the same picture would differ by its file format.
"""

import tensorflow as tf

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
    """As `decode_grey`, but 16-bit PNGs keep their precision, as in the records: float32 [H, W, 1] in [0, 255]."""
    # The header's 25th byte has the depth; zeros make shorter strings long enough to look.
    start = tf.strings.join([tf.strings.substr(encoded, 0, 25), b"\0" * 25])
    is_png = tf.strings.substr(start, 0, 8) == b"\x89PNG\r\n\x1a\n"
    is_deep = is_png & (tf.strings.substr(start, 24, 1) == b"\x10")

    def decode_deep() -> tf.Tensor:
        image = tf.cast(tf.io.decode_png(encoded, channels=3, dtype=tf.uint16), tf.float32) / 257.0
        return tf.minimum(tf.tensordot(image, tf.constant(LUMA), axes=1)[..., tf.newaxis], 255.0)

    return tf.cond(is_deep, decode_deep, lambda: tf.cast(decode_grey(encoded), tf.float32))


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
