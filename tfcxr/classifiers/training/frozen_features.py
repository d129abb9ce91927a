"""Features of a frozen network, each image's computed once: all that a head alone needs for its training."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfcxr import data
from tfcxr.classifiers import inference
from tfcxr.classifiers.networks import models
from tfrecords_builder.images import pixel_ranges

_PART = 64


class FrozenFeatures:
    """The features of images by the number of their draw, as evaluation frames them: the centre, flipped or not.

    They are computed in parts that depend on the draws alone: a training that computes them anew after a stop gets the
    same, bit for bit. Memory: 4 bytes for each feature of each image that is drawn, and as much again if it is drawn
    flipped as well.
    """

    def __init__(
        self,
        classifier: models.Classifier,
        record_sets: Sequence[data.RecordSet],
        rows: np.ndarray,
        flipped: np.ndarray,
    ):
        """Computes nothing yet. Raises RunError if a shard cannot be read.

        Args:
            classifier: with the weights that it has while the features are computed.
            record_sets: of one resolution.
            rows: int64 [D], of each draw; rows of the train split of the first set, then those of the next, see
                data.training_rows.
            flipped: bool [D], of each draw.
        """
        for record_set in record_sets:
            record_set.places("train")  # known, or found to be damaged, before the first is read
        self._drawn, self._places = np.unique(2 * rows + flipped, return_inverse=True)
        self._features = np.empty([len(self._drawn), classifier.base.output_shape[-1]], np.float32)
        self._done = 0

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.bool)], autograph=False)
        def compute(rows, flipped):
            images = tf.map_fn(
                lambda serialized: record_sets[0].parse(serialized)["image"],
                data.fetch_examples(record_sets, "train", rows),
                fn_output_signature=tf.uint8,
            )
            images = tf.where(flipped[:, tf.newaxis, tf.newaxis, tf.newaxis], tf.reverse(images, axis=[2]), images)
            return inference.compute_features(classifier, pixel_ranges.uint8_to_unit(images), path="source")

        self._compute = compute

    def compute_part(self) -> bool:
        """Computes the features of a few images; whether there are more to compute.

        Raises tf.errors.OpError if a record is damaged, see data.naming_damage.
        """
        part = slice(self._done, self._done + _PART)
        rows, flipped = np.divmod(self._drawn[part], 2)
        if len(rows):
            self._features[part] = self._compute(rows, flipped.astype(bool)).numpy()
        self._done += len(rows)
        return self._done < len(self._drawn)

    def all(self) -> np.ndarray:
        """The features of each draw, float32 [D, F], when all have been computed."""
        return self._features[self._places]

    def batches(self, draws: np.ndarray, labels: Mapping[str, np.ndarray]) -> tf.data.Dataset:
        """Batches of draws, when all features have been computed.

        Args:
            draws: int64 [N, B], numbers of draws.
            labels: name -> array [D, ...], of each draw.

        Returns:
            Dataset of N dicts of "features" float32 [B, F], and of the labels of these draws.
        """
        with tf.device("CPU:0"):
            features = tf.constant(self._features)
        parts = {"features": self._places[draws], **{name: values[draws] for name, values in labels.items()}}
        batches = tf.data.Dataset.from_tensor_slices(parts)
        return batches.map(lambda batch: {**batch, "features": tf.gather(features, batch["features"])}).prefetch(2)
