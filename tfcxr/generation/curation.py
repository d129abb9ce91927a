"""Curation: draws more images than are wanted, and keeps those in which a classifier sees the label, far from training.

Each image of the plan is drawn again, with another latent, until one passes; so every class and label combination keeps
the number that the plan gives it. A filter can only remove what it sees, and makes a set look safer to its own measure:
audit the set after it, in another feature space (arXiv 2510.01793).
"""

import dataclasses
import hashlib
import json
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcxr.classifiers import inference, loading
from tfcxr.fidelity import distances, features
from tfcxr.gan import loading as gan_loading
from tfcxr.generation.plans import Plan
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import pixel_ranges
from tfrecords_builder.labels import combinations
from tfrecords_builder.progress import progress

STATE_FILE = "curation.npz"

_SAVE_EVERY = 512  # candidates
_MEASURED = 2000  # images whose diversity is measured
_LEAST_MEASURED = 2 * distances.NEIGHBOURS

# Images uint8 [N, R, R, 1] of latents with these numbers int64 [N] and label vectors [N, L].
Render = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class DistanceFilter:
    """Refuses images that are too near to a training image.

    Attributes:
        find: images uint8 [N, R, R, 1] -> distance of each to the nearest training image [N].
        least: images at most so far are refused.
        real: training images uint8 [M, R, R, 1], of which diversity is measured.
        description: for the record set's description.
    """

    find: Callable[[np.ndarray], np.ndarray]
    least: float
    real: np.ndarray
    description: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Selection:
    """Attributes: numbers: latent of each image of the plan, int64 [N]; description: of how they were found."""

    numbers: np.ndarray
    description: dict[str, Any]


class Curator:
    """Chooses the latents of a plan's images."""

    def __init__(
        self,
        classifier: str,
        generator: gan_loading.Generator,
        plan: Plan,
        *,
        far: DistanceFilter | None,
        max_draws: int,
    ):
        """Checks and loads the classifier.

        Args:
            classifier: run folder or export.
            generator: that draws.
            plan: what it draws.
            far: None: training images are not looked at.
            max_draws: at most so many draws for each image that is wanted, on average over its class.

        Raises:
            InputError: no such classifier, or not of the plan's classes.
        """
        config = loading.load_classifier_config(classifier)
        where = f"--curate={classifier}"
        if config["multilabel"] or tuple(config["classes"]) != plan.version.class_names:
            raise InputError(
                f"{where}: its {'labels' if config['multilabel'] else 'classes'} are {', '.join(config['classes'])}, "
                f"the set's classes are {', '.join(plan.version.class_names) or 'none'}; give a classifier of label "
                f"version {plan.version.name}"
            )
        self._path, self._plan, self._far, self._max_draws = classifier, plan, far, max_draws
        self.digest = loading.weights_digest(classifier, "--curate")
        self.same_patients = bool(set(config["records"].values()) & set(generator.records.values()))
        network = loading.load_network(classifier)

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.uint8)])
        def predict(images):
            _, logits = inference.compute(network, pixel_ranges.uint8_to_unit(images), path="target")
            return tf.argmax(logits, axis=1)

        self._predict = predict

    def warn(self) -> list[str]:
        """What has to be said before the images are used."""
        found = []
        if not self.same_patients:
            found.append(
                f"--curate={self._path}: the classifier did not learn from the records that the generator learned "
                "from; if it has seen patients of your test images, the curated set carries what it learned of them"
            )
        if self._far is None:
            found.append("distances to training images were not looked at; --curate_train does that")
        return [*found, "a filter changes what an audit sees: audit this set itself, after curation"]

    @property
    def key(self) -> str:
        """Of all that decides which latents are chosen, but for the generator and the plan."""
        known = [self.digest, None if self._far is None else [self._far.least, self._far.description]]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def select(self, render: Render, folder: pathlib.Path, key: str, batch_size: int) -> Selection:
        """Chooses the latents; what a stopped call with the same `key` has chosen in `folder` is taken over.

        Image i of the plan is drawn with the latents i, i + N, i + 2N ... until one passes.

        Raises:
            InputError: a class has had its draws, and still lacks images.
        """
        state = _State.load(folder / STATE_FILE, key) or _State.start(self._plan)
        classes, saved = self._plan.classes, 0
        with progress(len(self._plan), "curating", initial=int((state.numbers >= 0).sum())) as bar:
            while True:
                if state.position == len(state.pending):
                    state.next_round()
                    if not len(state.pending):
                        break
                    self._check_draws(state, classes)
                slots = state.pending[state.position : state.position + batch_size]
                candidates = slots + state.round * len(self._plan)
                images = render(candidates, self._vectors(slots))
                right = self._predict(tf.constant(images)).numpy() == classes[slots]
                far = np.ones(len(slots), bool) if self._far is None else self._far.find(images) > self._far.least
                kept = right & far
                state.numbers[slots[kept]] = candidates[kept]
                state.drawn += np.bincount(classes[slots], minlength=len(state.drawn))
                state.refused += [np.sum(~right), np.sum(right & ~far)]
                state.position += len(slots)
                bar.update(int(kept.sum()))
                saved += len(slots)
                if saved >= _SAVE_EVERY:
                    state.save(folder / STATE_FILE, key)
                    saved = 0
        state.save(folder / STATE_FILE, key)
        return Selection(state.numbers, self._describe(state, render))

    def _vectors(self, rows: np.ndarray) -> np.ndarray:
        """Label vectors float32 [n, L] of some of the plan's images."""
        return combinations.decode(self._plan.codes[rows], len(self._plan.version.label_set))

    def _check_draws(self, state: "_State", classes: np.ndarray) -> None:
        wanted = np.bincount(classes, minlength=len(state.drawn))
        lacking = np.bincount(classes[state.pending], minlength=len(state.drawn))
        for index in np.flatnonzero((lacking > 0) & (state.drawn >= self._max_draws * wanted)).tolist():
            found, drawn = int(wanted[index] - lacking[index]), int(state.drawn[index])
            raise InputError(
                f"--max_draws={self._max_draws}: of class {self._plan.version.class_names[index]} only {found} of "
                f"{wanted[index]} images passed, of {drawn} drawn ({found / drawn:.1%}); raise it to go on from there, "
                "ask for fewer images, or look whether the classifier knows this class"
            )

    def _describe(self, state: "_State", render: Render) -> dict[str, Any]:
        names = self._plan.version.class_names
        kept = np.bincount(self._plan.classes, minlength=len(names))
        return {
            "classifier_sha256": self.digest,
            "classifier_of_training_patients": self.same_patients,
            "drawn": int(state.drawn.sum()),
            "kept": len(self._plan),
            "acceptance": {name: int(kept[i]) / int(state.drawn[i]) for i, name in enumerate(names) if state.drawn[i]},
            "refused_by_label": int(state.refused[0]),
            "refused_by_distance": int(state.refused[1]),
            "distance": None if self._far is None else {**self._far.description, "least": self._far.least},
            "diversity": self._measure_diversity(state.numbers, render),
        }

    def _measure_diversity(self, numbers: np.ndarray, render: Render) -> dict[str, Any] | None:
        """Of the plan's images as they would be without curation, and as they are; None of too few."""
        rows = np.linspace(0, len(numbers) - 1, min(len(numbers), _MEASURED)).astype(np.int64)
        if len(rows) < _LEAST_MEASURED:
            return None
        before, after = (
            pixel_ranges.uint8_to_signed(tf.constant(render(chosen, self._vectors(rows)))).numpy()
            for chosen in (rows, numbers[rows])
        )
        reals = None
        if self._far is not None and len(self._far.real) >= _LEAST_MEASURED:
            reals = pixel_ranges.uint8_to_signed(tf.constant(self._far.real[: len(rows)])).numpy()
        return measure_diversity(before, after, reals)


