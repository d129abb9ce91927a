"""From grey images to what a backbone takes; one framing for training, evaluation and exports.

Training resizes to round(8/7 S) and crops S at random (256 and 224 in the reference); evaluation crops the centre of
the same size, so that anatomy has one scale in both. With the framing "whole" both resize to S, and evaluation loses
nothing; training shifts the image at random by as much as the random crops do.
"""

from collections.abc import Sequence

import tensorflow as tf

from tfrecords_builder.images import image_ops

NORMALISATIONS = ("caffe", "torch", "lite")
NUM_CROPS = 10

# Keras's ImageNet statistics. Caffe's ResNet-50 was trained on BGR in 0..255 less the mean; "torch" is RGB in 0..1.
_CAFFE_MEAN = (103.939, 116.779, 123.68)
_TORCH_MEAN = (0.485, 0.456, 0.406)
_TORCH_STD = (0.229, 0.224, 0.225)
# What EfficientNet-Lite was trained with, of 0..255.
_LITE_MEAN, _LITE_STD = 127.0, 128.0


def framed_size(image_size: int, framing: str) -> int:
    """Side to resize to before a crop of `image_size`, S: round(8/7 S), or S if the `framing` is whole."""
    return image_size if framing == "whole" else round(image_size * 8 / 7)


def frame(images: tf.Tensor, image_size: int, framing: str) -> tf.Tensor:
    """Evaluation framing: resize, then crop the centre.

    Args:
        images: floating [N, H, W, 1] in any range.
        image_size: S.
        framing: one of choices.FRAMINGS.

    Returns:
        float32 [N, S, S, 1] in the same range.
    """
    side = framed_size(image_size, framing)
    start = (side - image_size) // 2
    resized = image_ops.resize(images, side, side)
    return resized[:, start : start + image_size, start : start + image_size]


def ten_crops(images: tf.Tensor, image_size: int, framing: str) -> tf.Tensor:
    """Framing of 10-crop evaluation: resize, then crop the four corners and the centre, and mirror each of them.

    Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS 2012, section 4.1.

    Args:
        images: floating [N, H, W, 1] in any range.
        image_size: S.
        framing: one of choices.FRAMINGS; five of the crops of the whole image are the same.

    Returns:
        float32 [10 N, S, S, 1] in the same range; the ten of an image follow each other: top left, top right, bottom
        left, bottom right, centre, then the mirrored five.
    """
    side = framed_size(image_size, framing)
    resized = image_ops.resize(images, side, side)
    last, middle = side - image_size, (side - image_size) // 2
    starts = ((0, 0), (0, last), (last, 0), (last, last), (middle, middle))
    crops = [resized[:, y : y + image_size, x : x + image_size] for y, x in starts]
    crops += [tf.reverse(crop, axis=[2]) for crop in crops]
    return tf.reshape(tf.stack(crops, axis=1), [-1, image_size, image_size, 1])


def augment(images: tf.Tensor, index: tf.Tensor, *, image_size: int, framing: str, seed: int, flip: bool) -> tf.Tensor:
    """Training framing: resize, crop or shift at random, flip left-right half of the images if asked to.

    The whole image is shifted by up to round(S / 14) pixels in each direction; its edge is repeated to fill the gap.

    A function of (seed, index) alone, so that a resumed run sees what an unbroken one would.

    Args:
        images: floating [N, H, W, 1] in any range.
        index: int64 [N], number of each image's draw.
        image_size: S.
        framing: one of choices.FRAMINGS.
        seed: of all draws.
        flip: whether to flip.

    Returns:
        float32 [N, S, S, 1] in the same range.
    """
    side = framed_size(image_size, framing)
    resized = image_ops.resize(images, side, side)

    drawn = draw_uniform(index, seed, [3])
    margin = round(image_size / 14) if framing == "whole" else 0
    start = tf.cast(drawn[:, :2] * float(side + 2 * margin - image_size + 1), tf.int32) - margin
    window = tf.range(image_size)
    rows, columns = (tf.clip_by_value(start[:, i, tf.newaxis] + window, 0, side - 1) for i in range(2))
    if flip:
        columns = tf.where(drawn[:, 2, tf.newaxis] < 0.5, tf.reverse(columns, axis=[1]), columns)
    cropped = tf.gather(resized, rows, axis=1, batch_dims=1)
    cropped = tf.transpose(tf.gather(tf.transpose(cropped, (0, 2, 1, 3)), columns, axis=1, batch_dims=1), (0, 2, 1, 3))
    return tf.ensure_shape(cropped, [None, image_size, image_size, 1])


def draw_uniform(index: tf.Tensor, seed: int, shape: Sequence[int]) -> tf.Tensor:
    """Random numbers in [0, 1) for each image, a function of (seed, index) alone: float32 [N, *shape]."""

    def draw(number: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform(shape, tf.stack([tf.constant(seed, tf.int64), number]))

    return tf.map_fn(draw, index, fn_output_signature=tf.TensorSpec(shape, tf.float32))


@tf.keras.utils.register_keras_serializable(package="tfcxr")
class Normalise(tf.keras.layers.Layer):
    """Grey images [N, H, W, 1] in [0, 1] -> three channels as a backbone's ImageNet weights expect them."""

    def __init__(self, mode: str, **kwargs):
        """Makes the layer.

        Args:
            mode: caffe (BGR, 0..255 less the mean: ResNet-50 of Keras), torch (RGB, standardised: DenseNet) or lite
                ((x - 127) / 128 of 0..255: EfficientNet-Lite).
            **kwargs: of any Keras layer.
        """
        # Pixel values keep all their digits whatever the policy of the network behind.
        super().__init__(**{**kwargs, "dtype": "float32"})
        if mode not in NORMALISATIONS:
            raise ValueError(f"mode={mode!r}: must be one of {', '.join(NORMALISATIONS)}")
        self.mode = mode

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Repeats the channel and normalises."""
        images = tf.repeat(tf.cast(images, tf.float32), 3, axis=-1)
        if self.mode == "caffe":
            return images * 255.0 - tf.constant(_CAFFE_MEAN)
        if self.mode == "lite":
            return (images * 255.0 - _LITE_MEAN) / _LITE_STD
        return (images - tf.constant(_TORCH_MEAN)) / tf.constant(_TORCH_STD)

    def get_config(self) -> dict:
        """Adds `mode`."""
        return {**super().get_config(), "mode": self.mode}
