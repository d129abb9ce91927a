"""Evaluates a classifier on one split of a record set and writes all that `evaluate` promises."""

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfcxr import data, metrics
from tfcxr.classifiers import calibration, loading
from tfcxr.classifiers.networks import models
from tfcxr.classifiers.training import loop
from tfcxr.evaluation import (
    leakage,
    metric_figures,
    metric_tables,
    operating_points,
    paired_test,
    predictions,
    subgroups,
    summary,
    tensorboard_events,
)
from tfcxr.evaluation import multilabel as label_metrics
from tfcxr.evaluation.predictions import Predictions
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images.pictures import find_differences
from tfrecords_builder.labels import label_sets

SCHEMA_VERSION = 1


def evaluate(
    *,
    model_path: str,
    records_path: str,
    split: str | None,
    output_dir: pathlib.Path,
    batch_size: int = 64,
    ten_crop: bool = False,
    resamples: int = 2000,
    seed: int = 0,
    compare_with: str | None = None,
    thresholds_from: str | None = None,
    mean_labels: Sequence[str] = (),
) -> dict[str, Any]:
    """Evaluates a run or export on a record set.

    Writes result.json, result.md, predictions.csv, metrics.csv, operating_points.csv, subgroups.csv and comparison.csv
    where there is something for them, the pictures of `figures`, and TensorBoard's events in tensorboard/.

    Args:
        model_path: run folder or export of a classifier.
        records_path: folder of a record set of the model's label version; of any, if the model's labels do not exclude
            each other.
        split: fold to read; None for test, or validation where there is no test fold.
        output_dir: existing folder to write into.
        batch_size: images, or crops of them, per step.
        ten_crop: evaluate ten crops of each image instead of the centre, see preprocessing.ten_crops.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
        compare_with: another run or export, or the output folder of an earlier evaluation on the same images.
        thresholds_from: output folder of an evaluation of the same model, whose thresholds are applied here.
        mean_labels: labels over which means are taken, none for all; only of a model of such labels.

    Returns:
        What result.json holds.

    Raises:
        InputError: the models, records or earlier evaluations cannot be used, or do not fit each other.
        RunError: damaged records; a model's output is not finite.
    """
    config = loading.load_classifier_config(model_path)
    classes, multilabel = list(config["classes"]), config["multilabel"]
    if mean_labels and not multilabel:
        raise InputError(f"--mean_labels: the classes of {model_path} exclude each other; it is for labels that do not")
    label_metrics.check_mean_labels(mean_labels, classes)
    # All records have all labels.
    versions = None if multilabel else [config["label_version"]]
    record_set = data.RecordSet(records_path, label_versions=versions)
    record_set.refuse_other_labels(label_sets.of_settings(config), f"--model={model_path}")
    if not multilabel and list(record_set.info.classes) != classes:
        raise InputError(f"--records={records_path}: classes are {record_set.info.classes}, the model's are {classes}")
    split = predictions.choose_split(record_set, split)
    loop.refuse_unlabelled(record_set, flag="--records", split=split)
    digest = loading.weights_digest(model_path)
    borrowed: tuple[operating_points.Thresholds, dict[str, Any]] | None = None
    if thresholds_from:
        borrowed = operating_points.read_thresholds(
            thresholds_from, classes=classes, model_digest=digest, ten_crop=ten_crop
        )
    calibrated = calibration.read(model_path)
    if calibrated and not borrowed and not ten_crop:  # those were chosen for the centre of each image
        source = {"path": str(pathlib.Path(model_path) / calibration.FILE), **calibrated.fitted_on}
        borrowed = calibrated.thresholds, source
    images = predictions.read_images(record_set, split)

    shared, other = _read_other(compare_with, images, config) if compare_with else ([], None)
    reading = {"batch_size": batch_size, "ten_crop": ten_crop}
    where = f"--model={model_path}"
    own, plain = _predict(model_path, record_set, split, images, title=split, where=where, **reading)
    if compare_with and other is None:
        where = f"--compare_with={compare_with}"
        record_set.refuse_other_labels(label_sets.of_settings(loading.load_classifier_config(compare_with)), where)
        other, _ = _predict(compare_with, record_set, split, images, title=compare_with, where=where, **reading)
        if multilabel:
            theirs = loading.load_classifier_config(compare_with)["classes"]
            other = other.of([theirs.index(name) for name in shared])
    drawing: dict[str, Any] = {"resamples": resamples, "seed": seed}
    if multilabel:
        drawing["mean_labels"] = mean_labels
        drawn = label_metrics.summarise(own, classes, thresholds=borrowed[0] if borrowed else None, **drawing)
        groups = []
    else:
        drawn = summary.summarise(own, classes, **drawing)
        groups = subgroups.evaluate_subgroups(images, own, classes, **drawing)
    result = {
        "schema_version": SCHEMA_VERSION,
        **drawn,
        "operating_points": _operating_points(own, classes, borrowed, (record_set.info.digest, split)),
        "subgroups": groups,
        "calibration": _tell_calibration(calibrated, own.labels, plain, drawn) if calibrated else None,
        "comparison": None
        if other is None
        else {"with": compare_with, **_compare(own, other, classes, shared, **drawing)},
        "split": split,
        "selection_fold": split != "test",
        "ten_crop": ten_crop,
        "model": str(model_path),
        "model_digest": digest,
        "label_version": config["label_version"],
        "records": {"path": str(records_path), "source": record_set.info.source, "digest": record_set.info.digest},
    }
    result["warnings"] += leakage.find_leakage(model_path, record_set.info, split)
    result["warnings"] += _other_pictures(record_set, config)
    result["warnings"] += _other_crops(compare_with, ten_crop) if compare_with else []
    _write(output_dir, result, own, config)
    return result


