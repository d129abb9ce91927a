"""Both networks of a GAN by their configuration: cpD-GAN's or prog-GAN's."""

import importlib
from typing import Any

import tensorflow as tf

from tfcxr.gan.networks.network_config import ARCHS, NetworkConfig


def build_generator(config: NetworkConfig | None = None, policy: str = "float32", **settings) -> tf.keras.Model:
    """The generator: (latents [N, nf(0)], labels [N, num_labels]) -> images [N, R, R, 1], nominally in [-1, 1], not
    clipped.

    Takes a `NetworkConfig` or its fields as keywords. `policy` is a Keras dtype policy, such as 'mixed_bfloat16' or
    'mixed_float16': what the layers compute in. Variables, the scales and shifts of the norms, and images are float32
    always. Raises ValueError naming a bad field.
    """
    config = config or NetworkConfig(**settings)
    return _module(config).build_generator(config, policy)


def build_discriminator(config: NetworkConfig | None = None, policy: str = "float32", **settings) -> tf.keras.Model:
    """The discriminator: (images [N, R, R, 1] in [-1, 1], labels [N, num_labels]) -> scores [N, 1] (high: real).

    N must be at most 4 or divisible by 4 (the groups of the minibatch standard deviation). Arguments as
    `build_generator`; variables, the minibatch standard deviation, the last dense layer and scores are float32 always.
    With arch 'prog' inputs and outputs are those of `prog.build_discriminator`.
    """
    config = config or NetworkConfig(**settings)
    return _module(config).build_discriminator(config, policy)


def _module(config: NetworkConfig) -> Any:
    return importlib.import_module(f"{__package__}.{ARCHS[config.arch][0]}")
