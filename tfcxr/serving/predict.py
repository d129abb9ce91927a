"""Class probabilities of image files, and heat maps of what they rest on."""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from tfcxr.classifiers import inference, loading
from tfcxr.serving import export_classifier, grad_cam
from tfrecords_builder import errors, files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import finding, image_ops, pictures, pixel_ranges
from tfrecords_builder.labels import combinations
from tfrecords_builder.progress import progress

# How the files begin that predict writes: predictions, result, flags.
_STARTS = (b"image,prediction,", b'{\n  "schema_version": 1,\n  "model": ', b"--")


def find_images(paths: Sequence[str | os.PathLike]) -> list[pathlib.Path]:
    """Files as given, and those under folders, sorted, that are images; each once.

    In folders PNG, JPEG and DICOM go by name, DICOM by content, too; hidden files and those of systems are left out.

    Raises InputError for a path that does not exist, a folder without images, or no path at all.
    """
    found: list[pathlib.Path] = []
    for path in map(pathlib.Path, paths):
        try:
            if path.is_dir():
                inside = [file for file in finding.find_images(path) if file.is_file()]
                if not inside:
                    raise InputError(f"--images={path}: no PNG, JPEG or DICOM file in this folder")
                found += inside
            elif path.is_file():
                found.append(path)
            else:
                raise InputError(f"--images={path}: there is no such file or folder")
        except OSError as error:
            raise InputError(f"--images={path}: cannot be looked at ({error.strerror})") from error
    if not found:
        raise InputError("--images is required: files or folders, separated by commas")
    return list(dict.fromkeys(found))


