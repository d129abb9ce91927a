"""Adapts a classifier from labelled source to unlabelled target records, by the method that --alignment names.

The target's labels are not used, except to report, and to choose weights if --select=target (marked so in the result).
Writes checkpoints, the weights that --select keeps, TensorBoard events, curves.png and pictures of the features.
Example: tfcxr train-dcan --source_records=workspace/records/synthetic --target_records=workspace/records/nih
--run_dir=workspace/runs/dcan --init_from=workspace/runs/baseline

A run that was stopped goes on where it was when the same command is given again. On one CPU, with the same versions and
number of threads, it ends with the same weights as one that was not stopped, bit for bit; on GPUs that takes
--deterministic, and the same kind of GPU.
"""

import sys

from flags import app, classifier, common


def define_flags(fv):
    """Defines the flags of train-dcan."""
    common.define_records(fv, "source_records", "folder of the labelled record set")
    common.define_records(
        fv, "target_records", "folder of the record set to adapt to; its training labels are not used"
    )
    common.define_run_dir(fv)
    common.define_seed(fv)
    common.define_deterministic(fv)
    classifier.define_network(fv, weights="imagenet")
    classifier.define_training(fv, flip=True)
    classifier.define_dcan(fv)


def main(fv):
    """Trains."""
    from tfcxr import data
    from tfcxr.classifiers.adaptation import train_dcan
    from tfcxr.classifiers.training import loop
    from tfcxr.training import strategies

    check(fv)
    strategy = strategies.make(fv.strategy, deterministic=fv.deterministic)
    config = common.read_settings(fv, train_dcan.AdaptationConfig)
    source = data.RecordSet(fv.source_records, flag="--source_records")
    target = data.RecordSet(fv.target_records, flag="--target_records")
    with loop.started(
        strategy,
        lambda fresh: train_dcan.Adaptation(config, source, target, load_weights=fresh),
        fv.run_dir,
        kind="dcan",
        records_digests={"source_records": source.info.digest, "target_records": target.info.digest},
        overwrite=fv.overwrite,
    ) as (training, run):
        app.write_flags(fv, run.path)
        result = training.train(run, embeddings_every=fv.embeddings_every)
    best = result["best"]
    target_accuracy = best["select/target"]
    of_target = "of the target no label is known" if target_accuracy is None else f"target {target_accuracy:.3f}"
    print(
        f"Kept step {best['step']}, chosen by {config.select}: balanced accuracy on validation, source "
        f"{best['select/source']:.3f}, {of_target}. Run: {fv.run_dir}"
    )


def check(fv, pending=()):
    """Raises InputError for flags that do not fit each other, and for first weights that are not there.

    Args:
        fv: the parsed flags.
        pending: flags that name what other programs have yet to make; those are not looked into.
    """
    from tfcxr.classifiers.adaptation import train_dcan
    from tfcxr.classifiers.training import loop

    del pending  # no folder is looked into
    settings = common.read_settings(fv, train_dcan.AdaptationConfig)
    train_dcan.check_settings(settings)
    loop.check_first_weights(settings, fv.run_dir, overwrite=fv.overwrite)


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
