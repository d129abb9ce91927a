"""Trains a classifier on records: ResNet-50 fine-tuned in two stages ("No Alignment").

Of multilabel records, or with --multilabel, it learns which labels an image has: see benchmark/predictive.
Writes checkpoints, the weights best on the validation fold, TensorBoard events and training curves into the run folder.
Example: tfcxr train-baseline --records=workspace/records/nih/v1_0s/64 --run_dir=workspace/runs/baseline --weights=none
From synthetic to real: --init_from=RUN_ON_SYNTHETIC --labelled_per_class=50, or --extra_records=SYNTHETIC to mix.

A run that was stopped goes on where it was when the same command is given again. On one CPU, with the same versions and
number of threads, it ends with the same weights as one that was not stopped, bit for bit; on GPUs that takes
--deterministic, and the same kind of GPU.
"""

import sys

from flags import app, classifier, common


def define_flags(fv):
    """Defines the flags of train-baseline."""
    common.define_records(fv)
    common.define_run_dir(fv)
    common.define_seed(fv)
    common.define_deterministic(fv)
    classifier.define_network(fv, weights="imagenet")
    classifier.define_training(fv, flip=False)
    classifier.define_baseline(fv)


def main(fv):
    """Trains."""
    from tfcxr import data
    from tfcxr.classifiers.training import loop, train_baseline
    from tfcxr.training import strategies

    check(fv)
    strategy = strategies.make(fv.strategy, deterministic=fv.deterministic)
    config = common.read_settings(fv, train_baseline.BaselineConfig)
    record_set = data.RecordSet(fv.records)
    extra_set = data.RecordSet(fv.extra_records) if fv.extra_records else None
    digests = {"records": record_set.info.digest}
    if extra_set:
        digests["extra_records"] = extra_set.info.digest
    with loop.started(
        strategy,
        lambda fresh: train_baseline.Baseline(config, record_set, extra_set, load_weights=fresh),
        fv.run_dir,
        kind="baseline",
        records_digests=digests,
        overwrite=fv.overwrite,
    ) as (training, run):
        app.write_flags(fv, run.path)
        result = training.train(run)
    best = result["best"]
    print(
        f"Best {result['measure']} on validation: {best['select/source']:.3f} at step {best['step']}. Run: {fv.run_dir}"
    )


def check(fv, pending=()):
    """Raises InputError for flags that do not fit each other, and for first weights that are not there.

    Args:
        fv: the parsed flags.
        pending: flags that name what other programs have yet to make; those are not looked into.
    """
    from tfcxr.classifiers.training import loop, train_baseline

    del pending  # no folder is looked into
    settings = common.read_settings(fv, train_baseline.BaselineConfig)
    train_baseline.check_settings(settings, fv.extra_records)
    loop.check_first_weights(settings, fv.run_dir, overwrite=fv.overwrite)


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
