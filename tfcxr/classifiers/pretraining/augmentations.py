"""Random views of radiographs, of which self-supervised learning makes pairs.

As in Chen et al. 2020 (SimCLR, arXiv 2002.05709, appendix A) a view is a random crop, changed in its grey values and
blurred. What would make another finding or patient of a radiograph is left out or weaker: a patient is turned by a few
degrees only, crops keep a good part of the chest, and images are mirrored only if asked to.
"""

import dataclasses
import math

import tensorflow as tf

from tfcxr import addons
from tfcxr.classifiers.networks import preprocessing
from tfrecords_builder.images import image_ops

_NUMBERS = 12  # random ones for each view
_MOST_ASPECT = 4 / 3
# Standard deviations as shares of the side: those of 1 and 2 pixels at 224, but visible at any size.
_BLURS = (1 / 224, 1 / 112)
_LEAST_BLUR = 0.4  # pixels


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How strong the changes are.

    Attributes:
        crop_area: the smallest part of the image that a crop may be, in (0, 1].
        rotation: the most degrees that an image is turned by, either way; what comes in is black.
        jitter: contrast changes by a factor of 1 ± this, brightness by ± half of this (of white).
        blur: probability of a Gaussian blur.
        cutout: probability that a square of a quarter of the side becomes black.
        flip: mirror half of the views left-right.
    """

    crop_area: float = 0.3
    rotation: float = 10.0
    jitter: float = 0.4
    blur: float = 0.5
    cutout: float = 0.5
    flip: bool = False


def make_views(
    images: tf.Tensor, partners: tf.Tensor, index: tf.Tensor, *, image_size: int, seed: int, augmentation: Augmentation
) -> tuple[tf.Tensor, tf.Tensor]:
    """A view of each image, and one of its partner.

    A function of (seed, index) alone, so that a resumed run sees what an unbroken one would.

    Args:
        images: float [N, H, W, 1] in [0, 1].
        partners: as images; the images themselves for two views of each.
        index: int64 [N], number of each image's draw.
        image_size: S.
        seed: of all draws.
        augmentation: how strong.

    Returns:
        Two tensors float32 [N, S, S, 1] in [0, 1].
    """
    drawn = preprocessing.draw_uniform(index, seed, [2, _NUMBERS])
    both = tf.concat([images, partners], axis=0)
    numbers = tf.concat([drawn[:, 0], drawn[:, 1]], axis=0)
    first, second = tf.split(make_view(both, numbers, image_size=image_size, augmentation=augmentation), 2)
    return first, second


def make_view(images: tf.Tensor, drawn: tf.Tensor, *, image_size: int, augmentation: Augmentation) -> tf.Tensor:
    """One view of each image; `drawn`: float32 [N, 12] in [0, 1), which decide it. Others as of `make_views`."""
    numbers = iter(tf.unstack(drawn, _NUMBERS, axis=1))

    def spread() -> tf.Tensor:
        """The next numbers, in [-1, 1)."""
        return 2 * next(numbers) - 1

    # Crops are of any part of the image, whatever the framing; the larger side keeps details of small ones.
    side = preprocessing.framed_size(image_size, "crop")
    images = image_ops.resize(images, side, side)
    images = addons.rotate(images, spread() * math.radians(augmentation.rotation))
    images = _crop(images, [next(numbers) for _ in range(5)], image_size, augmentation)
    mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    factor, shift = (spread()[:, None, None, None] * augmentation.jitter for _ in range(2))
    images = tf.clip_by_value(images + (images - mean) * factor + shift / 2, 0.0, 1.0)
    chance = next(numbers)[:, None, None, None]
    for i, share in enumerate(_BLURS if augmentation.blur else ()):
        sigma = max(_LEAST_BLUR, share * image_size)
        low, high = (augmentation.blur * part / len(_BLURS) for part in (i, i + 1))
        blurred = addons.gaussian_blur(images, 2 * math.ceil(2 * sigma) + 1, sigma)
        images = tf.where((chance >= low) & (chance < high), blurred, images)
    chance = next(numbers)[:, None, None, None]
    if augmentation.cutout:
        centres = tf.cast(tf.stack([next(numbers), next(numbers)], axis=1) * image_size, tf.int32)
        cut = addons.cutout(images, 2 * round(image_size / 8), centres)
        images = tf.where(chance < augmentation.cutout, cut, images)
    return tf.ensure_shape(images, [None, image_size, image_size, 1])


def _crop(images: tf.Tensor, numbers: list[tf.Tensor], image_size: int, augmentation: Augmentation) -> tf.Tensor:
    """Crops of a random area, shape and place (Szegedy et al. 2015), resized to [N, S, S, 1]."""
    area = augmentation.crop_area + (1 - augmentation.crop_area) * numbers[0]
    wider = tf.pow(_MOST_ASPECT, (2 * numbers[1] - 1) / 2)  # the root of width by height
    height, width = (tf.minimum(tf.sqrt(area) * factor, 1.0) for factor in (1 / wider, wider))
    top, left = numbers[2] * (1 - height), numbers[3] * (1 - width)
    right = left + width
    if augmentation.flip:  # a box from right to left is mirrored
        mirrored = numbers[4] < 0.5
        left, right = tf.where(mirrored, right, left), tf.where(mirrored, left, right)
    boxes = tf.stack([top, left, top + height, right], axis=1)
    return tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(images)[0]), [image_size, image_size])
