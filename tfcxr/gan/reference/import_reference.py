"""Makes a run of a network of the reference GAN: its settings from what is stored, every shape checked, then written.

Label columns are put into canonical order, so that an imported run is like any other.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcxr.gan.networks import build_networks, network_config
from tfcxr.gan.reference import variable_names
from tfcxr.gan.reference.checkpoint_files import ReferenceNetwork
from tfcxr.training import checkpoints, runs
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import LABELS

FEATURE_MAP_SETTINGS = ("fmap_base", "fmap_max", "fmap_min", "fmap_decay")
# The reference shows 64 images per step; it turns kimg into steps and back.
BATCH_SIZE = 64

# Settings of the reference that can have one value here, and that no shape shows.
_FIXED = {"num_channels": 1, "mbstd_group_size": 4, "mbstd_num_features": 1}
# Our networks are built before they are compared: no file may ask for more than a machine can hold.
_MAX_RESOLUTION, _MAX_FEATURE_MAPS, _LARGEST_SETTING = 1024, 2048, 10**9
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Imported:
    """Networks that fit.

    Attributes:
        network: their configuration; labels in canonical order.
        arrays: 'G', 'Gs' and, if it was stored, 'D' -> variable name -> float32 array.
        ignored: variables that were stored and have no counterpart here, as '<network>/<variable>'.
        uninterpreted: settings that were stored and were not looked at, since the shapes decide or nothing depends on
            it.
    """

    network: network_config.NetworkConfig
    arrays: dict[str, dict[str, np.ndarray]]
    ignored: list[str]
    uninterpreted: list[str]


def fit(
    found: Mapping[str, ReferenceNetwork], *, labels: Sequence[str] = (), settings: Mapping[str, Any] | None = None
) -> Imported:
    """Checks stored networks against ours and brings them into our form.

    Args:
        found: some of G, D and Gs, at least one generator. Either stands for the other if one is missing.
        labels: names of the label columns, in the order of the stored networks; empty: all of CheXpert's, in its order.
        settings: fields of `NetworkConfig` (resolution, fmap_...) that are known better than the file says.

    Raises:
        InputError: one line with everything that is missing, unknown, or of another shape, by name.
    """
    if "G" not in found and "Gs" not in found:
        raise InputError("--checkpoint: holds no generator (G or Gs)")
    stored, ignored = {}, []
    for name, network in found.items():
        stored[name] = {key: value for key, value in network.variables.items() if not _is_full_detail(key, value)}
        if _grows(stored[name]):
            stored[name]["lod"] = np.asarray(network.variables.get("lod", 0.0), np.float32).reshape(())
        ignored += [f"{name}/{key}" for key in network.variables.keys() - stored[name].keys()]
    names = tuple(labels) or LABELS
    given = {key: value for network in found.values() for key, value in network.settings.items()}
    _check_given(given, stored.get("D", {}), names)
    config, order = _network_config(stored, given, names, dict(settings or {}))
    _check_variables(stored, config)
    arrays = {name: _canonical(variables, config.latent_size, order) for name, variables in stored.items()}
    for name, values in arrays.items():
        bad = sorted(key for key, array in values.items() if not np.isfinite(array).all())
        if bad:
            raise InputError(f"--checkpoint: {name}/{bad[0]} holds values that are not numbers")
    arrays.setdefault("G", arrays.get("Gs", {}))
    arrays.setdefault("Gs", arrays["G"])
    interpreted = {"resolution", "label_size", *FEATURE_MAP_SETTINGS, *_FIXED}
    uninterpreted = sorted(key[:80] for key in given if type(key) is str and key not in interpreted)
    return Imported(config, arrays, sorted(ignored), uninterpreted)


def write(imported: Imported, run: runs.RunFolder, *, kimg: float) -> dict[str, Any]:
    """Writes the checkpoint of a run: both generators, the step, and the discriminator if there is one.

    Returns what result.json should hold.
    """
    step = round(kimg * 1000 / BATCH_SIZE)
    parts: dict[str, Any] = {
        "step": tf.Variable(step, dtype=tf.int64),
        "images_shown": tf.Variable(step * BATCH_SIZE, dtype=tf.int64),
    }
    for name, part, build in (
        ("G", "generator", build_networks.build_generator),
        ("Gs", "ema", build_networks.build_generator),
        ("D", "discriminator", build_networks.build_discriminator),
    ):
        if name in imported.arrays:
            parts[part] = build(imported.network)
            variable_names.load_reference_variables(parts[part], imported.arrays[name])
    checkpoints.Writer(tf.train.Checkpoint(**parts), run.checkpoints, 1).save(step)
    return {
        "kimg": step * BATCH_SIZE / 1000,
        "steps": step,
        "network": dataclasses.asdict(imported.network),
        "num_parameters": {
            name: sum(array.size for array in values.values()) for name, values in imported.arrays.items()
        },
        "ignored_variables": imported.ignored,
        "uninterpreted_settings": imported.uninterpreted,
    }


def run_config(imported: Imported, source: Mapping[str, str]) -> dict[str, Any]:
    """The configuration of the run's folder: what is known, and nothing about a training that is not."""
    return {
        **dataclasses.asdict(imported.network),
        "batch_size": BATCH_SIZE,
        "imported": dict(source),
    }


