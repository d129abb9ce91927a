"""Trains a class-conditional GAN (cpD-GAN) on records: labels in, chest radiographs out.

Writes checkpoints, TensorBoard events and sample grids into the run folder. A run that was stopped goes on where it
was when the same command is given again, and ends with the same weights. --warm_start begins a new run with the weights
of another one instead of random ones.
"""

import pathlib
import sys

from flags import app, common, gan


def define_flags(fv):
    """Defines the flags in `fv`."""
    common.define_records(fv)
    common.define_run_dir(fv)
    common.define_resolution(fv, None, low=8, high=512)
    common.define_batch_size(fv, 64)
    common.define_seed(fv)
    gan.define_network(fv)
    gan.define_training(fv)


def main(fv):
    """Trains."""
    from tfcxr import data, runs
    from tfcxr.gan import training, warm_start
    from tfrecords_builder.errors import InputError

    record_set = data.RecordSet(fv.records, resolution=fv.resolution)
    config = _config(fv, record_set.info.resolution)
    if fv.warm_start and pathlib.Path(fv.warm_start).resolve() == pathlib.Path(fv.run_dir).resolve():
        raise InputError(f"--warm_start={fv.warm_start}: is --run_dir itself; the new run needs a folder of its own")
    start = warm_start.load(fv.warm_start, config.network) if fv.warm_start else None
    settings = config.to_dict() | ({"warm_start": start.description()} if start else {})
    with runs.RunFolder.open(
        fv.run_dir,
        kind="gan",
        config=settings,
        records_digests={"records": record_set.info.digest},
        overwrite=fv.overwrite,
        extendable=("total_kimg",),
    ) as run:
        app.write_flags(fv, run.path)
        training.train(config, record_set, run, start=start)


def _config(fv, resolution):
    from tfcxr.gan import networks, steps, training
    from tfrecords_builder import labels
    from tfrecords_builder.errors import InputError

    tick = fv.tick_kimg or training.TICK_KIMG.get(resolution, 20)
    try:
        network = networks.NetworkConfig(
            resolution=resolution,
            condition_labels=tuple(sorted(labels.LABELS.index(name) for name in fv.condition_labels)),
            fmap_base=fv.fmap_base,
            fmap_max=fv.fmap_max,
            init=fv.init,
            seed=fv.seed,
        )
        step = steps.StepConfig(
            batch_size=fv.batch_size,
            loss=fv.loss,
            learning_rate=fv.learning_rate,
            ema_decay=fv.ema_decay,
            ema_rampup=fv.ema_rampup,
            r1_gamma=fv.r1_gamma,
            r2_gamma=fv.r2_gamma,
            reg_interval=fv.reg_interval,
            mirror=fv.mirror,
            seed=fv.seed,
        )
        return training.TrainConfig(
            network=network,
            step=step,
            total_kimg=fv.total_kimg or training.TOTAL_KIMG.get(resolution, 16000),
            tick_kimg=tick,
            checkpoint_kimg=fv.checkpoint_kimg or tick,
        )
    except ValueError as error:
        raise InputError(f"--{error}") from error


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
