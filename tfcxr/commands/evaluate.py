"""Evaluates a classifier on a record set, and compares it with another one.

Recall per class, balanced accuracy, ROC-AUC, average precision, F1, calibration, confusion matrix, operating points,
and subgroups by sex, age and view. Of a model of labels that do not exclude each other: ROC-AUC, average precision, F1,
calibration and operating points of each label, and means.

Intervals are 95% bootstrap intervals over patients. Reads the test fold, or the validation fold where there is no test
fold; the result then says that the weights were chosen by it. Warns of images and patients that were trained on.
Results are JSON, CSV, Markdown, PNG and TensorBoard's.
Example: tfcxr evaluate --model=workspace/runs/dcan_noreg --records=workspace/records/chestxray/v2/64
  --compare_with=workspace/runs/baseline --output_dir=workspace/evaluations/dcan_noreg
"""

import sys

from absl import flags

from flags import app, classifier, common


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of evaluate."""
    common.define_folder(fv, "model", "run folder or export of a classifier")
    common.define_records(fv)
    flags.DEFINE_enum(
        "split", None, ["train", "validation", "test"], "fold to read; default test, else validation", flag_values=fv
    )
    common.define_output_dir(fv)
    common.define_batch_size(fv, 64)
    classifier.define_ten_crop(fv)
    flags.DEFINE_integer("resamples", 2000, "bootstrap resamples", lower_bound=1, upper_bound=1_000_000, flag_values=fv)
    common.define_seed(fv)
    common.define_folder(
        fv,
        "compare_with",
        "another model's run or export, or the output folder of its evaluation on the same images: differences with "
        "95% intervals and p-values",
        required=False,
    )
    common.define_folder(
        fv,
        "thresholds_from",
        "output folder of this model's evaluation on another fold, usually --split=validation: its thresholds are "
        "applied here. Without it they are chosen on the evaluated fold, and look better than they are",
        required=False,
    )
    flags.DEFINE_list(
        "mean_labels",
        [],
        "labels over which means are taken, separated by commas; default: all that have both values in the fold. For "
        "models of labels that do not exclude each other",
        flag_values=fv,
    )


def main(fv: flags.FlagValues) -> None:
    """Runs evaluate."""
    from tfcxr import evaluation
    from tfcxr.evaluation import metric_tables
    from tfrecords_builder import files

    for flag in ("model", "records", "compare_with", "thresholds_from"):
        if source := getattr(fv, flag):
            files.refuse_source(fv.output_dir, source, flag=f"--{flag}")
    with files.output_folder(fv.output_dir, overwrite=fv.overwrite) as folder:
        app.write_flags(fv, folder)
        result = evaluation.evaluate(
            model_path=fv.model,
            records_path=fv.records,
            split=fv.split,
            output_dir=folder,
            batch_size=fv.batch_size,
            ten_crop=fv.ten_crop,
            resamples=fv.resamples,
            seed=fv.seed,
            compare_with=fv.compare_with,
            thresholds_from=fv.thresholds_from,
            mean_labels=fv.mean_labels,
        )
    print(metric_tables.summarise_in_words(result))
    print(f"\nWritten to {fv.output_dir}: result.md, pictures, tables; curves: tensorboard --logdir={fv.output_dir}")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
