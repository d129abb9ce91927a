"""What this project takes from TensorFlow Addons, and the same in plain TensorFlow where there is no TensorFlow Addons.

Image operations for the augmentations of self-supervised learning, two losses on embeddings, the focal loss, and LAMB,
an optimizer for large batches. This is the only module that imports TensorFlow Addons (below: tfa). Its last release,
0.23, has wheels up to Python 3.11 and does not import with Keras 3; from Python 3.12 on the second half of this module
stands in. The tests hold both halves to the same numbers.

What else of tfa was tried and is not used:

- Its own compiled operations (`tfa.image.adjust_hsv_in_yiq`, a few more) do not load with the package tensorflow-cpu.
  The functions used here are made of TensorFlow's operations and do.
- `MultiOptimizer` (a learning rate per group of layers) loses the optimizers' slots in checkpoints, tells variables
  apart by their names, and fails on a second device, where they differ: `GroupedSGD` in
  `tfcxr/classifiers/training/optimizers.py` does that work.
- `MovingAverage` and `Lookahead` take only optimizers of `tf.keras.optimizers.legacy`. `SGDW`, `SpectralNormalization`
  and `F1Score` are part of Keras by now.
- The GAN's augmentations (`tfcxr/gan/training/augment.py`) need true gradients, and random numbers that follow an image
  whatever batch it is in. `rotate` stands on an operation whose registered gradient is not its adjoint (a tenth off in
  a trial): use it on inputs, not inside of a network. `random_cutout` draws by the batch.
"""

import re
import warnings
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

with warnings.catch_warnings():
    # It warns of its end of life.
    warnings.simplefilter("ignore")
    try:
        import tensorflow_addons as _tfa
    except ImportError:
        _tfa = None


def rotate(images: tf.Tensor, angles: tf.Tensor) -> tf.Tensor:
    """Images rotated about their centres, bilinear; what comes in from outside is 0.

    Args:
        images: [B, H, W, C], any number type.
        angles: radians, counterclockwise, float32 [B] or [].

    Returns:
        [B, H, W, C], the images' type.
    """
    images, angles = tf.convert_to_tensor(images), tf.convert_to_tensor(angles, tf.float32)
    return (_tfa.image.rotate if _tfa else _rotate)(images, angles, interpolation="bilinear")


def gaussian_blur(images: tf.Tensor, size: int, sigma: float) -> tf.Tensor:
    """Images convolved with a Gaussian; the border is mirrored.

    Args:
        images: [B, H, W, C], float.
        size: height and width of the kernel in pixels, odd, below twice the height and width.
        sigma: standard deviation in pixels, above 0; a Python number, which tfa insists on: choose among a few.

    Returns:
        [B, H, W, C], the images' type.
    """
    images = tf.convert_to_tensor(images)
    return (_tfa.image.gaussian_filter2d if _tfa else _gaussian_filter2d)(images, filter_shape=size, sigma=sigma)


def cutout(images: tf.Tensor, size: int, centres: tf.Tensor) -> tf.Tensor:
    """Images with a square each set to 0 (DeVries and Taylor, arXiv 1708.04552), cut off at the border.

    Args:
        images: [B, H, W, C], any number type.
        size: side of the square in pixels, even.
        centres: row and column of each square's centre, int32 [B, 2]; the centre is the first pixel of the second half.

    Returns:
        [B, H, W, C], the images' type.
    """
    images, centres = tf.convert_to_tensor(images), tf.convert_to_tensor(centres)
    return (_tfa.image.cutout if _tfa else _cutout)(images, (size, size), offset=centres)


def equalize(images: tf.Tensor) -> tf.Tensor:
    """Images whose histograms of grey values have been made flat, each channel for itself, as Pillow does.

    Args:
        images: uint8 [B, H, W, C].

    Returns:
        uint8 [B, H, W, C].
    """
    return (_tfa.image.equalize if _tfa else _equalize)(images)


def contrastive_loss(same: tf.Tensor, distances: tf.Tensor, margin: float = 1.0) -> tf.Tensor:
    """Loss of pairs: d^2 for those of the same kind, max(0, margin - d)^2 for the others (Hadsell et al., CVPR 2006).

    Args:
        same: 1 for pairs of the same kind, else 0; float32 [B].
        distances: d, at least 0, float32 [B].
        margin: distance from which on pairs of two kinds cost nothing.

    Returns:
        float32 [B].
    """
    return (_tfa.losses.contrastive_loss if _tfa else _contrastive_loss)(same, distances, margin)


