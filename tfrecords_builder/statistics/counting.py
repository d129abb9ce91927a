"""Counts labels, classes and label combinations of a data set, from its table alone: the numbers behind `label-stats`.

The tables are those of the data analysis chapter of the thesis that this project reproduces; published.py holds its
numbers and comparison.py sets them beside ours. "Images" are rows of the table: no image is opened.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfrecords_builder import choices, labels, readers, splits
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import combinations
from tfrecords_builder.statistics import published

ALL = "all"
ANY_LABEL = "any label"  # stands for the class in a version without classes: rows with at least one label
SPLIT_ORDER = (ALL, "train", "validation", "train_val", "test")


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows to be counted, and how they were chosen.

    `frame` is a reader's frame with `split`, only the rows of `view`; `values` are its labels, float[N, L] of 1, 0,
    -1 (uncertain) and NaN (blank); `extra` its findings outside the label set, object[N] of str joined by "|".
    """

    table: readers.Table
    frame: pd.DataFrame
    values: np.ndarray
    extra: np.ndarray
    uncertain: str
    view: str
    split_policy: str
    split_fractions: tuple[float, ...]
    frontal_only: bool = True


@dataclasses.dataclass(frozen=True)
class Members:
    """The class of every row in one label version: index int[N] into `names`, -1 for none, and the vectors [N, L]."""

    version: labels.LabelVersion
    names: tuple[str, ...]
    index: np.ndarray
    vectors: np.ndarray


def get_versions(
    names: Sequence[str] | None,
    user_versions: Mapping[str, labels.LabelVersion] | None = None,
    label_set: labels.LabelSet = labels.DEFAULT,
) -> list[labels.LabelVersion]:
    """The label versions called `names`, all built-in ones and all of `user_versions` if there is no name.

    Raises InputError: an unknown name, or one given twice.
    """
    known = {**labels.built_in_versions(label_set), **(user_versions or {})}
    for name in names or ():
        if name not in known:
            raise InputError(f"--label_versions={name}: unknown; choose of {', '.join(known)}")
        if list(names or ()).count(name) > 1:
            raise InputError(f"--label_versions={name}: is given twice")
    return [known[name] for name in names or known]


def select_rows(
    table: readers.Table,
    *,
    uncertain: str = "zeros",
    split_policy: str = "patient",
    split_fractions: Sequence[float] = choices.SPLIT_FRACTIONS,
    view: str = "any",
    frontal_only: bool = True,
    seed: int = 0,
    **split_options: Any,
) -> Rows:
    """Splits the table as build-records does, then takes the rows of a view.

    Args:
        table: of `readers.read`, with `official=True` if that is the split policy.
        uncertain: policy for uncertain labels; the label counts themselves do not depend on it.
        split_policy: as for build-records.
        split_fractions: of train, validation and test.
        view: PA, AP or any.
        frontal_only: whether the table was read without its lateral views.
        seed: of the split.
        **split_options: what `splits.assign_splits` takes beside these.

    Raises:
        InputError: a bad argument, or no row of that view.
    """
    labels.parse_uncertain(uncertain, table.label_set)
    frame = table.frame.copy()
    frame["split"] = splits.assign_splits(
        frame, split_policy, fractions=split_fractions, seed=seed, labels=table.label_set.labels, **split_options
    )
    if view != "any":
        frame = frame[frame["view"] == view]
        if not len(frame):
            raise InputError(f"--view={view}: {table.origin.name} has no row of that view")
    frame = frame.reset_index(drop=True)
    return Rows(
        table=table,
        frame=frame,
        values=frame[list(table.label_set.labels)].to_numpy(float),
        extra=frame["extra"].to_numpy(object),
        uncertain=uncertain,
        view=view,
        split_policy=split_policy,
        split_fractions=tuple(split_fractions),
        frontal_only=frontal_only,
    )