def _grows(variables: Mapping[str, np.ndarray]) -> bool:
    """Whether they are of a progressively grown network: one layer to or from the image for each level of detail."""
    return "ToRGB_lod0/weight" in variables or "FromRGB_lod0/weight" in variables


def _is_full_detail(name: str, value: np.ndarray) -> bool:
    # The level of detail of a progressively grown network; 0 means that all layers are in use.
    return name == "lod" and value.size == 1 and float(value.reshape(())) == 0


def _check_given(given: Mapping[str, Any], discriminator: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    for key, value in _FIXED.items():
        if given.get(key, value) != value:
            raise InputError(f"--checkpoint: was built with another {key} than {value}, the only one possible here")
    scores = discriminator.get("Output/bias", np.empty(len(names)))
    # prog-GAN's last layer has the score before the labels.
    scores = discriminator["4x4/Dense1/bias"][1:] if "4x4/Dense1/bias" in discriminator else scores
    sizes = [_number(given.get("label_size")), scores.size]
    for size in sizes:
        if size is not None and size != len(names):
            raise InputError(
                f"--condition_labels: the network has {size} labels, not {len(names)}; name them in its order"
            )


def _number(value: Any) -> int | float | None:
    return value if type(value) in (int, float) and 0 <= value <= _LARGEST_SETTING else None


def _network_config(
    stored: Mapping[str, Mapping[str, np.ndarray]],
    given: Mapping[str, Any],
    names: Sequence[str],
    settings: dict[str, Any],
) -> tuple[network_config.NetworkConfig, np.ndarray]:
    """Settings from flags, else from the file, else from the shapes; and the canonical order of the label columns."""
    generator, discriminator = stored.get("Gs", stored.get("G", {})), stored.get("D", {})
    indices = np.array([LABELS.index(name) for name in names])
    order = np.argsort(indices)
    known = {}
    for key in ("resolution", *FEATURE_MAP_SETTINGS):
        if (value := _number(given.get(key))) is not None:
            known[key] = value if key == "fmap_decay" else int(value)
    inferred = _from_shapes(generator, len(names))
    values = {**inferred, **known, **{key: value for key, value in settings.items() if value is not None}}
    kinds: dict[str, Any] = {"arch": "prog"}
    if not _grows(generator):
        kinds = {
            "g_arch": _architecture(generator, "ToRGB"),
            "d_arch": _architecture(discriminator, "FromRGB") if discriminator else "resnet",
        }
    try:
        config = network_config.NetworkConfig(
            **values,
            **kinds,
            condition_labels=() if len(names) == len(LABELS) else tuple(indices[order]),
        )
    except ValueError as error:
        raise InputError(f"--checkpoint: does not make a network: {error}") from error
    widest = max(config.feature_maps(stage) for stage in range(config.stages))
    if config.resolution > _MAX_RESOLUTION or widest > _MAX_FEATURE_MAPS:
        raise InputError(
            f"--checkpoint: a network of {config.resolution} px and {widest} feature maps is too large; at most "
            f"{_MAX_RESOLUTION} px and {_MAX_FEATURE_MAPS}"
        )
    return config, order


def _from_shapes(generator: Mapping[str, np.ndarray], num_labels: int) -> dict[str, Any]:
    """resolution, fmap_base and fmap_max, as far as the variables of a generator tell.

    Feature maps at stage s are fmap_base / 2^s up to fmap_max, so every stage is a lower bound of fmap_base; the
    smallest that fits all is taken. It makes the same network as the one that was used.
    """
    sides = [int(match[1]) for name in generator if (match := re.match(r"(\d{1,5})x\1/", name))]
    needed = ["4x4/Dense/weight", "4x4/Dense/bias", *(f"{side}x{side}/Conv1/bias" for side in sides if side > 4)]
    missing = sorted({name for name in needed if name not in generator or not generator[name].shape})
    if missing or not sides:
        raise InputError(f"--checkpoint: the generator has no variables {_list(missing or needed)}")
    maps = [generator["4x4/Dense/weight"].shape[0] - num_labels, generator["4x4/Dense/bias"].shape[0]]
    maps += [generator[f"{side}x{side}/Conv1/bias"].shape[0] for side in sorted(set(sides)) if side > 4]
    if maps[0] < 1:
        raise InputError(
            f"--condition_labels: {num_labels} labels leave nothing of the network's {maps[0] + num_labels} inputs for "
            "the latents; name its labels, in its order"
        )
    most = max(maps)
    base = max(count << stage for stage, count in enumerate(maps))
    return {"resolution": max(sides), "fmap_base": base, "fmap_max": most}


def _architecture(variables: Mapping[str, np.ndarray], image_layer: str) -> str:
    if any(name.endswith("/Skip/weight") for name in variables):
        return "resnet"
    return "skip" if sum(name.endswith(f"/{image_layer}/weight") for name in variables) > 1 else "orig"


def _check_variables(stored: Mapping[str, Mapping[str, np.ndarray]], config: network_config.NetworkConfig) -> None:
    """Raises InputError listing, network by network, all that does not fit."""
    problems = []
    for name, variables in stored.items():
        model = build_networks.build_discriminator(config) if name == "D" else build_networks.build_generator(config)
        wanted = {key: tuple(variable.shape) for key, variable in variable_names.reference_variables(model).items()}
        common = wanted.keys() & variables.keys()
        shapes = [
            f"{key} {list(variables[key].shape)} instead of {list(wanted[key])}"
            for key in sorted(common)
            if variables[key].shape != wanted[key]
        ]
        kinds = [f"{key} {variables[key].dtype}" for key in sorted(common) if variables[key].dtype.kind != "f"]
        for what, names in (
            ("misses", sorted(wanted.keys() - variables.keys())),
            ("has the unknown", sorted(ascii(key)[1:-1] for key in variables.keys() - wanted.keys())),
            ("has other shapes:", shapes),
            ("has no floats:", kinds),
        ):
            if names:
                problems.append(f"{name} {what} {_list(names)}")
    if problems:
        size = f"{config.resolution} px, fmap_base {config.fmap_base}, fmap_max {config.fmap_max}"
        raise InputError(f"--checkpoint: does not fit a network of {size}: {'; '.join(problems)}")


def _canonical(variables: Mapping[str, np.ndarray], latent_size: int, order: np.ndarray) -> dict[str, np.ndarray]:
    """float32, with everything that belongs to a label moved to the label's canonical place."""
    rows = np.concatenate([np.arange(latent_size), latent_size + order])
    result = {}
    for name, array in variables.items():
        value = np.asarray(array, np.float32)
        if name == "4x4/Dense/weight" or name.endswith(("/PixelNorm/beta/weight", "/PixelNorm/gamma/weight")):
            value = value[rows]
        elif name in ("Output/weight", "Output/bias"):
            value = value[..., order]
        elif name in ("4x4/Dense1/weight", "4x4/Dense1/bias"):
            value = value[..., np.concatenate([[0], 1 + order])]
        result[name] = value
    return result


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:120] for name in names[:_SHOWN]) + more