def _tell_calibration(
    known: calibration.Calibration, labels: np.ndarray, plain: np.ndarray, drawn: Mapping[str, Any]
) -> dict[str, Any]:
    """{"temperatures", "fitted_on", "before": what measures of calibration are without it}; means over labels.

    Args:
        known: of the model.
        labels: see Predictions.
        plain: probabilities without it, [N, K].
        drawn: the metrics of the calibrated ones.
    """
    before: dict[str, float | None]
    if labels.ndim == 1:
        before = {"expected_calibration_error": metrics.reliability(labels, plain).expected_calibration_error}
    else:
        columns = [drawn["classes"].index(name) for name in drawn["mean_of"]]
        of_labels = [metrics.reliability_of(labels[:, k], plain[:, k]) for k in columns]
        squares = ((plain - labels) ** 2).mean(axis=0)[columns]
        before = {
            "expected_calibration_error": _mean([each.expected_calibration_error for each in of_labels]),
            "brier": _mean(squares.tolist()),
        }
    return {"temperatures": list(known.temperatures), "fitted_on": dict(known.fitted_on), "before": before}


def _mean(values: Sequence[float]) -> float | None:
    return statistics.mean(values) if values else None


def _compare(
    own: Predictions, other: Predictions, classes: Sequence[str], shared: Sequence[str], **drawing: Any
) -> dict[str, Any]:
    """Compares with another model, on the labels that both have; `drawing`: of the bootstrap, and the mean's labels."""
    if not own.multilabel:
        return paired_test.compare(own, other, classes, **drawing)
    return label_metrics.compare(own.of([classes.index(name) for name in shared]), other, shared, **drawing)


def _predict(
    path: str, record_set: data.RecordSet, split: str, images: pd.DataFrame, *, title: str, **reading: Any
) -> tuple[Predictions, np.ndarray]:
    """What a run or export says of the images of a split, and its probabilities without calibration [N, K].

    `reading`: see predictions.predict.
    """
    network = loading.load_network(path)
    probabilities, plain = predictions.predict(network, record_set, split, title=f"evaluate {title}", **reading)
    labels = _true_labels(images, network.config.classes if network.config.multilabel else None)
    return Predictions(list(images["id"]), list(images["patient"]), labels, probabilities), plain


def _true_labels(images: pd.DataFrame, names: Sequence[str] | None) -> np.ndarray:
    """Which of the labels of these names each image has, bool [N, K]; its class, int64 [N], if `names` is None."""
    return images["class"].to_numpy() if names is None else images[list(names)].to_numpy(bool)


