"""Class probabilities of image files."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from tfcxr import exporting
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.progress import progress

_SUFFIXES = {".png", ".jpg", ".jpeg"}


def find_images(paths: Sequence[str | os.PathLike]) -> list[pathlib.Path]:
    """Files as given, and the PNG and JPEG files under folders, sorted.

    Raises InputError for a path that does not exist, a folder without images, or no path at all.
    """
    found: list[pathlib.Path] = []
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
            if not inside:
                raise InputError(f"--images={path}: no PNG or JPEG file in this folder")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"--images={path}: there is no such file or folder")
    if not found:
        raise InputError("--images is required: files or folders, separated by commas")
    return found


def predict_files(
    model_path: str | os.PathLike,
    images: Sequence[pathlib.Path],
    output: str | os.PathLike,
    *,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Predicts each file and writes a CSV: image, prediction, one probability column per class.

    A file that is not a readable image is left out of the table and listed in the result.

    Args:
      model_path: run folder or export of a classifier.
      images: files.
      output: CSV to write.
      batch_size: images per step.

    Returns:
      {"num_images", "failed": {path: reason}, "classes"}.

    Raises:
      InputError: the model cannot be used.
    """
    served, config = exporting.load_served(model_path)
    rows: list[tuple[str, np.ndarray]] = []
    failed: dict[str, str] = {}
    with progress(len(images), "predict") as bar:
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            encoded = {}
            for path in batch:
                try:
                    encoded[path] = path.read_bytes()
                except OSError as error:
                    failed[str(path)] = error.strerror or "cannot be read"
            rows += _predict_batch(served, encoded, failed)
            bar.update(len(batch))
    classes = list(config["classes"])
    table = pd.DataFrame({"image": [path for path, _ in rows]})
    table["prediction"] = [classes[int(p.argmax())] for _, p in rows]
    for k, name in enumerate(classes):
        table[f"probability {name}"] = [p[k] for _, p in rows]
    with files.atomic_path(output) as temporary:
        table.to_csv(temporary, index=False, float_format="%.7g", lineterminator="\n")
    return {"num_images": len(rows), "failed": failed, "classes": classes}


def _predict_batch(
    served: exporting.ServedClassifier, encoded: dict[pathlib.Path, bytes], failed: dict[str, str]
) -> list[tuple[str, np.ndarray]]:
    """The whole batch at once; if that fails, one by one to find the bad file."""
    if not encoded:
        return []
    try:
        probabilities = served.image_bytes(tf.constant(list(encoded.values())))["probabilities"].numpy()
    except tf.errors.OpError as error:
        if len(encoded) == 1:
            failed[str(next(iter(encoded)))] = f"is not a readable PNG or JPEG ({error.message.splitlines()[0][:120]})"
            return []
        return [row for path, data in encoded.items() for row in _predict_batch(served, {path: data}, failed)]
    return [(str(path), p) for path, p in zip(encoded, probabilities, strict=True)]
