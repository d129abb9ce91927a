"""Where two classifiers look in the same images, such as one trained on real and one on synthetic images.

Occlusion maps (how much the logit falls where a block is covered) and Grad-CAM, and how far both classifiers agree:
rank correlation, and overlap of the highest 10%, beside the same of another image. Start with report.html.
Example: tfcxr attribute --models=workspace/runs/real,workspace/runs/synthetic
  --records=workspace/records/chexpert/v2/64 --output_dir=workspace/attributions/real_synthetic
"""

import sys

from absl import flags

from flags import app, common


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of attribute."""
    common.define_paths(
        fv, "models", "two run folders or exports of classifiers of the same classes, separated by a comma"
    )
    flags.register_validator(
        "models", lambda value: len(value) == 2, "give two classifiers, separated by a comma", flag_values=fv
    )
    common.define_records(fv)
    common.define_split(fv, "test")
    flags.DEFINE_string(
        "class_name", None, "class or label that is explained; default: of each image its own class", flag_values=fv
    )
    flags.DEFINE_integer("num_images", 100, "at most so many images, drawn at random", lower_bound=2, flag_values=fv)
    flags.DEFINE_integer(
        "block_size", 8, "side of a covered block in pixels; half of it takes four times as long", lower_bound=1,
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "resamples", 1000, "bootstrap resamples, over patients, for the intervals", lower_bound=100, flag_values=fv
    )
    common.define_seed(fv)
    common.define_output_dir(fv)


def main(fv: flags.FlagValues) -> None:
    """Runs attribute."""
    from tfcxr import attribution
    from tfrecords_builder import files

    with files.output_folder(fv.output_dir, overwrite=fv.overwrite) as folder:
        app.write_flags(fv, folder)
        result = attribution.attribute(
            model_paths=fv.models,
            records_path=fv.records,
            split=fv.split,
            class_name=fv.class_name,
            num_images=fv.num_images,
            block_size=fv.block_size,
            resamples=fv.resamples,
            seed=fv.seed,
            output_dir=folder,
        )
    for method, measure, same, other in attribution.to_rows(result):
        print(f"{method} {measure}: {same}; of another image {other}")
    print(f"Written to {fv.output_dir}: start with report.html")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
