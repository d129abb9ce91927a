"""Evaluates a classifier on one split of a record set: metrics, intervals, predictions and pictures."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import tensorflow as tf

from tfcxr import data, metrics
from tfcxr.classifiers import loading, preprocessing
from tfrecords_builder import files
from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.progress import progress

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Predictions:
    """A model's output on one split, in the order of the records.

    Attributes:
      ids, patients: strings [N].
      labels: true classes, int64 [N].
      probabilities: float64 [N, K].
    """

    ids: list[str]
    patients: list[str]
    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """Most probable class, int64 [N]."""
        return self.probabilities.argmax(axis=1)


def choose_split(record_set: data.RecordSet, split: str | None) -> str:
    """The split to report on: the one asked for, else test, else validation."""
    if split is None:
        split = "test" if record_set.info.splits.get("test") else "validation"
    if record_set.num_examples(split) == 0:
        raise InputError(f"--split={split}: {record_set.path} has no image in it")
    return split


def predict(model: tf.keras.Model, record_set: data.RecordSet, split: str, batch_size: int = 64) -> Predictions:
    """Runs `model` (images [N, H, W, 1] in [0, 1] -> probabilities [N, K]) over a split.

    Raises RunError if a record is damaged or a probability is not finite.
    """
    call = tf.function(lambda images: model(preprocessing.to_unit(images), training=False))
    ids: list[str] = []
    patients: list[str] = []
    labels, probabilities = [], []
    total = record_set.num_examples(split)
    with data.naming_damage(record_set.path), progress(total, f"evaluate {split}") as bar:
        for batch in data.evaluation_batches(record_set, split, batch_size):
            probabilities.append(call(batch["image"]).numpy())
            labels.append(batch["class"].numpy())
            ids += [i.decode() for i in batch["id"].numpy()]
            patients += [p.decode() for p in batch["patient"].numpy()]
            bar.update(len(labels[-1]))
    result = Predictions(ids, patients, np.concatenate(labels), np.concatenate(probabilities).astype(np.float64))
    if not np.isfinite(result.probabilities).all():
        raise RunError(f"{record_set.path}: the model's output is not finite; its weights are damaged or diverged")
    return result


def summarise(predictions: Predictions, classes: list[str], *, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """The metrics of 6-interfaces.md as JSON values (fractions; null where a class has no image)."""
    number = len(classes)
    labels, predicted = predictions.labels, predictions.predicted
    recall = metrics.recalls(labels, predicted, number)
    intervals = metrics.bootstrap(labels, predicted, predictions.patients, number, resamples=resamples, seed=seed)
    auc = metrics.roc_auc(labels, predictions.probabilities)
    support = np.bincount(labels, minlength=number)
    named = {p for p in predictions.patients if p}
    warnings = [f"class {name} has no image" for name, n in zip(classes, support, strict=True) if n == 0]
    if len(np.unique(predicted)) == 1 and number > 1:
        warnings.append(f"collapsed: every image is predicted as {classes[predicted[0]]}")
    return {
        "num_images": len(labels),
        "num_patients": len(named) or None,
        "classes": list(classes),
        "balanced_accuracy": {
            "value": _json(metrics.balanced_accuracy(labels, predicted, number)),
            "ci95": None if intervals is None else [float(v) for v in intervals.balanced_accuracy],
        },
        "recall": {
            name: {
                "value": _json(recall[k]),
                "ci95": None if intervals is None else [float(v) for v in intervals.recall[k]],
                "support": int(support[k]),
            }
            for k, name in enumerate(classes)
        },
        "roc_auc": {
            "macro": _json(auc.mean()),
            "per_class": {name: _json(auc[k]) for k, name in enumerate(classes)},
        },
        "expected_calibration_error": metrics.expected_calibration_error(labels, predictions.probabilities),
        "confusion_matrix": metrics.confusion_matrix(labels, predicted, number).tolist(),
        "bootstrap": None
        if intervals is None
        else {"resamples": intervals.resamples, "redrawn": intervals.redrawn, "unit": "patient", "seed": seed},
        "warnings": warnings,
    }


def evaluate(
    *,
    model_path: str,
    records_path: str,
    split: str | None,
    output_dir: pathlib.Path,
    batch_size: int = 64,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluates a run or export on a record set and writes result.json, predictions.csv, result.md and two pictures.

    Args:
      model_path: run folder or export of a classifier.
      records_path: folder of a record set of the model's label version.
      split: fold to read; None for test, or validation where there is no test fold.
      output_dir: existing folder to write into.
      batch_size: images per step.
      resamples: bootstrap resamples.
      seed: of the bootstrap.

    Returns:
      What result.json holds.

    Raises:
      InputError: the model or records cannot be used, or do not fit each other.
      RunError: damaged records.
    """
    config = loading.load_classifier_config(model_path)
    classes = list(config["classes"])
    record_set = data.RecordSet(records_path, label_versions=[config["label_version"]])
    if list(record_set.info.classes) != classes:
        raise InputError(f"--records={records_path}: classes are {record_set.info.classes}, the model's are {classes}")
    split = choose_split(record_set, split)
    predictions = predict(loading.load_classifier(model_path), record_set, split, batch_size)
    result = {
        "schema_version": SCHEMA_VERSION,
        **summarise(predictions, classes, resamples=resamples, seed=seed),
        "split": split,
        "selection_fold": split != "test",
        "model": str(model_path),
        "label_version": config["label_version"],
        "records": {"path": str(records_path), "source": record_set.info.source, "digest": record_set.info.digest},
    }
    files.write_json(output_dir / "result.json", result)
    _write_predictions(output_dir / "predictions.csv", predictions, classes, split)
    files.write_text(output_dir / "result.md", to_markdown(result))
    plot_confusion(result, output_dir / "confusion_matrix.png")
    plot_roc(predictions, classes, output_dir / "roc.png")
    return result


