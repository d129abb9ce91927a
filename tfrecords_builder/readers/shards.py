"""Reads single records of a shard, at their byte offsets.

A record of a TFRecord file is its length (uint64), the masked CRC-32C of the length (uint32), the data, and the masked
CRC-32C of the data (uint32), little-endian: https://www.tensorflow.org/tutorials/load_data/tfrecord. TensorFlow 2.15
cannot start reading at an offset from Python, hence this module.
"""

import os
import pathlib
import stat
import struct
from typing import Any, BinaryIO

import google_crc32c
import numpy as np

from tfrecords_builder.errors import InputError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


def index_shard(path: str | os.PathLike) -> np.ndarray:
    """Returns the byte offset of each record of a TFRecord file, int64 [n]; reads the headers only.

    Raises InputError if the file cannot be read or is cut off.
    """
    offsets, place = [], 0
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(handle).st_size
            while place < size:
                header = os.pread(handle, _HEADER.size, place)
                offsets.append(place)
                if len(header) == _HEADER.size:
                    place += _HEADER.size + _HEADER.unpack(header)[0] + _FOOTER.size
                if len(header) < _HEADER.size or place > size:
                    raise InputError(f"{path}: is cut off or damaged at byte {offsets[-1]} of {size}")
        finally:
            os.close(handle)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return np.array(offsets, np.int64)


def read_image(path: str | os.PathLike, offset: int = -1) -> bytes:
    """Reads an encoded image.

    Args:
        path: the image file, or the shard that holds it.
        offset: byte offset of the image's record in the shard; -1: the image is the whole file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no regular file, or there is no undamaged record of a tfcxr record set at the offset.
    """
    if offset < 0:
        # Others would be waited for or never end: pipes, devices.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ValueError("is no regular file")
            return stream.read()
    return read_record(path, offset)["image/encoded"]


def read_record(path: str | os.PathLike, offset: int) -> dict[str, Any]:
    """Reads the record of a shard at a byte offset: what `records.read_example` returns.

    Raises OSError and ValueError as `read_image`.
    """
    # Here, as it imports TensorFlow, which reading a table does not need.
    from tfrecords_builder import records

    with pathlib.Path(path).open("rb") as stream:
        data = read_serialized(stream, offset)
    try:
        return records.read_example(data)
    except ValueError as error:
        raise ValueError(f"record at byte {offset}: {error}") from error


def read_serialized(stream: BinaryIO, offset: int) -> bytes:
    """Reads the bytes of the record at an offset of an open shard. Raises ValueError if they are damaged."""
    stream.seek(offset)
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size or _masked_crc(header[:8]) != _HEADER.unpack(header)[1]:
        raise ValueError(f"record at byte {offset}: its length is damaged")
    length = _HEADER.unpack(header)[0]
    data, footer = stream.read(length), stream.read(_FOOTER.size)
    if len(data) < length or len(footer) < _FOOTER.size or _masked_crc(data) != _FOOTER.unpack(footer)[0]:
        raise ValueError(f"record at byte {offset}: its data are damaged (wrong CRC)")
    return data


def _masked_crc(data: bytes) -> int:
    """The CRC as TFRecord stores it."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