def triplet_loss(labels: tf.Tensor, embeddings: tf.Tensor, margin: float = 1.0) -> tf.Tensor:
    """Triplet loss with semi-hard negatives (Schroff et al., FaceNet, CVPR 2015): mean over the pairs of one label.

    The negative of a pair (anchor, positive) is the nearest one that is farther from the anchor than the positive is;
    where there is none, the farthest one. Distances are Euclidean.

    Args:
        labels: int [B]; at least one label must occur twice, or the loss is NaN.
        embeddings: float32 [B, D], usually of length 1.
        margin: by how much farther than the positive the negative should be.

    Returns:
        float32 [].
    """
    return (_tfa.losses.triplet_semihard_loss if _tfa else _triplet_semihard_loss)(labels, embeddings, margin)


def focal_loss(members: tf.Tensor, logits: tf.Tensor, *, alpha: float | None = 0.25, gamma: float = 2.0) -> tf.Tensor:
    """Focal loss of each label: alpha_t (1 - p_t)^gamma times the binary cross entropy (Lin et al., ICCV 2017, eq. 5).

    Args:
        members: 1 for images with the label, else 0; float32 [B, K].
        logits: of which p is the sigmoid, float32 [B, K]; p_t is p for images with the label, else 1 - p.
        alpha: alpha_t of images with the label, and 1 - alpha that of the others; None: 1 for both.
        gamma: at least 0.

    Returns:
        float32 [B, K].
    """
    # The function sums over the last axis, which is here one label.
    function = _tfa.losses.sigmoid_focal_crossentropy if _tfa else _sigmoid_focal_crossentropy
    return function(members[..., None], logits[..., None], alpha=alpha or 0.0, gamma=gamma, from_logits=True)


def make_lamb(
    learning_rate: float, *, weight_decay: float = 0.0, exclude: Sequence[str] = ()
) -> tf.keras.optimizers.legacy.Optimizer:
    """LAMB (You et al., "Large Batch Optimization for Deep Learning", ICLR 2020, algorithm 2).

    Checkpoints of both implementations are the same, slots included.

    Args:
        learning_rate: of a step; a number or a Keras schedule.
        weight_decay: added to the direction as this factor times the weights.
        exclude: regular expressions; variables whose names have a match, usually biases and normalisations, get neither
            weight decay nor a step in proportion to their length.
    """
    if _tfa:
        return _tfa.optimizers.LAMB(learning_rate, weight_decay=weight_decay, exclude_from_weight_decay=list(exclude))
    return _Lamb(learning_rate, weight_decay, exclude)


# Plain TensorFlow, with tfa's arguments.


def _rotate(images: tf.Tensor, angles: tf.Tensor, interpolation: str) -> tf.Tensor:
    shape = tf.shape(images)
    bottom, right = tf.cast(shape[1] - 1, tf.float32), tf.cast(shape[2] - 1, tf.float32)
    cos, sin = (f(tf.broadcast_to(angles, shape[:1])) for f in (tf.cos, tf.sin))
    # Where an output pixel comes from, so that the centre stays in its place.
    from_x = (right - (cos * right - sin * bottom)) / 2
    from_y = (bottom - (sin * right + cos * bottom)) / 2
    none = tf.zeros_like(cos)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([cos, -sin, from_x, sin, cos, from_y, none, none], axis=1),
        output_shape=shape[1:3],
        fill_value=0.0,
        interpolation=interpolation.upper(),
    )


def _gaussian_filter2d(images: tf.Tensor, filter_shape: int, sigma: float) -> tf.Tensor:
    half = filter_shape // 2
    along = tf.range(-half, half + 1, dtype=images.dtype)
    weights = tf.nn.softmax(-(along**2) / (2 * sigma**2))
    kernel = tf.tile((weights[:, None] * weights)[:, :, None, None], [1, 1, tf.shape(images)[3], 1])
    mirrored = tf.pad(images, [[0, 0], [half, half], [half, half], [0, 0]], mode="REFLECT")
    return tf.nn.depthwise_conv2d(mirrored, kernel, strides=[1, 1, 1, 1], padding="VALID")


