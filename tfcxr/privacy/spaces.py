"""Feature spaces in which images are near to each other or not.

Distances are Euclidean. Features of networks are scaled to length 1 first, so that the order is that of the cosine
distance, which is half the squared Euclidean one.
"""

import itertools
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tfcxr import data
from tfcxr.fidelity import features
from tfcxr.fidelity.extractor import Extractor
from tfcxr.fidelity.feature_names import PIXELS, PIXELS_PCA, WITHOUT_FIT
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import image_ops, pixel_ranges

PIXELS_SIDE = 64


class Pixels(Extractor):
    """The grey values themselves, float32; of images with more than 64 px on a side, shrunk to that."""

    def __init__(self, resolution: int):
        """`resolution`: side of the images in pixels."""
        self.side = min(resolution, PIXELS_SIDE)
        self.name = PIXELS if self.side == resolution else f"{PIXELS}_at_{self.side}px"

    def _extract(self, images: np.ndarray) -> np.ndarray:
        pixels = tf.constant(images, tf.float32)
        if pixels.shape[1] != self.side:
            pixels = image_ops.resize(pixels, self.side, self.side)
        return pixels.numpy().reshape(len(images), -1)


class Normalised(Extractor):
    """Another extractor's features, scaled to length 1."""

    def __init__(self, extractor: Extractor):
        """`extractor`: whose features."""
        self._extractor = extractor
        self.name, self.num_fit_images = extractor.name, extractor.num_fit_images

    def _extract(self, images: np.ndarray) -> np.ndarray:
        return normalise(self._extractor(images))


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Vectors [N, D] scaled to length 1; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


def make_extractor(name: str, *, resolution: int, weights: str | None = None) -> Extractor:
    """Makes the extractor that --features names: `pixels`, or one of features.make_extractor, scaled to length 1.

    Raises InputError as features.make_extractor, and for pixels_pca64, which has to be fitted to one set.
    """
    if name == PIXELS_PCA:
        raise InputError(f"--features={name}: is fitted to one set of images, and loses details; take {PIXELS}")
    if name == PIXELS and not weights:
        return Pixels(resolution)
    if name not in WITHOUT_FIT and not pathlib.Path(name).exists():
        words = ", ".join(WITHOUT_FIT)
        raise InputError(f"--features={name}: must be {words}, or the path of a classifier; nothing is there")
    return Normalised(features.make_extractor(name, resolution=resolution, weights=weights))


def extract_blocks(
    extractor: Extractor,
    record_set: data.RecordSet,
    split: str,
    positions: np.ndarray,
    *,
    batch_size: int = 64,
    block_rows: int = 4096,
) -> Iterator[np.ndarray]:
    """Features of some images of a split, in order, in blocks of about `block_rows`: float32 [B, F].

    Raises RunError for damaged records and features that are not finite.
    """
    batches = features.read_images(record_set, split, positions, batch_size=batch_size)
    total = len(positions)
    block_rows = -(-block_rows // batch_size) * batch_size
    for start in range(0, total, block_rows):
        number = min(block_rows, total - start)
        block = itertools.islice(batches, -(-number // batch_size))
        yield features.extract(extractor, block, total=number, what=record_set.path).astype(np.float32)


def extract(
    extractor: Extractor, record_set: data.RecordSet, split: str, positions: np.ndarray, *, batch_size: int = 64
) -> np.ndarray:
    """Features of some images of a split, in order: float32 [N, F]; errors as of `extract_blocks`."""
    blocks = extract_blocks(
        extractor, record_set, split, positions, batch_size=batch_size, block_rows=len(positions) or 1
    )
    return next(blocks)


def read_pictures(record_set: data.RecordSet, split: str, positions: np.ndarray) -> dict[int, np.ndarray]:
    """Images by their positions in a split: {position: uint8 [R, R, 1]}."""
    wanted = np.unique(positions)
    batches = features.read_images(record_set, split, wanted)
    images = (pixel_ranges.signed_to_uint8(batch).numpy() for batch in batches)
    return dict(zip(wanted.tolist(), itertools.chain.from_iterable(images), strict=True))
