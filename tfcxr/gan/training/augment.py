"""Differentiable augmentation of what the discriminator sees, reals and fakes alike, for GANs on few images.

Sources: Zhao et al. 2020 (DiffAugment: "Differentiable Augmentation for Data-Efficient GAN Training", section 3:
brightness, contrast, translation and cutout on every image) and Karras et al. 2020b (ADA: "Training Generative
Adversarial Networks with Limited Data", section 2 and appendix B: every transformation with a probability p; section
3: p follows the discriminator's overfitting).

Images are float [N, R, R, 1] in [-1, 1], -1 black. What is moved in from outside is black: beyond the collimated field
a radiograph is black, whereas the reflection of ADA would show second shoulders and abdomens, which none has.
Every policy is an affine function of the pixels, so that derivatives of any order (the gradient penalty) exist.
"""

import zlib
from collections.abc import Sequence

import tensorflow as tf

from tfcxr.gan import choices

BLACK = -1.0
BRIGHTNESS = 0.5  # shift in ±; DiffAugment
CONTRAST = 0.5  # factor in 1 ±; DiffAugment
TRANSLATION = 1 / 8  # of the side, in ±; both papers
CUTOUT = 1 / 2  # of the side; both papers
ZOOM = 0.2  # standard deviation of log2 of the factor; ADA
ROTATION = 10.0  # degrees, in ±; ADA turns by any angle, but a patient stands or lies upright
NOISE = 0.1  # standard deviation of the image's noise level; ADA


class _Numbers:
    """The random numbers of one policy, a row for each image; they depend on the seed, the policy's name and the use.

    Each draw is for all the images of the batch of which `rows` are a part, and those rows of it are kept.
    """

    def __init__(self, seed, policy: str, size, rows):
        self._seed, self._policy = seed, policy
        self._rows: tf.Tensor | None = None if rows is None else rows[0]
        self._total = size if rows is None else rows[1]

    def _draw(self, use: str, shape, sample):
        number = tf.constant(zlib.crc32(f"{self._policy}/{use}".encode()), tf.int64)
        seed = tf.random.experimental.stateless_fold_in(self._seed, number)
        drawn = sample([self._total, *shape], seed)
        return drawn if self._rows is None else tf.gather(drawn, self._rows)

    def uniform(self, use: str, shape, low, high, dtype=tf.float32):
        """[n, *shape] in [low, high)."""
        return self._draw(use, shape, lambda size, seed: tf.random.stateless_uniform(size, seed, low, high, dtype))

    def normal(self, use: str, shape):
        """[n, *shape] of N(0, 1)."""
        return self._draw(use, shape, tf.random.stateless_normal)

    def chosen(self, probability):
        """[n, 1, 1, 1] bool: the images to which the policy applies."""
        return self.uniform("chosen", [1, 1, 1], 0.0, 1.0) < tf.cast(probability, tf.float32)


# The transformations, their amounts given.


def move(images, *, shifts=None, exponents=None, angles=None):
    """Images scaled about their centre by 2^exponent, turned by the angle, then shifted, in one resampling.

    Args:
        images: [N, R, R, 1] float32; R static.
        shifts: [N, 2] int32, pixels down and right; None: 0.
        exponents: [N] float32; positive enlarges. None: 0.
        angles: [N] float32, degrees, counter-clockwise as the image is looked at; None: 0.

    Bilinear if there are exponents or angles, by index otherwise. Where all three are 0, the image is unchanged to the
    bit. There is no low-pass filter as in ADA: factors under 3/4, where the bilinear one would show aliasing, are rare.
    """
    if shifts is None and exponents is None and angles is None:
        return images
    side = images.shape[1]
    if shifts is None:
        shifts = tf.zeros([tf.shape(images)[0], 2], tf.int32)
    down, right = shifts[:, 0, None, None], shifts[:, 1, None, None]  # [N, 1, 1]
    if exponents is None and angles is None:
        return _pick(images, tf.range(side)[:, None] - down, tf.range(side) - right)
    # Each pixel of the result, from the centre (exact halves), is taken back through the inverse transformation.
    centre = (side - 1) / 2
    places = tf.range(side, dtype=tf.float32) - centre
    y, x = places[:, None] - tf.cast(down, tf.float32), places - tf.cast(right, tf.float32)
    radians = 0.0 if angles is None else angles[:, None, None] * (3.141592653589793 / 180)
    shrink = 1.0 if exponents is None else tf.pow(2.0, -exponents[:, None, None])
    cos, sin = tf.cos(radians) * shrink, tf.sin(radians) * shrink
    return _sample(images, sin * x + cos * y + centre, cos * x - sin * y + centre)


