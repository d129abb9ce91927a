"""A result in TensorBoard: scalars, PR curves, pictures, and the run's settings beside its metrics (HParams)."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams
from tensorboard.plugins.pr_curve import summary as pr_curves

from tfcxr.evaluation import metric_tables
from tfcxr.evaluation import multilabel as label_metrics
from tfcxr.evaluation.predictions import Predictions


def write(
    folder: pathlib.Path,
    result: Mapping[str, Any],
    predictions: Predictions,
    settings: Mapping[str, Any],
    pictures: Sequence[pathlib.Path],
) -> None:
    """Writes TensorBoard's events into `folder`.

    Args:
        folder: made if absent.
        result: of `evaluate`.
        predictions: what it was made of.
        settings: of the evaluated run; texts, numbers and lists of them are shown.
        pictures: PNG files.
    """
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=0):
        for name, value in _scalars(result).items():
            if value is not None:
                tf.summary.scalar(name, value)
        for k, name in enumerate(result["classes"]):
            curve = pr_curves.pb(name, predictions.members[:, k], predictions.probabilities[:, k].astype(np.float32))
            # The plugin has no TensorFlow 2 function; its protocol buffer is written as it is.
            tf.summary.experimental.write_raw_pb(curve.SerializeToString(), step=0)
        for path in pictures:
            tf.summary.image(path.stem, tf.io.decode_png(path.read_bytes(), channels=3)[None])
        flat = {key: value for key, value in settings.items() if isinstance(value, (bool, int, float, str))}
        flat |= {key: ",".join(map(str, value)) for key, value in settings.items() if isinstance(value, (list, tuple))}
        flat |= {
            "evaluated_on": result["records"]["source"],
            "split": result["split"],
            "evaluated_ten_crop": result["ten_crop"],
        }
        # A name that reads well in the table; the digest keeps runs of one name apart.
        name = pathlib.Path(result["model"]).resolve().name
        trial = [name, result["records"]["source"], result["split"], result["model_digest"][:6]]
        trial += ["ten_crop"] if result["ten_crop"] else []
        hparams.hparams(flat, trial_id="-".join(trial))
    writer.close()


def _scalars(result: Mapping[str, Any]) -> dict[str, float | None]:
    if metric_tables.is_multilabel(result):
        scores = {f"evaluate/{name}": result[name]["macro"] for name in label_metrics.MEASURES}
        aucs = result["roc_auc"]["per_class"].items()
        return {**scores, **{f"evaluate/roc_auc/{name}": value for name, value in aucs}}
    return {
        "evaluate/balanced_accuracy": result["balanced_accuracy"]["value"],
        **{f"evaluate/recall/{name}": recall["value"] for name, recall in result["recall"].items()},
        **{f"evaluate/{metric}": result[metric]["macro"] for metric in ("roc_auc", "average_precision", "f1")},
        "evaluate/expected_calibration_error": result["expected_calibration_error"],
    }
