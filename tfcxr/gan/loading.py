"""Rebuilds trained networks from a run folder, or a generator from its export."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from tfcxr import npz_files, zoo
from tfcxr.gan.networks import build_networks, network_config
from tfcxr.gan.reference import variable_names
from tfcxr.training import checkpoints, digests, runs
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import LabelSet, label_sets

COMBINATIONS_FILE = "label_combinations.json"
TICKS = "ticks.json"
WEIGHTS_FILE = "assets/weights.npz"

# Images of a generator that training has shown fewer thousand real images are noise.
MIN_KIMG = 1.0

# Of `state.GanState`, what the snapshot of the best generator holds.
BEST_PARTS = ("generator", "ema", "discriminator", "step", "images_shown")


@dataclasses.dataclass(frozen=True)
class Generator:
    """A trained generator and what is known about it.

    Attributes:
        model: Keras model (latents [N, latent_size], labels [N, L]) -> images [N, R, R, 1], averaged weights.
        name: of the run that made it.
        network: its configuration.
        kimg: thousands of real images that training has shown it; 0 if it was imported and nobody knows.
        records: flag -> digest of the records it was trained on.
        combinations: {"labels": "A|B", "count": n} of its training fold, most frequent first; empty if unknown, as of
            an imported one.
        label_set: the labels that it takes.
        warm_started: whether its training began from the weights of another GAN.
    """

    model: tf.keras.Model
    name: str
    network: network_config.NetworkConfig
    kimg: float
    records: dict[str, str]
    combinations: list[dict[str, Any]]
    warm_started: bool = False
    label_set: LabelSet = label_sets.DEFAULT


def check_trained(generator: Generator, where: str, *, allow: bool, run_dir: str | os.PathLike | None = None) -> None:
    """Checks that a generator has learned something.

    It has if training has shown it at least MIN_KIMG thousand real images. The snapshot with the best fidelity may be
    that of the start, at 0, where training made nothing better. One that was imported or began from another GAN's
    weights is taken as trained.

    Args:
        generator: to check.
        where: flag and value that named it, for the message.
        allow: take it whatever it has seen.
        run_dir: where it came from, if that is a run; its newest snapshot is proposed if that has seen more.

    Raises:
        InputError: it has been shown fewer images.
    """
    imported = not generator.combinations
    if generator.kimg >= MIN_KIMG or imported or generator.warm_started or allow:
        return
    remedy = "train it further"
    if run_dir:
        shown = tf.Variable(0, dtype=tf.int64)
        restore(run_dir, "latest", images_shown=shown)
        remedy += ", try --snapshot=latest" if int(shown) >= 1000 * MIN_KIMG else ""
    raise InputError(
        f"{where}: the generator is untrained: it has been shown {1000 * generator.kimg:.0f} real images, and with "
        f"fewer than {1000 * MIN_KIMG:.0f} its images are noise; {remedy}, or give --allow_untrained"
    )


def load_generator(path: str | os.PathLike, snapshot: str = "best") -> tf.keras.Model:
    """The generator of a run folder or of an export.

    Args:
        path: of either, or the name of a generator that comes with the package, such as nih_32.
        snapshot: of a run: 'best' (by the distance that its training measured; the latest where it measured none) or
            'latest'.

    Returns:
        Keras model of (latents float32 [N, nf(0)], labels float32 [N, L]) -> images float32 [N, R, R, 1], nominally in
        [-1, 1], with the averaged (EMA) weights. A generator that is conditioned on a subset of the labels selects them
        itself.

    Raises:
        InputError: neither a GAN's run folder nor a generator's export, or a run without a checkpoint.
    """
    return load(path, snapshot).model


def load_discriminator(run_dir: str | os.PathLike) -> tf.keras.Model:
    """The discriminator of a run folder: (images [N, R, R, 1] in [-1, 1], labels [N, L]) -> scores [N, 1].

    Raises InputError as `load_generator`. Exports hold no discriminator.
    """
    config = runs.load_config(run_dir, "gan")["config"]
    model = build_networks.build_discriminator(network_config.NetworkConfig.from_dict(config))
    if "imported" in config and not _holds(run_dir, "discriminator"):
        raise InputError(f"{run_dir}: holds no discriminator; the file it was imported from had none")
    restore(run_dir, discriminator=model)
    return model


def load(path: str | os.PathLike, snapshot: str = "best") -> Generator:
    """As `load_generator`, with what is known about it."""
    path = zoo.find(path)
    if (path / runs.EXPORTED_GENERATOR).is_file():
        return _load_export(path)
    config = runs.load_config(path, "gan")
    with runs.building(path):
        network = network_config.NetworkConfig.from_dict(config["config"])
        model = build_networks.build_generator(network)
    shown = tf.Variable(0, dtype=tf.int64)
    restore(path, snapshot, ema=model, images_shown=shown)
    table = path / COMBINATIONS_FILE
    return Generator(
        model=model,
        name=path.resolve().name,
        network=network,
        kimg=int(shown) / 1000,
        records=config["records"],
        combinations=files.read_json(table) if table.exists() else [],
        warm_started="warm_start" in config["config"],
        label_set=label_sets.of_settings(config["config"]),
    )


def digest_weights(generator: Generator) -> str:
    """SHA-256 of the generator's configuration and weights."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(generator.network)).encode())
    for weight in generator.model.weights:
        digest.update(np.ascontiguousarray(weight.numpy()).data)
    return digest.hexdigest()


