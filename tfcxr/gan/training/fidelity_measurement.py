"""Fidelity while a GAN trains: its averaged generator's images, with the labels of real ones, against those.

The figures are those that compare-sets gives of the set which `generate` would make with the same seed and labels:
image i has the latent of (seed, i), and its pixels are rounded to 8 bits, as those of the real images were.
"""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcxr import data
from tfcxr.fidelity import distances, feature_names, feature_statistics, features
from tfcxr.gan import latent_sampling
from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.images import pixel_ranges

_BATCH = 64


class Fidelity:
    """Measures generators against one set of real images.

    Attributes:
        name: of the features, part of every measure's name.
        main: name of the measure that early stopping looks at, `fid/NAME`.
        num_images: generated images per measurement.
    """

    def __init__(
        self,
        record_set: data.RecordSet,
        *,
        features_name: str,
        features_weights: str | None,
        num_images: int,
        labels: Sequence[int],
        latent_size: int,
        seed: int,
        cache_dir: str | os.PathLike,
    ):
        """Computes the real images' statistics, or takes them from `cache_dir`, where an earlier call kept them.

        Args:
            record_set: reals are images of its train split that have one of `labels`.
            features_name, features_weights: see `features.make_extractor`.
            num_images: of each kind.
            labels: indices of the labels that the GAN sees.
            latent_size, seed: of the generated images.
            cache_dir: made if absent.

        Raises:
            InputError: features that cannot be used.
        """
        self._extractor = features.make_extractor(
            features_name, resolution=record_set.info.resolution, weights=features_weights
        )
        vectors = record_set.labels("train")["vector"]
        self.num_images = num_images
        drawn: dict[str, Any] = {"num_images": num_images, "seed": seed, "labels": labels}
        self._reals = feature_statistics.of_reals(self._extractor, record_set, "train", **drawn, cache_dir=cache_dir)
        self._labels = vectors[feature_statistics.positions(record_set, "train", **drawn)]
        self._seed = seed
        self._latents = tf.function(
            lambda numbers: latent_sampling.numbered_latents(seed, numbers, latent_size),
            input_signature=[tf.TensorSpec([None], tf.int64)],
            autograph=False,
        )
        self.name = self._extractor.name
        self.main = feature_names.metric_name("fid", self.name)

    def __call__(self, generate: Callable[[tf.Tensor, np.ndarray], np.ndarray]) -> dict[str, float]:
        """Measures a generator; its latents are the same at every call.

        Args:
            generate: (latents float32 [N, latent_size], labels float32 [N, L]) -> images float [N, R, R, 1], nominally
                in [-1, 1].

        Returns:
            All measures by name, see `feature_statistics.compare`.

        Raises:
            RunError: images or features that are not numbers.
        """
        found = []
        for start in range(0, self.num_images, _BATCH):
            labels = self._labels[start : start + _BATCH]
            images = generate(self._latents(tf.range(start, start + len(labels), dtype=tf.int64)), labels)
            if not np.isfinite(images).all():
                raise RunError("the averaged generator's images are not numbers; go on from an earlier run")
            stored = pixel_ranges.signed_to_uint8(tf.constant(images))
            found.append(self._extractor(pixel_ranges.uint8_to_signed(stored)))
        features_found = np.concatenate(found)
        if not np.isfinite(features_found).all():
            raise RunError(f"features {self.name} of generated images are not finite; choose other --features")
        generated = feature_statistics.Statistics.of(self.name, features_found)
        return feature_statistics.compare(self._reals, generated, seed=self._seed)


def make(record_set: data.RecordSet, *, num_images: int, labels: Sequence[int], **settings) -> Fidelity | None:
    """A `Fidelity` on `num_images` or as many as there are; None, with a warning, where those are too few.

    Raises InputError as `Fidelity`, and for a number that measures nothing.
    """
    least = distances.NEIGHBOURS + 1
    if num_images < least:
        raise InputError(f"--fid_images={num_images}: must be at least {least}")
    there = int(data.has_any(record_set.labels("train")["vector"], labels).sum())
    if there < least:
        logging.warning("%s: %d training images are too few to measure fidelity", record_set.path, there)
        return None
    return Fidelity(record_set, num_images=min(num_images, there), labels=labels, **settings)
