"""Reads pickles of arrays and plain containers without running anything that is in them.

Not a `pickle.Unpickler` with a narrowed `find_class`: that still sets attributes on whatever the names stand for, and
allocates what a length in the file declares. Here the instructions, as `pickletools` lists them, are interpreted, and a
name in the file never becomes a Python object. Sources: the documentation of Python's pickle and pickletools, and what
NumPy's arrays, types and numbers write with protocols 0 to 5.
"""

import dataclasses
import math
import pickletools
import re
import struct
from collections.abc import Collection
from typing import Any, Literal, NamedTuple

import numpy as np

_NDARRAY, _DTYPE = "numpy.ndarray", "numpy.dtype"
_RECONSTRUCT, _SCALAR = "numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar"
_FROM_BUFFER, _ENCODE, _BYTES = "numpy.core.numeric._frombuffer", "_codecs.encode", "builtins.bytes"
_NEW, _OBJECT = "copyreg._reconstructor", "builtins.object"
_ORDERED = "collections.OrderedDict"
_NAMES = {_NDARRAY, _DTYPE, _RECONSTRUCT, _SCALAR, _FROM_BUFFER, _ENCODE, _BYTES, _NEW, _OBJECT, _ORDERED}
# Types of numbers, such as numpy.float32, may stand as values.
_NUMBER_TYPE = re.compile(r"numpy\.(bool_|u?int(8|16|32|64)|float(16|32|64))")
_TYPE_CODE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_MODULES = {"copy_reg": "copyreg", "__builtin__": "builtins"}

_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
# Instructions whose argument is the value.
_ARGUMENTS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_MAX_DIMENSIONS = 32
# Whatever a damaged file makes the interpreter do.
_DAMAGE = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error)


class Refused(ValueError):
    """The pickle holds something else than arrays and plain containers, or is damaged; the message names it."""


@dataclasses.dataclass(eq=False)
class Array:
    """A pickled array; `value` is set by the time the pickle is read."""

    value: np.ndarray | None = None


@dataclasses.dataclass(eq=False)
class Instance:
    """Stands for an object of a known class (`name`, such as 'tfutil.Network') and does nothing but hold its state."""

    name: str
    state: dict[str, Any] = dataclasses.field(default_factory=dict)


class _Global(NamedTuple):
    name: str


@dataclasses.dataclass(eq=False)
class _Type:
    value: np.dtype


def load(data: bytes, *, classes: Collection[str] = (), mappings: Collection[str] = ()) -> Any:
    """The value of a pickle of protocol 0 to 5.

    Args:
      data: the pickle. What is read takes memory in proportion to its length, whatever it declares.
      classes: 'module.Name' of classes whose objects become an `Instance`.
      mappings: the same of classes derived from dict, which become a dict.

    Returns:
      Nested dict, list, tuple, str, bytes, int, float, bool, None, `Array` and `Instance`. Arrays are read-only views
      of bool, integers or floats.

    Raises:
      Refused: any other class, function or kind of array, named; or a damaged file.
    """
    try:
        return _Machine(len(data), frozenset(classes), frozenset(mappings)).run(data)
    except Refused:
        raise
    except _DAMAGE as error:
        raise Refused(f"is no complete pickle ({ascii(str(error))[1:-1][:120]})") from error


