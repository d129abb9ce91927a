"""Builds TFRecords from a label table and its images: selects the rows of a label version, splits them by patient,
resizes the images to 8-bit grey PNG, and writes sharded records with their description, a datasheet, and a report of
what was left out and why. A build that was stopped goes on when the same command is given again.

Examples:
  tfcxr build-records --dataset=chestxray --data_dir=nih --label_version=v1_0s --resolution=64 \\
    --split_policy=official --output_dir=workspace/records/chestxray/v1_0s/64
  tfcxr build-records --dataset=folder --data_dir=pneumonia --columns=path:file,patient:pid,class:finding \\
    --class_values="NORMAL:No Finding,PNEUMONIA:Pneumonia" --label_versions_file=versions.json \\
    --label_version=normal_pneumonia --output_dir=workspace/records/pneumonia/normal_pneumonia/64
"""

import sys
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from absl import flags

from flags import app, common, records
from tfrecords_builder import choices
from tfrecords_builder.errors import InputError

if TYPE_CHECKING:
    from tfrecords_builder import build_plan, labels, readers


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    records.define_build(fv)


def main(fv: flags.FlagValues) -> None:
    """Builds the record set that the flags describe."""
    from tfrecords_builder import build_records, files
    from tfrecords_builder.images import pictures
    from tfrecords_builder.records import writing

    start = time.monotonic()
    _check_flags(fv, ())
    files.refuse_source(fv.output_dir, fv.data_dir)
    options = _options(fv)
    window = fv.window or (choices.DATASETS[fv.dataset].window if fv.contrast == "none" else "")
    picture = pictures.PictureOptions(fv.resolution, aspect=fv.aspect, contrast=window or fv.contrast)
    runner = None
    if fv.runner == "beam":
        from tfrecords_builder.records import beam_runner

        runner = beam_runner.run_with_beam(fv.beam_options)
    with files.resumable_folder(
        fv.output_dir, worth_keeping=writing.has_finished_shards, overwrite=fv.overwrite
    ) as folder:
        info = build_records.build(
            folder,
            options,
            picture,
            num_shards=fv.num_shards,
            workers=common.num_workers(fv),
            bad_images=fv.bad_images,
            runner=runner,
        )
        report = files.read_json(folder / "build_report.json")
        seconds = time.monotonic() - start
        files.write_json(folder / "result.json", {**report, "digest": info.digest, "seconds": round(seconds, 3)})
        app.write_flags(fv, folder)
    for warning in report["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(build_records.format_counts(info))
    for reason, count in report["skipped"].items():
        print(f"left out: {count} ({reason})")
    for what, count in report["hierarchy"].items():
        print(f"label hierarchy: {count} images have {what}")
    if report["hierarchy"]:
        print(
            "label hierarchy: by the rules of the label set the first label implies the second. The images were "
            "written with the labels of the table; if such pairs are not meant there, correct the table and build again"
        )
    print(f"{report['written']} of {report['rows']} rows written to {fv.output_dir} in {seconds:.1f} s")


def check(fv: flags.FlagValues, pending: Collection[str] = ()) -> None:
    """Raises InputError for flags that do not fit each other, and for tables that lack a column or a class.

    Args:
        fv: the parsed flags.
        pending: flags that name what other programs have yet to make.
    """
    from tfrecords_builder import build_plan

    _check_flags(fv, pending)
    if "data_dir" not in pending:
        build_plan.check_classes(_options(fv))


def _check_flags(fv: flags.FlagValues, pending: Collection[str]) -> None:
    """As `check`, without reading more of a table than its header; the build itself reads the rest."""
    from tfrecords_builder import build_plan, labels, readers
    from tfrecords_builder.labels import benchmark_settings

    _refuse_idle(fv)
    if (fv.split_policy == "lists") != bool(fv.split_lists):
        raise InputError("--split_policy=lists and --split_lists need each other; give both or neither")
    if fv.hash_patient_ids:
        build_plan.read_salt(fv.salt_file)
    label_set = readers.find_label_set(fv.label_set, fv.dataset, None if "data_dir" in pending else fv.data_dir)
    own = labels.load_label_versions(fv.label_versions_file, label_set) if fv.label_versions_file else None
    if fv.label_version not in benchmark_settings.settings_of(label_set):
        labels.get_label_version(fv.label_version, own, label_set)
    labels.parse_uncertain(fv.uncertain or "zeros", label_set)
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


def _options(fv: flags.FlagValues) -> "build_plan.Options":
    from tfrecords_builder import build_plan, labels, readers

    label_set = readers.find_label_set(fv.label_set, fv.dataset, fv.data_dir)
    return build_plan.Options(
        dataset=fv.dataset,
        data_dir=fv.data_dir,
        labels_csv=fv.labels_csv,
        columns=_columns(fv, label_set),
        label_version=fv.label_version,
        label_set=label_set,
        label_map=fv.label_map,
        agreement=fv.agreement,
        labelled_by=fv.labelled_by,
        label_versions=(
            labels.load_label_versions(fv.label_versions_file, label_set) if fv.label_versions_file else None
        ),
        uncertain=fv.uncertain or "",
        split_policy=fv.split_policy,
        split_fractions=[float(value) for value in fv.split_fractions],
        num_folds=fv.num_folds,
        fold=fv.fold,
        kfold_test=fv.kfold_test,
        split_lists=fv.split_lists,
        view=fv.view,
        frontal_only=fv.frontal_only,
        images_per_class=[int(value) for value in fv.images_per_class] or None,
        limit=fv.limit,
        missing_images=fv.missing_images,
        unlabelled_images=fv.unlabelled_images,
        dataset_name=fv.dataset_name or "",
        patient_salt=build_plan.read_salt(fv.salt_file) if fv.hash_patient_ids else b"",
        seed=fv.seed,
    )


def _columns(fv: flags.FlagValues, label_set: "labels.LabelSet") -> "readers.FolderColumns | None":
    from tfrecords_builder import readers

    unlabelled = fv.unlabelled_images == "keep"
    given = (fv.columns, fv.class_values, fv.patient_pattern)
    return readers.choose_columns(
        fv.dataset, *given, unlabelled=unlabelled, label_set=label_set, no_finding=fv.no_finding
    )


def _refuse_idle(fv: flags.FlagValues) -> None:
    """Raises InputError for a flag that would do nothing: who gives it expects something of it."""
    for name, idle, needed in (
        ("salt_file", not fv.hash_patient_ids, "--hash_patient_ids"),
        ("columns", fv.dataset not in choices.FOLDERS, "--dataset=folder or imagefolder"),
        ("class_values", fv.dataset not in choices.FOLDERS, "--dataset=folder or imagefolder"),
        ("patient_pattern", fv.dataset not in choices.FOLDERS, "--dataset=folder or imagefolder"),
        ("fold", fv.split_policy != "kfold", "--split_policy=kfold"),
        ("beam_options", fv.runner != "beam", "--runner=beam"),
    ):
        if fv[name].value and idle:
            raise InputError(f"--{name}: does nothing without {needed}; give both or neither")
    for name, default in (("agreement", choices.AGREEMENTS[0]), ("labelled_by", choices.LABELLED_BY[0])):
        fits = [dataset for dataset, known in choices.DATASETS.items() if name in known.options]
        if fv[name].value != default and fv.dataset not in fits:
            raise InputError(
                f"--{name}={fv[name].value}: does nothing without --dataset={' or '.join(fits)}; give both or neither"
            )
    if fv.no_finding != "column" and fv.dataset not in choices.FOLDERS:
        raise InputError(
            f"--no_finding={fv.no_finding}: does nothing without --dataset=folder or imagefolder; give both or neither"
        )
    if fv.window and fv.contrast != "none":
        raise InputError(f"--window={fv.window}: replaces --contrast={fv.contrast}; give one of them")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
