"""What a model says about the images of one split; predictions.csv."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from tfcxr import data, metrics
from tfcxr.classifiers import inference
from tfcxr.classifiers.networks import models
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.records import manifest

FILE = "predictions.csv"
_PROBABILITY = "probability "  # in front of the name of a class or label: its column
_LABEL = "label "  # likewise: whether an image has the label


@dataclasses.dataclass(frozen=True)
class Predictions:
    """A model's output on the images of one split, in the order of the records.

    Attributes:
        ids, patients: strings [N]; a patient is empty where unknown.
        labels: true classes, int64 [N]; or, of labels that do not exclude each other, which an image has, bool [N, K].
        probabilities: float64 [N, K].
    """

    ids: Sequence[str]
    patients: Sequence[str]
    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def multilabel(self) -> bool:
        """Whether each of the K probabilities is of a label for itself, not of one of several classes."""
        return self.labels.ndim == 2

    @property
    def members(self) -> np.ndarray:
        """Which class, or which labels, each image has: bool [N, K]."""
        return metrics.memberships(self.labels, self.probabilities.shape[1])

    def of(self, columns: Sequence[int]) -> "Predictions":
        """Of some of the labels, by their numbers, in this order."""
        return dataclasses.replace(
            self, labels=self.labels[:, list(columns)], probabilities=self.probabilities[:, list(columns)]
        )

    def take(self, rows: np.ndarray) -> "Predictions":
        """Of some of the images, bool [N]."""
        chosen = np.flatnonzero(rows)
        return Predictions(
            [self.ids[i] for i in chosen],
            [self.patients[i] for i in chosen],
            self.labels[chosen],
            self.probabilities[chosen],
        )

    @property
    def predicted(self) -> np.ndarray:
        """Most probable class, int64 [N]; of no use where there are labels."""
        return self.probabilities.argmax(axis=1)


def choose_split(record_set: data.RecordSet, split: str | None) -> str:
    """The split to report on: the one asked for, else test, else validation. Raises InputError if it has no image."""
    filled = [name for name, part in record_set.info.splits.items() if part.num_examples]
    if split is None:
        split = "test" if "test" in filled else "validation"
    if split not in filled:
        raise InputError(f"--split={split}: {record_set.path} has no image in it; it has {', '.join(filled) or 'none'}")
    return split


def read_images(record_set: data.RecordSet, split: str) -> pd.DataFrame:
    """All that the records say of a split's images but their pixels: a row per image, in the order of the records.

    Columns: id, patient, view, sex (strings), age (years, -1 unknown), class (int64), and the labels (bool).

    They are those of the manifest; errors as of `manifest.read_rows`.
    """
    table = manifest.read_rows(record_set.info, split, ["id", "patient", "view", "sex", "age"])
    known = record_set.labels(split)
    vectors = dict(zip(record_set.info.labels, known["vector"].T > 0.5, strict=True))
    return table.assign(**{"class": known["class"], **vectors})


def predict(
    classifier: models.Classifier,
    record_set: data.RecordSet,
    split: str,
    *,
    batch_size: int,
    ten_crop: bool,
    title: str,
    where: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Runs a classifier, on its target path, over a split.

    Args:
        classifier: what to run.
        record_set, split: its images.
        batch_size: images, or crops of them, per step.
        ten_crop: average over ten crops of each image instead of taking the centre.
        title: of the progress bar.
        where: the classifier, for messages.

    Returns:
        Probabilities, and what they are without calibration: float64 [N, K], in the order of the records.

    Raises:
        RunError: a record is damaged, or a probability is not finite.
    """
    runner = inference.SplitRunner(
        classifier, record_set, split, path="target", batch_size=batch_size, ten_crop=ten_crop
    )
    probabilities, uncalibrated = runner.probabilities(title, where)
    return probabilities.astype(np.float64), uncalibrated.astype(np.float64)


def write(path: pathlib.Path, predictions: Predictions, classes: Sequence[str], split: str) -> None:
    """Writes predictions.csv: id, patient, split, label, prediction, and a column of probabilities per class.

    Of labels that do not exclude each other there is a column each, of 0 and 1, instead of label and prediction.
    """
    table = pd.DataFrame({"id": predictions.ids, "patient": predictions.patients, "split": split})
    if predictions.multilabel:
        for k, name in enumerate(classes):
            table[f"{_LABEL}{name}"] = predictions.labels[:, k].astype(int)
    else:
        table["label"] = [classes[k] for k in predictions.labels]
        table["prediction"] = [classes[k] for k in predictions.predicted]
    for k, name in enumerate(classes):
        table[f"{_PROBABILITY}{name}"] = predictions.probabilities[:, k]
    with files.atomic_path(path) as temporary:
        # Nine digits hold a float32 exactly: what is read again has the same ties and the same predictions.
        table.to_csv(temporary, index=False, float_format="%.9g", lineterminator="\n")


def read(path: str | os.PathLike) -> tuple[Predictions, list[str]]:
    """Reads predictions.csv; returns the predictions and the names of the classes or labels.

    Raises InputError if the file is absent or damaged; the message names it.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' parser errors and Unicode errors are ValueErrors
        reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[-1]
        raise InputError(f"{path}: cannot be read ({reason}); run evaluate again") from error
    classes = [name.removeprefix(_PROBABILITY) for name in map(str, table) if name.startswith(_PROBABILITY)]
    multilabel = any(name.startswith(_LABEL) for name in map(str, table))
    if len(table) == 0 or len(classes) < 2 - multilabel:
        raise InputError(f"{path}: holds no predictions; run evaluate again")
    try:
        probabilities = table[[f"{_PROBABILITY}{name}" for name in classes]].to_numpy(np.float64)
        if multilabel:
            true = _read_labels(table[[f"{_LABEL}{name}" for name in classes]])
        else:
            true = np.array([classes.index(name) for name in table["label"]], np.int64)
            stated = np.array([classes.index(name) for name in table["prediction"]], np.int64)
        predictions = Predictions(list(table["id"]), list(table["patient"]), true, probabilities)
    except KeyError as error:
        raise InputError(f"{path}: is damaged (no column {error}); run evaluate again") from error
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({error}); run evaluate again") from error
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise InputError(f"{path}: is damaged (a probability is not in 0..1); run evaluate again")
    if not multilabel and (stated != predictions.predicted).any():
        line = int(np.flatnonzero(stated != predictions.predicted)[0]) + 2
        raise InputError(f"{path}: is damaged (line {line}: the prediction is not the most probable class)")
    return predictions, classes


def _read_labels(columns: pd.DataFrame) -> np.ndarray:
    """bool [N, K] of columns of "0" and "1". Raises ValueError for another value."""
    values = columns.to_numpy(str)
    if not np.isin(values, ["0", "1"]).all():
        raise ValueError("a label is neither 0 nor 1")
    return values == "1"
