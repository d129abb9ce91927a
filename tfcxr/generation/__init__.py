"""Labelled synthetic record sets from a trained generator: the library behind `generate`.

A plan says which labels each image has and in which split it is (plans.py, tables.py); `write` makes the images of a
plan (writing.py). Image i of a set has the latent of (seed, i), whatever batch, shard or run renders it.
"""

from tfcxr.generation.generate import Options, is_worth_keeping, write
from tfcxr.generation.plans import (
    Plan,
    check_seen,
    find_label_version,
    plan_balanced,
    plan_replicated,
    plan_sampled,
    plan_vector,
)
from tfcxr.generation.table_plan import plan_table

__all__ = [
    "Options",
    "Plan",
    "check_seen",
    "find_label_version",
    "is_worth_keeping",
    "plan_balanced",
    "plan_replicated",
    "plan_sampled",
    "plan_table",
    "plan_vector",
    "write",
]
