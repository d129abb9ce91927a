"""Generates a labelled synthetic record set with a trained GAN, in the format of build-records. A call that was stopped
goes on when the same command is given again.

--label_source says which labels the images have:
  balanced  --per_class images of each class of the label version
  records   one image for each image of the GAN's training fold (or of --label_records), with the same labels;
            with --num_images so many, drawn from that distribution
  table     the rows of --label_table, a CSV file: a column for each label that some row has (0 or 1) and optionally
            count (images of the row), split (train, validation, test) and class (checked)
  vector    --num_images images of the one combination --labels="Pneumothorax,Support Devices"
Combinations of labels that no training image of the GAN has are an error, unless --label_source=vector names them or
--allow_unseen_labels is given. 80% of each class are train, the rest validation. Image i depends on the seed, i and its
labels only; another batch size or device changes a pixel by one grey level at most.

--curate draws more images than are wanted and keeps those in which a classifier sees the label that was asked for, and,
with --curate_train, that are not nearer to a training image than held-out images are. Labels stay as asked for.

Example, with a generator that comes with tfcxr:
  tfcxr generate --generator=nih_32 --label_version=v1_0s --per_class=100 --output_dir=samples
"""

import sys

from absl import flags

from flags import app, common, gan

# Flags that only some label sources use.
_USED_BY = {
    "per_class": ("balanced",),
    "num_images": ("records", "vector"),
    "label_records": ("balanced", "records"),
    "top_combinations": ("balanced", "records"),
    "label_table": ("table",),
    "labels": ("vector",),
}
_NEEDED = {
    "balanced": {"per_class": "the number of images per class"},
    "records": {},
    "table": {"label_table": "the CSV file of labels"},
    "vector": {"labels": "the labels that all images have", "num_images": "how many"},
}


def define_flags(fv):
    """Defines the flags in `fv`."""
    common.define_folder(fv, "run_dir", "run folder of a GAN; or give --generator", required=False)
    gan.define_generator(fv)
    gan.define_snapshot(fv)
    gan.define_allow_untrained(fv)
    gan.define_curation(fv)
    common.define_label_version(fv)
    sources = list(_NEEDED)
    flags.DEFINE_enum("label_source", "balanced", sources, "where the labels come from; see above", flag_values=fv)
    for name, text in {
        "per_class": "images per class (balanced)",
        "num_images": "images in all (vector; records, to draw labels instead of replicating them)",
        "top_combinations": "use only so many most frequent label combinations (balanced: per class); default all",
    }.items():
        flags.DEFINE_integer(name, None, text, lower_bound=1, flag_values=fv)
    common.define_folder(
        fv,
        "label_records",
        "record set whose label combinations (train split) to use; default: the GAN's training fold",
        required=False,
    )
    common.define_file(fv, "label_table", "CSV of labels (table), one row per image or with a column count")
    flags.DEFINE_string("labels", None, "labels joined by commas (vector)", flag_values=fv)
    flags.DEFINE_boolean(
        "allow_unseen_labels",
        False,
        "also generate combinations of labels that no training image of the GAN has; what they look like is a guess",
        flag_values=fv,
    )
    flags.DEFINE_float(
        "truncation",
        1.0,
        "scales the latents towards their mean: below 1 more typical images, less variety; 1: off",
        flag_values=fv,
    )
    flags.register_validator("truncation", lambda value: 0 < value <= 1, "must be above 0, at most 1", flag_values=fv)
    flags.DEFINE_boolean(
        "also_png",
        False,
        "also write PNG files with train.csv and valid.csv in CheXpert's layout (CheXpert-synthetic in the output)",
        flag_values=fv,
    )
    flags.DEFINE_boolean(
        "strips", False, "also draw interpolations between latents and between classes", flag_values=fv
    )
    flags.DEFINE_integer("images_per_shard", 1024, "images per file, at most", lower_bound=1, flag_values=fv)
    common.define_batch_size(fv, 64)
    common.define_seed(fv)
    common.define_output_dir(fv)


