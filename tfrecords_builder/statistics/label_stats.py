"""Computes, compares, draws and writes the statistics of a label table: the library behind `tfcxr label-stats`."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import pandas as pd

from tfrecords_builder import labels, readers
from tfrecords_builder.pages import Picture
from tfrecords_builder.statistics import counting, label_figures, patients, published, published_differences

# The columns of the files that other programs read; the other files hold the whole frame.
_COLUMNS: dict[str, list[str]] = {
    "class_counts": ["label_version", "class", "split", "count", "published"],
    "combinations": ["label_version", "class", "labels", "count", "published"],
}


@dataclasses.dataclass(frozen=True)
class Statistics:
    """All tables of a data set: `frames` by the name of their CSV, and the comparison with the published ones."""

    rows: counting.Rows
    frames: Mapping[str, pd.DataFrame]
    comparison: published_differences.Comparison


def read_studies(
    table: readers.Table, data_dir: str | os.PathLike, labels_csv: str | os.PathLike | None
) -> pd.DataFrame | None:
    """Counts studies, which published counts are of, lateral views included; None if the data set has no studies.

    Raises InputError as `readers.read`.
    """
    if table.dataset != "chexpert":
        return None
    # Not the table of the statistics: that one has lost the studies without a frontal view, or gained valid.csv.
    everything = readers.read("chexpert", data_dir, labels_csv=labels_csv, frontal_only=False)
    return counting.count_studies(everything)


def compute(
    rows: counting.Rows, versions: Sequence[labels.LabelVersion], studies: pd.DataFrame | None = None
) -> Statistics:
    """Counts everything.

    Args:
        rows: the rows to count.
        versions: the label versions to count classes and combinations of.
        studies: of `read_studies`.

    Raises:
        InputError: a version names a finding that the data set does not know.
    """
    for version in versions:
        labels.check_vocabulary(version, rows.table.findings)
    members = [counting.assign_classes(rows, version) for version in versions]
    classes = counting.count_classes(rows, members)
    combinations = counting.count_combinations(rows, members)
    totals = counting.count_totals(combinations)
    compared = published_differences.compare(rows, classes, combinations, totals, studies)
    frames = {
        "label_counts": counting.count_labels(rows.values, rows.table.label_set.labels),
        "cooccurrence": counting.count_pairs(rows),
        "class_counts": compared.classes,
        "combinations": compared.combinations,
        "combination_totals": totals,
        "uncertain": counting.compare_policies(rows, versions),
        "hierarchy": counting.count_hierarchy(rows),
        "demographics": patients.describe_patients(rows),
        "images_per_patient": patients.describe_images_per_patient(rows),
    }
    if rows.table.label_set == labels.DEFAULT:  # compares with CheXpert's
        frames["label_agreement"] = counting.compare_names(rows)
    if studies is not None:
        frames["study_counts"] = studies
    extra = counting.count_extra_findings(rows)
    if len(extra):
        frames["extra_findings"] = extra
    return Statistics(rows, frames, compared)


def describe(rows: counting.Rows) -> str:
    """Data set and policies in one line, for titles."""
    view = "" if rows.view == "any" else f", view {rows.view}"
    lateral = "" if rows.frontal_only else ", lateral views too"
    return (
        f"{rows.table.source}: {len(rows.frame):,} images{view}{lateral}; uncertain labels: {rows.uncertain}; "
        f"split: {rows.split_policy}"
    )


def write(folder: str | os.PathLike, stats: Statistics) -> list[Picture]:
    """Writes a CSV per frame and the figures into an existing folder; returns the figures."""
    for name, frame in stats.frames.items():
        chosen = frame[_COLUMNS.get(name, list(frame.columns))]
        keep_index = frame.index.name is not None
        chosen.to_csv(pathlib.Path(folder) / f"{name}.csv", index=keep_index, lineterminator="\n")
    return label_figures.draw_all(folder, describe(stats.rows), stats.frames)


def format_summary(stats: Statistics) -> str:
    """The images of each class beside the published ones, as a table in plain text, and how many agree."""
    frame = stats.comparison.classes
    frame = frame[frame["split"] == counting.ALL]
    columns = ["label_version", "class", "count", "published", "difference", "status"]
    lines = [["version", "class", "images", "published", "difference", ""]]
    for row in frame[columns].itertuples(index=False):
        numbers = ["" if pd.isna(value) else f"{value:,}" for value in row[2:5]]
        lines.append([row[0], row[1], *numbers, row[5]])
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    text = [
        "  ".join(
            cell.rjust(width) if 2 <= i <= 4 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*text, tell_verdict(stats.comparison)])


def tell_verdict(compared: published_differences.Comparison) -> str:
    """How many published counts ours equal, in one line."""
    if not compared.num_compared:
        return f"published counts: not compared, {compared.obstacle or 'none are of these label versions'}"
    unexplained = compared.num_mismatches - compared.num_explained
    note = f" (beside that, not compared: {compared.obstacle})" if compared.obstacle else ""
    return (
        f"published counts: {compared.num_compared} compared, {compared.num_mismatches} differ: "
        f"{compared.num_explained} by a known error in print, {unexplained} without explanation{note}"
    )


def summarize(stats: Statistics) -> dict:
    """What result.json says."""
    rows, compared = stats.rows, stats.comparison
    return {
        "dataset": rows.table.dataset,
        "source": rows.table.source,
        "rows": rows.table.num_rows,
        "images": len(rows.frame),
        "patients": int(rows.frame["patient"].replace("", pd.NA).nunique()),
        "uncertain": rows.uncertain,
        "split_policy": rows.split_policy,
        "view": rows.view,
        "published": {
            "rows": published.NUM_ROWS.get(rows.table.dataset),
            "not_compared": compared.obstacle,
            "compared": compared.num_compared,
            "mismatches": compared.num_mismatches,
            "explained": compared.num_explained,
        },
        "files": [f"{name}.csv" for name in stats.frames],
    }
