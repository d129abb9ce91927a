"""What a classifier learns to say of an image: one of several classes, or which of several labels it has.

The loop of a training is the same for both; an objective has its loss, its measures and its words.
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcxr import metrics
from tfcxr.classifiers import inference
from tfcxr.classifiers.training import linear_head, loop, losses

Curves = Sequence[tuple[str, str]]  # (number of a history row, its name in the picture)


class Objective(abc.ABC):
    """One kind of output.

    Attributes:
        names: of the K classes or labels.
        measure: name of what chooses the weights, for messages.
        curves: of the second panel of curves.png; the first has the losses.
    """

    names: tuple[str, ...]
    measure: str
    curves: Curves

    @abc.abstractmethod
    def loss(self, logits: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Of logits float32 [n, K] for a batch with "class" int64 [n] and "vector" float32 [n, L]: float32 scalar."""

    @abc.abstractmethod
    def accuracy(self, logits: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Share of right answers, float32 scalar; arguments as of `loss`."""

    @abc.abstractmethod
    def measure_row(self, outputs: inference.Outputs) -> dict[str, float | None]:
        """What an evaluation on the validation fold adds to the history; "select/source" chooses the weights."""

    @abc.abstractmethod
    def fit_head(
        self,
        features: np.ndarray,
        labels: Mapping[str, np.ndarray],
        groups: np.ndarray,
        *,
        balanced: bool,
        strength: float | None,
    ) -> tuple[np.ndarray, np.ndarray, str]:
        """The best linear head, see linear_head: kernel, bias, and the inverse strength of its penalty in words.

        Args:
            features: float32 [N, F].
            labels: "class" int64 [N] and "vector" [N, L].
            groups: of images of one patient, [N].
            balanced: whether classes, or the values of a label, count alike.
            strength: inverse strength of the penalty; None to choose it.
        """

    @abc.abstractmethod
    def describe(self, row: Mapping[str, Any]) -> str:
        """The measures of a history row in words."""


class Classes(Objective):
    """Classes that exclude each other: softmax, cross entropy, balanced accuracy."""

    measure = "balanced accuracy"
    curves = (
        ("train/accuracy", "training"),
        ("validation/accuracy", "validation"),
        ("validation/balanced_accuracy", "validation, balanced"),
    )

    def __init__(self, names: Sequence[str], counts: np.ndarray | None = None):
        """`names`: of K classes; `counts`: images of each, [K], for weights N / (K n_class); None for no weights."""
        self.names = tuple(names)
        self._weights = None
        if counts is not None:
            self._weights = tf.constant(counts.sum() / (len(counts) * counts), tf.float32)

    def loss(self, logits: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Cross entropy."""
        return losses.cross_entropy(logits, batch["class"], self._weights)

    def accuracy(self, logits: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Share of images whose most probable class is theirs."""
        return tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, axis=1), batch["class"]), tf.float32))

    def measure_row(self, outputs: inference.Outputs) -> dict[str, float | None]:
        """Loss, accuracies, recalls."""
        accuracy = outputs.balanced_accuracy()
        return {
            "validation/loss": outputs.cross_entropy(),
            "validation/accuracy": float(np.mean(outputs.predictions == outputs.labels)),
            "validation/balanced_accuracy": accuracy,
            **loop.recalls_by_name(outputs, self.names, "validation"),
            "select/source": metrics.finite(accuracy),
        }

    def fit_head(
        self,
        features: np.ndarray,
        labels: Mapping[str, np.ndarray],
        groups: np.ndarray,
        *,
        balanced: bool,
        strength: float | None,
    ) -> tuple[np.ndarray, np.ndarray, str]:
        """Multinomial logistic regression."""
        kernel, bias, used = linear_head.fit_classes(
            features, labels["class"], groups, num_classes=len(self.names), balanced=balanced, strength=strength
        )
        return kernel, bias, f"{used:g}"

    def describe(self, row: Mapping[str, Any]) -> str:
        """Balanced accuracy and recalls."""
        recalls = _join(row, "validation/recall/")
        return f"balanced accuracy {row['validation/balanced_accuracy']:.3f}; recall {recalls}"


class Labels(Objective):
    """Labels that do not exclude each other: a sigmoid each, binary cross entropy or focal loss, mean ROC-AUC."""

    measure = "mean ROC-AUC"
    curves = (
        ("train/accuracy", "training, share of right labels"),
        ("validation/roc_auc", "validation, mean ROC-AUC"),
        ("validation/average_precision", "validation, mean average precision"),
    )

    def __init__(
        self,
        names: Sequence[str],
        columns: Sequence[int],
        *,
        counts: np.ndarray | None = None,
        loss: str = "cross_entropy",
    ):
        """Makes the loss.

        Args:
            names: K of the labels of the records.
            columns: of label vectors, K.
            counts: images without (row 0) and with (row 1) each label, [2, K], for weights N / (2 n), by which both
                values of each label count alike; None for no weights.
            loss: one of choices.LOSSES.
        """
        self.names = tuple(names)
        self._columns = list(columns)
        self._weights = None if counts is None else tf.constant(counts.sum(axis=0) / (2 * counts), tf.float32)
        self._loss = {"cross_entropy": losses.label_cross_entropy, "focal": losses.label_focal_loss}[loss]

    def loss(self, logits: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Mean over images and labels."""
        return self._loss(logits, self._members(batch), self._weights)

    def accuracy(self, logits: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Share of labels that are right at a probability of 0.5."""
        return tf.reduce_mean(tf.cast(tf.equal(logits > 0, self._members(batch) > 0.5), tf.float32))

    def measure_row(self, outputs: inference.Outputs) -> dict[str, float | None]:
        """Loss, and ROC-AUC of each label; means are over those that have both values."""
        auc = metrics.roc_auc(outputs.labels, outputs.probabilities)
        both = np.isfinite(auc)
        precision = metrics.average_precision(outputs.labels, outputs.probabilities)
        return {
            "validation/loss": outputs.cross_entropy(),
            "validation/roc_auc": float(auc[both].mean()),
            "validation/average_precision": float(precision[both].mean()),
            **{f"validation/roc_auc/{name}": metrics.finite(each) for name, each in zip(self.names, auc, strict=True)},
            "select/source": float(auc[both].mean()),
        }

    def fit_head(
        self,
        features: np.ndarray,
        labels: Mapping[str, np.ndarray],
        groups: np.ndarray,
        *,
        balanced: bool,
        strength: float | None,
    ) -> tuple[np.ndarray, np.ndarray, str]:
        """A logistic regression for each label."""
        members = labels["vector"][:, self._columns] > 0.5
        kernel, bias, strengths = linear_head.fit_labels(
            features, members, groups, balanced=balanced, strength=strength
        )
        return kernel, bias, ", ".join(f"{name} {c:g}" for name, c in zip(self.names, strengths, strict=True))

    def describe(self, row: Mapping[str, Any]) -> str:
        """Mean and single ROC-AUCs."""
        return f"mean ROC-AUC {row['validation/roc_auc']:.3f}; {_join(row, 'validation/roc_auc/')}"

    def _members(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.gather(batch["vector"], self._columns, axis=1)


def _join(row: Mapping[str, Any], prefix: str) -> str:
    known = {name: value for name, value in row.items() if name.startswith(prefix) and value is not None}
    return " ".join(f"{name.removeprefix(prefix)} {value:.2f}" for name, value in known.items())
