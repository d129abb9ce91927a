"""What classifiers learn from a synthetic set, beside what they learn from real images: gaps, with intervals.

It takes outputs of evaluate: of classifiers that were trained on real images (--real) and on synthetic ones
(--synthetic), all tested on the same real images; of classifiers of both (--mixed) with their control, real images
repeated as often (train-baseline --duplicate_control, then --control); and of classifiers of real images, tested on
synthetic ones (--on_synthetic). Several of one flag, such as trainings of other seeds, are averaged.
The report has balanced accuracy and recalls, or the ROC-AUC of each label and its mean, the differences of each with
95% bootstrap intervals over patients, and the differences by sex, age and view. Start with report.html.
Example: tfcxr utility --records=workspace/records/nih/v2/64 --real=workspace/evaluations/real
  --synthetic=workspace/evaluations/synthetic --output_dir=workspace/utility/gan64
"""

import sys

from absl import flags

from flags import app, common

ARMS = {
    "real": "trained on real images, tested on real ones",
    "synthetic": "trained on synthetic images, tested on the same real ones",
    "mixed": "trained on real and synthetic images, tested on the same real ones",
    "control": "trained on real images that were repeated as often as --mixed has synthetic ones (train-baseline "
    "--duplicate_control), tested on the same real ones",
    "on_synthetic": "trained on real images, tested on synthetic ones",
}


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of utility."""
    common.define_records(fv, "records", "record set of the real test images, which says sex, age and view")
    for name, text in ARMS.items():
        common.define_paths(fv, name, f"output folders of evaluate: of classifiers {text}; several separated by commas")
    flags.DEFINE_list(
        "mean_labels",
        [],
        "labels that are compared, and over which means are taken, separated by commas; default: all that two patients "
        "or more have, and lack. For models of labels that do not exclude each other",
        flag_values=fv,
    )
    flags.DEFINE_integer("resamples", 2000, "bootstrap resamples", lower_bound=1, upper_bound=100_000, flag_values=fv)
    common.define_seed(fv)
    common.define_output_dir(fv)


def main(fv: flags.FlagValues) -> None:
    """Runs utility."""
    from tfcxr.evaluation import utility, utility_report
    from tfrecords_builder import files

    for name in ARMS:
        for folder in getattr(fv, name):
            files.refuse_source(fv.output_dir, folder, flag=f"--{name}")
    with files.output_folder(fv.output_dir, overwrite=fv.overwrite) as folder:
        app.write_flags(fv, folder)
        result = utility.measure_utility(
            records=fv.records,
            arms={name: getattr(fv, name) for name in ARMS},
            mean_labels=fv.mean_labels,
            resamples=fv.resamples,
            seed=fv.seed,
            output_dir=folder,
        )
    print(utility_report.to_text(result))
    print(f"Written to {fv.output_dir}: start with report.html")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
