"""Reads single records of a shard, at their byte offsets.

A record of a TFRecord file is its length (uint64), the masked CRC-32C of the length (uint32), the data, and the masked
CRC-32C of the data (uint32), little-endian: https://www.tensorflow.org/tutorials/load_data/tfrecord. TensorFlow 2.15
cannot start reading at an offset from Python, hence the CRC here.
"""

import functools
import os
import pathlib
import stat
import struct
from typing import Any

import numpy as np

from tfrecords_builder.errors import InputError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_POLYNOMIAL = 0x82F63B78  # of CRC-32C, bits reversed


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

    where = f"record at byte {offset}"
    with pathlib.Path(path).open("rb") as stream:
        stream.seek(offset)
        header = stream.read(_HEADER.size)
        if len(header) < _HEADER.size or _masked_crc(header[:8]) != _HEADER.unpack(header)[1]:
            raise ValueError(f"{where}: its length is damaged")
        length = _HEADER.unpack(header)[0]
        data, footer = stream.read(length), stream.read(_FOOTER.size)
    if len(data) < length or len(footer) < _FOOTER.size or _masked_crc(data) != _FOOTER.unpack(footer)[0]:
        raise ValueError(f"{where}: its data are damaged (wrong CRC)")
    try:
        return records.read_example(data)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _masked_crc(data: bytes) -> int:
    """The CRC as TFRecord stores it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C of at least four bytes.

    The CRC of two joined pieces is that of the first, moved past the length of the second, XOR that of the second. So
    bytes are joined to pairs, pairs to fours and so on, each time all at once.
    """
    # Starting with all bits set is the same as starting with none and inverting the first four bytes; then zeros in
    # front change nothing, which lets the length be a power of two.
    parts = np.zeros(1 << (len(data) - 1).bit_length(), np.uint8)
    parts[-len(data) :] = np.frombuffer(data, np.uint8)
    parts[len(parts) - len(data) :][:4] ^= 255
    crcs, level = _shift_tables(0)[0].take(parts), 0
    while len(crcs) > 1:
        crcs = _shift(crcs[0::2], level) ^ crcs[1::2]
        level += 1
    return int(crcs[0]) ^ 0xFFFFFFFF


def _shift(crcs: np.ndarray, level: int) -> np.ndarray:
    """Moves CRCs past 2^level zero bytes."""
    tables = _shift_tables(level)
    result = tables[0].take(crcs & 255)
    for i in (1, 2, 3):
        result ^= tables[i].take(crcs >> (8 * i) & 255)
    return result


@functools.lru_cache(maxsize=64)
def _shift_tables(level: int) -> np.ndarray:
    """uint32 [4, 256]: what each value of each byte of a CRC (lowest first) becomes past 2^level zero bytes."""
    if level:
        return _shift(
            _shift(np.arange(256, dtype=np.uint32) << np.arange(0, 32, 8, dtype=np.uint32)[:, None], level - 1),
            level - 1,
        )
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = table >> 1 ^ np.where(table & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    # Past one byte, the higher bytes move down by one.
    higher = np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16]], np.uint32)
    return np.concatenate([table[None], higher])
