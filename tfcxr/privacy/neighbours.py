"""Library behind neighbours: the real images that are nearest to synthetic ones."""

import os
import pathlib
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from tfcxr import data, plotting
from tfcxr.fidelity import features
from tfcxr.fidelity.feature_names import PIXELS
from tfcxr.gan import image_grids
from tfcxr.privacy import nearest, spaces
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import combinations
from tfrecords_builder.records import manifest

SCHEMA_VERSION = 1

_QUANTILES = (0.0, 0.01, 0.1, 0.5, 0.9)


def find_neighbours(
    *,
    synthetic: str | os.PathLike,
    real: str | os.PathLike,
    split: str = "train",
    synthetic_split: str = "train",
    features_name: str = PIXELS,
    features_weights: str | None = None,
    neighbours: int = 5,
    num_images: int | None = None,
    rows: int = 12,
    batch_size: int = 64,
    seed: int = 0,
    output_dir: pathlib.Path,
) -> dict[str, Any]:
    """Finds the real images nearest to synthetic ones; writes neighbours.csv, nearest.png, drawn.png, distances.png.

    Memory: the features of the synthetic images, and a block of those of the real ones at a time.

    Args:
        synthetic: record set whose images are looked up.
        real: record set in which is searched, best the one that the generator was trained on.
        split: fold of `real`.
        synthetic_split: fold of `synthetic`.
        features_name, features_weights: see spaces.make_extractor.
        neighbours: how many of each image.
        num_images: of the synthetic ones, drawn by `seed`; None: all.
        rows: images in each picture.
        batch_size: images per step.
        seed: of all draws.
        output_dir: existing folder to write into.

    Returns:
        What result.json, which is written as well, holds.

    Raises:
        InputError: sets, features or numbers that cannot be used.
        RunError: damaged records, features that are not finite.
    """
    synthetic_set = data.RecordSet(synthetic, flag="--synthetic")
    resolution = synthetic_set.info.resolution
    real_set = data.RecordSet(real, flag="--real", resolution=resolution)
    real_set.refuse_other_labels(synthetic_set.info.label_set, f"--synthetic={synthetic}")
    available, searched = synthetic_set.num_examples(synthetic_split), real_set.num_examples(split)
    number = available if num_images is None else num_images
    if not 0 < number <= available:
        raise InputError(
            f"--synthetic={synthetic}: the {synthetic_split} split has {available} images"
            + ("" if num_images is None else f", --num_images={num_images} asks for more")
        )
    if searched < neighbours:
        raise InputError(
            f"--neighbours={neighbours}: the {split} split of --real={real} has {searched} images; ask for fewer"
        )
    extractor = spaces.make_extractor(features_name, resolution=resolution, weights=features_weights)
    positions = features.choose(available, number, seed)
    queries = spaces.extract(extractor, synthetic_set, synthetic_split, positions, batch_size=batch_size)
    found = nearest.Nearest(queries, neighbours)
    for block in spaces.extract_blocks(extractor, real_set, split, np.arange(searched), batch_size=batch_size):
        found.add(block)
    table = _make_table(_describe(synthetic_set, synthetic_split, positions), _describe(real_set, split), found)
    with files.atomic_path(output_dir / "neighbours.csv") as path:
        table.to_csv(path, index=False)
    first = found.distances[:, 0]
    shown = {
        "nearest": np.argsort(first, kind="stable")[:rows],
        "drawn": features.choose(number, min(rows, number), seed),
    }
    for name, chosen in shown.items():
        grid = _draw(synthetic_set, synthetic_split, positions, real_set, split, found, chosen)
        image_grids.write_png(output_dir / f"{name}.png", grid)
    _plot(found.distances, extractor.name, output_dir / "distances.png")
    result = {
        "schema_version": SCHEMA_VERSION,
        "features": extractor.name,
        "num_synthetic": number,
        "num_real": searched,
        "neighbours": neighbours,
        "seed": seed,
        "nearest_distance": {
            "mean": float(first.mean()),
            "quantiles": {f"{q:g}": float(np.quantile(first, q)) for q in _QUANTILES},
        },
        "identical_images": int((first == 0).sum()),
        # Nearest neighbours of different images may be one real image: of a generator that repeats itself they are few.
        "distinct_nearest": len(np.unique(found.indices[:, 0])),
        "same_labels": float((table.labels == table.neighbour_labels)[table["rank"] == 1].mean()),
        "sets": {
            "synthetic": {"path": str(synthetic), "split": synthetic_split, "digest": synthetic_set.info.digest},
            "real": {"path": str(real), "split": split, "digest": real_set.info.digest},
        },
    }
    files.write_json(output_dir / "result.json", result)
    return result


