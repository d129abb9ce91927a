"""Compares synthetic images with real ones: fidelity, diversity, label agreement, as a whole and class by class.

FID (with FID-infinity, free of the bias of few images), KID, precision, recall, density, coverage; MS-SSIM and near
duplicates within a class; with --classifier, how often it sees the label that was asked for. Start with report.html.
The features are part of every metric's name: figures of other features, or of another number of images, are not
comparable. --holdout adds real images that the generator has not seen, measured in the same way: what a perfect
generator would reach, if that fold was drawn as the real one was (official test folds often were not: see what
--holdout_split=validation gives). Sets of different resolutions are refused; build-records --dataset=records resizes.
Example: tfcxr compare-sets --real=workspace/records/chexpert/v2/64 --synthetic=workspace/records/synthetic/v2/64
  --holdout=workspace/records/chexpert/v2/64 --output_dir=workspace/comparisons/gan64
"""

import sys

from absl import flags

from flags import app, common, fidelity


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of compare-sets."""
    common.define_records(fv, "real", "record set of real images, best those that the generator learned from")
    common.define_records(fv, "synthetic", "record set to measure")
    common.define_folder(fv, "holdout", "record set of real images not learned from; may be --real", required=False)
    common.define_split(fv, "train")
    flags.DEFINE_enum(
        "holdout_split", "test", ["train", "validation", "test"], "which fold of --holdout to read", flag_values=fv
    )
    fidelity.define_features(fv)
    fidelity.define_classifier(fv)
    fidelity.define_cache_dir(fv)
    flags.DEFINE_integer(
        "num_images", None, "images of each set, drawn at random; default: all of the smallest, at most 10000",
        lower_bound=6, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "resamples",
        100,
        "bootstrap resamples for the intervals of FID and KID; 0: no intervals. With features of a network, which are "
        "many, each takes a second or more",
        lower_bound=0,
        flag_values=fv,
    )
    common.define_batch_size(fv, 64)
    common.define_seed(fv)
    common.define_output_dir(fv)


def main(fv: flags.FlagValues) -> None:
    """Runs compare-sets."""
    from tfcxr.fidelity import compare_sets
    from tfrecords_builder import files

    with files.output_folder(fv.output_dir, overwrite=fv.overwrite) as folder:
        app.write_flags(fv, folder)
        result = compare_sets.compare_sets(
            real=fv.real,
            synthetic=fv.synthetic,
            holdout=fv.holdout,
            split=fv.split,
            holdout_split=fv.holdout_split,
            features_name=fv.features,
            features_weights=fv.features_weights,
            classifier=fv.classifier,
            num_images=fv.num_images,
            resamples=fv.resamples,
            batch_size=fv.batch_size,
            seed=fv.seed,
            cache_dir=fv.cache_dir,
            output_dir=folder,
        )
    print(compare_sets.to_markdown(result))
    print(f"Written to {fv.output_dir}: start with report.html")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
