"""Starts a training from the weights of another run: both generators and the discriminator, nothing else.

Another thing than resuming: optimizers, schedule and data begin anew, and settings and records may differ.
"""

import dataclasses
import hashlib
import os
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from tfcxr.gan import loading
from tfcxr.gan.networks import build_networks, network_config
from tfcxr.gan.reference import variable_names
from tfcxr.gan.training.state import GanState
from tfcxr.training import runs
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import LabelSet, label_sets

_PARTS = ("generator", "ema", "discriminator")


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """Weights to start from.

    Attributes:
        run: name of the run they are from.
        kimg: thousands of real images that it had been shown.
        weights: 'generator', 'ema', 'discriminator' -> variable name -> float32 array.
    """

    run: str
    kimg: float
    weights: dict[str, dict[str, np.ndarray]]

    def description(self) -> dict[str, Any]:
        """JSON values for the configuration and the result: run, kimg and a digest of the weights."""
        digest = hashlib.sha256()
        for part in _PARTS:
            for name, array in sorted(self.weights[part].items()):
                digest.update(f"{part}/{name}".encode())
                digest.update(array.tobytes())
        return {"run": self.run, "kimg": self.kimg, "weights_sha256": digest.hexdigest()}

    def apply(self, state: GanState) -> None:
        """Assigns the weights to the networks of a state; its optimizers and step stay as they are."""
        for part in _PARTS:
            variable_names.load_reference_variables(getattr(state, part), self.weights[part])


def load(
    run_dir: str | os.PathLike, network: network_config.NetworkConfig, label_set: LabelSet = label_sets.DEFAULT
) -> WarmStart:
    """The weights of a run (trained or imported) for a training with the given networks and labels.

    Raises InputError, naming --warm_start: no run of a GAN, one without a checkpoint or a discriminator, or one whose
    networks have other shapes or labels.
    """
    run_dir = pathlib.Path(run_dir)
    try:
        config = runs.load_config(run_dir, "gan")["config"]
        source = network_config.NetworkConfig.from_dict(config)
        theirs, ours = _shape(source, label_sets.of_settings(config)), _shape(network, label_set)
        for key, value in ours.items():
            if theirs[key] != value:
                raise InputError(f"{run_dir}: has {key} {theirs[key]}, not {value}: give the flags it was made with")
        models = {
            "generator": build_networks.build_generator(source),
            "ema": build_networks.build_generator(source),
            "discriminator": loading.load_discriminator(run_dir),
        }
        shown = tf.Variable(0, dtype=tf.int64)
        loading.restore(run_dir, generator=models["generator"], ema=models["ema"], images_shown=shown)
    except InputError as error:
        raise InputError(f"--warm_start={error}") from error
    weights = {
        part: {name: variable.numpy() for name, variable in variable_names.reference_variables(model).items()}
        for part, model in models.items()
    }
    return WarmStart(run_dir.resolve().name, int(shown) / 1000, weights)


def _shape(config: network_config.NetworkConfig, label_set: LabelSet) -> dict[str, Any]:
    """All that must be the same for weights to mean the same, in the words of the flags."""
    return {
        "resolution": config.resolution,
        "label set": [label_set.name, list(label_set.labels)],
        "condition_labels": list(config.condition_labels) or "all",
        "architecture (arch)": config.arch,
        "architecture of the generator": config.g_arch,
        "architecture of the discriminator": config.d_arch,
        "feature maps (fmap_base, fmap_max)": [config.feature_maps(stage) for stage in range(config.stages)],
    }
