"""First weights that depend on a seed and the layer's name alone, and networks of Keras made with such weights.

Keras's own way is a global seed and a global dtype policy. Whoever loads a classifier into a program of their own has
set theirs, and other threads would see ours. So every initialiser has a seed, and every layer a policy.
"""

import zlib
from collections.abc import Callable, MutableMapping
from typing import Any

import numpy as np
import tensorflow as tf

# Of a layer's configuration.
_KERNEL_INITIALIZERS = {"kernel_initializer", "depthwise_initializer"}


def layer_seed(seed: int, name: str) -> int:
    """The seed in 0..2^31 - 1 of a layer's initialiser, by the network's seed and the layer's name in it."""
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0] >> 1)


def rebuild(
    make: Callable[[], tf.keras.Model],
    *,
    seed: int,
    dtype: str,
    change: Callable[[tf.keras.layers.Layer, MutableMapping[str, Any]], tf.keras.layers.Layer | None] | None = None,
) -> tf.keras.Model:
    """A network whose maker, as those of keras.applications, takes neither a seed nor a dtype policy.

    Neither the random numbers nor the policy of the caller have a share in it, nor does it change them.

    Args:
        make: makes a functional model whose kernels are initialised as Keras does by default (Glorot and Bengio 2010).
        seed: of all kernels.
        dtype: Keras dtype policy of all layers, such as mixed_bfloat16.
        change: gets each layer of what `make` made and its configuration, which it may change; or gives another layer
            instead.

    Returns:
        The model, its layers named as `make` named them.
    """
    # Initialisers without a seed would draw one from Python's global random numbers; Keras keeps this scope to the
    # thread.
    with tf.keras.utils.custom_object_scope({"glorot_uniform": tf.keras.initializers.Zeros}):
        model = make()

    def clone(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
        config = {**layer.get_config(), "dtype": dtype}
        for initializer in _KERNEL_INITIALIZERS & config.keys():
            config[initializer] = tf.keras.initializers.GlorotUniform(layer_seed(seed, layer.name))
        instead = change(layer, config) if change else None
        return type(layer).from_config(config) if instead is None else instead

    return tf.keras.models.clone_model(model, clone_function=clone)
