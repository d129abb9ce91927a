"""Evaluation of classifiers: the library behind `evaluate`.

predictions.py runs a model and keeps what it says; bootstrap.py resamples patients; summary.py, operating_points.py,
subgroups.py and paired_test.py make JSON values of predictions, leakage.py warns of images that were trained on;
metric_tables.py, metric_figures.py and tensorboard_events.py show them.
"""

from tfcxr.evaluation.evaluate import evaluate

__all__ = ["evaluate"]
