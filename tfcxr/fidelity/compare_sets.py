"""Library behind compare-sets: measures of synthetic images against real ones, and of held-out real ones beside them.

Figures depend on the number of images, so all sets are cut to one number, and the held-out images show what a perfect
generator would reach with it, as far as they were drawn from the same patients' distribution.
"""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from tfcxr import data, plotting
from tfcxr.fidelity import (
    by_class,
    distances,
    diversity,
    feature_names,
    feature_statistics,
    features,
    label_agreement,
    report,
    sample_size,
)
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import combinations
from tfrecords_builder.splits import policies

SCHEMA_VERSION = 1
MAX_IMAGES = 10_000  # of each set, where the caller names no number: that of the benchmark's FID

_LEAST_IMAGES = distances.NEIGHBOURS + 1
_PLOTTED = 1000
_FEW_FOR_PCA = 640  # ten for each component


def compare_sets(
    *,
    real: str | os.PathLike,
    synthetic: str | os.PathLike,
    holdout: str | os.PathLike | None = None,
    split: str = "train",
    holdout_split: str = "test",
    features_name: str = feature_names.PIXELS_PCA,
    features_weights: str | None = None,
    classifier: str | None = None,
    num_images: int | None = None,
    resamples: int = sample_size.RESAMPLES,
    batch_size: int = 64,
    seed: int = 0,
    cache_dir: str | os.PathLike | None = None,
    output_dir: pathlib.Path,
) -> dict[str, Any]:
    """Compares record sets; writes result.json, result.md, tables, pictures and the report (see report.write).

    Sets of another resolution than the real one are refused: a resize would itself be measured.

    Args:
        real: record set of the reals, best those that the generator was trained on.
        synthetic: record set that is measured.
        holdout: record set of reals that the generator has not seen, compared in the same way; may be the folder
            `real`.
        split: fold of `real` and `synthetic`.
        holdout_split: fold of `holdout`.
        features_name, features_weights: see features.make_extractor.
        classifier: run folder or export of a classifier whose agreement with the labels is measured; None: without.
        num_images: of each set, drawn by `seed`; None: as many as the smallest set has, at most MAX_IMAGES.
        resamples: of the bootstrap; 0: no intervals.
        batch_size: images per step.
        seed: of all draws.
        cache_dir: see statistics.of_reals.
        output_dir: existing folder to write into.

    Returns:
        What result.json holds.

    Raises:
        InputError: sets, features, a classifier or numbers that cannot be used.
        RunError: damaged records, features that are not finite.
    """
    real_set = data.RecordSet(real, flag="--real")
    resolution = real_set.info.resolution
    sets = {"real": (real_set, split)}
    sets["synthetic"] = (data.RecordSet(synthetic, flag="--synthetic", resolution=resolution), split)
    sets["synthetic"][0].refuse_other_labels(real_set.info.label_set, f"--real={real}")
    if holdout:
        held_out = data.RecordSet(holdout, flag="--holdout", resolution=resolution)
        held_out.refuse_other_labels(real_set.info.label_set, f"--real={real}")
        if held_out.info.digest == real_set.info.digest and holdout_split == split:
            raise InputError(f"--holdout={holdout}: its {holdout_split} split is the real set; give another split")
        sets["holdout"] = (held_out, holdout_split)
    number = _number_of_images(sets, num_images)
    agreement = None if classifier is None else label_agreement.Agreement(classifier, real_set)
    if agreement is not None:
        for name, (record_set, _) in sets.items():
            agreement.refuse_other_classes(record_set, f"--{name}")
    extractor = features.make_extractor(features_name, resolution=resolution, weights=features_weights)
    drawn: dict[str, Any] = {"num_images": number, "seed": seed, "batch_size": batch_size}
    measured = {"real": feature_statistics.of_reals(extractor, real_set, split, **drawn, cache_dir=cache_dir)}
    for name, where in sets.items():
        if name != "real":
            measured[name] = feature_statistics.of_records(extractor, *where, **drawn)
    labelled = {name: _add_labels(*sets[name], one, seed) for name, one in measured.items()}
    width = measured["real"].features.shape[1]
    metrics, intervals, by_number = {}, {}, {}
    for name, one in measured.items():
        if name == "real":
            continue
        metrics[name] = feature_statistics.compare(measured["real"], one, seed=seed)
        by_number[name] = dataclasses.asdict(
            sample_size.frechet_by_number(measured["real"].features, one.features, seed=seed)
        )
        if resamples:
            intervals[name] = _intervals(labelled["real"], labelled[name], metrics[name], resamples, seed)
    groups, left_out = by_class.find_groups(labelled, _shared_classes(sets), real_set.info.labels, seed)
    result = {
        "schema_version": SCHEMA_VERSION,
        "features": {"name": extractor.name, "width": width},
        "num_images": number,
        "neighbours": distances.NEIGHBOURS,
        "seed": seed,
        "metrics": metrics,
        "intervals": {"resamples": resamples, **intervals},
        "fid_by_number": by_number,
        "groups": [
            {**by_class.measure(group, labelled, seed), "ms_ssim": _ms_ssim(group, sets, labelled, seed)}
            for group in groups
        ],
        "groups_left_out": left_out,
        "ms_ssim_scales": diversity.ms_ssim_scales(resolution),
        "label_agreement": None
        if agreement is None
        else {
            "classifier": classifier,
            "classifier_digest": agreement.digest,
            **{name: agreement.measure(*where) for name, where in sets.items() if name != "real" or not holdout},
        },
        "sets": {
            name: {"path": str(s.path), "split": fold, "source": s.info.source, "digest": s.info.digest}
            for name, (s, fold) in sets.items()
        },
        "warnings": _warnings(number, width, extractor.name)
        + ([] if agreement is None else agreement.warn({n: w for n, w in sets.items() if n != "real" or not holdout})),
    }
    files.write_json(output_dir / "result.json", result)
    files.write_text(output_dir / "result.md", to_markdown(result))
    plot_features(measured, output_dir / "features.png")
    report.write(output_dir, result)
    return result


