"""Variables under the reference's names: the networks here keep its names, shapes and layouts (see `layers`)."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf


def reference_variables(model: tf.keras.Model) -> dict[str, tf.Variable]:
    """All variables by the reference's names, such as `8x8/Conv0_up/PixelNorm/gamma/weight`, or `lod` of prog-GAN."""
    return {variable.name.removesuffix(":0"): variable for variable in model.weights}


def load_reference_variables(model: tf.keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Assigns `arrays` (by reference name, in the reference's layout) to the variables of a generator or discriminator.

    Raises ValueError, before anything is assigned, naming the variables that are missing, unknown or of another shape.
    """
    variables = reference_variables(model)
    missing, unknown = sorted(variables.keys() - arrays.keys()), sorted(arrays.keys() - variables.keys())
    if missing or unknown:
        raise ValueError(f"{model.name}: missing variables {missing[:5]}, unknown variables {unknown[:5]}")
    for name, variable in variables.items():
        if tuple(variable.shape) != arrays[name].shape:
            raise ValueError(f"{model.name}: {name} has shape {arrays[name].shape}, expected {tuple(variable.shape)}")
    for name, variable in variables.items():
        variable.assign(arrays[name])
