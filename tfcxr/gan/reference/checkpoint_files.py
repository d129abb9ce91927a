"""Files of the reference GAN: `network-final.pkl`, a pickle of (G, D, Gs), or an .npz of `<G|D|Gs>/<variable>`.

G is the generator that was trained, D the discriminator, Gs the generator with averaged weights. An object's state
holds version, name, static_kwargs, build_module_src, build_func_name and variables, a list of (name, array). The source
text in it is never looked at.
"""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from tfcxr import npz_files, pickles
from tfrecords_builder.errors import InputError

NETWORKS = ("G", "D", "Gs")

_CLASSES = ("tfutil.Network", "dnnlib.tflib.network.Network")
_MAPPINGS = ("dnnlib.util.EasyDict",)
# The largest networks (512 px, 512 feature maps), three of them, take a tenth of this.
_MAX_BYTES = 4 << 30


@dataclasses.dataclass(frozen=True)
class ReferenceNetwork:
    """A network as it was stored.

    Attributes:
        settings: the keyword arguments it was built with (static_kwargs); empty if unknown.
        variables: name -> array, in the reference's layout; any shape and type of number.
    """

    settings: dict[str, Any]
    variables: dict[str, np.ndarray]


def read(path: str | os.PathLike) -> dict[str, ReferenceNetwork]:
    """The networks of a file, by their names in `NETWORKS`; at least one.

    Nothing in the file is run. Raises InputError, in one line that begins with --checkpoint, for a file that cannot be
    read, is too large, or holds something else.
    """
    path = pathlib.Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"is larger than {_MAX_BYTES >> 30} GiB: no network is")
        with path.open("rb") as stream:
            zipped = stream.read(2) == b"PK"
        return _read_npz(path) if zipped else _read_pickle(path.read_bytes())
    except OSError as error:
        raise InputError(f"--checkpoint={path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise InputError(f"--checkpoint={path}: {error}") from error


def _read_pickle(data: bytes) -> dict[str, ReferenceNetwork]:
    value = pickles.load(data, classes=_CLASSES, mappings=_MAPPINGS)
    objects = list(value) if isinstance(value, (tuple, list)) else [value]
    if not objects or not all(isinstance(item, pickles.Instance) for item in objects):
        raise ValueError("is a pickle, but not of the networks (G, D, Gs)")
    if len(objects) == len(NETWORKS):
        names: list[Any] = list(NETWORKS)
    else:
        names = [item.state.get("name") for item in objects]
    if not all(type(name) is str and name in NETWORKS for name in names) or len(set(names)) != len(names):
        raise ValueError(f"is a pickle of {len(objects)} objects that are not named {', '.join(NETWORKS)}")
    return {name: _network(name, item.state) for name, item in zip(names, objects, strict=True)}


def _network(name: str, state: dict[str, Any]) -> ReferenceNetwork:
    candidates = [state["variables"]] if "variables" in state else list(state.values())
    pairs = next((found for value in candidates if (found := _pairs(value))), None)
    if pairs is None:
        raise ValueError(f"{name} holds no list of (variable name, array); its state has {ascii(list(state))[:200]}")
    variables: dict[str, np.ndarray] = {}
    for key, array in pairs:
        # TensorFlow's own names may be among them: Gs/4x4/Conv/weight:0
        short = key.removesuffix(":0").removeprefix(f"{name}/")
        if short in variables:
            raise ValueError(f"{name} holds the variable {ascii(short)[:80]} twice")
        variables[short] = array
    settings = state.get("static_kwargs")
    return ReferenceNetwork(settings if isinstance(settings, dict) else {}, variables)


def _pairs(value: Any) -> list[tuple[str, np.ndarray]]:
    """The (name, array) pairs of a list or dict of nothing else; empty if it is something else."""
    if isinstance(value, dict):
        value = list(value.items())
    if not isinstance(value, (list, tuple)):
        return []
    pairs = []
    for item in value:
        if not isinstance(item, (list, tuple)) or len(item) != 2 or not isinstance(item[0], str):
            return []
        array = item[1].value if isinstance(item[1], pickles.Array) else item[1]
        if isinstance(array, float):  # a NumPy number, such as the level of detail
            array = np.array(array)
        if not isinstance(array, np.ndarray):
            return []
        pairs.append((item[0], array))
    return pairs


def _read_npz(path: pathlib.Path) -> dict[str, ReferenceNetwork]:
    found: dict[str, ReferenceNetwork] = {}
    for key, array in npz_files.read(path).items():
        network, _, name = key.partition("/")
        if network not in NETWORKS or not name:
            raise ValueError(f"holds {ascii(key)[:80]}; every array must be named <G|D|Gs>/<variable>")
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{ascii(key)[:80]} holds {array.dtype.str!a}, not numbers")
        found.setdefault(network, ReferenceNetwork({}, {})).variables[name] = array
    if not found:
        raise ValueError("holds no arrays")
    return found
