"""Two models on the same images: paired differences with intervals and tests."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from tfcxr import metrics
from tfcxr.evaluation import bootstrap
from tfcxr.evaluation.predictions import Predictions
from tfrecords_builder.errors import InputError


def align(other: Predictions, ids: Sequence[str], labels: np.ndarray, name: str) -> Predictions:
    """`other` in the order of `ids`.

    Args:
        other: predictions of the other model.
        ids, labels: of the images to compare on; labels int [N], or bool [N, K].
        name: of the other predictions, for messages.

    Raises:
        InputError: they are of other images, or label an image otherwise, or an image occurs twice.
    """
    place = {image: i for i, image in enumerate(other.ids)}
    if len(place) < len(other.ids) or len(set(ids)) < len(ids):
        raise InputError(f"{name}: an image occurs twice; models are compared image by image")
    absent = [image for image in ids if image not in place]
    if absent or len(place) != len(ids):
        raise InputError(
            f"{name}: was evaluated on other images ({len(ids)} here, {len(place)} there, {len(ids) - len(absent)} in "
            "both); evaluate both models on the same records and split"
        )
    order = np.array([place[image] for image in ids])
    if (other.labels[order] != labels).any():
        raise InputError(f"{name}: has other labels for the same images; evaluate both models on the same records")
    patients = [other.patients[i] for i in order]
    return Predictions(list(ids), patients, other.labels[order], other.probabilities[order])


def compare(
    predictions: Predictions, other: Predictions, classes: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Compares a model with another one, image by image.

    The same patients are drawn for both; p-values are two-sided and of no difference (see `bootstrap.p_value`).
    McNemar's exact test asks whether the images that only one of the two got right are shared out evenly; it takes
    images as independent, which those of one patient are not.

    Args:
        predictions: of the model.
        other: of the other model, as `align` returns them.
        classes: names of the K classes.
        resamples, seed: of the bootstrap over patients.

    Returns:
        {"balanced_accuracy": {"this", "other", "difference": {"value", "ci95"}, "p_value"}, "recall": {class: the
        same}, "roc_auc": the same (macro), "mcnemar": {"only_this_right", "only_other_right", "p_value"}}; fractions,
        difference = this - other; null where the images for a number are lacking.
    """
    labels = predictions.labels
    patients = bootstrap.PatientBootstrap(labels, predictions.patients, resamples=resamples, seed=seed)
    models = [
        bootstrap.ModelStatistics(patients, labels, one.predicted, one.probabilities) for one in (predictions, other)
    ]
    whole = np.ones((patients.num_patients, 1), np.float32)
    this, that = (_columns(model(whole)) for model in models)

    def differences(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"difference": _columns(models[0](weights)) - _columns(models[1](weights))}

    sampled = patients.sample(differences)

    holders = patients.holders(labels, len(classes))

    def row(column: int, num_holders: int) -> dict[str, Any]:
        drawn = None if sampled is None else sampled["difference"][:, column]
        return describe_difference(this[0, column], that[0, column], drawn, num_holders)

    right, other_right = predictions.predicted == labels, other.predicted == labels
    only_this, only_other = int((right & ~other_right).sum()), int((~right & other_right).sum())
    disagree = only_this + only_other
    return {
        "balanced_accuracy": row(0, holders.min()),
        "recall": {name: row(2 + k, holders[k]) for k, name in enumerate(classes)},
        "roc_auc": row(1, holders.min()),
        "mcnemar": {
            "only_this_right": only_this,
            "only_other_right": only_other,
            "p_value": float(stats.binomtest(only_this, disagree).pvalue) if disagree else 1.0,
        },
    }


def describe_difference(this: float, other: float, drawn: np.ndarray | None, holders: int) -> dict[str, Any]:
    """A number of a comparison as result.json has it; see `compare`.

    Args:
        this, other: the number of both models; NaN where images are lacking.
        drawn: the difference in each resample, [B]; None if there is none.
        holders: patients on whom it rests, see `bootstrap.interval`.
    """
    ends = None if drawn is None else bootstrap.interval(drawn, holders)
    return {
        "this": metrics.finite(this),
        "other": metrics.finite(other),
        "difference": {"value": metrics.finite(this - other), "ci95": ends},
        "p_value": bootstrap.p_value(drawn) if drawn is not None and ends else None,
    }


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Balanced accuracy of a group of models, the mean over them: on all images, and on each resample of patients [B].

    Groups that were sampled together have the same patients in each resample, so that differences are paired. Of labels
    that do not exclude each other it is the mean ROC-AUC, and `parts` has those of the labels; of classes `parts` has
    the recalls, where they were asked for.
    """

    value: float
    sampled: np.ndarray
    parts: Mapping[str, "Accuracy"] = dataclasses.field(default_factory=dict)


def sample_accuracies(
    groups: Mapping[Any, Sequence[Predictions]],
    num_classes: int,
    *,
    recalls_of: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> dict[Any, Accuracy] | None:
    """Samples the balanced accuracy of groups of models, such as trainings that differ in their seed only.

    The resamples vary the patients and not the trainings: their spread is that of the test images alone.

    Args:
        groups: name -> predictions of its models; all on the same images, in the same order (see `align`).
        num_classes: K.
        recalls_of: names of the K classes, if their recalls are wanted as `parts`.
        resamples, seed: of the bootstrap over patients.

    Returns:
        name -> its accuracy; None if there are too few patients to draw from, or a class has images of one patient
        only.
    """
    first = next(iter(groups.values()))[0]
    labels = first.labels
    patients = bootstrap.PatientBootstrap(labels, first.patients, resamples=resamples, seed=seed)
    if patients.holders(labels, num_classes).min() < 2:
        return None
    tables = {
        name: [patients.count(labels * num_classes + one.predicted, num_classes**2) for one in models]
        for name, models in groups.items()
    }

    def recalls(weights: np.ndarray) -> dict[Any, np.ndarray]:
        """Of each group, the mean over its models: [B, K]."""
        of_all = {
            name: [metrics.recalls_of_tables(bootstrap.confusion_tables(table, weights)) for table in of_models]
            for name, of_models in tables.items()
        }
        return {name: np.mean(of_models, axis=0) for name, of_models in of_all.items()}

    sampled = patients.sample(recalls)
    if sampled is None:
        return None
    whole = recalls(np.ones((patients.num_patients, 1), np.float32))
    return {
        name: Accuracy(
            float(whole[name][0].mean()),
            sampled[name].mean(axis=1),
            {label: Accuracy(float(whole[name][0, k]), sampled[name][:, k]) for k, label in enumerate(recalls_of)},
        )
        for name in groups
    }


def _columns(values: dict[str, np.ndarray]) -> np.ndarray:
    """Balanced accuracy, macro AUC and the recalls side by side: [B, 2 + K]."""
    auc = values["roc_auc"].mean(axis=1)
    return np.column_stack([values["balanced_accuracy"], auc, values["recall"]])
