"""Computes, compares, draws and writes the statistics of a label table: the library behind `stats.py`."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import pandas as pd

from tfrecords_builder import label_comparison, label_figures, labels, patient_statistics, published, readers
from tfrecords_builder import label_statistics as statistics
from tfrecords_builder.label_comparison import Comparison

# The columns of the files that other programs read; the other files hold the whole frame.
_COLUMNS: dict[str, list[str]] = {
    "class_counts": ["label_version", "class", "split", "count", "published"],
    "combinations": ["label_version", "class", "labels", "count", "published"],
}


@dataclasses.dataclass(frozen=True)
class Statistics:
    """All tables of a data set: `frames` by the name of their CSV, and the comparison with the published ones."""

    rows: statistics.Rows
    frames: Mapping[str, pd.DataFrame]
    comparison: Comparison


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
    return statistics.count_studies(everything)


def compute(
    rows: statistics.Rows, versions: Sequence[labels.LabelVersion], studies: pd.DataFrame | None = None
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
    members = [statistics.assign_classes(rows, version) for version in versions]
    classes = statistics.count_classes(rows, members)
    combinations = statistics.count_combinations(rows, members)
    totals = statistics.count_totals(combinations)
    comparison = label_comparison.compare(rows, classes, combinations, totals, studies)
    frames = {
        "label_counts": statistics.count_labels(rows.values),
        "cooccurrence": statistics.count_pairs(rows),
        "class_counts": comparison.classes,
        "combinations": comparison.combinations,
        "combination_totals": totals,
        "uncertain": statistics.compare_policies(rows, versions),
        "label_agreement": statistics.compare_names(rows),
        "hierarchy": statistics.count_hierarchy(rows),
        "demographics": patient_statistics.describe_patients(rows),
        "images_per_patient": patient_statistics.describe_images_per_patient(rows),
    }
    if studies is not None:
        frames["study_counts"] = studies
    extra = statistics.count_extra_findings(rows)
    if len(extra):
        frames["extra_findings"] = extra
    return Statistics(rows, frames, comparison)


def describe(rows: statistics.Rows) -> str:
    """Data set and policies in one line, for titles."""
    view = "" if rows.view == "any" else f", view {rows.view}"
    lateral = "" if rows.frontal_only else ", lateral views too"
    return (
        f"{rows.table.source}: {len(rows.frame):,} images{view}{lateral}; uncertain labels: {rows.uncertain}; "
        f"split: {rows.split_policy}"
    )


def write(folder: str | os.PathLike, stats: Statistics) -> list[label_figures.Picture]:
    """Writes a CSV per frame and the figures into an existing folder; returns the figures."""
    for name, frame in stats.frames.items():
        chosen = frame[_COLUMNS.get(name, list(frame.columns))]
        keep_index = frame.index.name is not None
        chosen.to_csv(pathlib.Path(folder) / f"{name}.csv", index=keep_index, lineterminator="\n")
    return label_figures.draw_all(folder, describe(stats.rows), stats.frames)


def format_summary(stats: Statistics) -> str:
    """The images of each class beside the published ones, as a table in plain text, and how many agree."""
    frame = stats.comparison.classes
    frame = frame[frame["split"] == statistics.ALL]
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


def tell_verdict(comparison: Comparison) -> str:
    """How many published counts ours equal, in one line."""
    if not comparison.num_compared:
        return f"published counts: not compared, {comparison.obstacle or 'none are of these label versions'}"
    unexplained = comparison.num_mismatches - comparison.num_explained
    note = f" (beside that, not compared: {comparison.obstacle})" if comparison.obstacle else ""
    return (
        f"published counts: {comparison.num_compared} compared, {comparison.num_mismatches} differ: "
        f"{comparison.num_explained} by a known error in print, {unexplained} without explanation{note}"
    )


def summarize(stats: Statistics) -> dict:
    """What result.json says."""
    rows, comparison = stats.rows, stats.comparison
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
            "not_compared": comparison.obstacle,
            "compared": comparison.num_compared,
            "mismatches": comparison.num_mismatches,
            "explained": comparison.num_explained,
        },
        "files": [f"{name}.csv" for name in stats.frames],
    }
