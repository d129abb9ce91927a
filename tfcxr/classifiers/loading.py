"""Classifiers from run folders and exports: rebuilt from config.json and the weights kept as best."""

import hashlib
import os
import pathlib
import re
import shutil
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfcxr import data
from tfcxr.classifiers import calibration, choices, inference
from tfcxr.classifiers.networks import efficientnet_lite0, models, se_resnet_weights, weight_files
from tfcxr.training import devices, digests, runs, strategies
from tfrecords_builder import files, records
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import label_sets

# Of a finished run, and of an export; a run in progress has weights_of_step, see `weights_path`.
WEIGHTS = "checkpoints/best.weights.h5"
HISTORY = "history.json"
KINDS = ("baseline", "dcan")
# Of runs that have an encoder: those of classifiers, and of pretraining, which have no head.
ENCODER_KINDS = (*KINDS, "pretrain")

# What was taken for granted before runs recorded it.
_EARLIER = {"aspect": "stretch", "contrast": "none", **runs.EARLIER}


def files_of(path: str | os.PathLike) -> dict[str, pathlib.Path]:
    """What the functions here read of a run or export: name relative to an export -> file; exports copy these."""
    calibrated = pathlib.Path(path) / calibration.FILE
    found = {"config.json": pathlib.Path(path) / "config.json", WEIGHTS: weights_path(path)}
    return found | ({calibration.FILE: calibrated} if calibrated.is_file() else {})


def copy_files(path: str | os.PathLike, folder: pathlib.Path) -> None:
    """Copies what `files_of` a run or export names into an existing folder, an export."""
    for name, source in files_of(path).items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def weights_of_step(path: str | os.PathLike, step: int) -> pathlib.Path:
    """Where a run in progress keeps the weights that were the best so far at a step."""
    weights = pathlib.Path(path) / WEIGHTS
    return weights.with_name(weights.name.replace("best", f"best-{step}"))


def weights_by_step(path: str | os.PathLike) -> dict[int, pathlib.Path]:
    """Step -> weights that were the best so far; step 0: those without a number, older than all others."""
    weights = pathlib.Path(path) / WEIGHTS
    found = {0: weights} if weights.is_file() else {}
    for file in weights.parent.glob("best-*.weights.h5"):
        if match := re.fullmatch(r"best-(\d+)\.weights\.h5", file.name):
            found[int(match.group(1))] = file
    return found


def weights_path(path: str | os.PathLike) -> pathlib.Path:
    """The best weights of a run or export; not of a step that its history does not hold (yet, or any more).

    A training that is killed between weights and history leaves such ones; it makes them again when it goes on.
    """
    found = weights_by_step(path)
    history = pathlib.Path(path) / HISTORY
    if found.keys() - {0} and history.exists():
        steps = {row["step"] for row in files.read_json(history)}
        if known := found.keys() & steps:
            return found[max(known)]
    return pathlib.Path(path) / WEIGHTS


def load_classifier(path: str | os.PathLike, *, which: str = "target", ten_crop: bool = False) -> tf.keras.Model:
    """Loads a trained classifier.

    Args:
        path: folder of a baseline or DCAN run, or of an export.
        which: target or source: the path through DCAN's attention and correction; the same for a baseline.
        ten_crop: whether probabilities are means over ten crops of each image, see preprocessing.ten_crops.

    Returns:
        Keras model of images float [N, H, W, 1] in [0, 1] of any size -> probabilities float32 [N, K], of classes that
        exclude each other or, if `multilabel`, of labels that do not; `classes` has the names. A call and `predict`
        raise InputError for images of another shape, type or range.

    Raises:
        InputError: no such run, not of a classifier, or without weights yet.
    """
    return inference.InferenceModel(load_network(path), which, ten_crop=ten_crop)


