"""Audits whether a synthetic set gives away the images, or the patients, that its generator learned from.

Needs the training fold and a holdout of other patients who were drawn alike, by default the test fold of the same
record set. In each feature space it measures whether synthetic images are nearer to training images than they would be
if the generator copied nobody; whether an attacker can tell who was in the training fold; and, always, which planted
copies (exact, mirrored, shifted, noised, with other contrast, mixed) each figure would have detected, at 0.1%, 1% and
10% of the set. So the answer is a bound, or that copies of some kind are not detectable with this test. First comes
how well a network recognises patients that it has not seen: where it cannot, its figures mean nothing.
Start with report.html. The papers behind each figure are in docs/privacy.md.
Example: tfcxr audit-privacy --synthetic=workspace/records/synthetic/v2/64 --train=workspace/records/chexpert/v2/64
  --holdout_split=validation --gan_run=workspace/runs/gan64 --output_dir=workspace/audits/gan64
"""

import sys

from absl import flags

from flags import app, common, privacy


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of audit-privacy."""
    privacy.define_sets(fv, "train")
    common.define_folder(
        fv, "holdout", "record set of real images of other patients; default: that of --train", required=False
    )
    flags.DEFINE_enum(
        "holdout_split",
        "test",
        ["train", "validation", "test"],
        "which fold of the holdout to read; it must be drawn as the training fold was, which official test folds often "
        "were not: then take validation",
        flag_values=fv,
    )
    privacy.define_feature_spaces(fv)
    flags.DEFINE_integer(
        "reid_steps",
        1000,
        "training steps of the network that recognises patients; 0: without it",
        lower_bound=0,
        flag_values=fv,
    )
    common.define_folder(
        fv, "gan_run", "run folder of the GAN, whose discriminator is attacked as well; default: none", required=False
    )
    flags.DEFINE_integer(
        "num_images", 10_000, "at most so many images of each set, drawn at random", lower_bound=10, flag_values=fv
    )
    flags.DEFINE_integer(
        "permutations",
        999,
        "exchanges of training and holdout patients in each test; p-values cannot be smaller than 1 / (this + 1)",
        lower_bound=199,
        flag_values=fv,
    )
    flags.DEFINE_integer("draws", 100, "planted sets for each kind and rate of copies", lower_bound=1, flag_values=fv)
    common.define_batch_size(fv, 64)
    common.define_seed(fv)
    common.define_output_dir(fv)


def main(fv: flags.FlagValues) -> None:
    """Runs audit-privacy."""
    from tfcxr.privacy import audit, audit_report
    from tfrecords_builder import files

    with files.output_folder(fv.output_dir, overwrite=fv.overwrite) as folder:
        app.write_flags(fv, folder)
        result = audit.audit_privacy(
            synthetic=fv.synthetic,
            train=fv.train,
            holdout=fv.holdout,
            synthetic_split=fv.synthetic_split,
            split=fv.split,
            holdout_split=fv.holdout_split,
            feature_names=fv.features,
            reid_steps=fv.reid_steps,
            gan_run=fv.gan_run,
            num_images=fv.num_images,
            permutations=fv.permutations,
            draws=fv.draws,
            batch_size=fv.batch_size,
            seed=fv.seed,
            output_dir=folder,
        )
    print(audit_report.to_text(result))
    print(f"Written to {fv.output_dir}: start with report.html")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