def _write(output_dir: pathlib.Path, result: Mapping[str, Any], own: Predictions, config: Mapping[str, Any]) -> None:
    """All files of an evaluation, made of its `result` and of the predictions that this is of."""
    files.write_json(output_dir / "result.json", result)
    predictions.write(output_dir / predictions.FILE, own, result["classes"], result["split"])
    metric_tables.write_csv(output_dir, result)
    pictures = metric_figures.draw_all(output_dir, result, own)
    files.write_text(output_dir / "result.md", metric_tables.to_markdown(result, pictures))
    tensorboard_events.write(output_dir / "tensorboard", result, own, config, pictures)


def _other_crops(compare_with: str, ten_crop: bool) -> list[str]:
    """What is to be warned of where the evaluation compared with is of other crops of the images."""
    if _is_ten_crop(compare_with, default=ten_crop) == ten_crop:
        return []
    theirs = "the centre" if ten_crop else "ten crops"
    return [f"{compare_with}, compared with, is of {theirs} of each image, unlike this evaluation"]


def _other_pictures(record_set: data.RecordSet, config: Mapping[str, Any]) -> list[str]:
    """What is to be warned of where the images were not made as those that the model was trained on."""
    trained = models.ModelConfig.from_dict(config)
    return [
        f"the images were built with --{name}={here}, those that the model was trained on with --{name}={there}"
        for name, here, there in find_differences(record_set.info, trained)
    ]


def _read_other(path: str, images: pd.DataFrame, config: Mapping[str, Any]) -> tuple[Sequence[str], Predictions | None]:
    """What --compare_with names: the classes, or those labels, that both models have, and its predictions of them.

    The predictions are of these images; None if it names a model that has yet to make them. `config`: the model's.
    """
    flag = f"--compare_with={path}"
    table, other = pathlib.Path(path) / predictions.FILE, None
    if table.exists():
        other, found = predictions.read(table)
        multilabel = other.multilabel
    elif (pathlib.Path(path) / "config.json").exists():
        theirs = loading.load_classifier_config(path)
        found, multilabel = list(theirs["classes"]), theirs["multilabel"]
    else:
        raise InputError(f"{flag}: is neither a classifier's run or export, nor an output folder of evaluate")
    classes = list(config["classes"])
    shared = [name for name in classes if name in found] if multilabel else classes
    if multilabel != config["multilabel"] or not shared or not (multilabel or found == classes):
        kinds = {True: "labels", False: "classes"}
        raise InputError(
            f"{flag}: its {kinds[multilabel]} are {', '.join(found)}, the model's {kinds[config['multilabel']]} are "
            f"{', '.join(classes)}"
        )
    if other is None:
        return shared, None
    if multilabel:
        other = other.of([found.index(name) for name in shared])
    labels = _true_labels(images, shared if multilabel else None)
    return shared, paired_test.align(other, list(images["id"]), labels, flag)


def _is_ten_crop(path: str, *, default: bool) -> bool:
    """Whether the evaluation in a folder, if that holds one, is of ten crops of each image."""
    file = pathlib.Path(path) / "result.json"
    evaluated = (pathlib.Path(path) / predictions.FILE).exists() and file.exists()
    return bool(files.read_json(file).get("ten_crop", False)) if evaluated else default


def _operating_points(
    own: Predictions,
    classes: Sequence[str],
    borrowed: tuple[operating_points.Thresholds, dict[str, Any]] | None,
    fold: tuple[str, str],
) -> dict[str, Any]:
    """{"chosen_on": where, "optimistic": whether that is the fold they are applied to, "rows"}.

    `fold`: digest of the records, and split.
    """
    thresholds, source = borrowed or (
        operating_points.choose_thresholds(own, classes),
        {"path": None, "split": fold[1], "records_digest": fold[0]},
    )
    return {
        "chosen_on": source,
        "optimistic": (source["records_digest"], source["split"]) == fold,
        "rows": operating_points.apply_thresholds(thresholds, own, classes),
    }