def main(fv):
    """Generates."""
    from tfrecords_builder import files

    check(fv)
    for name in ("run_dir", "generator", "label_records", "label_table", "curate", "curate_train", "curate_thresholds"):
        if fv[name].value:
            files.refuse_source(fv.output_dir, fv[name].value, flag=f"--{name}")
    files.check_output(fv.output_dir, overwrite=fv.overwrite)
    from tfcxr import generation
    from tfcxr.gan import loading
    from tfcxr.generation import curation

    generator = loading.load(fv.run_dir or fv.generator, fv.snapshot)
    version = generation.find_label_version(
        fv.label_version, fv.label_versions_file, fv.label_records, generator.label_set
    )
    named = f"--run_dir={fv.run_dir}" if fv.run_dir else f"--generator={fv.generator}"
    loading.check_trained(generator, named, allow=fv.allow_untrained, run_dir=fv.run_dir)
    source = {"seed": fv.seed, "label_records": fv.label_records, "top_combinations": fv.top_combinations}
    if fv.label_source == "balanced":
        plan = generation.plan_balanced(generator, version, fv.per_class, **source)
    elif fv.label_source == "table":
        plan = generation.plan_table(generator, version, fv.label_table, seed=fv.seed)
    elif fv.label_source == "vector":
        plan = generation.plan_vector(generator, version, fv.labels, fv.num_images)
    elif fv.num_images:
        plan = generation.plan_sampled(generator, version, fv.num_images, **source)
    else:
        plan = generation.plan_replicated(generator, version, **source)
    for note in generation.check_seen(
        generator, plan, named, allow=fv.allow_unseen_labels or fv.label_source == "vector"
    ):
        print(note, flush=True)
    names = ("seed", "batch_size", "truncation", "images_per_shard", "also_png", "strips")
    options = generation.Options(**{name: fv[name].value for name in names})
    curator = _make_curator(fv, generator, plan) if fv.curate else None
    with files.resumable_folder(
        fv.output_dir, worth_keeping=generation.is_worth_keeping, overwrite=fv.overwrite
    ) as folder:
        result = generation.write(generator, plan, folder, options, curator)
        files.write_json(folder / "result.json", {"schema_version": 1, **result})
        app.write_flags(fv, folder)
    for reason, count in plan.left_out.items():
        print(f"left out: {count} ({reason})")
    if curator:
        print("\n".join([*curation.tell(result["curation"]), *(f"Warning: {text}." for text in curator.warn())]))
    print(f"{result['num_images']} images written to {fv.output_dir}; look at samples.png there")


def _make_curator(fv, generator, plan):
    from tfcxr.generation import curation
    from tfcxr.privacy import distance_filter

    far = None
    if fv.curate_train:
        far = distance_filter.make(
            fv.curate_train,
            generator,
            holdout_split=fv.curate_holdout_split,
            feature_name=fv.curate_features,
            quantile=fv.curate_quantile,
            batch_size=fv.batch_size,
        )
    return curation.Curator(
        fv.curate,
        generator,
        plan,
        far=far,
        max_draws=fv.max_draws,
        thresholds_from=fv.curate_thresholds,
        exactly=fv.curate_labels == "exactly",
        gan_run=fv.run_dir,
    )


def check(fv, pending=()):
    """Raises InputError for flags that do not fit each other; `pending`: flags whose folders have yet to be made."""
    from tfrecords_builder.errors import InputError

    del pending  # no folder is looked into
    if bool(fv.run_dir) == bool(fv.generator):
        raise InputError("--run_dir or --generator: give one of them")
    if fv.label_source == "balanced" and fv.num_images and fv.per_class is None:
        raise InputError(
            f"--num_images={fv.num_images}: --label_source=balanced makes as many of each class: give --per_class "
            "instead; or give --label_source=records, which draws labels as frequent as the GAN has seen them"
        )
    for name in ("curate_train", "curate_thresholds"):
        if fv[name].value and not fv.curate:
            raise InputError(f"--{name}={fv[name].value}: is a part of curation; give --curate as well")
    for name, what in _NEEDED[fv.label_source].items():
        if fv[name].value in (None, ""):
            raise InputError(f"--{name} is required: {what}")
    for name, sources in _USED_BY.items():
        if fv[name].value is not None and fv.label_source not in sources:
            needed = " or ".join(f"--label_source={source}" for source in sources)
            raise InputError(f"--{name}: has no meaning with --label_source={fv.label_source}, it needs {needed}")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
