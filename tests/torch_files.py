"""Writes files of named tensors as PyTorch's first format has them; its classes exist only while one is written."""

import contextlib
import io
import pickle
import sys
import types

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
KINDS = {"f4": "FloatStorage", "f8": "DoubleStorage", "i8": "LongStorage"}


@contextlib.contextmanager
def fake_torch():
    """The modules `torch` and `torch._utils`, with no more in them than the names that files refer to."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in KINDS.values():
        setattr(torch, name, type(name, (), {"__module__": "torch", "__qualname__": name}))

    def _rebuild_tensor_v2(*arguments):
        raise AssertionError("is only referred to")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2, torch._utils = _rebuild_tensor_v2, utils
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules |= {"torch": torch, "torch._utils": utils}
    try:
        yield torch
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class Storage:
    """Pickled as a reference to a storage, which PyTorch writes as `identifier`."""

    def __init__(self, kind, key, size, *rest):
        self.kind, self.identifier = kind, (key, "cpu", size, *(rest or (None,)))


class Tensor:
    """Pickled as PyTorch does a tensor: a call of a function that rebuilds it."""

    def __init__(self, storage, offset, shape, strides):
        self.arguments = (storage, offset, shape, strides, False, {})

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            return ("storage", getattr(sys.modules["torch"], KINDS[value.kind]), *value.identifier)
        return None


def pickled(value) -> bytes:
    """A pickle of protocol 2, in which a `Storage` is a reference."""
    stream = io.BytesIO()
    with fake_torch():
        _Pickler(stream, 2).dump(value)
    return stream.getvalue()


def dump(state, items=None, *, magic=MAGIC, protocol=1001, system=SYSTEM, keys=None, counts=None) -> bytes:
    """The bytes of a file.

    Args:
        state: arrays by name; or what stands in the place of the named tensors, if `items` are given.
        items: storage key -> array.
        magic: first pickle.
        protocol: second pickle.
        system: third pickle.
        keys: fifth pickle; default: those of the storages.
        counts: key -> count that is written instead of the true one.
    """
    if items is None:
        items, tensors = {}, {}
        for number, (name, array) in enumerate(state.items()):
            # As PyTorch: the storage in the order of memory, and strides that say how the tensor lies in it.
            key, flat = str(1000 - number), np.asarray(array).ravel(order="K")
            items[key] = flat
            strides = tuple(step // flat.itemsize for step in array.strides)
            tensors[name] = Tensor(Storage(array.dtype.str[1:], key, array.size), 0, array.shape, strides)
        state = tensors
    found = [pickled(part) for part in (magic, protocol, system, state, sorted(items) if keys is None else keys)]
    for key in sorted(items):
        found.append(int((counts or {}).get(key, items[key].size)).to_bytes(8, "little", signed=True))
        found.append(items[key].tobytes())
    return b"".join(found)
