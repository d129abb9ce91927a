"""First weights of a backbone from files that others wrote: Keras's `.h5`, `.weights.h5`, `.keras`, and SavedModels.

Weights are matched by the names of layers, and must fit in shape. What else the file holds, such as another head, is
left alone. Nothing in a file is run, but for a SavedModel's graph, which is loaded and not called.
"""

import io
import itertools
import os
import pathlib
import zipfile
from collections.abc import Iterable, Mapping, Sequence

import h5py
import numpy as np
import tensorflow as tf

from tfcxr import foreign_models
from tfrecords_builder.errors import InputError

# Layer name -> its arrays, in the order of Keras's `get_weights`.
LayerWeights = Mapping[str, Sequence[np.ndarray]]

# How `.weights.h5` files call the group that holds a network's layers, and those layers of our backbones with weights.
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
_NUMBERED = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization"}
# What h5py, zipfile and TensorFlow raise for files that are cut off, changed or something else.
_DAMAGED = (OSError, LookupError, ValueError, RuntimeError, AttributeError, zipfile.BadZipFile, tf.errors.OpError)


def load(model: tf.keras.Model, path: str | os.PathLike) -> None:
    """Sets all weights of a functional model from a file of the same network, with or without a top.

    Args:
        model: a backbone; changed in place, unless the file does not fit.
        path: file or SavedModel folder.

    Raises:
        InputError: the file is damaged or of another network, or a SavedModel could run code; names the file and what
            differs.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        foreign_models.check_saved_model(path, "--weights")
    try:
        if path.is_dir():
            found = _from_saved_model(path)
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found = _from_h5(io.BytesIO(archive.read("model.weights.h5")), model)
        else:
            found = _from_h5(path, model)
    except _DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"--weights={path}: is damaged, or no file of Keras weights ({reason})") from error
    assign(model, found, path)


def assign(model: tf.keras.Model, found: LayerWeights, path: str | os.PathLike) -> None:
    """Sets all weights of a model by layer name.

    Args:
        model: changed in place, unless the weights do not fit.
        found: may hold more layers than the model has.
        path: where they are from, for messages.

    Raises:
        InputError: a layer is absent or has other shapes, or a value is not finite.
    """
    weighted = [layer for layer in model.layers if layer.weights]
    missing = [layer.name for layer in weighted if layer.name not in found]
    if missing:
        raise InputError(
            f"--weights={path}: is not of {model.name}: it lacks {len(missing)} of {len(weighted)} layers, "
            f"such as {missing[0]}"
        )
    for layer in weighted:
        expected, given = [_shapes(values) for values in (layer.get_weights(), found[layer.name])]
        if expected != given:
            raise InputError(
                f"--weights={path}: is not of {model.name}: {layer.name} has shapes {given}, not {expected}"
            )
        if not all(np.isfinite(values).all() for values in found[layer.name]):
            raise InputError(f"--weights={path}: is damaged: {layer.name} holds a value that is not finite")
    for layer in weighted:
        layer.set_weights(found[layer.name])


def _from_h5(file: pathlib.Path | io.BytesIO, model: tf.keras.Model) -> LayerWeights:
    with h5py.File(file, "r") as root:
        weights = root.get("model_weights", root)
        if "layer_names" in weights.attrs:
            return _from_named_h5(weights)
        return _from_numbered_h5(root, model)


def _from_named_h5(root: h5py.Group) -> LayerWeights:
    """Keras 1 and 2: a group for each layer, whose `weight_names` are `<layer>/<weight>:0`."""
    found: dict[str, list[np.ndarray]] = {}
    for layer in _texts(root.attrs["layer_names"]):
        named = [(name, root[layer][name][()]) for name in _texts(root[layer].attrs["weight_names"])]
        # A network inside a network is one group; its layers are told apart by the weights' names.
        found |= _by_layer(named)
        found[layer] = [values for _, values in named]
    return found


def _from_numbered_h5(root: h5py.File, model: tf.keras.Model) -> LayerWeights:
    """Keras's `.weights.h5`: `<...>layers/<class>_<number>/vars/<i>`, numbered in the network's order.

    Newer releases of Keras write the layer's name instead of class and number.
    """
    containers: list[h5py.Group] = []
    root.visititems(lambda name, item: containers.append(item) if name.rsplit("/", 1)[-1] in _CONTAINERS else None)
    numbers = {kind: itertools.count() for kind in _NUMBERED}
    candidates: list[dict[str, list[np.ndarray]]] = [{} for _ in containers]
    for layer in model.layers:
        if not layer.weights:
            continue
        kind = type(layer).__name__
        number = next(numbers[kind])
        numbered = f"{_NUMBERED[kind]}_{number}" if number else _NUMBERED[kind]
        for group, found in zip(containers, candidates, strict=True):
            name = layer.name if layer.name in group else numbered
            if name in group:
                values = group[name]["vars"]
                found[layer.name] = [values[str(i)][()] for i in range(len(values))]
    return max(candidates, key=len, default={})


def _from_saved_model(path: pathlib.Path) -> LayerWeights:
    loaded = tf.saved_model.load(str(path))
    return _by_layer((variable.name, variable.numpy()) for variable in loaded.variables)


def _by_layer(named: Iterable[tuple[str, np.ndarray]]) -> dict[str, list[np.ndarray]]:
    """Values named `<layer>/<weight>:0` by layer; a layer's name may hold slashes."""
    found: dict[str, list[np.ndarray]] = {}
    for name, value in named:
        found.setdefault(name.rpartition("/")[0], []).append(value)
    return found


def _texts(values: Sequence[str | bytes]) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _shapes(arrays: Sequence[np.ndarray]) -> list[list[int]]:
    return [list(array.shape) for array in arrays]