def to_markdown(result: dict[str, Any]) -> str:
    """A result as a short Markdown table; held-out real images, if any, in a column of their own."""
    columns = list(result["metrics"])
    lines = [
        f"{result['num_images']} images of each set, features {result['features']['name']}, k = {result['neighbours']}",
        "",
        f"| | {' | '.join(report.COLUMNS.get(c, c) for c in columns)} | better |",
        "|---|" + "---|" * (len(columns) + 1),
        *(f"| {' | '.join(row)} |" for row in report.figure_rows(result)),
    ]
    lines += [f"\nWarning: {warning}." for warning in result["warnings"]]
    return "\n".join(lines) + "\n"


def plot_features(sets: dict[str, feature_statistics.Statistics], path: pathlib.Path) -> None:
    """At most 1000 images of each set on the two directions in which the reals vary most; `sets` holds "real"."""
    real = sets["real"]
    _, directions = np.linalg.eigh(real.covariance)
    plane = directions[:, -2:][:, ::-1]
    figure, axes = plt.subplots(figsize=(5.5, 5), layout="constrained")
    for (name, one), colour in zip(sets.items(), ("tab:grey", "tab:orange", "tab:blue"), strict=False):
        # Evenly, since records lie in the order of their source.
        points = (one.features[:: -(-len(one.features) // _PLOTTED)] - real.mean) @ plane
        axes.scatter(points[:, 0], points[:, -1], s=6, alpha=0.5, color=colour, label=name, linewidths=0)
    axes.set_xlabel(f"first principal component of the reals' {real.name}")
    axes.set_ylabel("second")
    axes.legend()
    plotting.save(figure, path, 120)


def _add_labels(
    record_set: data.RecordSet, split: str, statistics: feature_statistics.Statistics, seed: int
) -> by_class.LabelledSet:
    """What is known of the images that `feature_statistics.of_records` has drawn by the same seed."""
    positions = feature_statistics.positions(record_set, split, num_images=len(statistics.features), seed=seed)
    labels = record_set.labels(split)
    return by_class.LabelledSet(
        statistics=statistics,
        positions=positions,
        classes=labels["class"][positions],
        codes=combinations.encode(labels["vector"][positions]),
        patients=policies.number_patients(record_set.patients(split)[positions]),
    )


def _shared_classes(sets: dict[str, tuple[data.RecordSet, str]]) -> tuple[str, ...]:
    """The names of the classes if all sets have the same ones, else none."""
    names = {record_set.info.classes for record_set, _ in sets.values()}
    return names.pop() if len(names) == 1 else ()


def _intervals(
    real: by_class.LabelledSet, other: by_class.LabelledSet, metrics: dict[str, float], resamples: int, seed: int
) -> dict[str, list[float]]:
    name = real.statistics.name
    fid, kid = (feature_names.metric_name(measure, name) for measure in ("fid", "kid"))
    found = sample_size.bootstrap(
        real.statistics.features,
        other.statistics.features,
        real_groups=real.patients,
        other_groups=other.patients,
        fid=metrics[fid],
        kid=metrics[kid],
        resamples=resamples,
        seed=seed,
    )
    return {fid: list(found.fid), kid: list(found.kid)}


def _ms_ssim(
    group: by_class.Group,
    sets: dict[str, tuple[data.RecordSet, str]],
    labelled: dict[str, by_class.LabelledSet],
    seed: int,
) -> dict[str, Any]:
    return {
        name: diversity.mean_ms_ssim(
            *sets[name], labelled[name].positions[rows], labelled[name].patients[rows], seed=seed
        )
        for name, rows in group.rows.items()
    }


def _number_of_images(sets: dict[str, tuple[data.RecordSet, str]], wanted: int | None) -> int:
    available = {name: record_set.num_examples(split) for name, (record_set, split) in sets.items()}
    number = min(MAX_IMAGES, *available.values()) if wanted is None else wanted
    for name, count in available.items():
        record_set, split = sets[name]
        what = f"--{name}={record_set.path}: the {split} split has {count} images"
        if count < _LEAST_IMAGES:
            raise InputError(f"{what}; at least {_LEAST_IMAGES} are needed")
        if count < number:
            raise InputError(f"{what}, --num_images={number} asks for more; leave it out for as many as there are")
    return number


def _warnings(number: int, width: int, name: str) -> list[str]:
    found = []
    if number <= width:
        found.append(
            f"{number} images for {width} features: the Fréchet distance is biased far upwards; look at the KID, "
            f"and compare figures of {name} of the same number of images only"
        )
    elif number // sample_size.SMALLEST <= width:
        found.append(
            f"FID-infinity is extrapolated from {number // sample_size.SMALLEST} images on, for {width} features: the "
            f"line in 1 / number may not hold there; more than {sample_size.SMALLEST * width} images are wanted"
        )
    if name == feature_names.PIXELS_PCA and number < _FEW_FOR_PCA:
        found.append(
            f"{name} is fitted to {number} real images: with so few, even held-out real images look unlike them; "
            f"{_FEW_FOR_PCA} or more are wanted"
        )
    return found
