"""Methods of self-supervised learning: SimCLR and SimSiam. Each has a head on the features, and a loss of pairs.

SimCLR: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, arXiv
2002.05709. SimSiam: Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021, arXiv 2011.10566.
"""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from tfcxr.classifiers.networks import backbones, seeding

_PREDICTOR_BOTTLENECK = 4


def nt_xent(a: tf.Tensor, b: tf.Tensor, temperature: float) -> tuple[tf.Tensor, tf.Tensor]:
    """NT-Xent (SimCLR, equation 1): each view must find the other one of its pair among all other views.

    Args:
        a: projections of one view of each image, float32 [N, D], N at least 2; of any length but 0.
        b: of the other view.
        temperature: what cosines are divided by, above 0.

    Returns:
        Scalars: the mean cross entropy over all 2 N views, and the share of views whose other one is the nearest.
    """
    number = tf.shape(a)[0]
    views = tf.math.l2_normalize(tf.concat([a, b], axis=0), axis=1)
    cosines = tf.matmul(views, views, transpose_b=True) / temperature
    # No view is its own negative.
    logits = tf.linalg.set_diag(cosines, tf.fill([2 * number], cosines.dtype.min))
    others = tf.concat([tf.range(number, 2 * number), tf.range(number)], axis=0)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=others, logits=logits)
    found = tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), others)
    return tf.reduce_mean(loss), tf.reduce_mean(tf.cast(found, tf.float32))


def negative_cosine(predictions: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """SimSiam's D (equation 1): minus the mean cosine of rows [N, D]; no gradient goes to the targets. A scalar."""
    targets = tf.stop_gradient(tf.math.l2_normalize(targets, axis=1))
    return -tf.reduce_mean(tf.reduce_sum(tf.math.l2_normalize(predictions, axis=1) * targets, axis=1))


def spread(vectors: tf.Tensor) -> tf.Tensor:
    """How far from collapse vectors [N, D] are: 0 if all are the same, about 1 if they point evenly everywhere.

    The mean over D of the standard deviation of vectors of length 1, times the root of D (SimSiam, section 4.1).
    """
    unit = tf.math.l2_normalize(vectors, axis=1)
    return tf.reduce_mean(tf.math.reduce_std(unit, axis=0)) * tf.sqrt(float(vectors.shape[1]))


class Method:
    """A method; `layers` are its own, trained with the network."""

    log_names: Sequence[str]

    def __init__(self) -> None:
        self.layers: list[tf.keras.layers.Layer] = []

    def losses(self, a: tf.Tensor, b: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """Scalars by `log_names`, `loss` among them, of the features float32 [N, F] of both views.

        `spread` is that of the projections.
        """
        raise NotImplementedError


class SimCLR(Method):
    """Projections of one hidden layer, and NT-Xent."""

    log_names = ("loss", "accuracy", "spread")

    def __init__(self, width: int, projection: int, temperature: float, seed: int):
        """`width`: F; `projection`: D; `temperature`: of the loss; `seed`: of the weights."""
        super().__init__()
        self._temperature = temperature
        self.projector = _perceptron("projector", width, [width], projection, seed)
        self.layers = [self.projector]

    def losses(self, a: tf.Tensor, b: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """The loss, how many views find the other one of their pair, and the spread of the projections."""
        projected = self.projector(tf.concat([a, b], axis=0), training=True)
        loss, accuracy = nt_xent(*_halves(projected), self._temperature)
        return {"loss": loss, "accuracy": accuracy, "spread": spread(projected)}


class SimSiam(Method):
    """Projections of two hidden layers, a predictor with a bottleneck, and no negatives."""

    log_names = ("loss", "spread")

    def __init__(self, width: int, projection: int, temperature: float, seed: int):
        """As of `SimCLR`; the temperature is not used."""
        super().__init__()
        del temperature
        self.projector = _perceptron("projector", width, [projection, projection], projection, seed, normalised=True)
        bottleneck = max(1, projection // _PREDICTOR_BOTTLENECK)
        self.predictor = _perceptron("predictor", projection, [bottleneck], projection, seed)
        self.layers = [self.projector, self.predictor]

    def losses(self, a: tf.Tensor, b: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """The loss, in [-1, 1], and the spread of the projections."""
        projected = self.projector(tf.concat([a, b], axis=0), training=True)
        predicted = self.predictor(projected, training=True)
        (za, zb), (pa, pb) = _halves(projected), _halves(predicted)
        loss = (negative_cosine(pa, zb) + negative_cosine(pb, za)) / 2
        return {"loss": loss, "spread": spread(projected)}


METHODS: dict[str, type[SimCLR] | type[SimSiam]] = {"simclr": SimCLR, "simsiam": SimSiam}


def _halves(views: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    a, b = tf.split(views, 2)
    return a, b


def _perceptron(
    name: str, width: int, hidden: Sequence[int], out: int, seed: int, *, normalised: bool = False
) -> tf.keras.Sequential:
    """Dense layers with BatchNorm and ReLU between them, float32; `normalised`: BatchNorm at the end, too."""
    layers: list[tf.keras.layers.Layer] = [tf.keras.Input([width])]
    for i, size in enumerate([*hidden, out], start=1):
        last = i > len(hidden)
        layers.append(
            tf.keras.layers.Dense(
                size,
                use_bias=last and not normalised,
                kernel_initializer=tf.keras.initializers.GlorotUniform(seeding.layer_seed(seed, f"{name}_{i}")),
                dtype="float32",
                name=f"{name}_{i}_dense",
            )
        )
        if not last or normalised:
            layers.append(
                tf.keras.layers.BatchNormalization(
                    momentum=backbones.BATCH_NORM_MOMENTUM,
                    center=not last,
                    scale=not last,
                    dtype="float32",
                    name=f"{name}_{i}_bn",
                )
            )
        if not last:
            layers.append(tf.keras.layers.Activation("relu", dtype="float32", name=f"{name}_{i}_relu"))
    return tf.keras.Sequential(layers, name=name)
