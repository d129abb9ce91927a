"""Trains a class-conditional GAN (cpD-GAN) on records: labels in, chest radiographs out.

Writes checkpoints, TensorBoard events and sample grids into the run folder. A run that was stopped goes on where it
was when the same command is given again. --warm_start begins a new run with the weights of another one.

Resuming loses nothing: on one CPU, with the same versions and number of threads, a run that was stopped ends with the
same weights, bit for bit. A GPU adds up in an order of its own each time, so two runs differ in their last digits from
the first step on, stopped or not; --deterministic makes them equal there too, on GPUs of the same kind.
"""

import contextlib
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
    common.define_deterministic(fv)
    gan.define_network(fv)
    gan.define_training(fv)
    gan.define_augmentation(fv)
    gan.define_schedule(fv)
    gan.define_growth(fv)
    gan.define_progress(fv)


def main(fv):
    """Trains."""
    from tfcxr import data
    from tfcxr.gan.training import tick_reports, train_gan, warm_start
    from tfcxr.training import runs, strategies
    from tfrecords_builder.labels import label_sets

    check(fv)
    strategy = strategies.make(fv.strategy, deterministic=fv.deterministic)
    chief = strategies.is_chief(strategy)
    record_set = data.RecordSet(fv.records, resolution=fv.resolution)
    label_set = record_set.info.label_set
    config = _config(fv, record_set.info.resolution, label_set)
    start = warm_start.load(fv.warm_start, config.network, label_set) if fv.warm_start else None
    settings = config.to_dict() | label_sets.to_settings(label_set)
    settings |= {"warm_start": start.description()} if start else {}
    profile = tuple(int(step) for step in fv.profile) or None
    options = tick_reports.Options(cache_dir=fv.cache_dir, histograms=fv.histograms, profile=profile)
    described = {"kind": "gan", "config": settings, "records_digests": {"records": record_set.info.digest}}
    with contextlib.ExitStack() as stack:
        with strategies.together(strategy):
            if chief:
                opened = runs.RunFolder.open(
                    fv.run_dir, **described, overwrite=fv.overwrite, extendable=("total_kimg",)
                )
                run = stack.enter_context(opened)
                app.write_flags(fv, run.path)
        # The others look at the folder only when the first has made it.
        with strategies.together(strategy):
            if not chief:
                run = runs.RunFolder.joined(fv.run_dir, **described)
        train_gan.train(config, record_set, run, start=start, strategy=strategy, options=options)


def _config(fv, resolution, label_set):
    from tfcxr.gan.networks import network_config
    from tfcxr.gan.training import augment, schedule, steps, train_gan
    from tfrecords_builder.errors import InputError

    unknown = [name for name in fv.condition_labels if name not in label_set.labels]
    if unknown:
        raise InputError(f"--condition_labels={unknown[0]}: must be distinct labels of: {', '.join(label_set.labels)}")
    tick = fv.tick_kimg or train_gan.TICK_KIMG.get(resolution, 20)
    grows = fv.arch == "prog"
    if grows and fv.batch_size != fv["batch_size"].default:
        raise InputError(f"--batch_size={fv.batch_size}: is for --arch=cpd; give --batch_sizes by resolution")
    rate = fv.learning_rate or (schedule.LEARNING_RATE if grows else 0.005)
    try:
        network = network_config.NetworkConfig(
            resolution=resolution,
            condition_labels=tuple(sorted(label_set.index[name] for name in fv.condition_labels)),
            num_labels=len(label_set),
            fmap_base=fv.fmap_base or (8192 if grows else 16384),
            **{name: fv[name].value for name in ("arch", "g_arch", "d_arch", "fmap_max", "fmap_min", "fmap_decay")},
            init=fv.init,
            seed=fv.seed,
        )
        same = (
            "batch_size", "loss", "d_learning_rate", "lr_decay_kimg",
            "ema_decay", "ema_rampup", "r1_gamma", "r2_gamma", "reg_interval",
            "d_steps", "passes", "precision", "augment_probability", "ada_target", "ada_kimg", "mirror", "seed",
        )  # fmt: skip
        step = steps.StepConfig(
            learning_rate=rate,
            augment=_parsed("augment", augment.parse, fv.augment),
            **{name: fv[name].value for name in same},
        )
        rates = {2**stage: rate for stage in range(3, 10)} if grows else {}
        same = ("features", "features_weights", "fid_images", "fid_ticks", "patience", "train_kimg", "fade_kimg")
        return train_gan.TrainConfig(
            network=network,
            step=step,
            total_kimg=fv.total_kimg or train_gan.TOTAL_KIMG.get(resolution, 16000),
            tick_kimg=tick,
            checkpoint_kimg=fv.checkpoint_kimg or tick,
            min_kimg=train_gan.MIN_KIMG.get(resolution, 9000) if fv.min_kimg is None else fv.min_kimg,
            batch_sizes=_parsed("batch_sizes", schedule.parse_table, fv.batch_sizes),
            learning_rates=rates | _parsed("learning_rates", schedule.parse_table, fv.learning_rates, float),
            **{name: fv[name].value for name in same},
        )
    except ValueError as error:
        raise InputError(f"--{error}") from error


def _parsed(flag, parse, text, *arguments):
    try:
        return parse(text, *arguments)
    except ValueError as error:
        raise ValueError(f"{flag}={text}: {error}") from error


def check(fv, pending=()):
    """Raises InputError for flags that do not fit each other.

    Args:
        fv: the parsed flags.
        pending: flags that name what other programs have yet to make; those are not looked into.
    """
    from tfrecords_builder import labels, records
    from tfrecords_builder.errors import InputError

    if "records" not in pending and pathlib.Path(fv.records, records.INFO_FILE).is_file():
        info = records.load_info(fv.records, check_shards=False)
        _config(fv, fv.resolution or info.resolution, info.label_set)
    elif fv.resolution and not fv.condition_labels:  # which labels there are, the records will say
        _config(fv, fv.resolution, labels.DEFAULT)
    if fv.warm_start and pathlib.Path(fv.warm_start).resolve() == pathlib.Path(fv.run_dir).resolve():
        raise InputError(f"--warm_start={fv.warm_start}: is --run_dir itself; the new run needs a folder of its own")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