def written_beside(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The files of the result and of the flags, which are written beside a CSV."""
    return path.with_suffix(".result.json"), path.with_name(f"{path.stem}.flags.txt")


def check_output(path: pathlib.Path, *, overwrite: bool) -> None:
    """Makes the folder of a CSV that is to be written.

    Raises InputError if that fails, or if one of the files to write is there; with `overwrite` only if `predict` did
    not write it.
    """
    try:
        if path.is_dir():
            raise InputError(f"--output={path}: is a folder; name a CSV file")
        for file, start in zip((path, *written_beside(path)), _STARTS, strict=True):
            if not file.exists():
                continue
            if not overwrite:
                raise InputError(f"--output={path}: {file.name} exists; choose another file or give --overwrite")
            if not _begins_with(file, start):
                raise InputError(
                    f"--output={path}: would replace {file.name}, which predict did not write; choose another file"
                )
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output={path}: cannot be written ({error.strerror})") from error


def predict_files(
    model_path: str | os.PathLike,
    image_paths: Sequence[pathlib.Path],
    output: str | os.PathLike,
    *,
    batch_size: int = 32,
    heatmaps: pathlib.Path | None = None,
    heatmap_labels: Sequence[str] = (),
) -> dict[str, Any]:
    """Predicts each file and writes a CSV: image, prediction, one probability column per class.

    Where labels do not exclude each other, there is a probability column per label, and `positive` instead of
    `prediction`: the labels whose probability reaches their threshold, joined by `|`.

    Files become images as build-records made those that the model was trained on. One that is not a usable radiograph
    is left out of the table and listed in the result.

    Args:
        model_path: run folder or export of a classifier.
        image_paths: files.
        output: CSV to write.
        batch_size: images per step.
        heatmaps: existing folder for a Grad-CAM picture of each image, named in the CSV's column `heatmap`.
        heatmap_labels: labels to draw in it; none for those that are positive, or the most probable one if none is.
            Only of a model of labels that do not exclude each other.

    Returns:
        {"num_images", "failed": {path: reason}, "classes"}.

    Raises:
        InputError: the model cannot be used.
        RunError: a probability is not finite.
    """
    config = export_classifier.load_config(model_path)
    classes = list(config["classes"])
    for name in heatmap_labels:
        if not config["multilabel"]:
            raise InputError(f"--heatmap_labels={name}: is for models of labels; the classes here exclude each other")
        if name not in classes:
            raise InputError(f"--heatmap_labels={name}: the model has no such label; it has {', '.join(classes)}")
    thresholds = export_classifier.find_thresholds(model_path, config)
    shown = [classes.index(name) for name in heatmap_labels]
    classify = export_classifier.load_image_tensor(model_path)
    picture = export_classifier.picture_options(config)
    encoder = pictures.PictureEncoder(picture)
    overlays = _Overlays(model_path, config, picture, heatmaps, shown) if heatmaps else None
    paths: list[pathlib.Path] = []
    probabilities: list[np.ndarray] = []
    drawn: list[str] = []
    failed: dict[str, str] = {}
    with progress(len(image_paths), "predict") as bar:
        for start in range(0, len(image_paths), batch_size):
            batch = image_paths[start : start + batch_size]
            encoded = _encode(batch, encoder, failed)
            if encoded:
                batch_images = _decode(encoded)
                found = inference.check_finite(classify(batch_images)["probabilities"].numpy(), f"--model={model_path}")
                if overlays:
                    drawn += overlays.draw(list(encoded), batch_images, found, len(paths) + 1)
                paths += encoded
                probabilities += list(found)
            bar.update(len(batch))
    table = pd.DataFrame({"image": list(map(str, paths))})
    if thresholds is None:
        table["prediction"] = [classes[int(p.argmax())] for p in probabilities]
    else:
        called = [np.flatnonzero(p >= np.asarray(thresholds, np.float32)) for p in probabilities]
        table["positive"] = [combinations.SEPARATOR.join(classes[k] for k in columns) for columns in called]
    for k, name in enumerate(classes):
        table[f"probability {name}"] = [p[k] for p in probabilities]
    if overlays:
        table["heatmap"] = drawn
    with files.naming_failures(pathlib.Path(output), "--output"), files.atomic_path(output) as temporary:
        # Six digits: the seventh of a float32 may differ between a run and its export.
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    return {"num_images": len(paths), "failed": failed, "classes": classes}


def _begins_with(file: pathlib.Path, start: bytes) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(start)) == start


class _Overlays:
    """Draws heat maps into a folder."""

    def __init__(
        self,
        model_path: str | os.PathLike,
        config: dict[str, Any],
        picture: pictures.PictureOptions,
        folder: pathlib.Path,
        shown: Sequence[int],
    ):
        self._explain = grad_cam.make_explainer(loading.load_network(model_path))
        self._shown, self._thresholds = list(shown), export_classifier.find_thresholds(model_path, config)
        self._image_size, self._framing, self._picture = config["image_size"], config["framing"], picture
        self._classes, self._folder = config["classes"], folder

    def draw(
        self, paths: Sequence[pathlib.Path], batch_images: tf.Tensor, probabilities: np.ndarray, first: int
    ) -> list[str]:
        """Draws a batch; returns the names of the pictures, numbered from `first`."""
        chosen = [self._choose(values) for values in probabilities]
        # A heat map of each image and class to show.
        rows = np.repeat(np.arange(len(chosen)), [len(columns) for columns in chosen])
        heat = self._explain(tf.gather(batch_images, rows), np.concatenate(chosen)).numpy()
        of_image = np.split(heat, np.cumsum([len(columns) for columns in chosen])[:-1])
        names = []
        drawn = zip(paths, probabilities, chosen, of_image, strict=True)
        for number, (path, values, columns, maps) in enumerate(drawn, first):
            stem = re.sub(r"[^\w.-]", "_", path.stem)[:100]
            names.append(f"{number:06d}_{stem}.png")
            grey = pictures.read_grey(path.read_bytes(), self._picture.contrast)
            height, width = grey.shape
            grad_cam.draw_overlay(
                self._folder / names[-1],
                grey,
                {f"{self._classes[k]}, {values[k]:.3f}": one for k, one in zip(columns.tolist(), maps, strict=True)},
                grad_cam.cropped_part(
                    self._image_size, self._framing, pictures.shown_part(height, width, self._picture.aspect)
                ),
                "/".join(path.parts[-3:])[-100:],
            )
        return names

    def _choose(self, probabilities: np.ndarray) -> np.ndarray:
        """The numbers of the classes or labels to draw of an image, of its probabilities [K]."""
        if self._thresholds is None:
            return np.array([probabilities.argmax()])
        called = self._shown or np.flatnonzero(probabilities >= np.asarray(self._thresholds, np.float32))
        return np.array(called) if len(called) else np.array([probabilities.argmax()])


def _decode(encoded: dict[pathlib.Path, bytes]) -> tf.Tensor:
    """float32 [N, R, R, 1] in [0, 1]."""
    return pixel_ranges.uint8_to_unit(tf.stack([image_ops.decode_grey(data) for data in encoded.values()]))


def _encode(
    paths: Sequence[pathlib.Path], encoder: pictures.PictureEncoder, failed: dict[str, str]
) -> dict[pathlib.Path, bytes]:
    """The pictures of those files that are usable; the others go to `failed`."""
    encoded = {}
    for path in paths:
        try:
            encoded[path] = encoder.encode(path.read_bytes())
        except pictures.BadImage as error:
            failed[str(path)] = str(error)
        except OSError as error:
            errors.refuse_few_handles(error, path)
            failed[str(path)] = f"cannot be read ({error.strerror})"
    return encoded
