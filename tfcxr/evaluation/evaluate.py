"""Evaluates a classifier on one split of a record set and writes all that `evaluate` promises."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tfcxr import data
from tfcxr.classifiers import loading
from tfcxr.classifiers.networks import models
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
from tfcxr.evaluation.predictions import Predictions
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images.pictures import find_differences

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
) -> dict[str, Any]:
    """Evaluates a run or export on a record set.

    Writes result.json, result.md, predictions.csv, metrics.csv, operating_points.csv, subgroups.csv and comparison.csv
    where there is something for them, the pictures of `figures`, and TensorBoard's events in tensorboard/.

    Args:
        model_path: run folder or export of a classifier.
        records_path: folder of a record set of the model's label version.
        split: fold to read; None for test, or validation where there is no test fold.
        output_dir: existing folder to write into.
        batch_size: images, or crops of them, per step.
        ten_crop: evaluate ten crops of each image instead of the centre, see preprocessing.ten_crops.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
        compare_with: another run or export, or the output folder of an earlier evaluation on the same images.
        thresholds_from: output folder of an evaluation of the same model, whose thresholds are applied here.

    Returns:
        What result.json holds.

    Raises:
        InputError: the models, records or earlier evaluations cannot be used, or do not fit each other.
        RunError: damaged records; a model's output is not finite.
    """
    config = loading.load_classifier_config(model_path)
    classes = list(config["classes"])
    record_set = data.RecordSet(records_path, label_versions=[config["label_version"]])
    if list(record_set.info.classes) != classes:
        raise InputError(f"--records={records_path}: classes are {record_set.info.classes}, the model's are {classes}")
    split = predictions.choose_split(record_set, split)
    digest = loading.weights_digest(model_path)
    borrowed = None
    if thresholds_from:
        borrowed = operating_points.read_thresholds(
            thresholds_from, classes=classes, model_digest=digest, ten_crop=ten_crop
        )
    images = predictions.read_images(record_set, split)

    other = _read_other(compare_with, images, classes) if compare_with else None
    reading = {"batch_size": batch_size, "ten_crop": ten_crop}
    own = _predict(model_path, record_set, split, images, title=split, where=f"--model={model_path}", **reading)
    if compare_with and other is None:
        where = f"--compare_with={compare_with}"
        other = _predict(compare_with, record_set, split, images, title=compare_with, where=where, **reading)
    drawing = {"resamples": resamples, "seed": seed}
    result = {
        "schema_version": SCHEMA_VERSION,
        **summary.summarise(own, classes, **drawing),
        "operating_points": _operating_points(own, classes, borrowed, (record_set.info.digest, split)),
        "subgroups": subgroups.evaluate_subgroups(images, own, classes, **drawing),
        "comparison": None
        if other is None
        else {"with": compare_with, **paired_test.compare(own, other, classes, **drawing)},
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


def _predict(
    path: str, record_set: data.RecordSet, split: str, images: pd.DataFrame, *, title: str, **reading: Any
) -> Predictions:
    """What a run or export says of the images of a split; `reading`: see predictions.predict."""
    network = loading.load_network(path)
    probabilities = predictions.predict(network, record_set, split, title=f"evaluate {title}", **reading)
    return Predictions(list(images["id"]), list(images["patient"]), images["class"].to_numpy(), probabilities)


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


def _read_other(path: str, images: pd.DataFrame, classes: Sequence[str]) -> Predictions | None:
    """The predictions of --compare_with on these images, or None if it names a model that has yet to make them."""
    flag = f"--compare_with={path}"
    table, other = pathlib.Path(path) / predictions.FILE, None
    if table.exists():
        other, found = predictions.read(table)
    elif (pathlib.Path(path) / "config.json").exists():
        found = list(loading.load_classifier_config(path)["classes"])
    else:
        raise InputError(f"{flag}: is neither a classifier's run or export, nor an output folder of evaluate")
    if found != list(classes):
        raise InputError(f"{flag}: its classes are {', '.join(found)}, the model's are {', '.join(classes)}")
    if other is None:
        return None
    return paired_test.align(other, list(images["id"]), images["class"].to_numpy(), flag)


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
