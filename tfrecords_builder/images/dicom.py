"""DICOM files to grey; the only user of pydicom (extra `dicom`), which is imported when the first such file is met.

The steps are those of the standard's grey pipeline (PS3.3, C.11 and C.7.6.3):

1. stored values -> modality LUT, or rescale slope and intercept;
2. -> [0, 1] by the VOI LUT, else by the window (LINEAR, LINEAR_EXACT or SIGMOID), of several the first. A file with
   neither, or whose window has no width, is mapped by its own minimum and maximum;
3. inverted if the photometric interpretation is MONOCHROME1 or the presentation LUT shape INVERSE. Files with both
   are inverted once: the standard demands INVERSE of a MONOCHROME1 radiograph and means the same by it.

Colour (RGB, YBR, palette) is scaled by its depth and becomes grey by the luma of images.py; windows are for grey only.
Pixel padding is black, and does not count for minimum and maximum. Overlays in unused upper bits are taken out; other
overlays and display shutters are left as they are.

Liberties of vendors: a file may lack its preamble and its transfer syntax; an image of one frame may have its window
and rescaling in functional groups; a slope of 0 is none; the first entry of a lookup table may be negative; and a table
that uses less than half of its declared depth ends at its own maximum.
"""

import functools
import io
import logging
import os
import struct
import warnings
from typing import Any

import numpy as np

from tfrecords_builder import errors
from tfrecords_builder.images import headers, image_ops
from tfrecords_builder.images.headers import BadImage

# What `read_header` tells.
HEADER = ("PatientID", "PatientSex", "PatientAge", "ViewPosition")
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_INSTALL = "pip install pylibjpeg pylibjpeg-openjpeg pylibjpeg-libjpeg"
_REASON_LENGTH = 120
_MAX_SIGNED = 2**15 - 1
_GROUPED = frozenset({"RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction"})


def decode(data: bytes, window: tuple[float, float] | None = None) -> np.ndarray:
    """Decodes a radiograph.

    Args:
        data: the bytes of a DICOM file of one frame.
        window: centre and width in the units of the rescaled values (of CT Hounsfield's), instead of the file's own
            tables, windows and inversion. Colour has no units, and stays as it is.

    Returns:
        float32 [H, W] in [0, 1]. A constant image without a window is 0 throughout (1 if it is inverted).

    Raises:
        BadImage: pydicom or the plugin for its compression is not installed; or the file is damaged, holds no image or
            several, or is larger than image_headers.MAX_PIXELS.
    """
    pydicom = _pydicom()
    # pydicom inflates such a file whole before it tells anything of it, and it may have any size then.
    if _DEFLATED in data:
        raise BadImage("is DICOM with a deflated data set, which is not read")
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)  # without a preamble as well
        _complete(dataset)
        _check(dataset)
        return _grey(dataset, window)
    except BadImage:
        raise
    except Exception as error:  # Damaged files make pydicom and its plugins raise almost anything.
        lines = str(error).splitlines() or [""]
        reason = f"{type(error).__name__}: {lines[0]}"[:_REASON_LENGTH]
        raise BadImage(f"is a DICOM file that cannot be decoded ({reason})") from error


def is_installed() -> bool:
    """Whether DICOM files can be read at all."""
    try:
        _pydicom()
    except BadImage:
        return False
    return True


def read_header(path: str | os.PathLike[str]) -> dict[str, str]:
    """PatientID, PatientSex, PatientAge and ViewPosition of a DICOM file, "" where absent; the image is not read.

    Empty if the file cannot be read as DICOM. Raises BadImage if pydicom is not installed.
    """
    pydicom = _pydicom()
    try:
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(HEADER))
        return {name: str(dataset.get(name) or "").strip() for name in HEADER}
    except Exception as error:  # Damaged files make pydicom raise almost anything.
        errors.refuse_few_handles(error, path)
        return {}