def _cutout(images: tf.Tensor, mask_size: tuple[int, int], offset: tf.Tensor) -> tf.Tensor:
    inside = []
    for axis in (0, 1):
        from_centre = tf.range(tf.shape(images)[1 + axis]) - offset[:, axis, None]
        inside.append((from_centre >= -(mask_size[axis] // 2)) & (from_centre < mask_size[axis] // 2))
    square = inside[0][:, :, None] & inside[1][:, None, :]
    return tf.where(square[..., None], tf.zeros([], images.dtype), images)


def _equalize(images: tf.Tensor) -> tf.Tensor:
    shape = tf.shape(images)
    pixels = tf.reshape(tf.transpose(tf.cast(images, tf.int32), [0, 3, 1, 2]), [shape[0] * shape[3], -1])
    counts = tf.math.bincount(pixels, minlength=256, maxlength=256, axis=-1)
    brightest = tf.gather(counts, tf.reduce_max(pixels, axis=1), batch_dims=1)
    step = (tf.shape(pixels)[1] - brightest) // 255
    below = tf.cumsum(counts, axis=1, exclusive=True)
    levels = tf.minimum((below + step[:, None] // 2) // tf.maximum(step, 1)[:, None], 255)
    # Too few pixels, or all of one grey value.
    flat = tf.where(step[:, None] > 0, tf.gather(levels, pixels, batch_dims=1), pixels)
    flat = tf.reshape(tf.cast(flat, images.dtype), tf.gather(shape, [0, 3, 1, 2]))
    return tf.transpose(flat, [0, 2, 3, 1])


def _contrastive_loss(y_true: tf.Tensor, y_pred: tf.Tensor, margin: float) -> tf.Tensor:
    return y_true * y_pred**2 + (1 - y_true) * tf.maximum(margin - y_pred, 0) ** 2


def _triplet_semihard_loss(y_true: tf.Tensor, y_pred: tf.Tensor, margin: float) -> tf.Tensor:
    squares = tf.reduce_sum((y_pred[:, None] - y_pred) ** 2, axis=2)
    # The gradient of a square root at 0 is infinite.
    distances = tf.where(squares > 0, tf.sqrt(tf.where(squares > 0, squares, 1.0)), 0.0)
    labels = tf.reshape(y_true, [-1])
    same = labels[:, None] == labels
    pairs = same & ~tf.eye(tf.shape(labels)[0], dtype=tf.bool)
    # [anchor, positive, negative]
    farther = ~same[:, None, :] & (distances[:, None, :] > distances[:, :, None])
    nearest = tf.reduce_min(tf.where(farther, distances[:, None, :], distances.dtype.max), axis=2)
    farthest = tf.reduce_max(tf.where(same, 0.0, distances), axis=1, keepdims=True)
    negative = tf.where(tf.reduce_any(farther, axis=2), nearest, farthest)
    losses = tf.where(pairs, tf.maximum(margin + distances - negative, 0.0), 0.0)
    return tf.reduce_sum(losses) / tf.reduce_sum(tf.cast(pairs, tf.float32))


def _sigmoid_focal_crossentropy(
    y_true: tf.Tensor, y_pred: tf.Tensor, alpha: float, gamma: float, from_logits: bool
) -> tf.Tensor:
    assert from_logits
    entropies = tf.nn.sigmoid_cross_entropy_with_logits(y_true, y_pred)
    wrong = tf.abs(y_true - tf.sigmoid(y_pred))  # 1 - p_t
    shares = y_true * alpha + (1 - y_true) * (1 - alpha) if alpha else 1.0
    return tf.reduce_sum(shares * wrong**gamma * entropies, axis=-1)


class _Lamb(tf.keras.optimizers.legacy.Optimizer):
    """LAMB; slots `m` and `v`, as tfa's has."""

    def __init__(self, learning_rate: Any, weight_decay: float, exclude: Sequence[str], name: str = "LAMB"):
        super().__init__(name)
        self._set_hyper("learning_rate", learning_rate)
        self._set_hyper("decay", 0.0)
        self._set_hyper("weight_decay", weight_decay)
        self._set_hyper("beta_1", 0.9)
        self._set_hyper("beta_2", 0.999)
        self._exclude = list(exclude)

    def _create_slots(self, var_list):
        for slot in ("m", "v"):
            for variable in var_list:
                self.add_slot(variable, slot)

    def _resource_apply_dense(self, grad, var, apply_state=None):
        dtype = var.dtype.base_dtype
        step = tf.cast(self.iterations + 1, dtype)
        means = []
        for slot, beta_name, value in (("m", "beta_1", grad), ("v", "beta_2", grad * grad)):
            beta = self._get_hyper(beta_name, dtype)
            running = self.get_slot(var, slot)
            means.append(running.assign(beta * running + (1 - beta) * value) / (1 - beta**step))
        direction = means[0] / (tf.sqrt(means[1]) + 1e-6)
        scale = tf.ones([], dtype)
        if not any(re.search(expression, var.name) for expression in self._exclude):
            direction += self._get_hyper("weight_decay", dtype) * var
            length, step_length = tf.norm(var), tf.norm(direction)
            scale = tf.where((length > 0) & (step_length > 0), length / step_length, scale)
        return var.assign_sub(scale * self._decayed_lr(dtype) * direction)

    def get_config(self):
        config = {name: self._serialize_hyperparameter(name) for name in ("learning_rate", "weight_decay")}
        return super().get_config() | config | {"exclude": self._exclude}
