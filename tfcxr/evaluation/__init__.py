"""Evaluation of classifiers: the library behind `evaluate`.

predictions.py runs a model and keeps what it says; bootstrap.py resamples patients; summary.py, operating_points.py,
subgroups.py and comparing.py make JSON values of predictions; tables.py, figures.py and events.py show them.
"""

from tfcxr.evaluation.evaluate import evaluate

__all__ = ["evaluate"]
