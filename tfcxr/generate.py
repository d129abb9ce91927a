"""Generates a labelled synthetic record set with a trained GAN, in the format of build-records.

Balanced: --per_class images of each class of a label version, 80% train and 20% validation. Or with
--label_source=records: one image for each image of the GAN's training fold (or of --label_records), with the same
labels.
"""

import sys

from absl import flags

from flags import app, common


def define_flags(fv):
    """Defines the flags in `fv`."""
    common.define_folder(fv, "run_dir", "run folder of a GAN; or give --generator", required=False)
    common.define_folder(fv, "generator", "exported generator (SavedModel folder of export-model)", required=False)
    common.define_label_version(fv)
    flags.DEFINE_enum(
        "label_source",
        "balanced",
        ["balanced", "records"],
        "balanced: per_class images of each class; records: replicate the label vectors of real images",
        flag_values=fv,
    )
    flags.DEFINE_integer("per_class", None, "images per class (balanced only)", lower_bound=1, flag_values=fv)
    common.define_folder(
        fv,
        "label_records",
        "record set whose label combinations (train split) to use; default: the GAN's training fold",
        required=False,
    )
    flags.DEFINE_integer(
        "top_combinations",
        None,
        "use only so many most frequent label combinations (balanced: per class); default all",
        lower_bound=1,
        flag_values=fv,
    )
    common.define_batch_size(fv, 64)
    common.define_seed(fv)
    common.define_output_dir(fv)


def main(fv):
    """Generates."""
    from tfrecords_builder import files
    from tfrecords_builder.errors import InputError

    if bool(fv.run_dir) == bool(fv.generator):
        raise InputError("--run_dir or --generator: give one of them")
    if fv.label_source == "balanced" and fv.per_class is None:
        raise InputError("--per_class is required: the number of images per class")
    if fv.label_source == "records" and fv.per_class is not None:
        raise InputError(
            "--per_class: has no meaning with --label_source=records, which makes one image per labelled image"
        )
    from tfcxr import generation
    from tfcxr.gan import loading

    generator = loading.load(fv.run_dir or fv.generator)
    version = generation.find_label_version(fv.label_version, fv.label_versions_file, fv.label_records)
    options = {"seed": fv.seed, "label_records": fv.label_records, "top_combinations": fv.top_combinations}
    if fv.label_source == "balanced":
        plan = generation.plan_balanced(generator, version, fv.per_class, **options)
    else:
        plan = generation.plan_replicated(generator, version, **options)
    with files.output_folder(fv.output_dir, overwrite=fv.overwrite) as folder:
        app.write_flags(fv, folder)
        result = generation.write(generator, plan, folder, seed=fv.seed, batch_size=fv.batch_size)
        files.write_json(folder / "result.json", {"schema_version": 1, **result})
    print(f"{result['num_images']} images written to {fv.output_dir}; look at samples.png there")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
