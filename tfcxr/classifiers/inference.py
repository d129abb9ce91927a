"""Running a trained classifier over images: the one way in which training, evaluation, exports and measures do it.

Images of any size are framed as the classifier expects (the centre, or ten crops whose probabilities are averaged) and
go through its backbone and head once.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf
from scipy import special

from tfcxr import data, metrics
from tfcxr.classifiers.networks import models, preprocessing
from tfrecords_builder.errors import RunError
from tfrecords_builder.images import pixel_ranges
from tfrecords_builder.progress import progress


def compute(
    classifier: models.Classifier, images: tf.Tensor, *, path: str, ten_crop: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Features and logits of images of any size; TensorFlow operations, for use in a traced function or a SavedModel.

    Args:
        classifier: the network.
        images: float [N, H, W, 1] in [0, 1].
        path: source or target, of the network's attention and correction.
        ten_crop: average over preprocessing.ten_crops instead of taking the centre.

    Returns:
        Features float32 [N, F], before correction (of ten crops: their mean), and logits float32 [N, K], of which
        `classifier.probabilities` makes probabilities (of ten crops: those that give the mean probabilities).
    """
    size = classifier.config.image_size
    if not ten_crop:
        features = compute_features(classifier, images, path=path)
        return features, classifier.classify(features, path=path)
    crops = preprocessing.NUM_CROPS
    features = classifier.features(preprocessing.ten_crops(images, size, classifier.config.framing), path=path)
    logits = classifier.classify(features, path=path)

    def log_mean(logarithms: tf.Tensor) -> tf.Tensor:
        by_image = tf.reshape(logarithms, [-1, crops, logits.shape[1]])
        return tf.reduce_logsumexp(by_image, axis=1) - math.log(crops)

    if classifier.config.multilabel:
        mean = log_mean(tf.math.log_sigmoid(logits)) - log_mean(tf.math.log_sigmoid(-logits))
    else:
        mean = log_mean(tf.nn.log_softmax(logits))
    return tf.reduce_mean(tf.reshape(features, [-1, crops, features.shape[1]]), axis=1), mean


def compute_features(encoder: models.Encoder, images: tf.Tensor, *, path: str = "target") -> tf.Tensor:
    """Features float32 [N, F] of images as evaluation frames them, as `compute` gives them."""
    config = encoder.config
    return encoder.features(preprocessing.frame(images, config.image_size, config.framing), path=path)