def load_encoder(path: str | os.PathLike) -> tf.keras.Model:
    """Loads what a pretrained network or a trained classifier sees in an image, as one vector.

    Args:
        path: folder of a pretraining, baseline or DCAN run, or of a classifier's export.

    Returns:
        Keras model of images float [N, H, W, 1] in [0, 1] of any size -> pooled features float32 [N, F], before any
        correction. A call and `predict` raise InputError for images of another shape, type or range.

    Raises:
        InputError: no such run, of another kind, or without weights yet.
    """
    return inference.FeatureModel(load_encoder_network(path))


def load_classifier_config(path: str | os.PathLike, kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    """What is known about a trained classifier, or other runs of `kinds`.

    Returns:
        The run's settings, and: kind (one of `kinds`), classes, multilabel (whether these are labels that do not
        exclude each other), label_version, resolution (of its records), aspect and contrast (with which their images
        were made; empty if unknown), image_size (what the backbone sees), labels (all of the records' label
        set, in order), records (flag -> digest).

    Raises:
        InputError: no such run, or not of a classifier; or an export whose file has changed.
    """
    digests.check(path, ["config.json"])
    config = runs.load_config(path, kind=kinds)
    return {
        **_EARLIER,
        **config["config"],
        "kind": config["kind"],
        "records": config["records"],
        "labels": list(label_sets.of_settings(config["config"]).labels),
    }


def weights_digest(path: str | os.PathLike, flag: str = "--model") -> str:
    """SHA-256 of a trained classifier's weights, the same for a run and its export, unless that was calibrated.

    Raises InputError, which names `flag`, if they cannot be read.
    """
    try:
        digest = hashlib.sha256(weights_path(path).read_bytes())
        calibrated = pathlib.Path(path) / calibration.FILE
        if calibrated.is_file():
            digest.update(calibrated.read_bytes())
        return digest.hexdigest()
    except OSError as error:
        raise InputError(f"{flag}={path}: its weights cannot be read ({error.strerror})") from error


def load_network(path: str | os.PathLike) -> models.Classifier:
    """The trained network itself: framed images -> logits, not calibrated. Raises InputError as `load_classifier`."""
    with runs.building(path):
        classifier = models.Classifier(models.ModelConfig.from_dict(load_classifier_config(path)))
    models.load_weights(classifier, weights_path(path))
    calibrate(classifier, path)
    return classifier


def calibrate(classifier: models.Classifier, path: str | os.PathLike) -> None:
    """Gives a classifier the calibration of an export, if it has one. Raises InputError if it is of another model."""
    known = calibration.read(path)
    if known and len(known.temperatures) not in (1, len(classifier.config.classes)):
        raise InputError(f"{path}/{calibration.FILE}: is not of this model; export the run again")
    if known:
        classifier.temperatures = tuple(known.temperatures)


def load_encoder_network(path: str | os.PathLike) -> models.Encoder:
    """As `load_network`, also of a pretraining run, whose network has no head. Raises InputError as `load_encoder`."""
    known = load_classifier_config(path, ENCODER_KINDS)
    make = models.Classifier if known["kind"] in KINDS else models.Encoder
    with runs.building(path):
        network = make(models.ModelConfig.from_dict(known))
    models.load_weights(network, weights_path(path))
    return network


def make_classifier(
    settings: Any,
    record_set: data.RecordSet,
    *,
    pictures: Sequence[data.RecordSet],
    load_weights: bool,
    labels: Sequence[str] | None = None,
    **network: Any,
) -> models.Classifier:
    """A new classifier of a record set's classes or labels, with its first weights.

    Args:
        settings: of a run, baseline.BaselineConfig or adaptation.AdaptationConfig.
        record_set: labelled images to train on.
        pictures: record sets, of which the first that knows says with which aspect and contrast files become images for
            this classifier; synthetic sets do not know.
        load_weights: whether to load the first weights, and say which; a resumed run has its own.
        labels: those of the records that have an output each, instead of the classes; None for the classes.
        **network: further fields of models.ModelConfig.

    Raises:
        InputError: a setting or weights that cannot be used, or a batch that cannot fit into memory.
    """
    config = _model_config(
        settings,
        record_set.info,
        pictures,
        classes=tuple(record_set.info.classes if labels is None else labels),
        multilabel=labels is not None,
        **network,
    )
    classifier = models.Classifier(config, settings.seed)
    _prepare(classifier, settings, record_set.num_examples("train"), load_weights)
    return classifier


def make_encoder(
    settings: Any, record_set: data.RecordSet, *, num_images: int, views: int, load_weights: bool
) -> models.Encoder:
    """A new encoder for pretraining on a record set, with its first weights; errors and settings as above.

    Args:
        settings: pretrain.PretrainingConfig.
        record_set: images to train on.
        num_images: how many of them are for training.
        views: of each image of a batch, which go through the network together.
        load_weights: as of `make_classifier`.
    """
    encoder = models.Encoder(_model_config(settings, record_set.info, [record_set], classes=()), settings.seed)
    _prepare(encoder, settings, num_images, load_weights, views=views)
    return encoder


def _model_config(
    settings: Any, info: records.RecordSetInfo, pictures: Sequence[data.RecordSet], **network: Any
) -> models.ModelConfig:
    return models.ModelConfig(
        label_version=info.label_version,
        resolution=info.resolution,
        image_size=settings.image_size,
        framing=settings.framing,
        backbone=settings.backbone,
        stem=settings.stem,
        dtype=settings.dtype,
        aspect=next((made.info.aspect for made in pictures if made.info.aspect), ""),
        contrast=next((made.info.contrast for made in pictures if made.info.contrast), ""),
        **network,
    )


def _prepare(network: models.Encoder, settings: Any, num_images: int, load_weights: bool, *, views: int = 1) -> None:
    """Checks that a batch of `views` of each image can fit into memory, and loads the first weights."""
    strategy = tf.distribute.get_strategy()
    with strategies.together(strategy):
        devices.check_batch(
            settings.batch_size,
            num_images=num_images,
            pixels=views * network.config.image_size**2,
            graphs=lambda number: [models.trace_features(network, views * number)],
            strategy=strategy,
        )
    if load_weights:
        loaded = initialise(network, weights=settings.weights, init_from=settings.init_from)
        print(f"start: {', '.join(loaded)} loaded, the rest random" if loaded else "start: random weights", flush=True)


def initialise(network: models.Encoder, *, weights: str, init_from: str | None = None) -> list[str]:
    """Gives a new classifier or encoder its first weights.

    Args:
        network: changed in place.
        weights: imagenet; none; or a path, for the backbone only: a file of Keras or a SavedModel (see weight_files),
            a `.pth` for se_resnet50 and efficientnet_lite0, or a run folder or export of ours.
        init_from: run folder; backbone, and head and other parts where they fit. Wins over `weights`.

    Returns:
        Names of the parts that were loaded.

    Raises:
        InputError: a file or run that is not there or does not fit.
    """
    if init_from:
        return models.copy_weights(_load_start(init_from, "--init_from", network.config), network)
    path = choices.find_weights(network.config.backbone, weights)
    if path is None:
        return []
    if (path / "config.json").is_file():
        return models.copy_backbone(_load_start(path, "--weights", network.config), network, f"--weights={weights}")
    if path.suffix != ".pth":
        weight_files.load(network.base, path)
        return ["backbone"]
    if choices.BACKBONES[network.config.backbone].squeeze_excite:
        se_resnet_weights.assign(network.backbone, se_resnet_weights.read(path), path)
        return ["backbone", "attention"]
    efficientnet_lite0.load(network.base, path)
    return ["backbone"]


def _load_start(path: str | os.PathLike, flag: str, config: models.ModelConfig) -> models.Encoder:
    """The network of a run to start from. Raises InputError that begins with `flag`; says where sizes differ."""
    try:
        network = load_encoder_network(path)
    except InputError as error:
        raise InputError(f"{flag}={error}") from error
    for name in ("image_size", "framing", "stem"):
        was, now = getattr(network.config, name), getattr(config, name)
        if was != now:
            print(f"note: {flag}={path}: was trained with --{name}={was}, here it is {now}", flush=True)
    return network
