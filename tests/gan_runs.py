"""Untrained GANs in run folders, so that generation and export can be tested without training."""

import json
import pathlib

from tfcxr.training import runs

COMBINATIONS = {"No Finding": 50, "Pneumothorax": 20, "Pneumothorax|Support Devices": 20, "Edema|Cardiomegaly": 10}

SMALL = {"fmap_base": 64, "fmap_max": 8}


def make_gan_run(
    folder: pathlib.Path, *, resolution: int = 8, condition_labels: tuple[int, ...] = (), images_shown: int = 2000
) -> pathlib.Path:
    """Writes a run folder with random weights that knows COMBINATIONS of its training fold; returns it."""
    import tensorflow as tf

    from tfcxr.gan import loading
    from tfcxr.gan.networks import network_config
    from tfcxr.gan.training import steps, train_gan

    network = network_config.NetworkConfig(
        resolution=resolution, condition_labels=condition_labels, init="calm", **SMALL
    )
    step = steps.StepConfig(batch_size=8)
    config = train_gan.TrainConfig(network, step, total_kimg=1, tick_kimg=1, checkpoint_kimg=1)
    with runs.RunFolder.open(folder, kind="gan", config=config.to_dict(), records_digests={"records": "0" * 64}) as run:
        state = steps.make_state(network, step)
        state.step.assign(250)
        state.images_shown.assign(images_shown)
        tf.train.CheckpointManager(state, str(run.checkpoints), 1).save(250)
        table = [{"labels": labels, "count": count} for labels, count in COMBINATIONS.items()]
        (run.path / loading.COMBINATIONS_FILE).write_text(json.dumps(table))
    return pathlib.Path(folder)
