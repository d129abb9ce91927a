"""Fits the calibration of a trained classifier on the validation fold of a record set."""

import os
from typing import Any

import numpy as np

from tfcxr import data, metrics
from tfcxr.classifiers import calibration, inference, loading
from tfcxr.evaluation import operating_points
from tfcxr.evaluation.predictions import Predictions
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import label_sets

FOLD = "validation"
_BATCH = 64


def fit_calibration(
    run_dir: str | os.PathLike, records_path: str | os.PathLike, *, per_label: bool
) -> tuple[calibration.Calibration, dict[str, Any]]:
    """Fits temperatures by maximum likelihood, and chooses operating points for the calibrated probabilities.

    Args:
        run_dir: run of a classifier; its centre crops, on the target path, are calibrated.
        records_path: record set with a validation fold: those it was trained on, or a hospital's own.
        per_label: a temperature for each label, instead of one for all.

    Returns:
        The calibration, and {"temperatures": {label: value}, or {"all": value}, "negative_log_likelihood",
        "expected_calibration_error": each {"before", "after"} on that fold, where it looks better than elsewhere}.

    Raises:
        InputError: records that do not fit the run, or without that fold; `per_label` of classes.
        RunError: a record is damaged, or the output not finite.
    """
    classifier = loading.load_network(run_dir)
    config = classifier.config
    if per_label and not config.multilabel:
        raise InputError(
            f"--calibrate=per_label: the classes of {run_dir} exclude each other and have one temperature; give "
            "--calibrate=temperature"
        )
    versions = None if config.multilabel else [config.label_version]
    record_set = data.RecordSet(records_path, label_versions=versions)
    record_set.refuse_other_labels(
        label_sets.of_settings(loading.load_classifier_config(run_dir)), f"--run_dir={run_dir}"
    )
    if not config.multilabel and tuple(record_set.info.classes) != config.classes:
        raise InputError(f"--records={records_path}: its classes are not those of {run_dir}")
    if FOLD not in record_set.info.splits or not record_set.num_examples(FOLD):
        raise InputError(f"--records={records_path}: has no {FOLD} fold, which --calibrate fits on")
    outputs = inference.SplitRunner(classifier, record_set, FOLD, path="target", batch_size=_BATCH)()
    inference.check_finite(outputs.probabilities, f"--run_dir={run_dir}")
    temperatures = calibration.fit(outputs.labels, outputs.logits, per_label=per_label)
    after = inference.Outputs(outputs.labels, outputs.features, outputs.logits / temperatures)
    ids = [str(i) for i in range(len(outputs.labels))]
    rounded = after.probabilities.astype(np.float32).astype(np.float64)  # as the network gives them
    own = Predictions(ids, ids, outputs.labels, rounded)
    fitted = calibration.Calibration(
        temperatures=[float(value) for value in temperatures],
        thresholds=operating_points.choose_thresholds(own, list(config.classes)),
        fitted_on={"records_digest": record_set.info.digest, "split": FOLD, "num_images": len(ids)},
    )
    told = {
        "temperatures": dict(zip(config.classes if per_label else ["all"], fitted.temperatures, strict=True)),
        "negative_log_likelihood": {"before": outputs.cross_entropy(), "after": after.cross_entropy()},
        "expected_calibration_error": {"before": _calibration_error(outputs), "after": _calibration_error(after)},
    }
    return fitted, told


def _calibration_error(outputs: inference.Outputs) -> float:
    """Of the predicted class; of labels the mean over those with both values."""
    if not outputs.multilabel:
        return metrics.reliability(outputs.labels, outputs.probabilities).expected_calibration_error
    both = np.flatnonzero(metrics.have_both(outputs.labels))
    errors = [
        metrics.reliability_of(outputs.labels[:, k], outputs.probabilities[:, k]).expected_calibration_error
        for k in both
    ]
    return float(np.mean(errors)) if errors else 0.0
