"""The filter by distance to training images that curation uses, calibrated by held-out images of other patients."""

import os
import pathlib

import numpy as np
import tensorflow as tf

from tfcxr import data
from tfcxr.fidelity import features
from tfcxr.fidelity.feature_names import WITHOUT_FIT
from tfcxr.gan import loading
from tfcxr.generation import curation
from tfcxr.privacy import nearest, spaces
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import pixel_ranges
from tfrecords_builder.records.overlap import find_overlap

_SHOWN = 2000  # training images of which diversity is measured
_LEAST_HOLDOUT = 20


def make(
    train: str | os.PathLike,
    generator: loading.Generator,
    *,
    holdout_split: str,
    feature_name: str,
    quantile: float,
    batch_size: int = 64,
) -> curation.DistanceFilter:
    """Refuses images nearer to a training image than the nearest `quantile` of the held-out images are.

    Memory: the features of the training fold.

    Args:
        train: record set whose train split the generator learned from.
        generator: that draws.
        holdout_split: fold of the same record set, of other patients.
        feature_name: see spaces.make_extractor.
        quantile: of the distances of held-out images to their nearest training image, in (0, 1).
        batch_size: images per step.

    Raises:
        InputError: other records than the generator's, folds that share patients, too few held-out images.
    """
    where = f"--curate_train={train}"
    if feature_name not in WITHOUT_FIT and not pathlib.Path(feature_name).exists():
        raise InputError(
            f"--curate_features={feature_name}: must be {', '.join(WITHOUT_FIT)}, or the path of a classifier; nothing "
            "is there"
        )
    record_set = data.RecordSet(train, flag="--curate_train", resolution=generator.network.resolution)
    if record_set.info.digest not in generator.records.values():
        raise InputError(f"{where}: the generator learned from other records; give those, or leave it out")
    number = record_set.num_examples(holdout_split)
    if number < _LEAST_HOLDOUT:
        raise InputError(
            f"{where}: its {holdout_split} split has {number} images; at least {_LEAST_HOLDOUT} are needed"
        )
    if find_overlap(record_set.info, "train", record_set.info, holdout_split).patients:
        raise InputError(
            f"{where}: its {holdout_split} split shares patients with the train split; build records with "
            "--split_policy=patient"
        )
    extractor = spaces.make_extractor(feature_name, resolution=record_set.info.resolution)
    learned, held_out = (
        spaces.extract(extractor, record_set, split, np.arange(record_set.num_examples(split)), batch_size=batch_size)
        for split in ("train", holdout_split)
    )
    apart = nearest.find_nearest(held_out, learned).distances[:, 0]
    shown = features.choose(len(learned), min(len(learned), _SHOWN), seed=0)
    reals = [pixel_ranges.signed_to_uint8(batch).numpy() for batch in features.read_images(record_set, "train", shown)]

    def find(images: np.ndarray) -> np.ndarray:
        vectors = extractor(pixel_ranges.uint8_to_signed(tf.constant(images)).numpy())
        return nearest.find_nearest(vectors, learned).distances[:, 0]

    description = {
        "features": extractor.name,
        "quantile": quantile,
        "train": record_set.info.digest,
        "holdout_split": holdout_split,
    }
    return curation.DistanceFilter(find, float(np.quantile(apart, quantile)), np.concatenate(reals), description)
