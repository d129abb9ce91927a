"""Features of a record set's images with mean and covariance; those of real sets are kept on disk.

A cache file holds one set of statistics and says of what: digest and split of the record set, features, number of
images, seed. It is checked when it is read (what it is of, shapes, a SHA-256 of the values); a damaged or foreign one
is computed again and replaced, never trusted.
"""

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfcxr import data, npz_files
from tfcxr.fidelity import distances, feature_names, features
from tfcxr.fidelity.extractor import Extractor
from tfrecords_builder import files
from tfrecords_builder.errors import InputError

# Part of every cache key: raise it when features of the same name get other values.
CACHE_VERSION = 2

_STATE = "state/"


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Features of a set of images.

    Attributes:
        name: of the features.
        features: [N, F], float32 (pixels_pca64: float64).
        mean, covariance: of the features, float64 [F] and [F, F].
    """

    name: str
    features: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, name: str, values: np.ndarray) -> "Statistics":
        """The statistics of features [N, F], N at least 2."""
        return cls(name, values, *distances.moments(values))


def compare(
    real: Statistics, other: Statistics, *, neighbours: int = distances.NEIGHBOURS, seed: int = 0
) -> dict[str, float]:
    """All measures of `other` against `real`, and their names with that of the features.

    Returns:
        {"fid/NAME", "kid/NAME", "kid_std/NAME", "precision/NAME", "recall/NAME", "density/NAME", "coverage/NAME"}.

    Raises:
        ValueError: the features are not the same ones, or `distances` cannot measure them.
    """
    if real.name != other.name:
        raise ValueError(f"features {real.name} and {other.name} cannot be compared")
    kernel = distances.kernel_distance(real.features, other.features, seed=seed)
    manifold = distances.manifold_measures(real.features, other.features, neighbours=neighbours)
    values = {
        "fid": distances.frechet_distance(real.mean, real.covariance, other.mean, other.covariance),
        "kid": kernel.mean,
        "kid_std": kernel.std,
        **dataclasses.asdict(manifold),
    }
    return {feature_names.metric_name(measure, real.name): value for measure, value in values.items()}


def of_records(
    extractor: Extractor,
    record_set: data.RecordSet,
    split: str,
    *,
    num_images: int,
    seed: int,
    batch_size: int = 64,
    labels: Sequence[int] = (),
) -> Statistics:
    """Statistics of `num_images` images of a split, drawn by `seed`.

    With `labels`, only of images that have one of the labels of these indices.

    Memory: the features (float32: 4·N·F bytes) and a batch; the covariance 8·F² bytes.

    Raises:
        InputError: the split has fewer such images.
        RunError: damaged records, or features that are not finite.
    """
    drawn = positions(record_set, split, num_images=num_images, seed=seed, labels=labels)
    batches = features.read_images(record_set, split, drawn, batch_size=batch_size)
    return Statistics.of(extractor.name, features.extract(extractor, batches, total=num_images, what=record_set.path))


def of_reals(
    extractor: Extractor,
    record_set: data.RecordSet,
    split: str,
    *,
    num_images: int,
    seed: int,
    batch_size: int = 64,
    labels: Sequence[int] = (),
    cache_dir: str | os.PathLike | None = None,
) -> Statistics:
    """As `of_records`, of the images that others are compared with: fits `extractor` to them, and keeps the result.

    Args:
        extractor: is fitted to the first of the images, or takes what an earlier call found.
        record_set, split, num_images, seed, batch_size, labels: as `of_records`.
        cache_dir: folder of cache files, made if absent; None keeps nothing. A file that cannot be written costs the
            next call its time, and this one a warning.
    """
    key = {
        "version": CACHE_VERSION,
        "digest": record_set.info.digest,
        "split": split,
        "features": extractor.name,
        "num_images": num_images,
        "seed": seed,
        "labels": list(labels),
    }
    path = None if cache_dir is None else pathlib.Path(cache_dir) / cache_name(key)
    if path is not None and path.exists():
        try:
            statistics, state = _load(path, key)
            extractor.restore(state)
            return statistics
        except (ValueError, OSError, KeyError) as error:
            logging.warning("%s: is damaged or of something else (%s); computed again", path, error)
    if extractor.num_fit_images:
        drawn = positions(record_set, split, num_images=num_images, seed=seed, labels=labels)
        fitted = features.read_images(record_set, split, _thin(drawn, extractor.num_fit_images))
        extractor.fit(np.concatenate(list(fitted)))
    statistics = of_records(
        extractor, record_set, split, num_images=num_images, seed=seed, batch_size=batch_size, labels=labels
    )
    if path is not None:
        try:
            _save(path, key, statistics, extractor.state())
        except OSError as error:
            logging.warning("%s: cannot be written (%s); the statistics are not kept", path, error)
    return statistics


def cache_name(key: Mapping[str, Any]) -> str:
    """Name of the cache file of a key: legible in part, and unlike that of any other key."""
    whole = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return f"{key['features']}-{key['num_images']}-{whole[:16]}.npz"


def positions(
    record_set: data.RecordSet, split: str, *, num_images: int, seed: int, labels: Sequence[int] = ()
) -> np.ndarray:
    """Positions in a split of the images that `of_records` measures: sorted int64. Raises InputError as it does."""
    there = np.arange(record_set.num_examples(split))
    if labels:
        there = np.flatnonzero(data.has_any(record_set.labels(split)["vector"], labels))
    if num_images > len(there):
        raise InputError(f"{record_set.path}: the {split} split has {len(there)} images, not {num_images}")
    return there[features.choose(len(there), num_images, seed)]


def _thin(positions: np.ndarray, number: int) -> np.ndarray:
    """At most `number` of them, evenly: records lie in order of the source, and its start is not like its end."""
    if len(positions) <= number:
        return positions
    return positions[np.linspace(0, len(positions) - 1, number).astype(np.int64)]


def _save(path: pathlib.Path, key: Mapping[str, Any], statistics: Statistics, state: Mapping[str, np.ndarray]) -> None:
    arrays = {name: getattr(statistics, name) for name in ("features", "mean", "covariance")}
    arrays |= {_STATE + name: value for name, value in state.items()}
    header = json.dumps({"key": dict(key), "sha256": _digest(arrays)})
    with files.atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, header=np.array(header), **arrays)


def _load(path: pathlib.Path, key: Mapping[str, Any]) -> tuple[Statistics, dict[str, np.ndarray]]:
    """Raises ValueError or KeyError for a damaged or foreign file, OSError for one that cannot be read."""
    arrays = npz_files.read(path)
    header = json.loads(str(arrays.pop("header")))
    if header["key"] != dict(key):
        raise ValueError("other images or features")
    if header["sha256"] != _digest(arrays):
        raise ValueError("its values have changed")
    state = {name.removeprefix(_STATE): value for name, value in arrays.items() if name.startswith(_STATE)}
    statistics = Statistics(key["features"], arrays["features"], arrays["mean"], arrays["covariance"])
    width = statistics.mean.size
    if statistics.features.shape != (key["num_images"], width) or statistics.covariance.shape != (width, width):
        raise ValueError("shapes that do not fit")
    return statistics, state


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {value.dtype} {value.shape}\0".encode())
        total.update(value.tobytes())
    return total.hexdigest()
