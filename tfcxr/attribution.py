"""Library behind attribute: where two classifiers look in the same images, and how far they agree.

Occlusion: how much the logit of a class falls where a block of the image is covered by the image's mean (Zeiler and
Fergus 2014, arXiv 1311.2901). Grad-CAM: serving/grad_cam.py.
"""

import csv
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib import pyplot as plt
from scipy import stats

from tfcxr import data, metrics, plotting
from tfcxr.classifiers import inference, loading
from tfcxr.classifiers.networks import models
from tfcxr.evaluation import bootstrap
from tfcxr.fidelity import features
from tfcxr.serving import grad_cam
from tfrecords_builder import files, pages
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import image_ops, pixel_ranges
from tfrecords_builder.labels import label_sets
from tfrecords_builder.pages import Picture, Section, Table
from tfrecords_builder.records import manifest

SCHEMA_VERSION = 1
METHODS = ("occlusion", "grad_cam")
TOP = 0.1

_MASKS_AT_ONCE = 64
_DRAWN = 6
_MEASURES = ("spearman", "iou")


def make_occlusion(
    classifier: models.Classifier, resolution: int, block_size: int
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Occlusion maps of a classifier, all covered copies of an image in batches of 64 inside one traced function.

    Args:
        classifier: its weights are shared, not copied.
        resolution: R, side of the images in pixels.
        block_size: side of a block in pixels; blocks tile the image, those at the right and lower edge may be smaller.

    Returns:
        Function of images float32 [N, R, R, 1] in [0, 1] and class numbers int64 [N] -> float32 [N, g, g], g =
        ceil(R / block_size): the logit of the class less that of the image with this block covered. Above 0: what is
        there speaks for the class.
    """
    cells = -(-resolution // block_size)
    rows = np.minimum(np.arange(resolution) // block_size, cells - 1)
    cell_of_pixel = tf.constant((rows[:, None] * cells + rows)[..., None], tf.int32)

    def logits_of(images: tf.Tensor, class_id: tf.Tensor) -> tf.Tensor:
        _, logits = inference.compute(classifier, images, path="target")
        return tf.gather(logits, class_id, axis=1)

    @tf.function(
        input_signature=[tf.TensorSpec([None, resolution, resolution, 1], tf.float32), tf.TensorSpec([None], tf.int64)],
        autograph=False,
    )
    def occlude(images, class_id):
        starts = tf.range(0, cells**2, _MASKS_AT_ONCE)

        def of_image(arguments):
            image, index = arguments
            whole = logits_of(image[None], index)[0]
            mean = tf.reduce_mean(image)

            def of_chunk(start):
                numbers = start + tf.range(_MASKS_AT_ONCE)
                covered = cell_of_pixel[None] == numbers[:, None, None, None]
                return logits_of(tf.where(covered, mean, image[None]), index)

            chunks = tf.map_fn(of_chunk, starts, fn_output_signature=tf.float32)
            return tf.reshape(whole - tf.reshape(chunks, [-1])[: cells**2], [cells, cells])

        return tf.map_fn(of_image, (images, class_id), fn_output_signature=tf.float32)

    return occlude


def agreement(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Rank correlation of two maps of one shape, and intersection over union of their highest 10%; NaN of even maps.

    The highest 10% are the values from the one on that is at that place from above; so equal values are all in or out,
    and the lowest value of a map never counts.
    """
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return dict.fromkeys(_MEASURES, float("nan"))
    tops = [_highest(values) for values in (first, second)]
    union = np.sum(tops[0] | tops[1])
    return {
        "spearman": float(stats.spearmanr(first.ravel(), second.ravel()).statistic),
        "iou": float(np.sum(tops[0] & tops[1]) / union),
    }


def _highest(values: np.ndarray) -> np.ndarray:
    number = max(1, round(TOP * values.size))
    return (values >= np.partition(values.ravel(), -number)[-number]) & (values > values.min())


def attribute(
    *,
    model_paths: Sequence[str],
    records_path: str | os.PathLike,
    split: str = "test",
    class_name: str | None = None,
    num_images: int = 100,
    block_size: int = 8,
    resamples: int = 1000,
    seed: int = 0,
    output_dir: pathlib.Path,
) -> dict[str, Any]:
    """Compares where two classifiers look; writes result.json, attributions.csv, maps.png, report.md and report.html.

    Args:
        model_paths: two run folders or exports of classifiers of the same classes.
        records_path, split: images.
        class_name: the class or label that is explained; None: of each image its own class.
        num_images: at most so many, drawn by `seed`.
        block_size: of the occlusion, in pixels.
        resamples: of the bootstrap over patients.
        seed: of the draws.
        output_dir: existing folder to write into.

    Returns:
        What result.json holds.

    Raises:
        InputError: models, records or numbers that do not fit.
        RunError: damaged records.
    """
    configs = [loading.load_classifier_config(path) for path in model_paths]
    record_set = data.RecordSet(records_path)
    classes, multilabel = list(configs[0]["classes"]), configs[0]["multilabel"]
    if list(configs[1]["classes"]) != classes or configs[1]["multilabel"] != multilabel:
        raise InputError(
            f"--models={','.join(model_paths)}: the classes of the first are {', '.join(classes)}, those of the second "
            f"{', '.join(configs[1]['classes'])}; give two classifiers of the same"
        )
    if class_name is None and not multilabel and list(record_set.info.classes) != classes:
        raise InputError(
            f"--records={records_path}: its classes are {', '.join(record_set.info.classes) or 'none'}, those of the "
            f"models {', '.join(classes)}; give records of these, or --class_name"
        )
    record_set.refuse_other_labels(label_sets.of_settings(configs[0]), f"--models={model_paths[0]}")
    resolution = record_set.info.resolution
    if block_size > resolution:
        raise InputError(f"--block_size={block_size}: the images have {resolution} px; give a smaller one")
    rows = manifest.read_rows(record_set.info, split, ["id", "patient", "class"])
    explained = _explained_classes(rows["class"].to_numpy(), classes, class_name, multilabel)
    there = np.flatnonzero(explained >= 0)
    if len(there) < 2:
        raise InputError(
            f"--records={records_path}: the {split} split has {len(there)} images of the model's classes; at least 2 "
            "are needed"
        )
    positions = there[features.choose(len(there), min(num_images, len(there)), seed)]
    class_id = explained[positions]
    images = np.concatenate(list(features.read_images(record_set, split, positions)))
    unit = pixel_ranges.signed_to_unit(tf.constant(images)).numpy()
    maps = [_compute_maps(loading.load_network(path), unit, class_id, block_size) for path in model_paths]
    found = []
    for method in METHODS:
        for index, position in enumerate(positions):
            other = (index + 1) % len(positions)
            found.append(
                {
                    "id": rows["id"].iloc[position],
                    "patient": rows["patient"].iloc[position],
                    "class": classes[class_id[index]],
                    "method": method,
                    **agreement(maps[0][method][index], maps[1][method][index]),
                    **{
                        f"{name}_other_image": value
                        for name, value in agreement(maps[0][method][index], maps[1][method][other]).items()
                    },
                }
            )
    result = {
        "schema_version": SCHEMA_VERSION,
        "models": [
            {"path": path, "digest": loading.weights_digest(path, "--models"), "backbone": config["backbone"]}
            for path, config in zip(model_paths, configs, strict=True)
        ],
        "records": {"path": str(records_path), "digest": record_set.info.digest, "split": split},
        "num_images": len(positions),
        "block_size": block_size,
        "top": TOP,
        "seed": seed,
        "agreement": {method: _summarise(found, method, resamples, seed) for method in METHODS},
    }
    files.write_json(output_dir / "result.json", result)
    _write_csv(output_dir / "attributions.csv", found)
    _draw(output_dir / "maps.png", unit[..., 0], maps, [classes[index] for index in class_id])
    _write_page(output_dir, result)
    return result


def _explained_classes(own: np.ndarray, classes: Sequence[str], class_name: str | None, multilabel: bool) -> np.ndarray:
    """Number of the class that is explained for each image, int64 [N]; -1: the image has none of the model's."""
    if class_name is not None:
        if class_name not in classes:
            raise InputError(f"--class_name={class_name}: the models' classes are {', '.join(classes)}")
        return np.full(len(own), classes.index(class_name))
    if multilabel:
        raise InputError("--class_name is required: the models' labels do not exclude each other; name one of them")
    index = {name: number for number, name in enumerate(classes)}
    return np.array([index.get(name, -1) for name in own], np.int64)


def _compute_maps(
    network: models.Classifier, images: np.ndarray, class_id: np.ndarray, block_size: int
) -> dict[str, np.ndarray]:
    """{"occlusion": [N, g, g], "grad_cam": [N, R, R], 0 outside of what the network sees}."""
    resolution = images.shape[1]
    occlude = make_occlusion(network, resolution, block_size)
    explain = grad_cam.make_explainer(network)
    heats = explain(tf.constant(images), tf.constant(class_id, tf.int64))
    # The same grid for networks of any stride and framing.
    config = network.config
    part = grad_cam.cropped_part(config.image_size, config.framing, (0.0, resolution, 0.0, resolution))
    left, right, top, bottom = (min(max(round(edge), 0), resolution) for edge in part)
    whole = np.zeros(images.shape[:3], np.float32)
    whole[:, top:bottom, left:right] = image_ops.resize(heats[..., None], bottom - top, right - left).numpy()[..., 0]
    return {
        "occlusion": occlude(tf.constant(images), tf.constant(class_id, tf.int64)).numpy(),
        "grad_cam": whole,
    }


def _summarise(found: Sequence[Mapping[str, Any]], method: str, resamples: int, seed: int) -> dict[str, Any]:
    """Mean of each measure over the images in which both maps vary, with a 95% interval over patients."""
    rows = [row for row in found if row["method"] == method and np.isfinite(row["spearman"])]
    summary: dict[str, Any] = {
        "num_images": len(rows),
        "even_maps": sum(r["method"] == method for r in found) - len(rows),
    }
    for measure in (*_MEASURES, *(f"{name}_other_image" for name in _MEASURES)):
        known = [row for row in rows if np.isfinite(row[measure])]
        values = np.array([row[measure] for row in known])
        ends = _interval(values, [row["patient"] for row in known], resamples, seed) if known else None
        summary[measure] = {"value": metrics.finite(values.mean()) if known else None, "ci95": ends}
    return summary


def _interval(values: np.ndarray, patients: Sequence[str], resamples: int, seed: int) -> list[float] | None:
    drawn = bootstrap.PatientBootstrap(np.zeros(len(values), np.int64), patients, resamples=resamples, seed=seed)
    sums = np.bincount(drawn.patient, values, minlength=drawn.num_patients)
    counts = np.bincount(drawn.patient, minlength=drawn.num_patients)
    sampled = drawn.sample(lambda weights: {"mean": (sums @ weights) / (counts @ weights)})
    return None if sampled is None else np.quantile(sampled["mean"], (0.025, 0.975)).tolist()


def _write_csv(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with files.atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _draw(
    path: pathlib.Path, images: np.ndarray, maps: Sequence[Mapping[str, np.ndarray]], names: Sequence[str]
) -> None:
    """The first images, and beside each the maps of both models; [N, R, R] in [0, 1]."""
    number, side = min(_DRAWN, len(images)), images.shape[1]
    figure, panels = plt.subplots(number, 5, figsize=(10, 2.1 * number), squeeze=False, layout="constrained")
    for row in range(number):
        shown = [
            (f"{method} of {which}", one[method][row])
            for method in METHODS
            for which, one in zip("AB", maps, strict=True)
        ]
        for axes, (title, values) in zip(panels[row], [(names[row], None), *shown], strict=True):
            axes.set_axis_off()
            axes.set_title(title, fontsize=8, parse_math=False)
            axes.imshow(images[row], cmap="gray", vmin=0, vmax=1, extent=(0, side, side, 0))
            if values is not None:
                most = float(np.abs(values).max()) or 1.0
                axes.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most, alpha=0.5, extent=(0, side, side, 0))
    plotting.save(figure, path, 110)


def to_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Rows of the table: method, measure, agreement on the same image, and on another one."""

    def cell(one: Mapping[str, Any]) -> str:
        if one["value"] is None:
            return "–"
        ends = one["ci95"]
        return f"{one['value']:.3f}" + (f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else "")

    return [
        [method, measure, cell(summary[measure]), cell(summary[f"{measure}_other_image"])]
        for method, summary in result["agreement"].items()
        for measure in _MEASURES
    ]


def _write_page(folder: pathlib.Path, result: Mapping[str, Any]) -> None:
    chance = TOP / (2 - TOP)
    text = [
        f"A is {result['models'][0]['path']}, B is {result['models'][1]['path']}. spearman: rank correlation of their "
        f"maps of one image. iou: intersection over union of the highest {TOP:.0%} of both maps; of maps without "
        f"relation about {chance:.2f}. In the last column, B's map is that of another image: what remains there is "
        "that both look at the same place whatever the image.",
        f"Occlusion with blocks of {result['block_size']} px. Means over images, with 95% intervals over patients.",
        *(
            f"{method}: {summary['even_maps']} images left out, in which a map has one value everywhere."
            for method, summary in result["agreement"].items()
            if summary["even_maps"]
        ),
    ]
    rows = to_rows(result)
    columns = ["map", "measure", "same image", "another image"]
    table = Table("Agreement of the two classifiers.", columns, rows, [False, False, True, True], [False] * len(rows))
    pages.write(
        folder,
        title="Where two classifiers look",
        subtitle=f"{result['num_images']} images of {result['records']['split']}.",
        program="tfcxr attribute",
        sections=[
            Section(
                "Agreement",
                text,
                tables=[table],
                pictures=[
                    Picture("maps.png", "Red speaks for the class, blue against it; each map by its own maximum")
                ],
            )
        ],
    )
