"""Curation: draws more images than are wanted, and keeps those in which a classifier sees the label, far from training.

Each image of the plan is drawn again, with another latent, until one passes; so every class and label combination keeps
the number that the plan gives it. A classifier of classes has to take an image for its class. One of labels that do not
exclude each other has to see each label that was asked for, its probability at or above the label's threshold; and, if
`exactly`, no other. A filter can only remove what it sees, and makes a set look safer to its own measure:
audit the set after it, in another feature space (arXiv 2510.01793).
"""

import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcxr import metrics, npz_files
from tfcxr.classifiers import calibration, inference, loading
from tfcxr.evaluation import leakage, operating_points
from tfcxr.fidelity import distances, features
from tfcxr.gan import loading as gan_loading
from tfcxr.generation.plans import Plan
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import pixel_ranges
from tfrecords_builder.labels import combinations, label_sets
from tfrecords_builder.progress import progress
from tfrecords_builder.records import overlap

STATE_FILE = "curation.npz"

_SAVE_SECONDS = 5.0
_SHOWN = 12  # combinations whose acceptance is printed, lowest first
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
        thresholds_from: str | None = None,
        exactly: bool = False,
        gan_run: str | None = None,
    ):
        """Checks and loads the classifier.

        Args:
            classifier: run folder or export.
            generator: that draws.
            plan: what it draws.
            far: None: training images are not looked at.
            max_draws: at most so many draws for each image that is wanted, on average over its class or combination.
            thresholds_from: output folder of an evaluation of the classifier, whose thresholds of Youden's J are those
                of the labels; None: those of the export's calibration, else 0.5. Only of labels that do not exclude
                each other, as `exactly`.
            exactly: no label may be seen that was not asked for.
            gan_run: run folder of the generator, by which its patients are found; None: unknown.

        Raises:
            InputError: no such classifier, or not of the plan's classes or labels; thresholds of another one.
        """
        config = loading.load_classifier_config(classifier)
        where, version = f"--curate={classifier}", plan.version
        self._multilabel = bool(config["multilabel"])
        if self._multilabel and label_sets.of_settings(config) != version.label_set:
            raise InputError(f"{where}: is of another label set than the generator; give a classifier of the same")
        if not self._multilabel and tuple(config["classes"]) != version.class_names:
            raise InputError(
                f"{where}: its classes are {', '.join(config['classes'])}, the set's classes are "
                f"{', '.join(version.class_names) or 'none'}; give a classifier of label version {version.name}"
            )
        if not self._multilabel and (thresholds_from or exactly):
            flag = f"--curate_thresholds={thresholds_from}" if thresholds_from else "--curate_labels=exactly"
            raise InputError(f"{flag}: the classes of {where} exclude each other; it is for labels that do not")
        self._path, self._plan, self._far, self._max_draws = classifier, plan, far, max_draws
        self._exactly = exactly
        self.digest = loading.weights_digest(classifier, "--curate")
        self.patients = _compare_patients(classifier, set(config["records"].values()), generator, gan_run)
        network = loading.load_network(classifier)
        self._names = list(config["classes"])
        self._thresholds = np.full(len(self._names), calibration.HALF)
        if self._multilabel:
            self._columns = [version.label_set.index[name] for name in self._names]
            self._read_thresholds(thresholds_from)

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.uint8)], autograph=False)
        def predict(images):
            _, logits = inference.compute(network, pixel_ranges.uint8_to_unit(images), path="target")
            return network.probabilities(logits)

        self._predict = predict

    def _read_thresholds(self, thresholds_from: str | None) -> None:
        self.thresholds_chosen = True
        found: operating_points.Thresholds
        known = calibration.read(self._path)
        if thresholds_from:
            found, _ = operating_points.read_thresholds(
                thresholds_from, classes=self._names, model_digest=self.digest, flag="--curate_thresholds"
            )
        elif known:
            found = known.thresholds
        else:
            self.thresholds_chosen = False
            return
        # Of labels without one nothing can be said, so they refuse nothing.
        values = [found.get(name, {}).get(operating_points.YOUDEN) for name in self._names]
        self._thresholds = np.array([np.nan if value is None else value for value in values])
        if np.isnan(self._thresholds).all():
            raise InputError(f"--curate_thresholds={thresholds_from}: has a threshold of no label; evaluate on others")

    def warn(self) -> list[str]:
        """What has to be said before the images are used."""
        found = []
        others = self.patients["others"]
        if others is None:
            found.append(
                f"--curate={self._path}: it cannot be found out whether the classifier learned from patients that the "
                "generator did not learn from; if it has seen patients of your test images, the curated set carries "
                "what it learned of them"
            )
        elif others:
            found.append(
                f"--curate={self._path}: of the {self.patients['learned']} patients that the classifier learned from, "
                f"{others} are none of those that the generator learned from; if your test images are of any of them, "
                "the curated set carries what it learned of them"
            )
        if self._multilabel and not self.thresholds_chosen:
            found.append(
                "a label counts as seen from a probability of 0.5 on, at which rare labels are hardly ever seen; "
                "--curate_thresholds takes better ones from an evaluation"
            )
        unknown = [name for name, cut in zip(self._names, self._thresholds, strict=True) if np.isnan(cut)]
        if unknown:
            found.append(f"nobody looked whether {', '.join(unknown)} can be seen: there is no threshold")
        if self._far is None:
            found.append("distances to training images were not looked at; --curate_train does that")
        return [*found, "a filter changes what an audit sees: audit this set itself, after curation"]

    @property
    def key(self) -> str:
        """Of all that decides which latents are chosen, but for the generator and the plan."""
        known: list[Any] = [self.digest, None if self._far is None else [self._far.least, self._far.description]]
        if self._multilabel:
            known += [self._thresholds.tolist(), self._exactly]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def select(self, render: Render, folder: pathlib.Path, key: str, batch_size: int) -> Selection:
        """Chooses the latents; what a stopped call with the same `key` has chosen in `folder` is taken over.

        Image i of the plan is drawn with the latents i, i + N, i + 2N ... until one passes.

        Raises:
            InputError: a class has had its draws, and still lacks images.
        """
        groups = self._groups()
        state = _State.load(folder / STATE_FILE, key) or _State.start(len(self._plan), len(groups.names), self._names)
        saved = time.monotonic()
        with progress(len(self._plan), "curating", initial=int((state.numbers >= 0).sum())) as bar:
            while True:
                if state.position == len(state.pending):
                    state.next_round()
                    if not len(state.pending):
                        break
                    self._check_draws(state, groups)
                slots = state.pending[state.position : state.position + batch_size]
                candidates = slots + state.round * len(self._plan)
                images = render(candidates, self._vectors(slots))
                disagree = self._find_disagreement(images, slots)
                right = ~disagree.any(axis=1)
                far = np.ones(len(slots), bool) if self._far is None else self._far.find(images) > self._far.least
                kept = right & far
                state.numbers[slots[kept]] = candidates[kept]
                state.drawn += np.bincount(groups.of_image[slots], minlength=len(state.drawn))
                state.disagreed += disagree.sum(axis=0)
                state.refused += [np.sum(~right), np.sum(right & ~far)]
                state.position += len(slots)
                bar.update(int(kept.sum()))
                if time.monotonic() - saved >= _SAVE_SECONDS:
                    state.save(folder / STATE_FILE, key)
                    saved = time.monotonic()
        state.save(folder / STATE_FILE, key)
        return Selection(state.numbers, self._describe(state, groups, render))

    def _vectors(self, rows: np.ndarray) -> np.ndarray:
        """Label vectors float32 [n, L] of some of the plan's images."""
        return combinations.decode(self._plan.codes[rows], len(self._plan.version.label_set))

    def _find_disagreement(self, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Of which classes or labels the classifier does not see what was asked for: bool [n, K].

        Args:
            images: uint8 [n, R, R, 1].
            rows: of the plan, whose images they are.
        """
        probabilities = self._predict(tf.constant(images)).numpy()
        if not self._multilabel:
            asked = np.eye(len(self._names), dtype=bool)[self._plan.classes[rows]]
            return asked & (probabilities.argmax(axis=1) != self._plan.classes[rows])[:, None]
        asked = self._vectors(rows)[:, self._columns] > 0.5
        missed = asked & (probabilities < self._thresholds)
        return missed | (~asked & (probabilities >= self._thresholds)) if self._exactly else missed

    def _groups(self) -> "_Groups":
        """What has draws of its own: the classes, or in a set without classes the label combinations."""
        version = self._plan.version
        if version.class_names:
            return _Groups(list(version.class_names), self._plan.classes.astype(np.int64))
        codes, of_image = np.unique(self._plan.codes, return_inverse=True)
        return _Groups([combinations.format_code(int(code), version.label_set.labels) for code in codes], of_image)

    def _check_draws(self, state: "_State", groups: "_Groups") -> None:
        wanted = np.bincount(groups.of_image, minlength=len(state.drawn))
        lacking = np.bincount(groups.of_image[state.pending], minlength=len(state.drawn))
        for index in np.flatnonzero((lacking > 0) & (state.drawn >= self._max_draws * wanted)).tolist():
            found, drawn = int(wanted[index] - lacking[index]), int(state.drawn[index])
            kind = "class" if self._plan.version.class_names else "combination"
            raise InputError(
                f"--max_draws={self._max_draws}: of {kind} {groups.names[index]} only {found} of "
                f"{wanted[index]} images passed, of {drawn} drawn ({found / drawn:.1%}); raise it to go on from there, "
                f"ask for fewer images, or look whether the classifier knows this {kind}"
            )

    def _describe(self, state: "_State", groups: "_Groups", render: Render) -> dict[str, Any]:
        kept = np.bincount(groups.of_image, minlength=len(groups.names))
        drawn = int(state.drawn.sum())
        return {
            "classifier_sha256": self.digest,
            "classifier_of_training_patients": self.patients["others"] == 0,
            "classifier_patients": self.patients,
            "drawn": drawn,
            "kept": len(self._plan),
            "acceptance": {
                name: int(kept[i]) / int(state.drawn[i]) for i, name in enumerate(groups.names) if state.drawn[i]
            },
            "disagreed": {
                name: None if np.isnan(cut) else int(count) / drawn
                for name, count, cut in zip(self._names, state.disagreed, self._thresholds, strict=True)
            },
            "labels_seen": "exactly" if self._exactly else "asked",
            "thresholds": dict(zip(self._names, map(metrics.finite, self._thresholds), strict=True))
            if self._multilabel
            else None,
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


@dataclasses.dataclass(frozen=True)
class _Groups:
    """Images that have their draws in common: names, and the number of each image's group, int64 [N]."""

    names: list[str]
    of_image: np.ndarray


@dataclasses.dataclass
class _State:
    """How far a selection has come.

    Attributes:
        numbers: the latent of each image; -1: none yet.
        pending: images that the round draws, int64, of which the first `position` have been drawn.
        round: how often each of them was drawn before.
        drawn: by class or combination.
        disagreed: draws in which the classifier did not see what was asked for, by class or label.
        refused: by label, and by distance.
    """

    numbers: np.ndarray
    pending: np.ndarray
    position: int
    round: int
    drawn: np.ndarray
    disagreed: np.ndarray
    refused: np.ndarray

    @classmethod
    def start(cls, num_images: int, num_groups: int, names: Sequence[str]) -> "_State":
        """Nothing drawn yet; `names`: of the classifier's classes or labels."""
        drawn, disagreed, refused = (np.zeros(size, np.int64) for size in (num_groups, len(names), 2))
        return cls(np.full(num_images, -1), np.arange(num_images), 0, 0, drawn, disagreed, refused)

    @classmethod
    def load(cls, path: pathlib.Path, key: str) -> "_State | None":
        """What `save` wrote; None if nothing usable of this key is there."""
        try:
            found = npz_files.read(path)
            if str(found["key"]) != key:
                return None
            arrays: dict[str, Any] = {field.name: found[field.name] for field in dataclasses.fields(cls)}
        except (OSError, ValueError, KeyError):
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


def _compare_patients(
    classifier: str, digests: set[str], generator: gan_loading.Generator, gan_run: str | None
) -> dict[str, int | None]:
    """{"learned": patients that the classifier learned from, "others": those that the generator did not learn from}.

    None where it cannot be found out: other records, of which those of one of both are gone or without patients.
    """
    own = leakage.list_training_sets(classifier)
    if digests <= set(generator.records.values()):
        known = [overlap.list_members(info, folds).patients for info, folds in own]
        return {"learned": len(frozenset().union(*known)) or None, "others": 0}
    theirs = leakage.list_training_sets(gan_run) if gan_run else []
    unknown: dict[str, int | None] = {"learned": None, "others": None}
    # A classifier may have begun with another one's weights; all that both learned from must be there.
    if not own or not theirs or not digests <= {info.digest for info, _ in own}:
        return unknown
    learned: set[str] = set()
    shared: set[str] = set()
    for info, folds in own:
        patients = overlap.list_members(info, folds).patients
        comparable = [side for side in theirs if overlap.have_same_patients(info, side[0])]
        if not patients or not comparable:
            return unknown
        learned |= patients
        for other, other_folds in comparable:
            shared |= patients & overlap.list_members(other, other_folds).patients
    return {"learned": len(learned), "others": len(learned - shared)}


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
    accepted = description["acceptance"]
    shown = sorted(accepted, key=lambda name: accepted[name])[:_SHOWN]
    lines += [f"  {name}: {share:.1%} passed" for name, share in accepted.items() if name in shown]
    if len(accepted) > len(shown):
        lines.append(f"  and {len(accepted) - len(shown)} more combinations, of which more passed")
    if description["thresholds"]:
        lines += [
            f"  {name}: not seen as asked for in {share:.1%} of the drawn images"
            for name, share in description["disagreed"].items()
            if share
        ]
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