def to_markdown(result: dict[str, Any]) -> str:
    """A result as a short Markdown table, in percent."""
    fold = " (selection fold)" if result["selection_fold"] else ""
    lines = [
        f"{result['num_images']} images, {result['num_patients'] or 'no'} patients, split {result['split']}{fold}",
        "",
        "| | value | 95% interval | images |",
        "|---|---|---|---|",
        f"| balanced accuracy | {format_percent(result['balanced_accuracy'])} | {result['num_images']} |",
    ]
    for name, recall in result["recall"].items():
        lines.append(f"| recall {name} | {format_percent(recall)} | {recall['support']} |")
    macro = result["roc_auc"]["macro"]
    lines.append(f"| ROC-AUC (macro) | {'–' if macro is None else f'{macro:.3f}'} | | |")
    lines += [f"\nWarning: {warning}." for warning in result["warnings"]]
    return "\n".join(lines) + "\n"


def results_table(rows: Sequence[tuple[str, str, str, dict[str, Any]]]) -> str:
    """Results side by side as a Markdown table, in percent.

    Args:
      rows: (source, target, method, content of result.json), all with the same classes.
    """
    classes = rows[0][3]["classes"]
    recalls = "".join(f" recall {name} |" for name in classes)
    lines = [
        f"| source -> target | method | balanced accuracy, % | 95% interval |{recalls} images | patients |",
        "|---|---|---|---|" + "---|" * (len(classes) + 2),
    ]
    for source, target, method, result in rows:
        value = format_percent(result["balanced_accuracy"])
        recalls = "".join(f" {format_percent(result['recall'][name], ' | ').split(' | ')[0]} |" for name in classes)
        fold = " (selection fold)" if result["selection_fold"] else ""
        lines.append(
            f"| {source} -> {target}{fold} | {method} | {value} |{recalls} {result['num_images']} |"
            f" {result['num_patients'] or '–'} |"
        )
    return "\n".join(lines)


def format_percent(metric: dict[str, Any], separator: str = " | ") -> str:
    """`71.3 | 65.0–77.1` of {"value": 0.713, "ci95": [...]}; dashes for what is null."""
    value = "–" if metric["value"] is None else f"{100 * metric['value']:.1f}"
    interval = "–" if metric["ci95"] is None else f"{100 * metric['ci95'][0]:.1f}–{100 * metric['ci95'][1]:.1f}"
    return f"{value}{separator}{interval}"


def plot_confusion(result: dict[str, Any], path: pathlib.Path) -> None:
    """Confusion matrix, rows normalised to recall, counts in the cells."""
    counts = np.asarray(result["confusion_matrix"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(1.6 + 1.1 * len(counts), 1.2 + 1.0 * len(counts)), layout="constrained")
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for (row, column), share in np.ndenumerate(shares):
        text = f"{counts[row, column]}\n{100 * share:.0f}%"
        axes.text(column, row, text, ha="center", va="center", color="white" if share > 0.6 else "black", fontsize=9)
    ticks = range(len(counts))
    axes.set_xticks(ticks, result["classes"], rotation=30, ha="right")
    axes.set_yticks(ticks, result["classes"])
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    _save(figure, path)


def plot_roc(predictions: Predictions, classes: list[str], path: pathlib.Path) -> None:
    """ROC curve of each class against the rest."""
    figure, axes = plt.subplots(figsize=(4.5, 4.2), layout="constrained")
    aucs = metrics.roc_auc(predictions.labels, predictions.probabilities)
    for k, name in enumerate(classes):
        if np.isfinite(aucs[k]):
            fpr, tpr = metrics.roc_curve(predictions.labels == k, predictions.probabilities[:, k])
            axes.plot(fpr, tpr, label=f"{name} (AUC {aucs[k]:.3f})")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    axes.set_xlabel("false-positive rate")
    axes.set_ylabel("true-positive rate (recall)")
    if np.isfinite(aucs).any():
        axes.legend(loc="lower right", fontsize=8)
    _save(figure, path)


def _save(figure: plt.Figure, path: pathlib.Path) -> None:
    with files.atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)


def _write_predictions(path: pathlib.Path, predictions: Predictions, classes: list[str], split: str) -> None:
    table = pd.DataFrame(
        {
            "id": predictions.ids,
            "patient": predictions.patients,
            "split": split,
            "label": [classes[k] for k in predictions.labels],
            "prediction": [classes[k] for k in predictions.predicted],
        }
    )
    for k, name in enumerate(classes):
        table[f"probability {name}"] = predictions.probabilities[:, k]
    with files.atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.7g", lineterminator="\n")


def _json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
