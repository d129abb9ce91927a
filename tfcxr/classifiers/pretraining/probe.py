"""A linear probe: how well labels can be read from the features of a network that has not been trained on them."""

import numpy as np
import tensorflow as tf
import threadpoolctl
from sklearn import linear_model, preprocessing

from tfcxr import data, metrics
from tfcxr.classifiers import inference
from tfcxr.classifiers.networks import models
from tfrecords_builder.images import pixel_ranges

_BATCH = 64
# scikit-learn's C, of features with variance 1: there are hundreds of them for some thousand images.
_C = 0.01
_ITERATIONS = 500
_LEAST = 5  # images with, and without, a label in both folds
_SEED = 977  # which images: those of one set are the same in every run


class LinearProbe:
    """Logistic regression on pooled features of the train split, tested on the validation split.

    Attributes:
        names: of what is tested: the label of two classes, each of several classes, or the labels of a multilabel set
            that both folds have often enough; empty if the records do not have the labels for any.
    """

    def __init__(self, encoder: models.Encoder, record_set: data.RecordSet, num_images: int):
        """Chooses images and labels; `num_images`: of each fold, at most."""
        self._record_set = record_set
        self._rows: dict[str, np.ndarray] = {}
        self._truths: dict[str, np.ndarray] = {}
        self.names: tuple[str, ...] = ()
        if {"train", "validation"} <= record_set.info.splits.keys():
            for split in ("train", "validation"):
                self._choose(split, num_images)
            enough = [_is_enough(self._truths["train"][:, k]) and _is_enough(self._truths["validation"][:, k])
                      for k in range(len(self._all_names))]  # fmt: skip
            self._columns = np.flatnonzero(enough)
            self.names = tuple(self._all_names[k] for k in self._columns)

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.uint8)], autograph=False)
        def compute(images):
            return inference.compute_features(encoder, pixel_ranges.uint8_to_unit(images))

        self._compute = compute

    @property
    def _all_names(self) -> tuple[str, ...]:
        classes = self._record_set.info.classes
        return (classes[1:] if len(classes) == 2 else classes) or self._record_set.info.labels

    def _choose(self, split: str, num_images: int) -> None:
        labels = self._record_set.labels(split)
        classes = len(self._record_set.info.classes)
        labelled = np.flatnonzero(labels["class"] >= 0) if classes else np.arange(len(labels["class"]))
        rows = np.random.default_rng(_SEED).permutation(labelled)[:num_images]
        keep = np.zeros(len(labels["class"]), bool)
        keep[rows] = True
        truths = labels["vector"] > 0
        if classes:
            truths = labels["class"][:, None] == np.arange(1 if classes == 2 else 0, classes)
        self._rows[split], self._truths[split] = keep, truths[keep]

    def __call__(self) -> dict[str, float | None]:
        """AUC on the validation images: `probe/auc/<name>`, and their mean as `probe/auc`.

        Raises RunError if a record is damaged.
        """
        features = {split: self._features(split) for split in self._rows}
        scaler = preprocessing.StandardScaler().fit(features["train"])
        found = {}
        # Threads would add in another order from time to time, and cost more than they save.
        with threadpoolctl.threadpool_limits(limits=1):
            for name, k in zip(self.names, self._columns, strict=True):
                regression = linear_model.LogisticRegression(C=_C, max_iter=_ITERATIONS)
                regression.fit(scaler.transform(features["train"]), self._truths["train"][:, k])
                scores = regression.decision_function(scaler.transform(features["validation"]))
                auc = metrics.roc_auc(self._truths["validation"][:, k].astype(int), np.stack([-scores, scores], 1))[1]
                found[f"probe/auc/{name}"] = float(auc)
        return {"probe/auc": float(np.mean(list(found.values()))), **found}

    def _features(self, split: str) -> np.ndarray:
        """Of the chosen images, in the order of the records: float64 [N, F]."""
        keep = tf.constant(self._rows[split])
        records = self._record_set.dataset(split, decode=False).enumerate()
        images = records.filter(lambda i, _: tf.gather(keep, i)).map(
            lambda _, record: self._record_set.decode(record["image/encoded"]), num_parallel_calls=tf.data.AUTOTUNE
        )
        with data.naming_damage(self._record_set.path):
            return np.concatenate([self._compute(batch).numpy() for batch in images.batch(_BATCH)]).astype(np.float64)


def _is_enough(truths: np.ndarray) -> bool:
    return min(truths.sum(), (~truths).sum()) >= _LEAST
