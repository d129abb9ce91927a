"""Reads PyTorch's files of named tensors (`.pth`) of its first format, without PyTorch and without running anything.

Such a file is five pickles, a magic number, the protocol, facts of the machine, the tensors and the storages' keys,
after which come the storages in the order of the keys: the number of items as int64, then the items. A tensor refers to
its storage by the key and has an offset, a shape and strides, all in items. Source: the documentation of
`torch.save` (`_use_new_zipfile_serialization=False`), and what PyTorch writes.
"""

import dataclasses
import io
import math
import os
import pathlib
from typing import Any

import numpy as np

from tfcxr import pickles

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_REBUILD = "torch._utils._rebuild_tensor_v2"
_TYPES: dict[str, np.dtype] = {
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ByteStorage": np.dtype("u1"),
}
# The largest network that these files are read for, SE-ResNet-50, takes a tenth of this.
_MAX_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    kind: np.dtype
    size: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A tensor that has each item of its storage once; `order` sorts its axes by falling stride."""

    storage: _Storage
    shape: tuple[int, ...]
    order: tuple[int, ...]

    def of(self, items: np.ndarray) -> np.ndarray:
        """The array of the storage's items."""
        return items.reshape([self.shape[axis] for axis in self.order]).transpose(np.argsort(self.order))


def _load_next(stream: io.BytesIO) -> Any:
    return pickles.load_next(stream, classes=_TYPES, calls={_REBUILD: _rebuild}, refer=_refer)


def _refer(identifier: Any) -> _Storage:
    """A storage, of which the file has the items later on."""
    match identifier:
        case "storage", pickles.Name(kind), str(key), str(), int(size), None if kind in _TYPES and _is_size(size):
            return _Storage(key, _TYPES[kind], size)
    raise pickles.Refused("refers to something that is no whole storage of numbers")


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """What a tensor is written as a call of; further arguments are of gradients."""
    if not (isinstance(storage, _Storage) and offset == 0 and isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise pickles.Refused("holds a tensor that is no whole storage of numbers")
    return _Tensor(storage, shape, _order(storage, shape, strides))


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_BYTES


def _order(storage: _Storage, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> tuple[int, ...]:
    """A tensor's axes by falling stride. Raises Refused unless it has each item of its storage once."""
    if not (len(shape) == len(strides) <= pickles.MAX_DIMENSIONS and all(map(_is_size, (*shape, *strides)))):
        raise pickles.Refused("holds a tensor whose shape or strides are no sizes")
    # The strides of axes of one item say nothing, nor do those of tensors of none.
    order = sorted(range(len(shape)), key=lambda axis: (shape[axis] > 1, -strides[axis]))
    whole = math.prod(shape) == storage.size
    step = 1
    for axis in reversed(order):
        whole = whole and (shape[axis] == 1 or storage.size == 0 or strides[axis] == step)
        step *= shape[axis]
    if not whole:
        raise pickles.Refused(
            f"holds a tensor of shape {list(shape)} and strides {list(strides)}, which does not have each item of its "
            f"storage of {storage.size} once"
        )
    return tuple(order)


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a file, by name; read-only.

    What is read takes memory in proportion to the file's length, whatever it declares.

    Raises:
        pickles.Refused: the file is damaged, of another format, or holds something else than named tensors; the message
            says what.
        OSError: it cannot be read.
    """
    path = pathlib.Path(path)
    if path.stat().st_size > _MAX_BYTES:
        raise pickles.Refused(f"is larger than {_MAX_BYTES >> 30} GiB: no network is")
    data = path.read_bytes()
    if data.startswith(b"PK"):
        raise pickles.Refused(
            "is of PyTorch's newer format; save it with torch.save(..., _use_new_zipfile_serialization=False)"
        )
    stream = io.BytesIO(data)
    if _load_next(stream) != _MAGIC or _load_next(stream) != _PROTOCOL:
        raise pickles.Refused("is no file of PyTorch's first format")
    system, tensors, keys = (_load_next(stream) for _ in range(3))
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise pickles.Refused("was written on a machine whose numbers are not little-endian")
    if not isinstance(tensors, dict) or not all(
        type(name) is str and isinstance(tensor, _Tensor) for name, tensor in tensors.items()
    ):
        raise pickles.Refused("holds something else than named tensors")
    items = _read_storages(stream, [tensor.storage for tensor in tensors.values()], keys)
    return {name: tensor.of(items[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_storages(stream: io.BytesIO, storages: list[_Storage], keys: Any) -> dict[str, np.ndarray]:
    """Key -> items. Raises Refused unless the rest of the stream is the storages in the order of `keys`."""
    by_key = {storage.key: storage for storage in storages}
    if len(by_key) < len(storages):
        raise pickles.Refused("holds two tensors of one storage")
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(by_key):
        raise pickles.Refused("lists other storages than those of its tensors")
    found = {}
    for key in keys:
        storage = by_key[key]
        counted = stream.read(8)
        if len(counted) == 8 and int.from_bytes(counted, "little", signed=True) != storage.size:
            raise pickles.Refused(f"counts other items than the {storage.size} of storage {ascii(key)[:60]}")
        data = stream.read(storage.size * storage.kind.itemsize)
        if len(counted) < 8 or len(data) < storage.size * storage.kind.itemsize:
            raise pickles.Refused("is not complete (its end is missing)")
        found[key] = np.frombuffer(data, storage.kind)
    if stream.read(1):
        raise pickles.Refused("goes on after its last storage")
    return found
