"""Trains the backbone of a classifier on images without labels (self-supervised), by the method that --method names.

Views of one image, cut out and changed at random, shall have like features. Labels are used only to report how much a
linear classifier of the features knows (or to choose the weights, if --select=probe; marked so in the result). Writes
checkpoints, the weights kept, TensorBoard events, curves.png and samples/pairs.png.
Example: tfcxr pretrain --records=workspace/records/nih/multilabel/64 --image_size=64 --run_dir=workspace/runs/simclr
Then: train-baseline or train-dcan --init_from=workspace/runs/simclr, or compare-sets --features=workspace/runs/simclr

A run that was stopped goes on where it was when the same command is given again. On one CPU, with the same versions and
number of threads, it ends with the same weights as one that was not stopped, bit for bit; on GPUs that takes
--deterministic, and the same kind of GPU.
"""

import sys

from flags import app, classifier, common, pretraining


def define_flags(fv):
    """Defines the flags of pretrain."""
    common.define_records(fv)
    common.define_run_dir(fv)
    common.define_seed(fv)
    common.define_deterministic(fv)
    classifier.define_network(fv, weights="none")
    classifier.define_loop(fv, flip=False)
    pretraining.define_pretraining(fv)


def main(fv):
    """Trains."""
    from tfcxr import data
    from tfcxr.classifiers.pretraining import pretrain
    from tfcxr.classifiers.training import loop
    from tfcxr.training import strategies

    check(fv)
    strategy = strategies.make(fv.strategy, deterministic=fv.deterministic)
    config = common.read_settings(fv, pretrain.PretrainingConfig)
    record_set = data.RecordSet(fv.records)
    with loop.started(
        strategy,
        lambda fresh: pretrain.Pretraining(config, record_set, load_weights=fresh),
        fv.run_dir,
        kind="pretrain",
        records_digests={"records": record_set.info.digest},
        overwrite=fv.overwrite,
    ) as (training, run):
        app.write_flags(fv, run.path)
        result = training.train(run)
    best = result["best"]
    probe = f" (linear probe: AUC {best['probe/auc']:.3f} on validation)" if "probe/auc" in best else ""
    print(f"Kept step {best['step']}{probe}. Run: {fv.run_dir}")


def check(fv, pending=()):
    """Raises InputError for flags that do not fit each other, and for first weights that are not there.

    Args:
        fv: the parsed flags.
        pending: flags that name what other programs have yet to make; those are not looked into.
    """
    from tfcxr.classifiers.pretraining import pretrain
    from tfcxr.classifiers.training import loop

    del pending  # no folder is looked into
    settings = common.read_settings(fv, pretrain.PretrainingConfig)
    pretrain.check_settings(settings)
    loop.check_first_weights(settings, fv.run_dir, overwrite=fv.overwrite)


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
