"""Latents of numbered images."""

import tensorflow as tf


def numbered_latents(seed, numbers, size: int, truncation: float = 1.0):
    """Latents [N, size] of images with the given numbers (int64 [N]): from N(0, I), scaled by `truncation`.

    Each row is a function of `seed`, its own number and `truncation` only: no batch size or order changes it. Philox,
    which is named because a TPU would choose another, gives all devices the same numbers but for the last bits.

    Truncation is z' = m + psi (z - m), Karras et al. 2019 (https://arxiv.org/abs/1812.04948), section 2.1 and appendix
    B, which trades variety for typical images. They scale in the space W behind a mapping network; this generator has
    none, its layers are conditioned on z itself, so that z is what is scaled, and its mean m is 0: z' = psi z. (The
    pixel norm at the entrance does not undo it: the labels, which it normalises together with z, stay as they are.)
    """
    seed = tf.cast(seed, tf.int64)
    latents = tf.map_fn(
        lambda number: tf.random.stateless_normal([size], tf.stack([seed, number]), alg="philox"),
        tf.cast(numbers, tf.int64),
        fn_output_signature=tf.TensorSpec([size], tf.float32),
    )
    return latents if truncation == 1.0 else latents * truncation
