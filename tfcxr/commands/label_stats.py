"""Counts what a label table holds, without opening an image: labels, label combinations, the classes of each label
version in each split, patients. Writes tables (CSV), figures (PNG) and a report (Markdown, HTML) that puts the
published counts beside ours and says which of them are known to be wrong.

Example:
  tfcxr label-stats --dataset=chestxray --data_dir=nih --split_policy=official --output_dir=workspace/stats/nih
"""

import sys
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from absl import flags

from flags import app, stats

if TYPE_CHECKING:
    from tfrecords_builder import labels, readers


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    stats.define_stats(fv)


def main(fv: flags.FlagValues) -> None:
    """Writes the statistics of the data set that the flags describe."""
    from tfrecords_builder import files, labels, readers, splits
    from tfrecords_builder.statistics import counting, label_report, label_stats

    start = time.monotonic()
    check(fv)
    files.refuse_source(fv.output_dir, fv.data_dir)
    label_set = readers.find_label_set(fv.label_set, fv.dataset, fv.data_dir)
    own = labels.load_label_versions(fv.label_versions_file, label_set) if fv.label_versions_file else None
    versions = counting.get_versions(fv.label_versions, own, label_set)
    with files.output_folder(fv.output_dir, overwrite=fv.overwrite) as folder:
        table = readers.read(
            fv.dataset,
            fv.data_dir,
            labels_csv=fv.labels_csv,
            official=fv.split_policy == "official",
            columns=_columns(fv, label_set),
            frontal_only=fv.frontal_only,
            label_set=label_set,
            label_map=fv.label_map,
            agreement=fv.agreement,
            labelled_by=fv.labelled_by,
        )
        rows = counting.select_rows(
            table,
            uncertain=fv.uncertain or "zeros",
            split_policy=fv.split_policy,
            split_fractions=[float(value) for value in fv.split_fractions],
            view=fv.view,
            frontal_only=fv.frontal_only,
            seed=fv.seed,
            num_folds=fv.num_folds,
            fold=fv.fold,
            kfold_test=fv.kfold_test,
            lists=splits.read_lists(fv.split_lists) if fv.split_lists else None,
        )
        studies = label_stats.read_studies(table, fv.data_dir, fv.labels_csv)
        statistics = label_stats.compute(rows, versions, studies)
        pictures = label_stats.write(folder, statistics)
        label_report.write(folder, statistics, pictures)
        seconds = time.monotonic() - start
        result = {**label_stats.summarize(statistics), "seed": fv.seed, "seconds": round(seconds, 3)}
        files.write_json(folder / "result.json", result)
        app.write_flags(fv, folder)
    for warning in table.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(label_stats.format_summary(statistics))
    print(f"{table.num_rows:,} rows counted in {seconds:.1f} s; report: {fv.output_dir}/report.html")


def check(fv: flags.FlagValues, pending: Collection[str] = ()) -> None:
    """Raises InputError for flags that do not fit each other, and for tables that lack a column.

    Args:
        fv: the parsed flags.
        pending: flags that name what other programs have yet to make.
    """
    from tfrecords_builder import labels, readers
    from tfrecords_builder.errors import InputError
    from tfrecords_builder.statistics import counting

    if (fv.split_policy == "lists") != bool(fv.split_lists):
        raise InputError("--split_policy=lists and --split_lists need each other; give both or neither")
    label_set = readers.find_label_set(fv.label_set, fv.dataset, None if "data_dir" in pending else fv.data_dir)
    own = labels.load_label_versions(fv.label_versions_file, label_set) if fv.label_versions_file else None
    counting.get_versions(fv.label_versions, own, label_set)
    columns = _columns(fv, label_set)
    if "data_dir" not in pending:
        official = fv.split_policy == "official"
        readers.check_header(
            fv.dataset,
            fv.data_dir,
            labels_csv=fv.labels_csv,
            official=official,
            columns=columns,
            label_set=label_set,
            label_map=fv.label_map,
        )


def _columns(fv: flags.FlagValues, label_set: "labels.LabelSet") -> "readers.FolderColumns | None":
    from tfrecords_builder import readers

    given = (fv.columns, fv.class_values, fv.patient_pattern)
    return readers.choose_columns(fv.dataset, *given, label_set=label_set, no_finding=fv.no_finding)


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
