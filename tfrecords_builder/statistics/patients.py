"""Counts the patients of a data set from its table, beside its images: by sex, age, view and split."""

import itertools
from collections.abc import Mapping

import pandas as pd

from tfrecords_builder import splits
from tfrecords_builder.statistics.counting import SPLIT_ORDER, Rows

AGE_BANDS = (0, 20, 30, 40, 50, 60, 70, 80, 121)
QUANTILES: dict[str, float] = {
    "minimum": 0,
    "lower quartile": 0.25,
    "median": 0.5,
    "upper quartile": 0.75,
    "maximum": 1,
}


def describe_patients(rows: Rows) -> pd.DataFrame:
    """Columns measure, group, images, patients: everything, then by sex, age band, view and split.

    A patient of two groups (ages, views) counts in both. Rows without a patient id count as images only.
    """
    frame = rows.frame
    names = [f"{low}-{high - 1}" for low, high in itertools.pairwise(AGE_BANDS)]
    names[-1] = f"{AGE_BANDS[-2]} and over"
    bands = pd.cut(frame["age"], AGE_BANDS, right=False, labels=names).astype(object).fillna("unknown")
    groups: Mapping[str, pd.Series] = {
        "all": pd.Series("all", index=frame.index),
        "sex": frame["sex"].replace("", "unknown"),
        "age": bands,
        "view": frame["view"].replace("", "unknown"),
        "split": frame["split"].replace(splits.NO_SPLIT, "none"),
    }
    parts = []
    for measure, group in groups.items():
        images = group.value_counts()
        patients = frame["patient"].where(frame["patient"] != "").groupby(group).nunique()
        order = [name for name in (*names, *SPLIT_ORDER) if name in images.index]
        order += sorted(set(images.index) - set(order), key=lambda name: (name in ("unknown", "none"), str(name)))
        part = pd.DataFrame({"measure": measure, "group": order})
        parts.append(part.assign(images=images[order].to_numpy(), patients=patients[order].to_numpy()))
    return pd.concat(parts, ignore_index=True)


def describe_images_per_patient(rows: Rows) -> pd.DataFrame:
    """Columns statistic, images: quantiles and mean of the images of a patient; no rows without patient ids."""
    patients = rows.frame["patient"]
    sizes = patients[patients != ""].value_counts()
    if not len(sizes):
        return pd.DataFrame(columns=["statistic", "images"])
    # An observed number of images, not one between two.
    quantiles = {name: float(sizes.quantile(q, interpolation="lower")) for name, q in QUANTILES.items()}
    values = {**quantiles, "mean": round(float(sizes.mean()), 3)}
    return pd.DataFrame({"statistic": list(values), "images": list(values.values())})
