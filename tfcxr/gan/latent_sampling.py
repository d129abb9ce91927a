"""Latents of numbered images: the one place where latents of images that are looked at or measured come from.

What training itself draws in its steps is apart (gan/training/steps.py).
"""

import numpy as np
import tensorflow as tf

# What latents are for: each use has its own stream of numbers. Generated sets and the measurement of fidelity share
# one, so that the figure of a training is that of the set which `generate` makes with the same seed and labels.
IMAGES, SAMPLE_GRIDS = 0, 1

_SEED_BITS = 48  # above all seeds that a flag takes


def numbered_latents(
    seed: int | tf.Tensor,
    numbers: np.ndarray | tf.Tensor,
    size: int,
    truncation: float = 1.0,
    *,
    stream: int = IMAGES,
) -> tf.Tensor:
    """Latents of images with the given numbers, from N(0, I), scaled by `truncation`.

    Each row is a function of `seed`, `stream`, its own number and `truncation` only: no batch size or order changes
    it, and no two seeds or streams share a row. Philox, which is named because a TPU would choose another, gives all
    devices the same numbers but for the last bits.

    Truncation is z' = m + psi (z - m), Karras et al. 2019 (https://arxiv.org/abs/1812.04948), section 2.1 and appendix
    B, which trades variety for typical images. They scale in the space W behind a mapping network; this generator has
    none, its layers are conditioned on z itself, so that z is what is scaled, and its mean m is 0: z' = psi z. (The
    pixel norm at the entrance does not undo it: the labels, which it normalises together with z, stay as they are.)

    Args:
        seed: int64 scalar.
        numbers: int64 [N].
        size: length of a latent.
        truncation: psi, 0 < psi <= 1; 1 is off.
        stream: what they are for, IMAGES or SAMPLE_GRIDS.

    Returns:
        float32 [N, size].
    """
    first = tf.cast(seed, tf.int64) + tf.constant(stream << _SEED_BITS, tf.int64)
    latents = tf.map_fn(
        lambda number: tf.random.stateless_normal([size], tf.stack([first, number]), alg="philox"),
        tf.cast(numbers, tf.int64),
        fn_output_signature=tf.TensorSpec([size], tf.float32),
    )
    return latents if truncation == 1.0 else latents * truncation
