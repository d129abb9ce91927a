"""Finds the real images that are nearest to synthetic ones: a table, and pictures to look at.

Is a synthetic image a copy? Each is compared with every image of a fold, exactly, in blocks, so that the real set may
have any size. Look at nearest.png first: a row for each of the synthetic images that come nearest to a real one, itself
at the left, its neighbours beside it. How near is too near only held-out patients can tell: see audit-privacy.
Example: tfcxr neighbours --synthetic=workspace/records/synthetic/v2/64 --real=workspace/records/chexpert/v2/64
  --features=efficientnet_lite0 --output_dir=workspace/neighbours/gan64
"""

import sys

from absl import flags

from flags import app, common, privacy


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of neighbours."""
    privacy.define_sets(fv, "real")
    privacy.define_features(fv)
    flags.DEFINE_integer("neighbours", 5, "real images for each synthetic one", 1, 50, flag_values=fv)
    flags.DEFINE_integer(
        "num_images", None, "synthetic images to look up, drawn at random; default: all", lower_bound=1, flag_values=fv
    )
    flags.DEFINE_integer("rows", 12, "synthetic images in each picture", 1, 100, flag_values=fv)
    common.define_batch_size(fv, 64)
    common.define_seed(fv)
    common.define_output_dir(fv)


def main(fv: flags.FlagValues) -> None:
    """Runs neighbours."""
    from tfcxr.privacy import neighbours
    from tfrecords_builder import files

    with files.output_folder(fv.output_dir, overwrite=fv.overwrite) as folder:
        app.write_flags(fv, folder)
        result = neighbours.find_neighbours(
            synthetic=fv.synthetic,
            real=fv.real,
            split=fv.split,
            synthetic_split=fv.synthetic_split,
            features_name=fv.features,
            features_weights=fv.features_weights,
            neighbours=fv.neighbours,
            num_images=fv.num_images,
            rows=fv.rows,
            batch_size=fv.batch_size,
            seed=fv.seed,
            output_dir=folder,
        )
    print(neighbours.to_text(result))
    print(f"Written to {fv.output_dir}")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
