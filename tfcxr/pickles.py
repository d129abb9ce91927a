"""Reads pickles of arrays and plain containers without running anything that is in them.

Python's own unpickler with an allow-list: of names (`find_class`, whose answers do nothing but what is written here)
and of instructions. It is the one that is written in Python, `pickle._Unpickler`, not the one in C, which a few bytes
can make allocate what they declare (BINBYTES8, LONG_BINPUT) or hash tuples within tuples for ever, with nothing that
could be overridden. Sources: the documentation of Python's pickle and pickletools, and what NumPy's arrays, types and
numbers write with protocols 0 to 5.
"""

import dataclasses
import io
import math
import pickle
import pickletools
import re
import struct
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, Literal

import numpy as np

_NAMES = frozenset({
    "numpy.ndarray", "numpy.dtype", "numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar",
    "numpy.core.numeric._frombuffer", "_codecs.encode", "builtins.bytes", "copyreg._reconstructor", "builtins.object",
})  # fmt: skip
_ORDERED = "collections.OrderedDict"
# Types of numbers, such as numpy.float32, may stand as values.
_NUMBER_TYPE = re.compile(r"numpy\.(bool_|u?int(8|16|32|64)|float(16|32|64))")
_TYPE_CODE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_MODULES = {"copy_reg": "copyreg", "__builtin__": "builtins"}