class ImageModel(tf.keras.Model):
    """Keras model of images float [N, H, W, 1] in [0, 1] of any size.

    Images of another shape, such as RGB, of another type or with values outside [0, 1] are an InputError that says what
    is expected, in a call as in `predict` and `predict_on_batch`. While a graph is traced, where values are not known,
    it is a plain ValueError.
    """

    predict_function: Callable | None  # Keras's, of `make_predict_function`

    def __call__(self, inputs, *args, **kwargs):
        """Checks the images, then as any Keras model."""
        pixel_ranges.check_images(inputs, "images", pixel_ranges.UNIT)
        return super().__call__(inputs, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        """As of any Keras model; checks all of an array before it begins."""
        if hasattr(x, "shape"):
            pixel_ranges.check_images(x, "images", pixel_ranges.UNIT)
        return super().predict(x, *args, **kwargs)

    def make_predict_function(self, force: bool = False):
        """What `predict` and `predict_on_batch` do with a batch: check it outside of the graph, then run it."""
        if self.distribute_strategy.num_replicas_in_sync > 1:  # a batch is then not one tensor
            return super().make_predict_function(force)
        if self.predict_function is None or force:
            step = tf.function(self.predict_step, reduce_retracing=True)

            def check_and_run(iterator):
                batch = next(iterator)
                images, _, _ = tf.keras.utils.unpack_x_y_sample_weight(batch)
                pixel_ranges.check_images(images, "images", pixel_ranges.UNIT)
                return step(batch)

            self.predict_function = check_and_run
        return self.predict_function


class FeatureModel(ImageModel):
    """Keras model of images float [N, H, W, 1] in [0, 1] of any size -> pooled features float32 [N, F]."""

    def __init__(self, encoder: models.Encoder):
        """Shares the encoder's weights, without a copy."""
        super().__init__(name=f"{encoder.config.backbone}_features", dtype="float32")
        self.encoder = encoder
        self(tf.zeros([1, encoder.config.image_size, encoder.config.image_size, 1]))

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Features [N, F]; `training` changes nothing."""
        return compute_features(self.encoder, images)

    def get_config(self) -> dict:
        """Settings, for display: `tfcxr.load_encoder` is what rebuilds the model."""
        return dataclasses.asdict(self.encoder.config)


class InferenceModel(ImageModel):
    """A classifier as Keras model: images -> probabilities float32 [N, K].

    Attributes:
        classes: names of the K classes or labels.
        multilabel: whether they are labels, each with a probability of its own.
    """

    def __init__(self, classifier: models.Classifier, path: str = "target", *, ten_crop: bool = False):
        """Shares the classifier's weights, without a copy.

        Args:
            classifier: the network.
            path: source or target.
            ten_crop: whether probabilities are the mean over preprocessing.ten_crops; else they are those of the
                centre.
        """
        super().__init__(name=f"{classifier.config.backbone}_{path}", dtype="float32")
        self.classifier, self.path, self.ten_crop = classifier, path, ten_crop
        self.classes, self.multilabel = classifier.config.classes, classifier.config.multilabel
        self(tf.zeros([1, classifier.config.image_size, classifier.config.image_size, 1]))

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Probabilities [N, K]; `training` changes nothing."""
        _, logits = compute(self.classifier, images, path=self.path, ten_crop=self.ten_crop)
        return self.classifier.probabilities(logits)

    def get_config(self) -> dict:
        """Settings, for display: `tfcxr.load_classifier` is what rebuilds the model."""
        return {**dataclasses.asdict(self.classifier.config), "path": self.path, "ten_crop": self.ten_crop}


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a network gives on one split, in the order of the records.

    Attributes:
        labels: classes int64 [N] (-1: not known), or of a network of labels which each image has, bool [N, K].
        features: float32 [N, F], before correction; of several crops: their mean.
        logits: float32 [N, K], see `compute`.
    """

    labels: np.ndarray
    features: np.ndarray
    logits: np.ndarray

    @property
    def multilabel(self) -> bool:
        """Whether the outputs are labels that do not exclude each other."""
        return self.labels.ndim == 2

    @property
    def probabilities(self) -> np.ndarray:
        """Sigmoid of the logits of labels, softmax of those of classes: float64 [N, K]."""
        logits = self.logits.astype(np.float64)
        return special.expit(logits) if self.multilabel else special.softmax(logits, axis=1)

    @property
    def predictions(self) -> np.ndarray:
        """Most probable class, int64 [N]."""
        return self.logits.argmax(axis=1)

    def cross_entropy(self) -> float:
        """Mean cross entropy with the labels, in nats; of several labels, the mean over them as well."""
        if self.multilabel:
            return float(-special.log_expit(np.where(self.labels, 1, -1) * self.logits.astype(np.float64)).mean())
        logarithms = special.log_softmax(self.logits.astype(np.float64), axis=1)
        return float(-logarithms[np.arange(len(self.labels)), self.labels].mean())

    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have an image; NaN if no image has a label."""
        recalls = metrics.recalls(self.labels, self.predictions, self.logits.shape[1])
        return float(np.mean(recalls[~np.isnan(recalls)])) if (self.labels >= 0).any() else float("nan")


class SplitRunner:
    """Runs a network over a split of a record set, as often as wanted, with one traced function."""

    def __init__(
        self,
        classifier: models.Classifier,
        record_set: data.RecordSet,
        split: str,
        *,
        path: str,
        batch_size: int,
        ten_crop: bool = False,
    ):
        """Makes the function.

        Args:
            classifier: the network.
            record_set: what to run it on.
            split: of the record set.
            path: source or target, of attention and correction.
            batch_size: images or crops at once.
            ten_crop: average the probabilities (and features) over preprocessing.ten_crops instead of taking the
                centre.
        """
        crops = preprocessing.NUM_CROPS if ten_crop else 1
        self._record_set, self._split, self._batch_size = record_set, split, max(1, batch_size // crops)
        index, names = record_set.info.label_set.index, classifier.config.classes
        self._labels = [index[name] for name in names] if classifier.config.multilabel else None

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.uint8)], autograph=False)
        def run(images):
            features, logits = compute(classifier, pixel_ranges.uint8_to_unit(images), path=path, ten_crop=ten_crop)
            return (
                features,
                logits,
                classifier.probabilities(logits),
                classifier.probabilities(logits, calibrated=False),
            )

        self._run = run

    def __call__(self) -> Outputs:
        """Runs over the whole split. Raises RunError if a record is damaged."""
        labels, features, logits = [], [], []
        for batch, f, g, _, _ in self._batches():
            labels.append(self._read_labels(batch))
            features.append(f.numpy())
            logits.append(g.numpy())
        return Outputs(np.concatenate(labels), np.concatenate(features), np.concatenate(logits))

    def probabilities(self, title: str, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Runs over the whole split for the probabilities alone, with a progress bar.

        Args:
            title: of the progress bar.
            where: the network, for the message about an output that is not finite.

        Returns:
            As the network gives them, and as they are without its calibration; the same if it has none. Both float32
            [N, K], in the order of the records.

        Raises:
            RunError: a record is damaged, or a probability is not finite.
        """
        found, plain = [], []
        with progress(self._record_set.num_examples(self._split), title) as bar:
            for _, _, _, probabilities, uncalibrated in self._batches():
                found.append(check_finite(probabilities.numpy(), where))
                plain.append(uncalibrated.numpy())
                bar.update(len(found[-1]))
        return np.concatenate(found), np.concatenate(plain)

    def _read_labels(self, batch: Mapping[str, tf.Tensor]) -> np.ndarray:
        if self._labels is None:
            return batch["class"].numpy()
        return batch["vector"].numpy()[:, self._labels] > 0.5

    def _batches(self) -> Iterator[tuple[Mapping[str, tf.Tensor], tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]]:
        """Each batch of records with its features, logits, and probabilities with and without calibration."""
        with data.naming_damage(self._record_set.path):
            for batch in data.evaluation_batches(self._record_set, self._split, self._batch_size):
                yield batch, *self._run(batch["image"])


def check_finite(probabilities: np.ndarray, where: str) -> np.ndarray:
    """Returns what it gets. Raises RunError, which begins with `where`, if a probability is not finite."""
    if not np.isfinite(probabilities).all():
        raise RunError(f"{where}: the model's output is not finite; its weights are damaged or diverged")
    return probabilities
