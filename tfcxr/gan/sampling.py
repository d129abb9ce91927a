"""Latents of numbered images."""

import tensorflow as tf


def numbered_latents(seed, numbers, size: int):
    """Latents [N, size] from N(0, I) of images with the given numbers (int64 [N]).

    Each row is a function of `seed` and its own number only: no batch size, order or device changes it.
    """
    seed = tf.cast(seed, tf.int64)
    return tf.map_fn(
        lambda number: tf.random.stateless_normal([size], tf.stack([seed, number])),
        tf.cast(numbers, tf.int64),
        fn_output_signature=tf.TensorSpec([size], tf.float32),
    )
