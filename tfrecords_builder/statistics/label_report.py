"""The statistics of a label table as a report."""

import os
from collections.abc import Sequence

import pandas as pd

from tfrecords_builder import pages, splits
from tfrecords_builder.pages import Picture, Section, Table, make_table
from tfrecords_builder.statistics import counting, label_stats, published, published_differences
from tfrecords_builder.statistics.label_figures import TOP

_ALERTS = (published_differences.ERRATUM, published_differences.DIFFERS)


def write(folder: str | os.PathLike, stats: label_stats.Statistics, pictures: Sequence[Picture]) -> None:
    """Writes report.md and report.html into the folder that holds the pictures."""
    pages.write(
        folder,
        title=f"Label statistics of {stats.rows.table.source}",
        subtitle=label_stats.describe(stats.rows),
        program="tfcxr label-stats",
        sections=build_sections(stats, pictures),
    )


def build_sections(stats: label_stats.Statistics, pictures: Sequence[Picture]) -> list[Section]:
    """The report's content, from the tables of `outputs.compute` and the pictures of `outputs.write`."""
    frames = stats.frames
    by_file = {picture.file: picture for picture in pictures}
    sections = [
        _tell_data(stats),
        _tell_published(stats),
        Section(
            "Label counts",
            ["A blank label is one that the table says nothing of, such as a label that the data set does not know."],
            tables=[
                make_table("Images by the value of each label (label_counts.csv).", frames["label_counts"]),
                *_tell_studies(stats),
            ],
            pictures=[by_file["label_counts.png"]],
        ),
        Section(
            "Labels that occur together",
            ["The numbers are in cooccurrence.csv."],
            pictures=[by_file["cooccurrence.png"]],
        ),
        Section(
            "Classes of the label versions",
            _tell_splits(stats),
            tables=[make_table("Images of each class in each split (class_counts.csv).", _spread(stats))],
            pictures=[by_file["class_counts.png"]],
        ),
        _tell_combinations(stats, pictures),
        Section(
            "Policies for uncertain labels",
            ["How many images each class has if uncertain labels are negative, positive, or drop the image."],
            tables=[make_table("Images of each class under each policy (uncertain.csv).", frames["uncertain"])],
        ),
        *(
            [
                Section(
                    "Labels of the data sets",
                    tables=[
                        make_table(
                            "What the two data sets call a finding (label_agreement.csv).", frames["label_agreement"]
                        )
                    ],
                )
            ]
            if "label_agreement" in frames
            else []
        ),
        Section(
            "Label hierarchy",
            ["A child implies its parent; tfcxr reports where a table contradicts that and changes nothing."],
            tables=[make_table("The parent's value where the child is positive (hierarchy.csv).", frames["hierarchy"])],
        ),
    ]
    if "extra_findings" in frames:
        count = len(stats.rows.table.label_set)
        caption = f"Findings outside the {count} labels (extra_findings.csv)."
        text = f"alone: no other finding; with_other_extra: only others outside the {count}; "
        text += f"with_labels: with one of the {count}."
        sections.append(Section("Other findings", [text], tables=[make_table(caption, frames["extra_findings"])]))
    people = [
        make_table("Images and patients (demographics.csv).", frames["demographics"]),
        make_table("Images per patient (images_per_patient.csv).", frames["images_per_patient"]),
    ]
    text = "A patient with images of several groups counts in each."
    return [*sections, Section("Patients", [text], tables=[table for table in people if table.rows])]


def _tell_data(stats: label_stats.Statistics) -> Section:
    rows = stats.rows
    table = rows.table
    tables = ", ".join(path.name for path in table.paths) or "no table"
    bullets = [
        f"Data set: {table.dataset} (source {table.source}), {tables}",
        f"{table.num_rows:,} rows, {len(rows.frame):,} counted here as images; no image was opened",
        f"View: {rows.view}; uncertain labels: {rows.uncertain}",
        f"Split policy: {rows.split_policy}"
        + (
            f", fractions {', '.join(map(str, rows.split_fractions))}"
            if rows.split_policy in ("patient", "image")
            else ""
        ),
    ]
    reasons = table.skipped["reason"].value_counts()
    bullets += [f"Left out by the reader: {count:,} rows ({reason})" for reason, count in reasons.items()]
    if rows.view != "any":
        bullets.append(f"Left out: {len(table.frame) - len(rows.frame):,} rows of other views")
    if len(table.labelled) < len(table.label_set):
        named = ", ".join(table.labelled) or "none"
        bullets.append(f"The data set labels {len(table.labelled)} of the {len(table.label_set)} labels: {named}")
    bullets += [f"Warning: {warning}" for warning in table.warnings]
    return Section("Data", bullets=bullets)


