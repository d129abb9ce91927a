"""From the bytes of a radiograph's file to the picture of its record: decode, contrast, aspect, resize, 8-bit grey PNG.

Formats, told apart by content and not by name: PNG of every colour type and depth, JPEG of 8 bits, DICOM (dicom.py).
Colour becomes grey by the luma of ITU-R BT.601 (images.py), rounded to 8 bits for files of 8 bits; alpha is ignored.
A JPEG is turned as its EXIF orientation says.
16-bit PNG and DICOM keep their precision and are rounded once, at the end.

Contrast is set on the whole image at the file's size:

- none: as stored; white is 255 of 8 bits, 65535 of 16 bits, the upper end of the window of DICOM.
- max: divided by the image's maximum, so that the brightest pixel becomes white; a black image stays black.
- brain, subdural, bone: of CT in DICOM, the window of that name (`choices.CT_WINDOWS`) of Hounsfield units, linear and
  clipped outside, whatever window the file proposes. PNG and JPEG have lost these units: as stored, windowed already.
- percentile: the 0.5th percentile becomes 0 and the 99.5th white, linearly between them, clipped outside. An image
  whose two percentiles are equal, as those of a constant image are, stays as it is.

The brightest pixel is that of the file: the resize averages it with its neighbours, so the record may stay below 255.

Aspect says how an oblong image becomes square:

- stretch: both sides are resized on their own.
- pad: the longer side fills the picture, the shorter follows in proportion, centred between black (0).
- crop: the centred square of the shorter side.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfrecords_builder import choices
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import dicom, headers, image_ops, pixel_ranges
from tfrecords_builder.images.headers import MAX_PIXELS, BadImage

__all__ = [
    "MAX_PIXELS",
    "BadImage",
    "PictureEncoder",
    "PictureOptions",
    "count_used_bits",
    "find_differences",
    "fit",
    "read_grey",
    "shown_part",
]


_PERCENTILES = (0.5, 99.5)


@dataclasses.dataclass(frozen=True)
class PictureOptions:
    """How a picture is made.

    Attributes:
        resolution: height and width of the picture in pixels.
        aspect: one of `choices.ASPECTS`.
        contrast: one of `choices.CONTRASTS`, or of CT one of `choices.CT_WINDOWS`.

    Raises:
        InputError: a value that is none of these.
    """

    resolution: int
    aspect: str = "stretch"
    contrast: str = "none"

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise InputError(f"--resolution={self.resolution}: must be at least 1 pixel")
        if self.aspect not in choices.ASPECTS:
            raise InputError(f"--aspect={self.aspect}: must be one of {', '.join(choices.ASPECTS)}")
        known = (*choices.CONTRASTS, *choices.CT_WINDOWS)
        if self.contrast not in known:
            raise InputError(f"--contrast={self.contrast}: must be one of {', '.join(known)}")


class PictureEncoder:
    """Makes the pictures of records. Threads may share one; processes make their own, as it cannot be pickled."""

    def __init__(self, options: PictureOptions):
        self._options = options
        self._graphs: dict[Any, Callable[..., tf.Tensor]] = {}
        self._lock = threading.Lock()

    def encode(self, data: bytes) -> bytes:
        """Makes one picture.

        Args:
            data: the bytes of a PNG, JPEG or DICOM file.

        Returns:
            An 8-bit grey PNG of resolution x resolution.

        Raises:
            BadImage: the bytes are no usable radiograph.
        """
        kind, header = _read_header(data)
        if header and header.bits <= 8 and header.orientation == 1:
            with _refusing(kind):
                return self._direct(kind, header.grey)(tf.constant(data)).numpy()
        grey, white = _decode(data, kind, header, self._options.contrast)
        return self._from_float()(tf.constant(grey / np.float32(white))).numpy()

    def _direct(self, kind: str, grey: bool) -> Callable[..., tf.Tensor]:
        """The usual files, of 8 bits, take one call; Python would hold up other threads."""
        decode = _DECODERS[kind, grey]

        # Not a lambda with decode as a default: a concrete function of such a one takes 5 ms more for each call.
        def picture(data: tf.Tensor) -> tf.Tensor:
            return image_ops.encode_png(fit(decode(data), 255.0, self._options))

        return self._graph((kind, grey), picture, tf.TensorSpec([], tf.string))

    def _from_float(self) -> Callable[..., tf.Tensor]:
        """Pictures of grey float32 [H, W, 1] in [0, 1]."""

        def picture(grey: tf.Tensor) -> tf.Tensor:
            return image_ops.encode_png(fit(grey, 1.0, self._options))

        return self._graph("float", picture, tf.TensorSpec([None, None, 1], tf.float32))

    def _graph(
        self, key: Any, function: Callable[..., tf.Tensor], *signature: tf.TensorSpec
    ) -> Callable[..., tf.Tensor]:
        """The graph called `key`, made when it is first needed: each takes longer than several images."""
        with self._lock:
            if key not in self._graphs:
                traced = tf.function(function, input_signature=signature, autograph=False)
                self._graphs[key] = traced.get_concrete_function()
            return self._graphs[key]


def fit(grey: tf.Tensor, white: float, options: PictureOptions) -> tf.Tensor:
    """What a record holds of a decoded image: contrast, aspect, size and 8 bits, as TensorFlow ops (also for exports).

    Args:
        grey: [H, W, 1] at the file's size, uint8 or float32.
        white: the value of white.
        options: how.

    Returns:
        uint8 [resolution, resolution, 1].
    """
    low, high = 0.0, white
    if options.contrast == "max":
        brightest = tf.cast(tf.reduce_max(grey), tf.float32)
        high = tf.where(brightest > 0, brightest, white)
    elif options.contrast == "percentile":
        grey = tf.cast(grey, tf.float32)
        lower, upper = _percentiles(tf.reshape(grey, [-1]))
        low, high = tf.where(upper > lower, lower, 0.0), tf.where(upper > lower, upper, white)
        grey = tf.clip_by_value(grey, low, high)
    side, size = options.resolution, tf.shape(grey)[:2]
    height = width = side
    if options.aspect == "crop":
        shorter = tf.reduce_min(size)
        top, left = tf.unstack((size - shorter) // 2)
        grey = grey[top : top + shorter, left : left + shorter]
    elif options.aspect == "pad":
        longer = tf.reduce_max(size)
        height, width = tf.unstack(tf.maximum(1, (2 * side * size + longer) // (2 * longer)))
    picture = pixel_ranges.round_to_uint8((image_ops.resize(grey, height, width) - low) * (255.0 / (high - low)))
    if options.aspect == "pad":
        picture = tf.image.pad_to_bounding_box(picture, (side - height) // 2, (side - width) // 2, side, side)
    return picture


def find_differences(one: Any, other: Any) -> list[tuple[str, str, str]]:
    """(setting, its value in `one`, in `other`) of the settings in which two differ; an empty one, not known, does not.

    Args:
        one, other: anything with `aspect` and `contrast`, such as the info of a record set.
    """
    pairs = [(name, getattr(one, name), getattr(other, name)) for name in ("aspect", "contrast")]
    return [(name, a, b) for name, a, b in pairs if a and b and a != b]


def shown_part(height: int, width: int, aspect: str) -> tuple[float, float, float, float]:
    """Which part of an image of this size its picture shows: left, right, top, bottom in pixels of the image.

    Of a padded image it is larger than the image.
    """
    if aspect == "stretch":
        return 0.0, width, 0.0, height
    side = max(height, width) if aspect == "pad" else min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return left, left + side, top, top + side


def _percentiles(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The percentiles of _PERCENTILES of float32 [N], interpolated linearly as numpy.percentile does."""
    last = tf.cast(tf.size(values) - 1, tf.float64)

    def between(ordered: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        first = tf.cast(place, tf.int32)
        pair = tf.cast(tf.gather(ordered, [first, tf.minimum(first + 1, tf.size(ordered) - 1)]), tf.float64)
        return tf.cast(pair[0] + (pair[1] - pair[0]) * (place - tf.floor(place)), tf.float32)

    low, high = (share / 100 * last for share in (_PERCENTILES[0], 100 - _PERCENTILES[1]))
    # Only the ends of the order are needed: several times as fast as sorting.
    ends = [tf.minimum(tf.cast(place, tf.int32) + 2, tf.size(values)) for place in (low, high)]
    return between(-tf.math.top_k(-values, ends[0]).values, low), between(tf.math.top_k(values, ends[1]).values, high)


def read_grey(data: bytes, contrast: str = "none") -> np.ndarray:
    """Decodes a radiograph's file to grey at its own size.

    Args:
        data: the bytes of a PNG, JPEG or DICOM file.
        contrast: as of PictureOptions; only windows of CT are applied here, since they need the file's units.

    Returns:
        float32 [H, W] in [0, 1].

    Raises:
        BadImage: the bytes are no usable radiograph.
    """
    grey, white = _decode(data, *_read_header(data), contrast)
    return grey[..., 0] / np.float32(white)


def count_used_bits(data: bytes) -> int | None:
    """How many of its 16 bits a PNG uses: the place of the highest one that is set; None of any other file."""
    try:
        kind, header = _read_header(data)
        if kind != "png" or header is None or header.bits != 16:
            return None
        with _refusing(kind):
            return int(tf.reduce_max(tf.io.decode_png(data, dtype=tf.uint16)).numpy()).bit_length()
    except BadImage:
        return None


# uint8 [H, W, 1] of a file of at most 8 bits, by format and whether it is grey. The channels are given because without
# them a graph holds the ways for grey and for colour and chooses for each image.
_DECODERS: dict[tuple[str, bool], Callable[[tf.Tensor], tf.Tensor]] = {
    ("png", True): lambda data: tf.io.decode_png(data, channels=1),
    ("png", False): lambda data: image_ops.luma(tf.io.decode_png(data, channels=3)),
    ("jpeg", True): lambda data: tf.io.decode_jpeg(data, channels=1),
    ("jpeg", False): lambda data: image_ops.luma(tf.io.decode_jpeg(data, channels=3)),
}


def _read_header(data: bytes) -> tuple[str, headers.Header | None]:
    """Format and header; dicom.py reads that of DICOM."""
    kind = headers.image_format(data)
    if kind == "dicom":
        return kind, None
    return kind, headers.read_png(data) if kind == "png" else headers.read_jpeg(data)


def _decode(data: bytes, kind: str, header: headers.Header | None, contrast: str) -> tuple[np.ndarray, float]:
    """Grey [H, W, 1], uint8 or float32, and the value of white."""
    if header is None:
        return dicom.decode(data, choices.CT_WINDOWS.get(contrast))[..., np.newaxis], 1.0
    with _refusing(kind):
        if header.bits <= 8:
            grey = _DECODERS[kind, header.grey](tf.constant(data))
            return (grey if header.orientation == 1 else image_ops.orient(grey, header.orientation)).numpy(), 255.0
        pixels = tf.io.decode_png(data, channels=1 if header.grey else 3, dtype=tf.uint16).numpy().astype(np.float32)
    if not header.grey:
        pixels = pixels @ np.array(image_ops.LUMA, np.float32)[:, np.newaxis]
    return np.minimum(pixels / np.float32(65535), np.float32(1)), 1.0


@contextlib.contextmanager
def _refusing(kind: str) -> Iterator[None]:
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        raise BadImage(f"is a damaged or truncated {kind.upper()}") from error
