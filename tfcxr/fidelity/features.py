"""Feature extractors, and their use on generated images and record sets.

An extractor's name says what its features are and of which weights, and ends every metric's name:

    pixels_pca64          64 principal components of the reals' pixels: offline, sees smooth structure only
    texture               co-occurrence, local patterns, gradients, spectrum: no network (texture.py)
    inception             Inception v3 of Keras with its ImageNet weights, pooled, 2048 features (feature_networks.py)
    efficientnet_lite0    EfficientNet-Lite0 with its ImageNet weights (a package), pooled, 1280 features
    inception-1a2b3c4d    the same network with other weights, whose SHA-256 begins so
    resnet50-1a2b3c4d     a classifier of ours, input of its last layer: backbone, and hash of weights and settings
    keras-1a2b3c4d        another Keras classifier, hash of its file or folder
"""

import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from tfcxr import data
from tfcxr.classifiers import choices
from tfcxr.fidelity import feature_networks, texture
from tfcxr.fidelity.extractor import Extractor
from tfcxr.fidelity.feature_names import INCEPTION, PIXELS_PCA, TEXTURE, WITHOUT_PATH
from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.images import pixel_ranges
from tfrecords_builder.progress import progress

_COMPONENTS = 64
_NO_SPREAD = 1e-10
# Components are fitted to at most so many images, and so many pixels (512 MiB as float64; the SVD takes 3 times that).
_FIT_IMAGES = 2000
_FIT_PIXELS = 2**26


class PixelPca(Extractor):
    """Projection of the pixels on the first 64 principal components of a real set, float64.

    The features are those of one real set: figures on other reals are not comparable, though the name is the same.
    Directions that the reals do not have are not seen, so with few reals held-out ones look unlike them: at least some
    hundred are wanted.
    """

    name = PIXELS_PCA

    def __init__(self, resolution: int):
        """`resolution`: side of the images in pixels; decides how many of them a fit takes from a record set."""
        self.num_fit_images = max(2, min(_FIT_IMAGES, _FIT_PIXELS // resolution**2))
        self._resolution = resolution
        self._centre: np.ndarray | None = None
        self._components: np.ndarray | None = None

    def fit(self, images: np.ndarray) -> None:
        """Finds the components of `images`, [N, R, R, 1] in [-1, 1].

        There are fewer than 64 if the images do not vary in so many directions, since further ones would be arbitrary;
        but at least one.
        """
        flat = _flat(images)
        self._centre = flat.mean(axis=0)
        _, spread, components = np.linalg.svd(flat - self._centre, full_matrices=False)
        width = max(1, np.count_nonzero(spread[:_COMPONENTS] > _NO_SPREAD * spread[0]))
        self._components = components[:width].T

    def state(self) -> dict[str, np.ndarray]:
        """Centre [R²] and components [R², F]."""
        if self._centre is None or self._components is None:
            raise ValueError(f"{self.name}: fit comes first")
        return {"centre": self._centre, "components": self._components}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes what `state` gave for images of the same size."""
        if set(state) != {"centre", "components"} or state["centre"].shape != (self._resolution**2,):
            raise ValueError(f"{self.name}: the state is of other images")
        self._centre, self._components = state["centre"], state["components"]

    def _extract(self, images: np.ndarray) -> np.ndarray:
        if self._centre is None:
            raise ValueError(f"{self.name}: fit comes first")
        return (_flat(images) - self._centre) @ self._components


def make_extractor(features: str, *, resolution: int, weights: str | None = None) -> Extractor:
    """Makes the extractor that --features names.

    Args:
        features: pixels_pca64, texture, inception, efficientnet_lite0, a run folder or export of a classifier, or a
            Keras model (.keras, .h5 or SavedModel) of images in [0, 1]. Keras models may hold code: load only those
            you trust.
        resolution: side of the images in pixels.
        weights: of inception: imagenet (default) or an .h5 file.

    Raises:
        InputError: no such features or weights, or ones that do not fit.
    """
    if features == INCEPTION:
        return feature_networks.make_inception(weights or "imagenet", resolution)
    if weights:
        raise InputError(f"--features_weights={weights}: is for --features=inception; leave it out")
    if features == PIXELS_PCA:
        return PixelPca(resolution)
    if features == TEXTURE:
        return texture.Texture()
    if features == choices.EFFICIENTNET_LITE0:
        return feature_networks.make_efficientnet_lite0(resolution)
    path = pathlib.Path(features)
    if not path.exists():
        raise InputError(
            f"--features={features}: must be {', '.join(WITHOUT_PATH)}, or the path of a classifier; nothing is there"
        )
    if (path / "config.json").is_file():
        return feature_networks.make_classifier(path, resolution)
    return feature_networks.make_keras(path, resolution)


def extract(extractor: Extractor, batches: Iterable[np.ndarray], *, total: int, what: str | os.PathLike) -> np.ndarray:
    """Features of images that come in batches; memory: one batch, and the features.

    Args:
        extractor: fitted, if it needs that.
        batches: float [B, R, R, 1] in [-1, 1].
        total: images in all.
        what: the images' name, for progress and messages.

    Returns:
        [total, F].

    Raises:
        RunError: a feature is not finite.
    """
    found: np.ndarray | None = None
    done = 0
    with progress(total, f"{extractor.name} of {what}") as bar:
        for batch in batches:
            features = extractor(batch)
            if not np.isfinite(features).all():
                raise RunError(f"{what}: features {extractor.name} are not finite; the weights are damaged or diverged")
            if found is None:
                found = np.empty([total, features.shape[1]], features.dtype)
            found[done : done + len(features)] = features
            done += len(features)
            bar.update(len(features))
    if found is None or done != total:
        raise RunError(f"{what}: has {done} images, {total} were expected; see verify-records")
    return found


def choose(num_examples: int, num_images: int, seed: int) -> np.ndarray:
    """Positions of `num_images` of `num_examples` images, drawn without replacement: sorted int64."""
    return np.sort(np.random.default_rng(seed).choice(num_examples, num_images, replace=False)).astype(np.int64)


def read_images(
    record_set: data.RecordSet, split: str, positions: np.ndarray, *, batch_size: int = 64
) -> Iterator[np.ndarray]:
    """Some images of a split, in order; others are not decoded.

    Args:
        record_set: what to read.
        split: train, validation or test.
        positions: sorted int64, as of `choose`.
        batch_size: images per batch.

    Yields:
        float32 [B, R, R, 1] in [-1, 1]; the last batch may be smaller.

    Raises:
        RunError: a record is damaged.
    """
    keep = np.zeros(record_set.num_examples(split), bool)
    keep[positions] = True
    kept = tf.constant(keep)

    @tf.autograph.experimental.do_not_convert
    def decode(_, record):
        return pixel_ranges.uint8_to_signed(record_set.decode(record["image/encoded"]))

    numbered = record_set.dataset(split, decode=False).enumerate().filter(lambda i, _: tf.gather(kept, i))
    images = numbered.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    with data.naming_damage(record_set.path):
        yield from images.batch(batch_size).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


def _flat(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images, np.float64)
    return images.reshape(len(images), -1)
