"""The names that all modules agree on: the splits, and CheXpert's labels for what is of CheXpert alone.

What deals with the labels of any data set takes them from its label set (label_sets.py).
"""

from tfrecords_builder.labels.label_sets import CHEXPERT14, EXTRA_SEPARATOR

__all__ = ["EXTRA_SEPARATOR", "LABELS", "NO_FINDING", "SPLITS"]

LABELS = CHEXPERT14.labels
NO_FINDING = CHEXPERT14.no_finding
SPLITS: tuple[str, ...] = ("train", "validation", "test")