def assign_classes(rows: Rows, version: labels.LabelVersion, uncertain: str | None = None) -> Members:
    """The class of every row; in a version without classes the one class ANY_LABEL."""
    vectors, kept = labels.apply_uncertain(version, rows.values, uncertain or rows.uncertain)
    if version.multilabel:
        index = np.where(labels.select(version, vectors, rows.extra), 0, labels.NO_CLASS)
    else:
        index = labels.assign(version, vectors, rows.extra)
    names = version.class_names or (ANY_LABEL,)
    return Members(version, names, np.where(kept, index, labels.NO_CLASS), vectors)


def count_labels(values: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Columns label, positive, uncertain, negative, blank: rows of values [N, L] of labels with each value."""
    counts = {
        "positive": (values == 1).sum(axis=0),
        "uncertain": (values == -1).sum(axis=0),
        "negative": (values == 0).sum(axis=0),
        "blank": np.isnan(values).sum(axis=0),
    }
    return pd.DataFrame({"label": names, **counts})


def count_studies(table: readers.Table) -> pd.DataFrame:
    """As `count_labels`, but each study once, as published: a CheXpert table, read with its lateral views.

    A study is the folder of an image; its images share their labels.
    """
    first = ~table.frame["id"].str.rsplit("/", n=1).str[0].duplicated()
    return count_labels(table.frame.loc[first, list(table.label_set.labels)].to_numpy(float), table.label_set.labels)


def count_pairs(rows: Rows) -> pd.DataFrame:
    """Square frame indexed by label: images with both labels under the uncertain policy; diagonal: with the label."""
    vectors, kept = labels.apply_uncertain(
        labels.get_label_version("multilabel", label_set=rows.table.label_set), rows.values, rows.uncertain
    )
    positive = vectors[kept].astype(np.int64)
    names = rows.table.label_set.labels
    return pd.DataFrame(positive.T @ positive, index=pd.Index(names, name="label"), columns=names)


def count_classes(rows: Rows, members: Sequence[Members]) -> pd.DataFrame:
    """Columns label_version, class, split, count.

    The splits are `all` and those of the policy; where an official list leaves train and validation to be cut, also
    `train_val`, which is both.
    """
    split = rows.frame["split"].to_numpy(object)
    masks = {ALL: np.ones(len(split), bool), **{name: split == name for name in set(split) - {splits.NO_SPLIT}}}
    if (rows.frame["fold"] == "train_val").any():
        masks["train_val"] = masks.get("train", False) | masks.get("validation", False)
    order = [name for name in SPLIT_ORDER if name in masks] + sorted(set(masks) - set(SPLIT_ORDER))
    records = [
        (m.version.name, name, part, int((masks[part] & (m.index == i)).sum()))
        for m in members
        for i, name in enumerate(m.names)
        for part in order
    ]
    return pd.DataFrame(records, columns=["label_version", "class", "split", "count"])


def count_combinations(rows: Rows, members: Sequence[Members]) -> pd.DataFrame:
    """Columns label_version, class, labels (joined by "|"), count: the most frequent first.

    Findings outside the label set are part of a combination and stand after the labels, so that a label by itself is a
    label alone.
    """
    extra_codes, extras = pd.factorize(rows.extra)
    known = rows.table.label_set.labels
    parts = []
    for m in members:
        # A label vector and an extra text as one number: far fewer distinct ones than rows.
        keys = combinations.encode(m.vectors).astype(np.int64) * len(extras) + extra_codes
        for i, name in enumerate(m.names):
            distinct, counts = np.unique(keys[m.index == i], return_counts=True)
            names = [
                combinations.join(
                    [*combinations.names(key // len(extras), known), *filter(None, [extras[key % len(extras)]])], known
                )
                for key in distinct.tolist()
            ]
            part = pd.DataFrame({"label_version": m.version.name, "class": name, "labels": names, "count": counts})
            parts.append(part.sort_values(["count", "labels"], ascending=[False, True]))
    return pd.concat(parts, ignore_index=True)


def count_totals(combinations: pd.DataFrame) -> pd.DataFrame:
    """Columns label_version, class, combinations (different ones), frequent (with more than 256 images), images."""
    groups = combinations.groupby(["label_version", "class"], sort=False)["count"]
    totals = groups.agg(
        combinations="size", frequent=lambda counts: int((counts > published.FREQUENT).sum()), images="sum"
    )
    return totals.reset_index()


def compare_policies(rows: Rows, versions: Sequence[labels.LabelVersion]) -> pd.DataFrame:
    """Columns label_version, class and one per uncertain policy: the images of each class under each."""
    records = []
    for version in versions:
        members = {policy: assign_classes(rows, version, policy) for policy in labels.UNCERTAIN_POLICIES}
        for i, name in enumerate(next(iter(members.values())).names):
            counts = [int((m.index == i).sum()) for m in members.values()]
            records.append((version.name, name, *counts))
    return pd.DataFrame(records, columns=["label_version", "class", *labels.UNCERTAIN_POLICIES])


def compare_names(rows: Rows) -> pd.DataFrame:
    """Columns label, chexpert, chestxray (its name there, "" if unknown), relation, positive (images of this data set).

    The labels of CheXpert first, then findings that only NIH knows, then those that only this data set knows.
    """
    nih = {label: name for name, label in readers.NIH_FINDINGS.items() if label}
    positive = dict(zip(labels.LABELS, (rows.values == 1).sum(axis=0).tolist(), strict=True))
    extra = _count_extra(rows.extra)
    records: list[tuple[str, str, str, str, int]] = []
    for label in labels.LABELS:
        name = nih.get(label, "")
        relation = "same" if name == label else "renamed" if name else "only CheXpert"
        records.append((label, label, name, relation, positive[label]))
    for name in (name for name, label in readers.NIH_FINDINGS.items() if not label):
        records.append((name, "", name, "only ChestX-ray14", extra.pop(name, 0)))
    records += [(name, "", "", "only this data set", count) for name, count in extra.items()]
    return pd.DataFrame(records, columns=["label", "chexpert", "chestxray", "relation", "positive"])


def _count_extra(extra: np.ndarray) -> dict[str, int]:
    """Finding outside the label set -> rows that have it, in alphabetical order."""
    counts: dict[str, int] = {}
    for text, count in pd.Series(extra).value_counts().items():
        for name in filter(None, str(text).split(labels.EXTRA_SEPARATOR)):
            counts[name] = counts.get(name, 0) + int(count)
    return dict(sorted(counts.items()))


def count_extra_findings(rows: Rows) -> pd.DataFrame:
    """Columns finding, images, alone, with_other_extra, with_labels: findings outside the label set.

    `alone`: no other finding at all; `with_other_extra`: no label, but others outside the label set; `with_labels`:
    a positive label beside it. They add up to `images`. No rows if the data set has no such findings.
    """
    labelled = (rows.values == 1).any(axis=1)
    records = []
    found = [frozenset(filter(None, str(text).split(labels.EXTRA_SEPARATOR))) for text in rows.extra]
    several = np.array([len(names) > 1 for names in found], bool)
    for finding, images in _count_extra(rows.extra).items():
        has = np.array([finding in names for names in found], bool)
        alone, with_extra = has & ~labelled & ~several, has & ~labelled & several
        records.append((finding, images, int(alone.sum()), int(with_extra.sum()), int((has & labelled).sum())))
    return pd.DataFrame(records, columns=["finding", "images", "alone", "with_other_extra", "with_labels"])


def count_hierarchy(rows: Rows) -> pd.DataFrame:
    """Columns child, parent, child_positive, parent_positive, ..._uncertain, ..._negative, ..._blank.

    The last four add up to `child_positive`: what the table says of the parent where it says that the child is there.
    """
    records = []
    label_set = rows.table.label_set
    for child, parents in label_set.parents.items():
        has = rows.values[:, label_set.index[child]] == 1
        for parent in parents:
            of_parent = count_labels(rows.values[has], label_set.labels).iloc[label_set.index[parent], 1:]
            records.append((child, parent, int(has.sum()), *of_parent.tolist()))
    columns = [f"parent_{value}" for value in ("positive", "uncertain", "negative", "blank")]
    return pd.DataFrame(records, columns=["child", "parent", "child_positive", *columns])