def description(generator: Generator) -> dict[str, Any]:
    """What an export's generator.json holds."""
    return {
        "schema_version": 1,
        "kind": "generator",
        "name": generator.name,
        "labels": list(generator.label_set.labels),
        **label_sets.to_settings(generator.label_set),
        "network": dataclasses.asdict(generator.network),
        "latent_size": generator.network.latent_size,
        "kimg": generator.kimg,
        "records": generator.records,
        "combinations": generator.combinations,
        "warm_started": generator.warm_started,
    }


def _load_export(path: pathlib.Path) -> Generator:
    digests.check(path, [runs.EXPORTED_GENERATOR, WEIGHTS_FILE])
    value = files.read_json(path / runs.EXPORTED_GENERATOR)
    with runs.building(path, runs.EXPORTED_GENERATOR, "; export the run again"):
        return _rebuild(path, value)


def _rebuild(path: pathlib.Path, value: dict[str, Any]) -> Generator:
    """The generator of an export, by what its generator.json holds."""
    label_set = label_sets.of_settings(value)
    if value.get("schema_version") != 1 or value.get("labels") != list(label_set.labels):
        raise InputError(f"{path}: was exported by another version of tfcxr; export the run again")
    network = network_config.NetworkConfig.from_dict(value["network"])
    model = build_networks.build_generator(network)
    try:
        variable_names.load_reference_variables(model, npz_files.read(path / WEIGHTS_FILE))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the weights cannot be read ({error}); export the run again") from error
    known = {name: value[name] for name in ("name", "kimg", "records", "combinations")}
    return Generator(
        model=model, network=network, warm_started=value.get("warm_started", False), label_set=label_set, **known
    )


def restore(run_dir: str | os.PathLike, snapshot: str = "latest", **objects: Any) -> None:
    """Restores the named parts (`BEST_PARTS`) of a run's best or newest checkpoint that can be read.

    The best is that of the least FID in ticks.json. A later one was made by a training that was killed between the two,
    and makes it again when it goes on; an earlier one was the best only until then.

    Raises InputError: no checkpoint, none that can be read and has these parts, or the best one is gone or damaged.
    """
    run_dir, checkpoint = pathlib.Path(run_dir), tf.train.Checkpoint(**objects)
    if snapshot == "best":
        steps = _best_steps(run_dir)
        if steps and checkpoints.restore_newest(run_dir / "best", checkpoint, whole=False, steps=steps):
            return
    if checkpoints.restore_newest(run_dir / "checkpoints", checkpoint, whole=False) is None:
        raise InputError(f"{run_dir}: has no checkpoint yet; train-gan saves one every --checkpoint_kimg")


def _best_steps(run_dir: pathlib.Path) -> list[int]:
    """The step of the best snapshot; empty if the run has measured none. Raises InputError if it is gone."""
    there = checkpoints.by_step(run_dir / "best")
    ticks, result = run_dir / TICKS, run_dir / "result.json"
    try:
        steps = _least_fid(files.read_json(ticks)) if ticks.exists() else list(there)[:1]
        fidelity = files.read_json(result).get("fidelity") if result.exists() else None
        had_one = (fidelity or {}).get("best_kimg") is not None
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{run_dir}: {TICKS} or result.json is damaged ({error!r:.100}); put back a copy of it, or give "
            "--snapshot=latest"
        ) from error
    if steps[0] not in there if steps else had_one:
        raise InputError(
            f"{run_dir / 'best'}: the snapshot of the best generator is gone; put back a copy of it, or give "
            "--snapshot=latest"
        )
    return steps


def _least_fid(ticks: list[dict[str, Any]]) -> list[int]:
    """The step of the tick with the least FID, of equal ones the first; empty if none was measured."""
    found = {row["step"]: value for row in ticks for name, value in row.items() if name.startswith("fid/")}
    found = {int(step): value for step, value in found.items() if not math.isnan(value)}
    return [min(found, key=found.__getitem__)] if found else []


def _holds(run_dir: str | os.PathLike, part: str) -> bool:
    found = checkpoints.available(pathlib.Path(run_dir) / "checkpoints")
    return not found or any(name.startswith(f"{part}/") for name, _ in tf.train.list_variables(found[0]))