# What arrays and plain containers are written with. Not among them: other processes' objects (PERSID, EXT, buffers),
# Python 2's oldest classes (INST, OBJ) and sets.
_INSTRUCTIONS = {
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT"),
    *("BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
    *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD"),
    "BINPERSID",  # see `refer`
}
MAX_DIMENSIONS = 32


class Refused(ValueError):
    """The pickle holds something else than arrays and plain containers, or is damaged; the message names it."""


# Whatever a damaged file makes the unpickler do.
_DAMAGE = (
    *(ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, EOFError),
    *(struct.error, pickle.UnpicklingError),
)


@dataclasses.dataclass(eq=False)
class Array:
    """A pickled array; `value` is set by the time the pickle is read."""

    value: np.ndarray | None = None


@dataclasses.dataclass(eq=False)
class Instance:
    """Stands for an object of a known class (`name`, such as 'tfutil.Network') and does nothing but hold its state."""

    name: str
    state: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(eq=False)
class _Type:
    value: np.dtype


@dataclasses.dataclass(eq=False)
class Name:
    """Stands for a class or function of the allow-list; calling it does what `_Reader.call` says of that name."""

    name: str
    reader: "_Reader" = dataclasses.field(repr=False)

    def __call__(self, *arguments: Any) -> Any:
        """What the allow-list says of such a call. Raises Refused."""
        return self.reader.call(self.name, arguments)


def load(data: bytes, *, classes: Collection[str] = (), mappings: Collection[str] = ()) -> Any:
    """The value of a pickle of protocol 0 to 5; arguments, value and errors as of `load_next`."""
    return load_next(io.BytesIO(data), classes=classes, mappings=mappings)


def load_next(
    stream: io.BytesIO,
    *,
    classes: Collection[str] = (),
    mappings: Collection[str] = (),
    calls: Mapping[str, Callable[..., Any]] | None = None,
    refer: Callable[[Any], Any] | None = None,
) -> Any:
    """The value of the pickle at which a stream stands; leaves the stream after it.

    Args:
        stream: what is read takes memory in proportion to its length, whatever it declares.
        classes: 'module.Name' of classes whose objects become an `Instance`; the class itself is a `Name`.
        mappings: the same of classes derived from dict, which become a dict.
        calls: 'module.name' of further functions, and what is called in the place of each.
        refer: gives the value of a persistent identifier, of which formats with pickles in them make use.

    Returns:
        Nested dict, list, tuple, str, bytes, int, float, bool, None, `Array`, `Instance`, `Name`, and what `calls` and
        `refer` gave. Arrays are read-only views of bool, integers or floats.

    Raises:
        Refused: any other class, function or kind of array, named; or a damaged file.
    """
    try:
        return _Reader(stream, frozenset(classes), frozenset(mappings), calls or {}, refer).load()
    except Refused:
        raise
    except _DAMAGE as error:
        raise Refused(f"is no complete pickle ({ascii(str(error))[1:-1][:120]})") from error


class _Reader(pickle._Unpickler):
    """The unpickler, of one pickle; its stack is `self.stack`, an instruction's method `load_<name>`."""

    # What Python's type stubs do not tell of it: the stack, the items since the last mark, and the next bytes.
    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]]

    def __init__(
        self,
        stream: io.BytesIO,
        classes: frozenset[str],
        mappings: frozenset[str],
        calls: Mapping[str, Callable[..., Any]],
        refer: Callable[[Any], Any] | None,
    ):
        super().__init__(stream, encoding="latin-1")
        self._classes, self._mappings, self._calls, self._refer = classes, mappings | {_ORDERED}, calls, refer
        self._budget = stream.getbuffer().nbytes

    def find_class(self, module: str, name: str) -> Name:
        """Refuses all but the names of the allow-list, whichever Python or NumPy wrote them."""
        plain = _MODULES.get(module, module)
        if plain.startswith("numpy._core."):  # NumPy 2
            plain = "numpy.core." + plain.removeprefix("numpy._core.")
        full = f"{plain}.{name}"
        if not (full in _NAMES | self._classes | self._mappings | self._calls.keys() or _NUMBER_TYPE.fullmatch(full)):
            shown = ascii(f"{module}.{name}")[1:-1][:120]
            raise Refused(
                f"refers to {shown} (module {ascii(module)[:60]}, name {ascii(name)[:60]}): only arrays and plain "
                "containers are read, nothing is run"
            )
        return Name(full, self)

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """The value of a call of a name of the allow-list."""
        match name, arguments:
            case "numpy.dtype", (str(code), *_) if _TYPE_CODE.fullmatch(code):
                return _Type(np.dtype(code))
            case "numpy.core.multiarray._reconstruct", (Name("numpy.ndarray"), *_):
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
            case "copyreg._reconstructor", (Name(made), Name("builtins.object"), None) if made in self._classes:
                return Instance(made)
            case _, () if name in self._mappings:
                return {}
            case _ if name in self._calls:
                return self._calls[name](*arguments)
        raise Refused(f"calls {name} in a way that arrays and plain containers do not need")

    def persistent_load(self, pid: Any) -> Any:
        if self._refer is None:
            raise Refused("refers to an object outside of the pickle")
        return self._refer(pid)

    def load_proto(self) -> None:
        (version,) = self.read(1)
        if version > 5:
            raise Refused(f"is a pickle of protocol {version}; 0 to 5 can be read")

    def load_newobj(self) -> None:
        arguments, made = self.stack.pop(), self.stack.pop()
        name = made.name if isinstance(made, Name) else None
        if arguments != () or name not in self._classes | self._mappings:
            raise Refused(f"makes a new object of {_show(made)}")
        self.stack.append(Instance(name) if name in self._classes else {})

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        match target, state:
            case Instance(), dict():
                target.state = state
            case dict(), dict():
                pass  # attributes of a class derived from dict
            case Array(), (int(), shape, _Type(kind), int(fortran), data):
                target.value = self._array(shape, kind, "F" if fortran else "C", data)
            case _Type(), (int(), "<" | ">" | "=" | "|" as order, None, None, None, *_):
                target.value = target.value.newbyteorder(order)
            case _:
                raise Refused(f"gives {_show(target)} a state that arrays and plain containers do not have")

    # Dictionaries, with keys whose hash is quick: that of tuples within tuples can take forever.

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self._set(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or not all(type(key) in (str, bytes, int) for key in items[::2]):
            raise Refused("sets items of something that is no dictionary, or by keys that are no texts or numbers")
        target.update(zip(items[::2], items[1::2], strict=True))

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise Refused("appends to something that is no list")
        self.stack[-1].extend(items)

    # What takes memory.

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        # `read` gives what is there; Python's own method allocates what is declared.
        self.stack.append(bytearray(self.read(size)))
        if len(self.stack[-1]) != size:
            raise Refused("is no complete pickle (its end is missing)")

    def _spend(self, size: int) -> None:
        # Copies that the file can ask for again and again with a few bytes each.
        self._budget -= size
        if self._budget < 0:
            raise Refused("expands to more than the file holds")

    def _array(self, shape: Any, kind: np.dtype, order: Literal["C", "F"], data: Any) -> np.ndarray:
        if type(data) is str:  # the bytes of Python 2
            self._spend(len(data))
            data = data.encode("latin-1")
        if type(data) not in (bytes, bytearray):
            raise Refused("holds an array whose values are no bytes")
        sizes = type(shape) is tuple and len(shape) <= MAX_DIMENSIONS and all(type(n) is int and n >= 0 for n in shape)
        if not sizes or math.prod(shape) * kind.itemsize != len(data):
            # Shown only if it is flat: the text of tuples within tuples can be endless.
            shown = ascii(shape)[:60] if sizes else "of something that is no size"
            raise Refused(f"holds an array of {len(data)} bytes that declares the shape {shown}")
        array = np.frombuffer(data, kind).reshape(shape, order=order)
        array.flags.writeable = False
        return array


def _refusal(instruction: str) -> Callable[[_Reader], None]:
    def refuse(_: _Reader) -> None:
        raise Refused(f"holds the instruction {instruction}, which arrays and plain containers do not need")

    return refuse


# The unpickler looks up here which function does an instruction: ours if there is one of that name, else Python's.
_Reader.dispatch = {
    ord(opcode.code): getattr(_Reader, pickle._Unpickler.dispatch[ord(opcode.code)].__name__)  # type: ignore[attr-defined]
    if opcode.name in _INSTRUCTIONS
    else _refusal(opcode.name)
    for opcode in pickletools.opcodes
}


def _show(value: Any) -> str:
    return value.name if isinstance(value, Name) else f"a {type(value).__name__.strip('_').lower()}"