def _tell_published(stats: label_stats.Statistics) -> Section:
    """The published class counts beside ours, and the known errors in print."""
    compared, dataset = stats.comparison, stats.rows.table.dataset
    text = [label_stats.tell_verdict(compared)[:1].upper() + label_stats.tell_verdict(compared)[1:] + "."]
    tables = []
    printed = compared.classes[compared.classes["published"].notna()]
    if len(printed):
        text.append("Published are the counts of the thesis that this project reproduces (its Tables 3.4 and 3.5).")
        tables.append(
            make_table("Published class counts beside ours.", printed, printed["status"].isin(_ALERTS).tolist())
        )
    errata = published_differences.errata_of(dataset)
    bullets = [f"{version}, {name}: {erratum.note}." for (version, name), erratum in errata.items()]
    if dataset == "chexpert":
        bullets.append(f"train and validation: {published.OTHER_SPLIT}.")
    if bullets:
        text.append("Known errors in the published tables, found by adding up:")
    return Section("Published counts", text, bullets, tables)


def _tell_studies(stats: label_stats.Statistics) -> list[Table]:
    studies = stats.comparison.studies
    if not len(studies):
        return []
    note = stats.comparison.studies_note
    caption = (
        "Studies by the value of each label, all views (study_counts.csv), beside Table 1 of Irvin et al. 2019, "
        f"the thesis's Table 3.2: it counts {published.NUM_STUDIES:,} studies (the sum of each row), not images, "
        f"with blank and negative as one{'; ' + note if note else ''}."
    )
    return [make_table(caption, studies.drop(columns="note"), studies["status"].isin(_ALERTS).tolist())]


def _tell_splits(stats: label_stats.Statistics) -> list[str]:
    text = []
    if (stats.rows.frame["fold"] == "train_val").any():
        text.append("train_val is the official list: train and validation together.")
    if stats.rows.split_policy == "image":
        text.append(
            "The split is image by image: images of one patient are in several splits, scores will be too good."
        )
    unsplit = int((stats.rows.frame["split"] == splits.NO_SPLIT).sum())
    if unsplit:
        text.append(f"{unsplit:,} images are in no list: they count in `all` only.")
    if "multilabel" in set(stats.frames["class_counts"]["label_version"]):
        text.append(f"multilabel has no classes; '{counting.ANY_LABEL}' counts the images with a positive label.")
    return text


def _spread(stats: label_stats.Statistics) -> pd.DataFrame:
    """Class counts with a column per split."""
    counts = stats.frames["class_counts"]
    wide = counts.pivot(index=["label_version", "class"], columns="split", values="count")
    order = counts[["label_version", "class"]].drop_duplicates()
    wide = wide.loc[pd.MultiIndex.from_frame(order), list(counts["split"].unique())]
    wide.columns.name = None
    return wide.reset_index()


def _tell_combinations(stats: label_stats.Statistics, pictures: Sequence[Picture]) -> Section:
    compared = stats.comparison
    caption = f"Different combinations of each class, and how many have more than {published.FREQUENT} images "
    tables = [make_table(f"{caption}(combination_totals.csv).", stats.frames["combination_totals"])]
    printed = compared.totals[compared.totals["published"].notna()]
    if len(printed):
        alerts = printed["status"].isin(_ALERTS).tolist()
        tables.append(make_table("Published numbers of combinations beside ours.", _drop_empty(printed), alerts))
    for (version, name), group in compared.combinations.groupby(["label_version", "class"], sort=False):
        if len(group) > 1:
            shown = pd.concat([group.head(TOP), group.iloc[TOP:][group.iloc[TOP:]["published"].notna()]])
            caption = (
                f"{version}, {name}: the most frequent of {len(group):,} combinations, published ones in any case."
            )
            columns = shown.drop(columns=["label_version", "class"]).replace({"labels": {"": "no label"}})
            tables.append(make_table(caption, _drop_empty(columns), shown["status"].isin(_ALERTS).tolist()))
    text = [
        f"All combinations are in combinations.csv; shown are the {TOP} most frequent of each class with several. "
        f"A finding outside the {len(stats.rows.table.label_set)} labels is part of a combination, so "
        "that a label by itself is that finding alone."
    ]
    shown_pictures = [picture for picture in pictures if picture.file.startswith("combinations_")]
    return Section("Label combinations", text, tables=tables, pictures=shown_pictures)


def _drop_empty(frame: pd.DataFrame) -> pd.DataFrame:
    """Without the columns of the comparison where nothing of them is filled."""
    columns = [column for column in ("published", "difference", "status", "note") if column in frame]
    return frame.drop(columns=[c for c in columns if (frame[c].isna() | (frame[c] == "")).all()])
