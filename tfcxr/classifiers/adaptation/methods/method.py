"""What a method of domain adaptation is: terms that are added to the classification loss of the source images."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import tensorflow as tf

from tfcxr.classifiers.training import losses


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a method is made for.

    Attributes:
        num_classes: K.
        feature_width: F.
        alpha: weight of the alignment; None for the method's own.
        beta: weight of the target entropy, in methods that have it.
        reg: form of DCAN's regulariser, one of choices.REGULARISERS.
        mmd: estimate of the maximum mean discrepancy, one of choices.MMDS; None for the method's own.
        threshold: probability from which on a prediction is certain, in methods that ask.
        seed: of layers and of what is drawn at random.
    """

    num_classes: int
    feature_width: int
    alpha: float | None = None
    beta: float = 0.1
    reg: str = "paper"
    mmd: str | None = None
    threshold: float = 0.95
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Batch:
    """What the network made of one batch: n images of each domain.

    Attributes:
        labels: int64 [n], of the source images.
        source_features: float32 [n, F].
        source_logits: float32 [n, K].
        target_features: float32 [n, F]; corrected, where the network has corrections.
        target_logits: float32 [n, K]; likewise.
        correct: features [n, F] -> corrected features [n, F] and logits [n, K]; only where the network has corrections.
        number: int64 scalar, the step.
        progress: float32 scalar, step / steps, from 0 to 1.
        strong_logits: float32 [n, K], of strong views of the target images; None unless the method sees them.
        teacher_logits: float32 [n, K], of the target images as they are, without gradient: of the mean of the weights
            if the method averages them, else the network's own; None unless the method sees strong views.
    """

    labels: tf.Tensor
    source_features: tf.Tensor
    source_logits: tf.Tensor
    target_features: tf.Tensor
    target_logits: tf.Tensor
    correct: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    number: tf.Tensor
    progress: tf.Tensor
    strong_logits: tf.Tensor | None = None
    teacher_logits: tf.Tensor | None = None


class Method(tf.Module):
    """A method of adaptation; subclasses say what they differ in.

    Attributes:
        corrected: whether the network has domain conditioned channel attention and feature corrections.
        uses_target: whether `losses` looks at the target images; otherwise they do not go through the network.
        sees_strong_views: whether the target images also go through the network strongly changed, see strong_views.
        averages: whether the classifier that is evaluated and kept is an exponential moving average of the trained one,
            with statistics of BatchNorm from the target, if those are trained at all.
        trains: whether steps change weights; otherwise they only let BatchNorm see target images.
        moves_head: whether the head is replaced once, by `move_head`, and that is all.
        uses_mmd: whether a term is a maximum mean discrepancy.
        default_mmd: estimate of the maximum mean discrepancy, one of choices.MMDS.
        default_alpha: weight of the alignment in the paper.
        alpha: weight of the alignment.
        mmd: the estimate of the maximum mean discrepancy, one of choices.MMDS.
        discrepancy: its function, see losses.linear_mmd.
        weights: weight of each term in the total loss, by the names that `losses` returns.
        layers: the method's own trainable layers, built; they belong to checkpoints, not to the classifier.
    """

    corrected: ClassVar[bool] = False
    uses_target: ClassVar[bool] = True
    sees_strong_views: ClassVar[bool] = False
    averages: ClassVar[bool] = False
    trains: ClassVar[bool] = True
    moves_head: ClassVar[bool] = False
    uses_mmd: ClassVar[bool] = False
    default_mmd: ClassVar[str] = "quadratic"
    default_alpha: ClassVar[float] = 1.0

    def __init__(self, setting: Setting):
        """Makes the layers."""
        super().__init__(name=type(self).__name__.lower())
        self.setting = setting
        self.alpha = self.default_alpha if setting.alpha is None else setting.alpha
        self.mmd = setting.mmd or self.default_mmd
        self.discrepancy = losses.MMDS[self.mmd]
        self.weights: Mapping[str, float] = {}
        self.layers: Sequence[tf.keras.layers.Layer] = []

    def losses(self, batch: Batch) -> dict[str, tf.Tensor]:
        """The terms, scalars by the names of `weights`, unweighted."""
        raise NotImplementedError

    def move_head(
        self, kernel: np.ndarray, bias: np.ndarray, source: np.ndarray, target: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Kernel and bias of the head for the target, of methods with `moves_head`; see `adabn.AdaBnHead`."""
        raise NotImplementedError
