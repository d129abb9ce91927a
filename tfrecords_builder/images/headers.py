"""What an image file says of itself before anything is decoded: its format, its size, and whether that is acceptable.

A file of some kilobytes can declare a picture of many gigabytes, so the size is read from the header and refused there.
"""

import re
import struct
from typing import NamedTuple

import numpy as np

MAX_PIXELS = 50_000_000

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
# An EXIF segment is near the beginning of a JPEG; its orientation is the tag 0x0112, a short, of either byte order.
EXIF = np.frombuffer(b"Exif\0\0", np.uint8)
EXIF_TAGS = np.stack(
    [
        np.frombuffer(b"\x01\x12\0\x03\0\0\0\x01\0\0\0\0", np.uint8),
        np.frombuffer(b"\x12\x01\x03\0\x01\0\0\0\0\0\0\0", np.uint8),
    ]
)
# Which bytes are those of the tag; the others are its value.
EXIF_MASKS = np.array([[True] * 9 + [False, True, True], [True] * 8 + [False] + [True] * 3])
_EXIF_REACH = 2**16
_ORIENTATION = re.compile(
    rb"\x01\x12\0\x03\0\0\0\x01\0([\x01-\x08])\0\0|\x12\x01\x03\0\x01\0\0\0([\x01-\x08])\0\0\0", re.DOTALL
)
# How DICOM without a preamble begins: with its group 0002 or 0008, explicit or implicit, little or big endian.
_DICOM_START = re.compile(rb"[\x02\x08]\0.\0(?:[A-Z]{2}|.\0\0\0)|\0[\x02\x08]\0.(?:[A-Z]{2}|\0\0\0.)", re.DOTALL)
_PNG_GREY = {0: True, 2: False, 3: False, 4: True, 6: False}  # by colour type; 3 is a palette of colours, 4 has alpha
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)
# Those that start a frame and so declare its size; the last is that of JPEG-LS, which occurs in DICOM only.
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_BARE_MARKERS = frozenset(range(0xD0, 0xD8)) | {0x01}  # without a length
_NOT_BEFORE_FRAME = frozenset({0xD8, 0xD9, 0xDA})  # another start, the end, a scan


class BadImage(Exception):
    """A file that is no usable radiograph; its text is the reason, short, one line, without the path."""


class Header(NamedTuple):
    """What a PNG or JPEG declares.

    Attributes:
        height: in pixels.
        width: in pixels.
        grey: whether it has no colour; a palette counts as colour.
        bits: per channel, or per index of a palette.
        orientation: EXIF's, 1 to 8; 1: as stored.
    """

    height: int
    width: int
    grey: bool
    bits: int
    orientation: int = 1


def image_format(data: bytes) -> str:
    """Tells the format from the content.

    Returns:
        "png", "jpeg" or "dicom".

    Raises:
        BadImage: it is none of these.
    """
    if data.startswith(PNG_SIGNATURE):
        return "png"
    if data.startswith(JPEG_SIGNATURE):
        return "jpeg"
    if data[128:132] == b"DICM" or _DICOM_START.match(data):
        return "dicom"
    if not data:
        raise BadImage("is empty")
    raise BadImage(f"is no PNG, JPEG or DICOM file (it starts with {data[:8]!r})")


def read_png(data: bytes) -> Header:
    """Reads the header of a PNG.

    Raises:
        BadImage: it is damaged, or its size is not acceptable.
    """
    try:
        kind, width, height, bits, colour = struct.unpack_from(">4sIIBB", data, 12)
        grey = _PNG_GREY[colour]
    except (struct.error, KeyError):
        kind = b""
    if kind != b"IHDR":
        raise BadImage("is a damaged PNG")
    check_size(height, width)
    return Header(height, width, grey, bits)


def read_jpeg(data: bytes) -> Header:
    """Reads the frame header of a JPEG.

    Raises:
        BadImage: it is damaged, lacks its end, has more than 8 bits, or its size is not acceptable.
    """
    frame = _jpeg_frame(data)
    bits, height, width, channels = struct.unpack_from(">BHHB", data, frame)
    check_size(height, width)
    if bits != 8:
        raise BadImage(f"is a JPEG of {bits} bits; only those of 8 are read")
    # libjpeg refuses it as well, but of some such files it complains on stderr, too.
    if data.rfind(b"\xff\xd9") < frame:
        raise BadImage("is a truncated JPEG")
    return Header(height, width, channels == 1, bits, find_orientation(data))


def find_orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG, 1 to 8; 1 where it has none."""
    start = data.find(EXIF.tobytes(), 0, _EXIF_REACH)
    found = _ORIENTATION.search(data, start, _EXIF_REACH) if start >= 0 else None
    return max(found[1] or found[2]) if found else 1


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width that a JPEG of any process declares, unchecked.

    Raises:
        BadImage: it is damaged.
    """
    height, width = struct.unpack_from(">HH", data, _jpeg_frame(data) + 1)
    return height, width


def check_size(height: int, width: int) -> None:
    """Checks a declared size.

    Raises:
        BadImage: no pixels, or more than MAX_PIXELS.
    """
    if height < 1 or width < 1:
        raise BadImage(f"has no pixels: declares {width} x {height}")
    if height * width > MAX_PIXELS:
        raise BadImage(f"is too large: declares {width} x {height} pixels, the limit is {MAX_PIXELS:,} in all")


def _jpeg_frame(data: bytes) -> int:
    """Where the content of a JPEG's frame header starts; at least its 6 fixed bytes are there."""
    position = 2
    # As libjpeg does, bytes between two segments are passed over.
    while found := _JPEG_MARKER.search(data, position):
        marker, position = found[1][0], found.end()
        if marker in _BARE_MARKERS:
            continue
        if marker in _NOT_BEFORE_FRAME or position + 8 > len(data):
            break
        if marker in _FRAME_MARKERS:
            return position + 2
        position += max(2, int.from_bytes(data[position : position + 2], "big"))
    raise BadImage("is a damaged or truncated JPEG")
