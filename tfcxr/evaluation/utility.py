"""Library behind utility: what classifiers learn from a synthetic set, beside what they learn from real images.

The question is that of the predictive models in DuMont Schütte et al. 2021, "Overcoming barriers to data sharing with
medical image generation: a comprehensive evaluation" (npj Digital Medicine 4:141): train on synthetic images, test on
real ones, and report how far the ROC-AUC of each label falls behind. It is asked of evaluations that exist; none is
made.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfcxr import data
from tfcxr.classifiers import loading
from tfcxr.evaluation import bootstrap, multilabel, paired_test, predictions, subgroups, utility_report
from tfcxr.evaluation.paired_test import Accuracy
from tfcxr.evaluation.predictions import Predictions
from tfrecords_builder import files
from tfrecords_builder.errors import InputError

SCHEMA_VERSION = 1

# Which classifiers are compared with which: (flag, flag of the reference).
GAPS = (("synthetic", "real"), ("mixed", "real"), ("mixed", "control"), ("control", "real"))
REVERSE = "on_synthetic"


def measure_utility(
    *,
    records: str | os.PathLike,
    arms: Mapping[str, Sequence[str]],
    mean_labels: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
    output_dir: pathlib.Path,
) -> dict[str, Any]:
    """Compares groups of evaluations; writes result.json, utility.csv, report.md, report.html and pictures.

    Each arm stands for the mean over its classifiers, such as trainings that differ in their seed. Differences on the
    same images are paired, whole patients drawn together (see paired_test.sample_accuracies). The arm "on_synthetic"
    is of other images, so that its difference from "real" is one of independent resamples.

    Args:
        records: real record set of the test images, for sex, age and view.
        arms: name -> output folders of evaluate: "real" (required), "synthetic", "mixed", "control": of classifiers of
            so trained, on the same real test images; "on_synthetic": of classifiers of real images, on synthetic ones.
        mean_labels: labels of which means are; none for all that two patients or more have, and lack. Only of
            labels that do not exclude each other.
        resamples, seed: of the bootstrap over patients.
        output_dir: existing folder to write into.

    Returns:
        What result.json holds; fractions, null where images or patients are lacking.

    Raises:
        InputError: evaluations that are damaged, not of the same images, or not of classifiers as their flag says.
    """
    given = {name: list(folders) for name, folders in arms.items() if folders}
    if len(given) < 2 or "real" not in given:
        raise InputError(
            "--real and at least one of --synthetic, --mixed, --control and --on_synthetic: give evaluations of both, "
            "or there is nothing to compare"
        )
    flags: dict[pathlib.Path, str] = {}
    for name, folders in given.items():
        if "" in folders:
            raise InputError(f"--{name}={','.join(folders)}: an entry between its commas is empty")
        for folder in folders:
            path = pathlib.Path(folder).resolve()
            if path in flags:
                both = "twice" if flags[path] == name else f"in --{flags[path]}, too"
                raise InputError(f"--{name}: {folder} is given {both}; it is one training, and counts once")
            flags[path] = name
    record_set = data.RecordSet(records)
    read = {name: [_read(name, folder) for folder in folders] for name, folders in given.items()}
    first = read["real"][0]
    split = first.result["split"]
    for name, found in read.items():
        for one in found:
            _check(one, first, record_set, name)
    labels = _choose_labels(read, mean_labels)
    aligned = _align({name: found for name, found in read.items() if name != REVERSE}, labels)
    reverse = _align({REVERSE: read[REVERSE]}, labels) if REVERSE in read else {}
    truth = aligned["real"][0]
    images = predictions.read_images(record_set, split).set_index("id", drop=False)
    absent = [image for image in truth.ids if image not in images.index]
    if absent:
        raise InputError(f"--records={records}: has no image {absent[0]} in its {split} fold; evaluate again")
    images = images.loc[list(truth.ids)].reset_index(drop=True)
    drawing = {"resamples": resamples, "seed": seed}
    sampled = _sample(aligned, labels, **drawing)
    # Resamples of other images, drawn by another seed: nothing is paired.
    sampled |= _sample(reverse, labels, resamples=resamples, seed=seed + 1) if reverse else {}
    pairs = [*GAPS, (REVERSE, "real")]
    result: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "measure": "mean ROC-AUC" if truth.multilabel else "balanced accuracy",
        "of_parts": "ROC-AUC" if truth.multilabel else "recall",
        "multilabel": truth.multilabel,
        "labels": labels,
        "records": {"path": str(records), "source": record_set.info.source, "digest": record_set.info.digest},
        "split": split,
        "num_images": len(truth.ids),
        "num_patients": len({patient for patient in truth.patients if patient}) or None,
        "arms": {name: _describe_arm(found, sampled.get(name)) for name, found in read.items()},
        "gaps": [_gap(sampled, *pair) for pair in pairs if pair[0] in sampled and pair[1] in sampled],
        "subgroups": _measure_subgroups(images, aligned, labels, **drawing),
        "resamples": resamples,
        "seed": seed,
    }
    result["warnings"] = _warn(result, read)
    files.write_json(output_dir / "result.json", result)
    utility_report.write(output_dir, result)
    return result


def find_training_records(result: Mapping[str, Any], where: str) -> list[str]:
    """Digests of the records that the classifier of an evaluation learned from, as its run or export names them.

    Args:
        result: result.json of evaluate.
        where: the evaluation, for messages.

    Raises:
        InputError: the run or export is gone or damaged, or has other weights than those that were evaluated.
    """
    try:
        learned = loading.load_classifier_config(result["model"])["records"].values()
        same = loading.weights_digest(result["model"]) == result["model_digest"]
    except InputError as error:
        raise InputError(f"{where}: the classifier that it is of cannot be looked at ({error})") from error
    if not same:
        raise InputError(f"{where}: the weights of {result['model']} have changed since; evaluate it again")
    return sorted(set(learned))


@dataclasses.dataclass(frozen=True)
class _Evaluation:
    """An output folder of evaluate: result.json, predictions.csv, and what its classifier learned from."""

    flag: str
    result: Mapping[str, Any]
    predictions: Predictions
    classes: list[str]
    trained_on: list[str]


def _read(name: str, folder: str) -> _Evaluation:
    flag = f"--{name}={folder}"
    result = files.read_json(pathlib.Path(folder) / "result.json")
    if not _is_result(result):
        raise InputError(f"{flag}: is no output of this version of evaluate, or is damaged; run it again")
    found, classes = predictions.read(pathlib.Path(folder) / predictions.FILE)
    return _Evaluation(flag, result, found, classes, find_training_records(result, flag))


def _is_result(value: Any) -> bool:
    """Whether a result.json of evaluate has what is read here, of the right types."""
    if not isinstance(value, dict):
        return False
    texts = [value.get(name) for name in ("model", "model_digest", "split")]
    records, warnings = value.get("records"), value.get("warnings")
    texts += [records.get(name) for name in ("digest", "source")] if isinstance(records, dict) else [None]
    texts += warnings if isinstance(warnings, list) else [None]
    return all(isinstance(text, str) for text in texts)


def _check(one: _Evaluation, first: _Evaluation, record_set: data.RecordSet, name: str) -> None:
    """Refuses an evaluation that is not of the images, or not of the classifiers, that its flag says."""
    digest, own = record_set.info.digest, one.result["records"]["digest"]
    if one.predictions.multilabel != first.predictions.multilabel or (
        not first.predictions.multilabel and one.classes != first.classes
    ):
        raise InputError(
            f"{one.flag}: its classes are {', '.join(one.classes)}, those of {first.flag} {', '.join(first.classes)}; "
            "only classifiers of the same can be compared"
        )
    if one.result.get("ten_crop", False) != first.result.get("ten_crop", False):
        raise InputError(f"{one.flag}: is of other crops of the images than {first.flag}; evaluate both with the same")
    if name == REVERSE:
        if not one.result["records"]["source"].startswith("synthetic:"):
            raise InputError(f"{one.flag}: is of images that are not synthetic ({one.result['records']['source']})")
        if own in one.trained_on:
            raise InputError(f"{one.flag}: its classifier learned from these synthetic images; give one of real images")
        return
    if (own, one.result["split"]) != (digest, first.result["split"]):
        raise InputError(
            f"{one.flag}: is of the {one.result['split']} fold of records {own[:12]}; must be of the "
            f"{first.result['split']} fold of --records={record_set.path} ({digest[:12]})"
        )
    if name == "synthetic" and digest in one.trained_on:
        raise InputError(f"{one.flag}: its classifier learned from the real records; give it as --real or --mixed")


def _choose_labels(read: Mapping[str, Sequence[_Evaluation]], mean_labels: Sequence[str]) -> list[str]:
    """The classes; of labels that do not exclude each other those that two patients of each fold have, and lack."""
    everyone = [one for found in read.values() for one in found]
    first = everyone[0]
    if not first.predictions.multilabel:
        if mean_labels:
            raise InputError("--mean_labels: the classes exclude each other; it is for labels that do not")
        return first.classes
    multilabel.check_mean_labels(mean_labels, first.classes)
    shared = [
        name
        for name in first.classes
        if (not mean_labels or name in mean_labels)
        and all(name in one.classes and _is_known(one, name) for one in everyone)
    ]
    if not shared:
        raise InputError(
            f"{first.flag}: shares no label with the others that two patients or more of each fold have, and lack"
        )
    return shared


def _is_known(one: _Evaluation, name: str) -> bool:
    column = one.classes.index(name)
    return bool(_find_known(one.predictions.of([column]))[0])


def _find_known(found: Predictions) -> np.ndarray:
    """Which labels two patients or more have, and two or more lack: bool [K]."""
    members = found.members
    patients = bootstrap.PatientBootstrap(members, found.patients)
    return multilabel.count_holders(patients, members).min(axis=1) > 1


def _align(read: Mapping[str, Sequence[_Evaluation]], labels: Sequence[str]) -> dict[str, list[Predictions]]:
    """Predictions of each arm for these labels, all in the order of the first."""
    first: Predictions | None = None
    aligned: dict[str, list[Predictions]] = {}
    for name, found in read.items():
        for one in found:
            own = one.predictions
            if own.multilabel:
                own = own.of([one.classes.index(label) for label in labels])
            first = first or own
            aligned.setdefault(name, []).append(paired_test.align(own, first.ids, first.labels, one.flag))
    return aligned


def _sample(groups: Mapping[str, Sequence[Predictions]], labels: Sequence[str], **drawing: Any) -> dict[str, Accuracy]:
    """Score of each arm and its resamples; empty where there are too few patients."""
    if next(iter(groups.values()))[0].multilabel:
        return multilabel.sample_means(groups, labels, **drawing) or {}
    return paired_test.sample_accuracies(groups, len(labels), recalls_of=labels, **drawing) or {}


def _estimate(accuracy: Accuracy) -> dict[str, Any]:
    # Sampled only where all rests on two patients or more, see `_sample`.
    return {"value": accuracy.value, "ci95": bootstrap.interval(accuracy.sampled, holders=2)}


def _describe_arm(found: Sequence[_Evaluation], accuracy: Accuracy | None) -> dict[str, Any]:
    return {
        "classifiers": [pathlib.Path(one.result["model"]).name for one in found],
        "trained_on": sorted({digest for one in found for digest in one.trained_on}),
        "tested_on": sorted({one.result["records"]["digest"] for one in found}),
        "num_images": len(found[0].predictions.ids),
        **(_estimate(accuracy) if accuracy else {"value": None, "ci95": None}),
        "parts": {label: _estimate(part) for label, part in accuracy.parts.items()} if accuracy else {},
    }


def _gap(sampled: Mapping[str, Accuracy], name: str, reference: str) -> dict[str, Any]:
    """{"arm", "reference", "value", "ci95", "p_value", "parts": {label: the same}}: arm - reference."""

    def difference(one: Accuracy, other: Accuracy) -> dict[str, Any]:
        drawn = one.sampled - other.sampled
        found = paired_test.describe_difference(one.value, other.value, drawn, holders=2)
        return {**found["difference"], "p_value": found["p_value"]}

    this, that = sampled[name], sampled[reference]
    return {
        "arm": name,
        "reference": reference,
        **difference(this, that),
        "parts": {
            label: difference(part, that.parts[label]) for label, part in this.parts.items() if label in that.parts
        },
    }


def _measure_subgroups(
    images: Any, aligned: Mapping[str, Sequence[Predictions]], labels: Sequence[str], **drawing: Any
) -> list[dict[str, Any]]:
    """A row for each group by sex, age and view: its images and patients alone are resampled."""
    rows = []
    for attribute, name, member in subgroups.list_groups(images):
        inside = {arm: [one.take(member) for one in found] for arm, found in aligned.items()}
        truth = inside["real"][0]
        own = list(labels)
        if truth.multilabel:
            columns = np.flatnonzero(_find_known(truth)).tolist()
            own = [labels[k] for k in columns]
            inside = {arm: [one.of(columns) for one in found] for arm, found in inside.items()}
        sampled = _sample(inside, own, **drawing) if own else {}
        rows.append(
            {
                "attribute": attribute,
                "group": name,
                "num_images": int(member.sum()),
                "num_patients": len({patient for patient in truth.patients if patient}) or None,
                "small": bool(member.sum() < subgroups.SMALL),
                "labels": own,
                "arms": {arm: _estimate(accuracy) for arm, accuracy in sampled.items()},
                "gaps": [_gap(sampled, *pair) for pair in GAPS if pair[0] in sampled and pair[1] in sampled],
            }
        )
    return rows


def _warn(result: Mapping[str, Any], read: Mapping[str, Sequence[_Evaluation]]) -> list[str]:
    # Of each evaluation, by its classifier and what that was tested on.
    warnings = [
        f"{pathlib.Path(one.result['model']).name}{' (on synthetic images)' if name == REVERSE else ''}: {text}"
        for name, found in read.items()
        for one in found
        for text in one.result["warnings"]
    ]
    if not result["gaps"]:
        warnings.append("a class has images of fewer than two patients, so that nothing can be compared")
    if "mixed" in read and "control" not in read:
        warnings.append(
            "there is no control: a gain of the mixture may come from more steps of training alone (train-baseline "
            "--duplicate_control, then --control)"
        )
    lone = [name for name, found in read.items() if len(found) == 1]
    if lone:
        arms = ", ".join(f"--{name}" for name in lone)
        warnings.append(f"one training each of {arms}: intervals say nothing of how much trainings differ by chance")
    return warnings