class _Machine:
    """The stack, the marks and the memo of one pickle. Handlers are named after the instructions."""

    def __init__(self, size: int, classes: frozenset[str], mappings: frozenset[str]):
        self._classes, self._mappings = classes, mappings | {_ORDERED}
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._budget = size

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name == "STOP":
                return self._stack.pop()
            if name in _VALUES:
                self._stack.append(_VALUES[name])
            elif name in _ARGUMENTS:
                self._stack.append(argument)
            else:
                handler = getattr(self, f"_do_{name.lower()}", None)
                if handler is None:
                    raise Refused(f"holds the instruction {name}, which arrays and plain containers do not need")
                handler(argument)
        raise Refused("is no complete pickle (it has no end)")

    def _spend(self, size: int) -> None:
        # Copies that the file can ask for again and again with a few bytes each.
        self._budget -= size
        if self._budget < 0:
            raise Refused("expands to more than the file holds")

    def _do_proto(self, version):
        if version > 5:
            raise Refused(f"is a pickle of protocol {version}; 0 to 5 can be read")

    def _do_frame(self, _):
        pass

    # Stack and memo.

    def _do_mark(self, _):
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _do_pop(self, _):
        self._stack.pop() if self._stack else self._since_mark()

    def _do_pop_mark(self, _):
        self._since_mark()

    def _do_dup(self, _):
        self._stack.append(self._stack[-1])

    def _do_put(self, index):
        self._memo[index] = self._stack[-1]

    _do_binput = _do_long_binput = _do_put

    def _do_memoize(self, _):
        self._memo[len(self._memo)] = self._stack[-1]

    def _do_get(self, index):
        self._stack.append(self._memo[index])

    _do_binget = _do_long_binget = _do_get

    # Containers.

    def _do_empty_list(self, _):
        self._stack.append([])

    def _do_empty_dict(self, _):
        self._stack.append({})

    def _do_list(self, _):
        items = self._since_mark()
        self._stack.append(items)

    def _do_tuple(self, _):
        items = tuple(self._since_mark())
        self._stack.append(items)

    def _last(self, count: int) -> tuple[Any, ...]:
        return tuple(self._stack.pop() for _ in range(count))[::-1]

    def _do_tuple1(self, _):
        self._stack.append(self._last(1))

    def _do_tuple2(self, _):
        self._stack.append(self._last(2))

    def _do_tuple3(self, _):
        self._stack.append(self._last(3))

    def _do_dict(self, _):
        items = self._since_mark()
        self._stack.append({})
        self._set(items)

    def _do_append(self, _):
        self._extend([self._stack.pop()])

    def _do_appends(self, _):
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise Refused("appends to something that is no list")
        self._stack[-1].extend(items)

    def _do_setitem(self, _):
        self._set(list(self._last(2)))

    def _do_setitems(self, _):
        self._set(self._since_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        # Only keys whose hash is quick: that of tuples within tuples can take forever.
        if type(target) is not dict or not all(type(key) in (str, bytes, int) for key in items[::2]):
            raise Refused("sets items of something that is no dictionary, or by keys that are no texts or numbers")
        target.update(zip(items[::2], items[1::2], strict=True))

    # Names, and what they do here.

    def _do_global(self, argument):
        module, _, name = argument.partition(" ")
        self._push_name(module, name)

    def _do_stack_global(self, _):
        module, name = self._last(2)
        if type(module) is not str or type(name) is not str:
            raise Refused("names a class by something that is no text")
        self._push_name(module, name)

    def _do_inst(self, argument):
        self._do_global(argument)
        raise Refused(f"holds an object of {argument.replace(' ', '.')} in the form of Python 2's oldest classes")

    def _push_name(self, module: str, name: str) -> None:
        plain = _MODULES.get(module, module)
        if plain.startswith("numpy._core."):  # NumPy 2
            plain = "numpy.core." + plain.removeprefix("numpy._core.")
        full = f"{plain}.{name}"
        known = full in _NAMES or full in self._classes or full in self._mappings or _NUMBER_TYPE.fullmatch(full)
        if not known:
            shown = ascii(f"{module}.{name}")[1:-1][:120]
            raise Refused(
                f"refers to {shown} (module {ascii(module)[:60]}, name {ascii(name)[:60]}): only arrays and plain "
                "containers are read, nothing is run"
            )
        self._stack.append(_Global(full))

    def _do_reduce(self, _):
        function, arguments = self._last(2)
        self._stack.append(self._call(function, arguments))

    def _do_newobj(self, _):
        made, arguments = self._last(2)
        name = made.name if isinstance(made, _Global) else None
        if arguments != () or name not in self._classes | self._mappings:
            raise Refused(f"makes a new object of {_show(made)}")
        self._stack.append(Instance(name) if name in self._classes else {})

    def _call(self, function: Any, arguments: Any) -> Any:
        name = function.name if isinstance(function, _Global) else None
        match name, arguments:
            case "numpy.dtype", (str(code), *_) if _TYPE_CODE.fullmatch(code):
                return _Type(np.dtype(code))
            case "numpy.core.multiarray._reconstruct", (_Global("numpy.ndarray"), *_):
                return Array()
            case "numpy.core.multiarray.scalar", (_Type(kind), data):
                return self._array((), kind, "C", data)[()].item()
            case "numpy.core.numeric._frombuffer", (data, _Type(kind), shape, "C" | "F" as order):
                return Array(self._array(shape, kind, "F" if order == "F" else "C", data))
            case "_codecs.encode", (str(text), "latin1" | "latin-1"):
                self._spend(len(text))
                return text.encode("latin-1")
            case "builtins.bytes", ():
                return b""
            case "copyreg._reconstructor", (_Global(made), _Global("builtins.object"), None) if made in self._classes:
                return Instance(made)
            case _, () if name in self._mappings:
                return {}
        raise Refused(f"calls {_show(function)} in a way that arrays and plain containers do not need")

    def _do_build(self, _):
        target, state = self._stack[-2], self._stack.pop()
        match target, state:
            case Instance(), dict():
                target.state = state
            case Array(), (int(), shape, _Type(kind), int(fortran), data):
                target.value = self._array(shape, kind, "F" if fortran else "C", data)
            case _Type(), (int(), "<" | ">" | "=" | "|" as order, None, None, None, *_):
                target.value = target.value.newbyteorder(order)
            case _:
                raise Refused(f"gives {_show(target)} a state that arrays and plain containers do not have")

    def _array(self, shape: Any, kind: np.dtype, order: Literal["C", "F"], data: Any) -> np.ndarray:
        if type(data) is str:  # the bytes of Python 2
            self._spend(len(data))
            data = data.encode("latin-1")
        if type(data) not in (bytes, bytearray):
            raise Refused("holds an array whose values are no bytes")
        sizes = type(shape) is tuple and len(shape) <= _MAX_DIMENSIONS and all(type(n) is int and n >= 0 for n in shape)
        if not sizes or math.prod(shape) * kind.itemsize != len(data):
            # Shown only if it is flat: the text of tuples within tuples can be endless.
            shown = ascii(shape)[:60] if sizes else "of something that is no size"
            raise Refused(f"holds an array of {len(data)} bytes that declares the shape {shown}")
        array = np.frombuffer(data, kind).reshape(shape, order=order)
        array.flags.writeable = False
        return array


def _show(value: Any) -> str:
    return value.name if isinstance(value, _Global) else f"a {type(value).__name__.strip('_').lower()}"