def to_text(result: dict[str, Any]) -> str:
    """A result in a few sentences."""
    distances = result["nearest_distance"]["quantiles"]
    lines = [
        f"{result['num_synthetic']} synthetic images against {result['num_real']} real ones, features "
        f"{result['features']}.",
        f"Distance to the nearest real image: median {distances['0.5']:.4g}, smallest {distances['0']:.4g}.",
        f"{result['distinct_nearest']} different real images are the nearest of some synthetic one; in "
        f"{100 * result['same_labels']:.0f}% of the pairs both have the same labels.",
    ]
    if result["identical_images"]:
        lines.append(f"Warning: {result['identical_images']} synthetic images equal a real one in these features.")
    lines.append("What distance would be too near only held-out patients can tell: see audit-privacy.")
    return "\n".join(lines)


def _describe(record_set: data.RecordSet, split: str, positions: np.ndarray | None = None) -> pd.DataFrame:
    """Id, patient and labels of images of a split: [N, (id, patient, labels)]."""
    rows = manifest.read_rows(record_set.info, split, ["id", "patient"])
    codes = combinations.encode(record_set.labels(split)["vector"])
    rows["labels"] = [combinations.format_code(code, record_set.info.labels) for code in codes]
    return rows if positions is None else rows.iloc[positions].reset_index(drop=True)


def _make_table(synthetic: pd.DataFrame, real: pd.DataFrame, found: nearest.Nearest) -> pd.DataFrame:
    """A row for each synthetic image and each of its neighbours."""
    count = found.indices.shape[1]
    images = synthetic.loc[synthetic.index.repeat(count), ["id", "labels"]].reset_index(drop=True)
    neighbours = real.iloc[found.indices.ravel()].reset_index(drop=True)
    neighbours = neighbours.rename(columns={"id": "neighbour", "labels": "neighbour_labels"})
    ranks = np.tile(np.arange(1, count + 1), len(synthetic))
    distances = [f"{distance:.6g}" for distance in found.distances.ravel()]
    return pd.concat([images, neighbours], axis=1).assign(rank=ranks, distance=distances)[
        ["id", "labels", "rank", "neighbour", "patient", "neighbour_labels", "distance"]
    ]


def _draw(
    synthetic_set: data.RecordSet,
    synthetic_split: str,
    positions: np.ndarray,
    real_set: data.RecordSet,
    split: str,
    found: nearest.Nearest,
    chosen: np.ndarray,
) -> np.ndarray:
    """A row for each chosen image: itself, then its neighbours; the distances stand before it."""
    own = spaces.read_pictures(synthetic_set, synthetic_split, positions[chosen])
    others = spaces.read_pictures(real_set, split, found.indices[chosen])
    rows = []
    for index in chosen:
        images = [own[positions[index]], *(others[i] for i in found.indices[index])]
        ends = found.distances[index, 0], found.distances[index, -1]
        rows.append((f"{ends[0]:.3g}|to {ends[1]:.3g}", np.stack(images)))
    return image_grids.titled_grid(rows, found.indices.shape[1] + 1)


def _plot(distances: np.ndarray, name: str, path: pathlib.Path) -> None:
    """Histograms of the distance to the nearest and to the farthest of the neighbours."""
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    bins = np.linspace(0, float(distances.max()) or 1.0, 60).tolist()
    axes.hist(distances[:, 0], bins, color=plotting.BLUE, label="nearest")
    if distances.shape[1] > 1:
        label = f"number {distances.shape[1]}"
        axes.hist(distances[:, -1], bins, color=plotting.ORANGE, histtype="step", label=label)
    axes.set_xlabel(f"distance of a synthetic image to real ones, features {name}")
    axes.set_ylabel("synthetic images")
    axes.legend(loc="upper right")  # "best" looks at every image
    plotting.save(figure, path, 120)
