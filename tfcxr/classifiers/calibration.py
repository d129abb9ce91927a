"""Calibrated probabilities: temperatures by which logits are divided, fitted on labelled images that were not learned.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2 (temperature scaling).
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import optimize, special

from tfcxr.training import digests
from tfrecords_builder import files
from tfrecords_builder.errors import InputError

FILE = "calibration.json"  # in an export
SCHEMA_VERSION = 1

BEST_F1 = "F1"  # the criterion by whose threshold a label is called positive
HALF = 0.5  # that threshold, where none was chosen

_LOWEST, _HIGHEST = 0.1, 10.0


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What an export holds of its calibration.

    Attributes:
        temperatures: one for all outputs, or one for each: float [1] or [K].
        thresholds: {class or label: {criterion: probability}}, see evaluation.operating_points; chosen on the same
            images, of calibrated probabilities.
        fitted_on: {"records_digest", "split", "num_images"}.
    """

    temperatures: Sequence[float]
    thresholds: Mapping[str, Mapping[str, float | None]]
    fitted_on: Mapping[str, Any]

    def write(self, folder: str | os.PathLike) -> None:
        """Writes FILE into a folder."""
        files.write_json(pathlib.Path(folder) / FILE, {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)})


def read(folder: str | os.PathLike) -> Calibration | None:
    """The calibration of an export; None if it has none, as runs have not.

    Raises InputError if its file is damaged; the message names it.
    """
    path = pathlib.Path(folder) / FILE
    if not path.is_file():
        return None
    digests.check(folder, [FILE])
    found = files.read_json(path)
    try:
        values = {field.name: found[field.name] for field in dataclasses.fields(Calibration)}
        known = Calibration(**{**values, "temperatures": [float(value) for value in values["temperatures"]]})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: was not written by this version of tfcxr; export the run again") from error
    if not known.temperatures or min(known.temperatures) <= 0:
        raise InputError(f"{path}: is damaged (temperatures must be above 0); export the run again")
    return known


def fit(labels: np.ndarray, logits: np.ndarray, *, per_label: bool = False) -> np.ndarray:
    """The temperatures of the highest likelihood, in 0.1..10.

    Args:
        labels: classes int [N], or which of K labels that do not exclude each other each image has, bool [N, K].
        logits: float [N, K].
        per_label: a temperature for each label instead of one for all. One whose images all have it, or none, gets 1.

    Returns:
        float64 [1], or [K] with `per_label`.

    Raises:
        ValueError: `per_label` of classes, whose probabilities depend on all of their logits.
    """
    if not per_label:
        return np.array([_fit(labels, logits.astype(np.float64))])
    if labels.ndim == 1:
        raise ValueError("per_label=True: classes that exclude each other have one temperature")
    return np.array(
        [
            _fit(labels[:, [k]], logits[:, [k]].astype(np.float64)) if 0 < labels[:, k].sum() < len(labels) else 1.0
            for k in range(labels.shape[1])
        ]
    )


def _fit(labels: np.ndarray, logits: np.ndarray) -> float:
    # The likelihood has one maximum only, as it is concave in 1 / temperature.
    found = optimize.minimize_scalar(
        lambda log: negative_log_likelihood(labels, logits / np.exp(log)),
        bounds=(np.log(_LOWEST), np.log(_HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def negative_log_likelihood(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean over the images, and over labels that do not exclude each other, in nats; arguments as of `fit`."""
    if labels.ndim == 2:
        return float(-special.log_expit(np.where(labels, logits, -logits)).mean())
    return float(-special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())
