"""Reads NumPy's .npz files: whatever is wrong with one is a ValueError, and nothing in it is run."""

import lzma
import math
import os
import struct
import tokenize
import zipfile
import zlib
from typing import IO

import numpy as np

_MAX_BYTES = 16 << 30  # of all arrays together
# Of damaged archives and headers.
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError),
    *(tokenize.TokenError, SyntaxError, LookupError, TypeError, OverflowError, MemoryError),
)


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a file, of numbers, truth values or text, by their names, in the file's order.

    Raises:
        ValueError: the file is damaged, larger than 16 GiB, or holds something else; says what.
        OSError: it cannot be read.
    """
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > _MAX_BYTES:
                raise ValueError(f"expands to more than {_MAX_BYTES >> 30} GiB")
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                with archive.open(entry) as stream:
                    found[name] = _read_array(stream, ascii(name)[:80], entry.file_size)
                    if stream.read(1):
                        raise ValueError(f"{ascii(name)[:80]} is longer than it says")
    except _DAMAGED as error:
        raise ValueError(f"is damaged ({(str(error).splitlines() or [type(error).__name__])[0][:160]})") from error
    return found


def _read_array(stream: IO[bytes], name: str, size: int) -> np.ndarray:
    # NumPy would allocate what the header declares before it looks at how much is there.
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"{name} is in version {version} of the format; 1.0 and 2.0 can be read")
    shape, fortran, kind = read_header[version](stream)
    if kind.kind not in "biufU":
        raise ValueError(f"{name} holds {kind.str!a}, not numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != size - stream.tell():
        raise ValueError(f"{name} declares the shape {ascii(shape)[:60]}, which is not what it holds")
    return np.frombuffer(bytearray(stream.read()), kind).reshape(shape, order="F" if fortran else "C")
