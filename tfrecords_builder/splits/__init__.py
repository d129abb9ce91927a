"""Splits into train, validation and test: policies.py makes them, lists.py reads those of a file."""

from tfrecords_builder.splits.lists import NO_SPLIT, Lists, read_lists
from tfrecords_builder.splits.policies import assign_splits, check_disjoint

__all__ = ["NO_SPLIT", "Lists", "assign_splits", "check_disjoint", "read_lists"]