@functools.lru_cache(maxsize=1)
def _pydicom() -> Any:
    try:
        import pydicom
        import pydicom.encaps
        import pydicom.pixels
    except ImportError as error:
        raise BadImage("is DICOM; install the extra: pip install tfcxr[dicom]") from error
    # It warns, in both ways, of every oddity of a file; warnings.catch_warnings would be no use, as threads share it.
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    logging.getLogger("pydicom").propagate = False
    return pydicom


def _complete(dataset: Any) -> None:
    """Fills in what files leave out: the transfer syntax, and the values of functional groups of a single frame."""
    uid = _pydicom().uid
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in list(dataset.get(groups) or ())[:1]:
            for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for item in group.get(name) or ():
                    for element in item:
                        if element.keyword in _GROUPED and element.keyword not in dataset:
                            dataset[element.tag] = element


def _check(dataset: Any) -> None:
    """Refuses, before the pixels are touched, what is no single image of acceptable size or cannot be decompressed."""
    if "PixelData" not in dataset or "Rows" not in dataset or "Columns" not in dataset:
        raise BadImage("is DICOM without an image, or truncated")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise BadImage(f"is DICOM with {frames} frames, not one image")
    headers.check_size(dataset.Rows, dataset.Columns)
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        available = _pydicom().pixels.get_decoder(syntax).is_available
    except NotImplementedError as error:
        raise BadImage(f"is DICOM with the transfer syntax {syntax.name}, which pydicom does not decode") from error
    if not available:
        raise BadImage(f"is DICOM with the transfer syntax {syntax.name}; to decode it install: {_INSTALL}")
    if syntax.is_encapsulated:
        _check_frame(next(_pydicom().encaps.generate_frames(dataset.PixelData, number_of_frames=1)), dataset)


def _check_frame(frame: bytes, dataset: Any) -> None:
    """Refuses a compressed image that declares another size than its file: decoders allocate what it declares."""
    if frame.startswith(b"\xff\xd8"):
        size: tuple[int, ...] = headers.jpeg_size(frame)
    elif (start := frame.find(b"\xff\x4f\xff\x51")) >= 0:  # JPEG 2000
        right, lower, left, upper = struct.unpack_from(">4I", frame, start + 8)
        (channels,) = struct.unpack_from(">H", frame, start + 40)
        if channels != dataset.SamplesPerPixel:
            raise BadImage(f"is damaged DICOM: {dataset.SamplesPerPixel} channels declared, {channels} compressed")
        size = (lower - upper, right - left)
    else:
        return  # RLE declares no size.
    if size != (dataset.Rows, dataset.Columns):
        raise BadImage(
            f"is damaged DICOM: {dataset.Columns} x {dataset.Rows} declared, {size[1]} x {size[0]} compressed"
        )


def _grey(dataset: Any, window: tuple[float, float] | None) -> np.ndarray:
    kind = dataset.PhotometricInterpretation
    if dataset.file_meta.TransferSyntaxUID == _pydicom().uid.RLELossless:
        # Eight times slower than pylibjpeg-rle, which ends the program (a panic in Rust) where a file is damaged.
        dataset.pixel_array_options(decoding_plugin="pydicom")
    pixels = _without_overlays(dataset.pixel_array, dataset)  # YBR has become RGB
    if kind == "PALETTE COLOR":
        pixels = _pydicom().pixels.apply_color_lut(pixels, dataset)[..., :3]
        return _luma(pixels, np.iinfo(pixels.dtype).max)
    if pixels.ndim == 3:
        return _luma(pixels, 2**dataset.BitsStored - 1)
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise BadImage(f"is DICOM with the photometric interpretation {kind}, which is not read")
    padding = _find_padding(pixels, dataset)
    values = _modality(pixels, dataset)
    if window:
        centre, width = window
        grey = np.clip((values - np.float32(centre)) / np.float32(width) + np.float32(0.5), 0, 1)
    else:
        grey = _view(values, dataset, padding)
    if not np.isfinite(grey).all():
        raise BadImage("is damaged DICOM: its rescale or window gives no finite numbers")
    # How a viewer shows the file does not matter to a window of its units, in which more is always whiter.
    if not window and (kind == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE"):
        grey = 1 - grey
    if padding is not None:
        grey[padding] = 0
    return grey


def _without_overlays(pixels: np.ndarray, dataset: Any) -> np.ndarray:
    """Clears the unused upper bits of stored values if an overlay lies there."""
    used = dataset.BitsStored
    in_pixels = any(
        element.tag.group >> 8 == 0x60 and element.tag.element == 0x0102 and int(element.value or 0) >= used
        for element in dataset
    )
    if not in_pixels or pixels.dtype.kind != "u":
        return pixels
    return pixels & pixels.dtype.type(2**used - 1)


def _find_padding(pixels: np.ndarray, dataset: Any) -> np.ndarray | None:
    """bool [H, W]: where there is padding; None if there is none, or nothing else."""
    value = dataset.get("PixelPaddingValue")
    if value is None or value == "":
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit in (None, "") else limit)))
    padding = (pixels >= low) & (pixels <= high)
    return padding if padding.any() and not padding.all() else None