def _pick(images, y, x):
    """images[i, y, x], black outside; y and x int32, broadcasting to [N, R, R]."""
    side = images.shape[1]
    # A black frame of one pixel stands for everything outside.
    framed = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=BLACK)
    y, x = tf.clip_by_value(y, -1, side) + 1, tf.clip_by_value(x, -1, side) + 1
    places = tf.reshape(y * (side + 2) + x, [-1, side * side])
    # The gradient is a segment sum, whose own gradient is this again. (ImageProjectiveTransformV3 would not do: the
    # gradient registered for it resamples with the inverse transformation, which is not the adjoint.)
    picked = tf.gather(tf.reshape(framed, [-1, (side + 2) ** 2]), places, batch_dims=1)
    return tf.reshape(picked, [-1, side, side, 1])


def _sample(images, y, x):
    """Bilinear interpolation at y, x [N, R, R] float32 in pixels, black outside."""
    top, left = tf.floor(y), tf.floor(x)
    below, beside = (y - top)[..., None], (x - left)[..., None]
    top, left = tf.cast(top, tf.int32), tf.cast(left, tf.int32)

    def row(y):
        return _pick(images, y, left) * (1 - beside) + _pick(images, y, left + 1) * beside

    return row(top) * (1 - below) + row(top + 1) * below


def stretch(images, factors):
    """Contrast: each image's distances from its mean times its factor; factors [N, 1, 1, 1]."""
    mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    return images + (images - mean) * (factors - 1)


def erase(images, centres):
    """A square of half the side around each centre [N, 2] int32 (row, column) is mid grey; cut at the border."""
    side = images.shape[1]
    size = round(side * CUTOUT)
    from_start = tf.range(side) - centres[:, :, None] + size // 2  # [N, 2, R]
    inside = (from_start >= 0) & (from_start < size)
    return tf.where((inside[:, 0, :, None] & inside[:, 1, None, :])[..., None], 0.0, images)


# The policies draw the amounts.


def _translation(numbers, side):
    reach = int(side * TRANSLATION)
    return numbers.uniform("shifts", [2], -reach, reach + 1, tf.int32)


def _zoom(numbers, side):
    return ZOOM * numbers.normal("exponents", [])


def _rotation(numbers, side):
    return numbers.uniform("angles", [], -ROTATION, ROTATION)


def _mirror(images, numbers):
    """Left and right exchanged in half of the images chosen: the heart moves to the right, as in dextrocardia.

    Only in half, as in ADA (appendix B): the share of mirrored images stays under 1/2, at which nothing would tell the
    generator which way round the originals are, for every probability under 1.
    """
    return tf.where(numbers.uniform("coin", [1, 1, 1], 0.0, 1.0) < 0.5, tf.reverse(images, [2]), images)


def _brightness(images, numbers):
    return images + numbers.uniform("shift", [1, 1, 1], -BRIGHTNESS, BRIGHTNESS)


def _contrast(images, numbers):
    return stretch(images, numbers.uniform("factor", [1, 1, 1], 1 - CONTRAST, 1 + CONTRAST))


def _noise(images, numbers):
    level = NOISE * tf.abs(numbers.normal("level", [1, 1, 1]))
    return images + level * numbers.normal("pixels", images.shape[1:])


def _cutout(images, numbers):
    return erase(images, numbers.uniform("centre", [2], 0, images.shape[1], tf.int32))


# These draw an argument of `move`, 0 for no movement: (numbers, side) -> [N] or [N, 2].
MOVES = {"translation": _translation, "zoom": _zoom, "rotation": _rotation}
_MOVE_ARGUMENTS = {"translation": "shifts", "zoom": "exponents", "rotation": "angles"}

