"""A network that tells whether two radiographs are of one patient.

After Packhäuser et al., "Deep learning-based patient re-identification is able to exploit the biometric nature of
medical chest X-ray data" (Scientific Reports 2022, arXiv 2103.08562), much smaller: four convolutions and an embedding
of length 1, trained with the triplet loss on pairs of images of one patient.
"""

import dataclasses
import itertools

import numpy as np
import tensorflow as tf

from tfcxr import addons
from tfcxr.classifiers.networks import seeding
from tfcxr.evaluation import bootstrap

NAME = "reidentification"
LEAST_PATIENTS = 8  # with two images each
LEAST_AUC = 0.6  # at the lower end of the interval

_PATIENTS_PER_STEP = 32
_WIDTH = 64
_LEARNING_RATE = 1e-3
_MARGIN = 0.3
_SHIFT = 1 / 16
_PAIRS_PER_PATIENT = 10


@dataclasses.dataclass(frozen=True)
class Recognition:
    """How well a network recognises patients that it has not seen.

    Attributes:
        auc: of pairs of one patient's images against pairs of two patients', by their distance; None if there are none.
        interval: 95%, over patients; None if it cannot be told.
        num_patients: with two images or more.
        num_pairs: of one patient's images.
    """

    auc: float | None
    interval: list[float] | None
    num_patients: int
    num_pairs: int

    @property
    def recognises(self) -> bool:
        """Whether what the network says of patients means something."""
        return self.interval is not None and self.interval[0] > LEAST_AUC


class Recogniser:
    """The network: images float [N, R, R, 1] in [-1, 1] -> embeddings float32 [N, 64] of length 1."""

    def __init__(self, side: int, seed: int):
        """An untrained one; `side`: R."""
        self._network = seeding.rebuild(lambda: _build(side), seed=seed, dtype="float32")
        self._side = side
        self._seed = seed

    def train(self, images: np.ndarray, patients: np.ndarray, *, steps: int) -> None:
        """Trains on patients with two images or more.

        Args:
            images: float32 [N, R, R, 1] in [-1, 1].
            patients: int [N].
            steps: of 32 patients with two images each.
        """
        rng = np.random.default_rng(self._seed)
        groups = pair_groups(patients)
        number = min(_PATIENTS_PER_STEP, len(groups))
        chosen = np.stack([_draw_pairs(groups, number, rng) for _ in range(steps)])
        reach = max(1, round(_SHIFT * self._side))
        shifts = rng.integers(0, 2 * reach + 1, [steps, 2])
        source = tf.constant(images, tf.float32)
        labels = tf.repeat(tf.range(number), 2)
        optimizer = tf.keras.optimizers.Adam(_LEARNING_RATE)
        optimizer.build(self._network.trainable_variables)

        @tf.function(autograph=False)
        def train_step(indices: tf.Tensor, shift: tf.Tensor) -> None:
            batch = tf.gather(source, indices)
            # The second image of each pair moves, so that the place in the frame does not give the patient away.
            padded = tf.pad(batch[1::2], [[0, 0], [reach, reach], [reach, reach], [0, 0]], "SYMMETRIC")
            moved = tf.slice(padded, [0, shift[0], shift[1], 0], [-1, self._side, self._side, -1])
            batch = tf.reshape(tf.stack([batch[::2], moved], axis=1), tf.shape(batch))
            with tf.GradientTape() as tape:
                loss = addons.triplet_loss(labels, self._network(_standardise(batch), training=True), _MARGIN)
            variables = self._network.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

        for batch in tf.data.Dataset.from_tensor_slices((chosen.astype(np.int32), shifts.astype(np.int32))):
            train_step(*batch)

    def __call__(self, images: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
        """The embeddings of images."""
        parts = [
            self._network(_standardise(tf.constant(images[i : i + batch_size], tf.float32)), training=False).numpy()
            for i in range(0, len(images), batch_size)
        ]
        return np.concatenate([np.zeros([0, _WIDTH], np.float32), *parts])


def measure(embeddings: np.ndarray, patients: np.ndarray, *, seed: int = 0) -> Recognition:
    """How well distances of embeddings [N, D] tell pairs of one patient from others; `patients`: int [N].

    Of each patient at most 10 pairs count, and as many with images of other patients; the resamples draw the patient of
    a pair's first image.
    """
    rng = np.random.default_rng(seed)
    groups = pair_groups(patients)
    same, different = [], []
    for group in groups:
        pairs = list(itertools.combinations(group, 2))
        chosen = [pairs[i] for i in rng.permutation(len(pairs))[:_PAIRS_PER_PATIENT]]
        same += chosen
        others = np.flatnonzero(patients != patients[group[0]])
        if len(others):
            different += [(first, rng.choice(others)) for first, _ in chosen]
    if len(groups) < 2 or not different:
        return Recognition(None, None, len(groups), len(same))
    both = np.array(same + different)
    distances = np.linalg.norm(embeddings[both[:, 0]] - embeddings[both[:, 1]], axis=1)
    is_same = np.arange(len(both)) < len(same)
    resamples = bootstrap.PatientBootstrap(
        is_same.astype(np.int64), [str(patient) for patient in patients[both[:, 0]]], resamples=1000, seed=seed
    )
    ranking = bootstrap.Ranking(is_same, -distances, resamples.patient)
    drawn = resamples.sample(lambda weights: {"auc": ranking(weights)[0]})
    auc = float(ranking(np.ones([resamples.num_patients, 1], np.float32))[0][0])
    interval = None if drawn is None else bootstrap.interval(drawn["auc"], resamples.num_patients)
    return Recognition(auc, interval, len(groups), len(same))


def pair_groups(patients: np.ndarray) -> list[np.ndarray]:
    """Positions of the images of each patient who has two or more; `patients`: int [N]."""
    order = np.argsort(patients, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(patients[order])) + 1)
    return [group for group in groups if len(group) > 1]


def _draw_pairs(groups: list[np.ndarray], number: int, rng: np.random.Generator) -> np.ndarray:
    chosen = rng.choice(len(groups), number, replace=False)
    return np.concatenate([rng.choice(groups[index], 2, replace=False) for index in chosen])


def _standardise(images: tf.Tensor) -> tf.Tensor:
    return tf.image.per_image_standardization(images)


def _build(side: int) -> tf.keras.Model:
    layers = tf.keras.layers
    hidden = inputs = layers.Input([side, side, 1])
    for filters in (16, 32, 64, 128):
        strides = 2 if hidden.shape[1] > 4 else 1
        hidden = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(hidden)
        hidden = layers.BatchNormalization()(hidden)
        hidden = layers.ReLU()(hidden)
    # Not averaged over places: where ribs and heart lie is what tells patients apart.
    hidden = layers.Dense(_WIDTH)(layers.Flatten()(hidden))
    return tf.keras.Model(inputs, layers.UnitNormalization()(hidden), name=NAME)