def _luma(pixels: np.ndarray, white: int) -> np.ndarray:
    return np.clip(pixels.astype(np.float32) @ np.array(image_ops.LUMA, np.float32) / np.float32(white), 0, 1)


def _modality(pixels: np.ndarray, dataset: Any) -> np.ndarray:
    """Stored values -> the values that windows are given in."""
    if dataset.get("ModalityLUTSequence"):
        return _look_up(pixels, dataset.ModalityLUTSequence[0], dataset)[0]
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    slope = 1.0 if slope is None else float(slope) or 1.0
    return pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept or 0)


def _view(values: np.ndarray, dataset: Any, padding: np.ndarray | None) -> np.ndarray:
    """-> float32 in [0, 1]; of padding any value."""
    if dataset.get("VOILUTSequence"):
        levels, white = _look_up(values, dataset.VOILUTSequence[0], dataset)
        return np.clip(levels / np.float32(white), 0, 1)
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise BadImage(f"is DICOM with the VOI LUT function {function}, which is not read")
    if center is None or width is None or width <= 0 or (function == "LINEAR" and width < 1):
        counted = values if padding is None else values[~padding]
        low, high = float(counted.min()), float(counted.max())
        return np.clip((values - np.float32(low)) / np.float32(high - low if high > low else 1), 0, 1)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - np.float32(center)) / np.float32(width), -80, 80)))
    if function == "LINEAR":  # PS3.3 C.11.2.1.2.1: the window spans width values, so width - 1 steps
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float32)
    return np.clip((values - np.float32(center)) / np.float32(width) + np.float32(0.5), 0, 1)


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value) if isinstance(value, (int, float, str)) else float(value[0])


def _look_up(values: np.ndarray, item: Any, dataset: Any) -> tuple[np.ndarray, int]:
    """Applies a lookup table: float32 of the same shape, and the largest value that the table's depth allows."""
    count, first, bits = (int(value) for value in item.LUTDescriptor)
    count = count or 2**16
    table = item.LUTData
    if isinstance(table, bytes):
        # Tables of 8 bits may hold two entries in each of the 16-bit words of which LUTData consists.
        wide = len(table) >= 2 * count
        order = "<" if dataset.original_encoding[1] else ">"
        table = np.frombuffer(table, f"{order}u2" if wide else "u1")
    table = np.atleast_1d(np.asarray(table))[:count].astype(np.float32)
    if len(table) < count:
        raise BadImage(f"is damaged DICOM: a lookup table of {count} entries has {len(table)}")
    if first > _MAX_SIGNED and values.min() < 0:
        first -= 2**16
    white = 2**bits - 1
    if 0 < table.max() < white / 2:
        white = int(table.max())
    return table[np.clip(np.rint(values.astype(np.float32)) - first, 0, count - 1).astype(np.int32)], white
