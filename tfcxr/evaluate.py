"""Evaluates a classifier on a record set: recall per class, balanced accuracy, ROC-AUC, confusion matrix.

Intervals are 95% bootstrap intervals over patients. Reads the test fold, or the validation fold where there is no test
fold; the result is then marked as made on the selection fold.
Example: tfcxr evaluate --model=workspace/runs/baseline --records=workspace/records/chestxray/v2/64
  --output_dir=workspace/evaluations/baseline
"""

import sys

from absl import flags

from flags import app, common


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of evaluate."""
    common.define_folder(fv, "model", "run folder or export of a classifier")
    common.define_records(fv)
    flags.DEFINE_enum(
        "split", None, ["train", "validation", "test"], "fold to read; default test, else validation", flag_values=fv
    )
    common.define_output_dir(fv)
    common.define_batch_size(fv, 64)
    flags.DEFINE_integer("resamples", 2000, "bootstrap resamples", lower_bound=1, flag_values=fv)
    common.define_seed(fv)


def main(fv: flags.FlagValues) -> None:
    """Runs evaluate."""
    from tfcxr import evaluation
    from tfrecords_builder import files

    with files.output_folder(fv.output_dir, overwrite=fv.overwrite) as folder:
        app.write_flags(fv, folder)
        result = evaluation.evaluate(
            model_path=fv.model,
            records_path=fv.records,
            split=fv.split,
            output_dir=folder,
            batch_size=fv.batch_size,
            resamples=fv.resamples,
            seed=fv.seed,
        )
    print(evaluation.to_markdown(result))
    print(f"Written to {fv.output_dir}")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