# All policies in the order in which they are applied; those not in `MOVES` are (images, numbers) -> images.
_FUNCTIONS = {
    "mirror": _mirror,
    **MOVES,
    "brightness": _brightness,
    "contrast": _contrast,
    "noise": _noise,
    "cutout": _cutout,
}
POLICIES = {name: _FUNCTIONS[name] for name in choices.AUGMENT_POLICIES}


def parse(text: str) -> tuple[str, ...]:
    """Comma-separated policies and shorthands to the policies, each once, in the order of `POLICIES`; "" to ().

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    wanted: set[str] = set()
    for name in names:
        if name not in POLICIES and name not in choices.AUGMENT_SHORTHANDS:
            raise ValueError(
                f"unknown policy {name!r}: must be of {', '.join([*POLICIES, *choices.AUGMENT_SHORTHANDS])}"
            )
        wanted.update(choices.AUGMENT_SHORTHANDS.get(name, (name,)))
    return tuple(name for name in POLICIES if name in wanted)


def augment(images: tf.Tensor, policies: Sequence[str], probability, seed: tf.Tensor, rows=None) -> tf.Tensor:
    """Each policy applied to each image with the probability, independently (ADA, section 2.3).

    Args:
        images: [n, R, R, 1] float in [-1, 1]; R static.
        policies: names of `POLICIES`, as `parse` returns them; their order has no effect.
        probability: scalar in [0, 1], a number or a tensor. At 0 the images come back unchanged to the bit.
        seed: [2] int64, as of stateless operations.
        rows: None, or (int tensor [n], total N): the images are these rows of a batch of N and are augmented as they
            would be in the whole batch. Then `noise` costs as much as for N images.

    Returns:
        [n, R, R, 1] of the images' dtype, not clipped. Computed in float32.
    """
    names = set(parse(",".join(policies)))
    result = tf.cast(images, tf.float32)
    moved = not names.intersection(MOVES)
    for name in POLICIES:
        if name not in names:
            continue
        if name not in MOVES:
            numbers = _Numbers(seed, name, tf.shape(images)[0], rows)
            result = tf.where(numbers.chosen(probability), POLICIES[name](result, numbers), result)
        elif not moved:
            result = move(result, **_movements(names, images, probability, seed, rows))
            moved = True
    result = tf.cast(result, images.dtype)
    result.set_shape(images.shape)
    return result


def _movements(names, images, probability, seed, rows):
    """The arguments of `move`: what all of `MOVES` in names do together costs one resampling, and blurs once."""
    arguments = {}
    for name in MOVES:
        if name in names:
            numbers = _Numbers(seed, name, tf.shape(images)[0], rows)
            drawn = MOVES[name](numbers, images.shape[1])
            chosen = tf.reshape(numbers.chosen(probability), [-1] + [1] * (drawn.shape.rank - 1))
            arguments[_MOVE_ARGUMENTS[name]] = tf.where(chosen, drawn, tf.zeros_like(drawn))
    return arguments


def adapt(probability, sign_mean, *, images, target: float = 0.6, images_to_full: float = 500_000) -> tf.Tensor:
    """ADA's controller of the probability (section 3; r_t of equation 1).

    Args:
        probability: scalar in [0, 1].
        sign_mean: r_t = E[sign(D(x))] over the reals seen since the last call: 0 for a discriminator that knows
            nothing, 1 for one that has learnt them by heart.
        images: how many reals these were; int or scalar tensor.
        target: of r_t; 0.6 in the paper.
        images_to_full: how many it takes from probability 0 to 1; 500 thousand in the paper.

    Returns:
        float32 scalar: up by images / images_to_full if sign_mean is over the target, down if under; in [0, 1].
    """
    direction = tf.sign(tf.cast(sign_mean, tf.float32) - target)
    step = direction * tf.cast(images, tf.float32) / images_to_full
    return tf.clip_by_value(tf.cast(probability, tf.float32) + step, 0.0, 1.0)