@dataclasses.dataclass
class _State:
    """How far a selection has come.

    Attributes:
        numbers: the latent of each image; -1: none yet.
        pending: images that the round draws, int64, of which the first `position` have been drawn.
        round: how often each of them was drawn before.
        drawn: by class.
        refused: by label, and by distance.
    """

    numbers: np.ndarray
    pending: np.ndarray
    position: int
    round: int
    drawn: np.ndarray
    refused: np.ndarray

    @classmethod
    def start(cls, plan: Plan) -> "_State":
        """Nothing drawn yet."""
        everything = np.arange(len(plan))
        drawn = np.zeros(len(plan.version.class_names), np.int64)
        return cls(np.full(len(plan), -1), everything, 0, 0, drawn, np.zeros(2, np.int64))

    @classmethod
    def load(cls, path: pathlib.Path, key: str) -> "_State | None":
        """What `save` wrote; None if nothing usable of this key is there."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                if str(archive["key"]) != key:
                    return None
                arrays = {field.name: archive[field.name] for field in dataclasses.fields(cls)}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return cls(**{**arrays, "position": int(arrays["position"]), "round": int(arrays["round"])})

    def save(self, path: pathlib.Path, key: str) -> None:
        """Writes it, whole or not at all."""
        with files.atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, key=np.array(key), **dataclasses.asdict(self))

    def next_round(self) -> None:
        """The images that have none yet are drawn again."""
        self.pending, self.position = np.flatnonzero(self.numbers < 0), 0
        self.round += 1


def measure_diversity(before: np.ndarray, after: np.ndarray, reals: np.ndarray | None) -> dict[str, Any]:
    """Diversity without and with curation, in principal components of the pixels (of the reals, else of `before`).

    Args:
        before, after: images [N, R, R, 1] in [-1, 1].
        reals: training images, likewise; None: without recall and coverage.

    Returns:
        {"features", "num_images", "before", "after": {"vendi", and with reals "recall", "coverage"}}.
    """
    extractor = features.PixelPca(before.shape[1])
    extractor.fit(before if reals is None else reals)
    found: dict[str, Any] = {"features": extractor.name, "num_images": len(before)}
    for name, images in (("before", before), ("after", after)):
        values = extractor(images)
        found[name] = {"vendi": vendi(values)}
        if reals is not None:
            manifold = distances.manifold_measures(extractor(reals), values)
            found[name] |= {"recall": manifold.recall, "coverage": manifold.coverage}
    return found


def vendi(vectors: np.ndarray) -> float:
    """Vendi score with the cosine kernel (Friedman and Dieng 2022, arXiv 2210.02410): an effective number of images.

    1 if all vectors have one direction, n if n groups of equal size are at right angles. At most the number of
    dimensions; vectors [N, D].
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    # The kernel matrix and this one have the same eigenvalues but for zeros.
    values = np.linalg.eigvalsh(unit.T @ unit / len(unit))
    shares = values[values > 1e-12]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def tell(description: dict[str, Any]) -> Sequence[str]:
    """What a curation did, in sentences."""
    lines = [f"curated: {description['kept']} of {description['drawn']} drawn images were kept"]
    lines += [f"  {name}: {share:.1%} passed" for name, share in description["acceptance"].items()]
    lines.append(
        f"  refused: {description['refused_by_label']} by the classifier, {description['refused_by_distance']} too "
        "near to a training image"
    )
    diversity = description["diversity"]
    if diversity:
        for measure, value in diversity["before"].items():
            lines.append(
                f"  {measure} ({diversity['features']}): {value:.4g} before, {diversity['after'][measure]:.4g} after"
            )
    return lines
