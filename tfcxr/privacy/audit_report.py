"""The audit as a report: conclusions, tables, pictures. No set is called harmless: what was not found is a bound."""

import csv
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from tfcxr import plotting
from tfcxr.gan import image_grids
from tfcxr.privacy import planted_copies, reidentification
from tfrecords_builder import files, pages
from tfrecords_builder.pages import Picture, Section, Table

ENOUGH_POWER = 0.8
NOT_DETECTABLE = "not detectable with this test"

MEANINGS = {
    "distance_ratio": "distance to the nearest training image over that to the nearest holdout image, geometric mean",
    "train_share": "share of synthetic images whose nearest real image is a training image",
    "much_nearer": "share of synthetic images at least twice as near to a training image as to any holdout image",
    "nearer_than_any_holdout": "share of synthetic images nearer to a training image than any holdout image is",
    "matched": "share of synthetic images nearer to a training image than 99% of the holdout images are",
    "authenticity": "share of authentic images (Alaa et al. 2022), expected: that of the holdout images",
    "data_copying": "C_T of Meehan et al. (2020), far below 0 if training data are copied",
    "membership_auc": "AUC of membership inference",
    "membership_tpr_at_1pct": "training images recognised at 1% false positives",
    "membership_tpr_at_0.1pct": "training images recognised at 0.1% false positives",
}


def add_conclusions(result: dict[str, Any]) -> None:
    """Adds to a result what it says: Holm's p-values to all figures, and "conclusions", a list of sentences.

    The p-values of all figures of all spaces are corrected together (Holm 1979), those of a recogniser that recognises
    nobody left out.
    """
    spaces = [space for space in result["spaces"] if _is_informative(space["space"], result)]
    figures = [figure for space in spaces for figure in space["figures"]] + result["discriminator"]
    order = sorted(range(len(figures)), key=lambda i: figures[i]["p_value"])
    least = 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, figures[index]["p_value"] * (len(figures) - rank)))
        figures[index]["p_holm"] = least
    sentences = []
    certain = [figure for figure in figures if figure["p_holm"] <= 0.05]
    alone = [figure for figure in figures if figure["indicated"] and figure["p_holm"] > 0.05]
    if certain:
        names = ", ".join(f"{figure['name']} ({figure['space']})" for figure in certain)
        sentences.append(f"Copying of training images is indicated, all figures taken together, by: {names}.")
    if alone:
        names = ", ".join(f"{figure['name']} ({figure['space']})" for figure in alone)
        sentences.append(
            f"Indicated by these figures alone, which may be chance among {len(figures)} figures: {names}."
        )
    if not certain and not alone:
        sentences.append("No figure indicates copying. What that excludes is bounded by what would have been detected:")
    for space in spaces:
        bounds = [f"{kind} copies {_tell_bound(space, kind)}" for kind in planted_copies.KINDS]
        sentences.append(f"In {space['space']}: {'; '.join(bounds)}.")
    for space in spaces:
        missed = [f"{share:.0%} of the {kind} ones" for kind, share in space["filter_misses"].items() if share > 0.05]
        what = f"leave in the set {', '.join(missed)}" if missed else "remove nearly all, of every kind"
        sentences.append(f"Of planted copies, a filter by distance in {space['space']} would {what}.")
    result["conclusions"] = sentences


def tell_recognition(found: Mapping[str, Any], recognises: bool, reason: str) -> str:
    """One sentence on whether the network recognises patients; `found`: fields of reidentification.Recognition."""
    if reason:
        return f"Patient re-identification was not tried: {reason}."
    if found["auc"] is None:
        return (
            "Whether the network recognises patients cannot be tested: fewer than two holdout patients have two "
            "images. What it says of copies means nothing."
        )
    interval = found["interval"]
    spread = "" if interval is None else f" (95% interval {interval[0]:.2f} to {interval[1]:.2f})"
    test = (
        f"Patient re-identification, on {found['num_patients']} holdout patients that the network has not seen: AUC "
        f"{found['auc']:.2f}{spread}."
    )
    if recognises:
        return test
    return f"{test} It cannot recognise patients, so that its figures mean nothing here, whatever they are."


def to_text(result: Mapping[str, Any]) -> str:
    """What the terminal shows at the end."""
    lines = [*result["conclusions"], *(f"Warning: {warning}." for warning in result["warnings"])]
    return "\n".join(lines)


def write(
    folder: pathlib.Path,
    result: Mapping[str, Any],
    distances: Mapping[str, Mapping[str, np.ndarray]],
    examples: Mapping[str, np.ndarray],
) -> None:
    """Writes figures.csv, power.csv, filter.csv, the pictures, report.md and report.html.

    Args:
        folder: where.
        result: after `add_conclusions`.
        distances: of each space, as of SpaceAudit.
        examples: some planted copies of each kind, uint8 [N, R, R, 1].
    """
    _write_tables(folder, result)
    first = next(iter(examples.values()))
    grid = image_grids.titled_grid(list(examples.items()), len(first))
    image_grids.write_png(folder / "copies.png", grid)
    for space in result["spaces"]:
        _plot_distances(distances[space["space"]], space, folder / f"distances-{space['space']}.png")
        _plot_power(space, folder / f"power-{space['space']}.png")
    images, patients = result["num_images"], result["num_patients"]
    pages.write(
        folder,
        title="Privacy audit of a synthetic set",
        subtitle=f"{images['synthetic']} synthetic images against {images['train']} training images of "
        f"{patients['train']} patients and {images['holdout']} holdout images of {patients['holdout']} other patients.",
        program="tfcxr audit-privacy",
        sections=_sections(result),
    )


def _sections(result: Mapping[str, Any]) -> list[Section]:
    found = result["reidentification"]
    recognition = [tell_recognition(found, found["recognises"], found["reason"])]
    if found["trained_on_patients"]:
        recognition.append(
            f"The network was trained on pairs of images of {found['trained_on_patients']} training patients. They are "
            "left out of the figures in its feature space, since it knows them better than others."
        )
    sections = [Section("Can the audit recognise patients?", recognition)]
    sections.append(Section("What was found", bullets=list(result["conclusions"])))
    if result["warnings"] or result["notes"]:
        sections.append(Section("Warnings", bullets=[f"{text}." for text in [*result["warnings"], *result["notes"]]]))
    sections += [_tell_space(space, result) for space in result["spaces"]]
    if result["discriminator"]:
        sections.append(
            Section(
                "Scores of the discriminator",
                [
                    "Does the GAN's discriminator score its training images higher (LOGAN, Hayes et al. 2019)? That "
                    "concerns who gets the discriminator, not who gets images only. No copies can be planted here."
                ],
                tables=[_figure_table("Membership inference.", result["discriminator"], ())],
            )
        )
    sections.append(_tell_filter(result))
    sections.append(
        Section(
            "How the audit was calibrated",
            [
                f"Copies of training images were planted in the set, {result['draws']} times for each kind and rate, "
                f"in the place of other images, and every test was done again. Power is the share of the draws with a "
                f"p-value of at most {result['alpha']:g}; power.csv has the exact binomial intervals. A figure that "
                "indicates copying without any planted copy cannot be calibrated on this set: its power is that of the "
                "set itself.",
                "Read a figure that found nothing together with its power: it excludes such copies at such a rate, of "
                "these kinds, and nothing else.",
            ],
            pictures=[Picture("copies.png", "Planted copies of the same eight training images, by kind")],
        )
    )
    sections.append(
        Section(
            "How to read the tests",
            [
                "The tests exchange the roles of training and holdout patients, whole patients at a time: the column "
                "'expected' is the mean over the exchanges. They hold if both kinds of patients were drawn alike. "
                "The two figures of the literature, authenticity and data_copying, compare with the holdout images "
                "directly, and a generator of little diversity fails them without copying.",
                "The papers behind the figures are named in docs/privacy.md.",
            ],
        )
    )
    return sections


def _tell_space(space: Mapping[str, Any], result: Mapping[str, Any]) -> Section:
    name = space["space"]
    text = []
    if not _is_informative(name, result):
        text.append(
            "The network cannot recognise patients: these figures mean nothing, and are shown for completeness."
        )
    medians = {kind: f"{quantiles['0.5']:.4g}" for kind, quantiles in space["distances"].items()}
    text.append(
        f"Median distance to the nearest training image: of synthetic images {medians['synthetic_to_train']}, of "
        f"holdout images {medians['holdout_to_train']}; of synthetic images to the nearest holdout image "
        f"{medians['synthetic_to_holdout']}."
    )
    return Section(
        f"Features {name}",
        text,
        tables=[
            _figure_table(
                "What was found, and for each kind of copy the smallest rate (of 0.1%, 1% and 10%) that the figure "
                f"would have detected in {ENOUGH_POWER:.0%} of the draws.",
                space["figures"],
                planted_copies.KINDS,
            )
        ],
        pictures=[
            Picture(f"distances-{name}.png", f"Distances to the nearest real image in {name}"),
            Picture(f"power-{name}.png", f"Share of the draws in which each figure detected planted copies, in {name}"),
        ],
    )


def _figure_table(caption: str, figures: list[dict[str, Any]], kinds: tuple[str, ...]) -> Table:
    columns = ["figure", "meaning", "found", "expected", "p", "p (Holm)", "copying", *kinds]
    rows, alerts = [], []
    for figure in figures:
        interval = figure["confidence"]
        value = "–" if figure["value"] is None else f"{figure['value']:.4g}"
        if interval is not None:
            value += f" ({interval[0]:.3g} to {interval[1]:.3g})"
        expected = f"{figure['expected']:.4g}"
        if figure["interval"] is not None:
            expected += f" ({figure['interval'][0]:.3g} to {figure['interval'][1]:.3g})"
        verdict = "indicated" if figure["indicated"] else "not detected"
        holm = f"{figure['p_holm']:.3f}" if "p_holm" in figure else "–"
        bounds = [_tell_rate(_smallest_rate(figure, kind)) for kind in kinds]
        name = figure["name"]
        rows.append([name, MEANINGS[name], value, expected, f"{figure['p_value']:.3f}", holm, verdict, *bounds])
        alerts.append(figure["indicated"])
    return Table(caption, columns, rows, [False] * len(columns), alerts)


def _tell_filter(result: Mapping[str, Any]) -> Section:
    rows = []
    for space in result["spaces"]:
        missed = space["filter_misses"]
        rows.append(
            [space["space"], f"{space['filter_removes']:.1%}", *(f"{missed[k]:.0%}" for k in planted_copies.KINDS)]
        )
    return Section(
        "What a filter by distance would miss",
        [
            "A filter that removes synthetic images nearer to a training image than 99% of the holdout images are, as "
            "is done in curation, was tried on the planted copies. That such filters miss near-duplicates is known "
            "(arXiv 2510.01793): what they leave is what they cannot see, and an audit in the same feature space "
            "cannot see it either."
        ],
        tables=[
            Table(
                "Share of the synthetic images that would be removed, and of the planted copies that would be missed.",
                ["features", "removed", *planted_copies.KINDS],
                rows,
                [False] + [True] * (1 + len(planted_copies.KINDS)),
                [False] * len(rows),
            )
        ],
    )


def _is_informative(space: str, result: Mapping[str, Any]) -> bool:
    return space != reidentification.NAME or result["reidentification"]["recognises"]


def _smallest_rate(figure: Mapping[str, Any], kind: str) -> float | None:
    if figure["indicated"]:
        return None
    rates = [p["rate"] for p in figure["power"] if p["kind"] == kind and p["detected"] >= ENOUGH_POWER]
    return min(rates, default=None)


def _tell_rate(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.3g}" if rate < 0.001 else f"{100 * rate:g}%"


def _tell_bound(space: Mapping[str, Any], kind: str) -> str:
    """What the figures of a space together exclude of a kind of copy."""
    rates = {figure["name"]: _smallest_rate(figure, kind) for figure in space["figures"]}
    known = {name: rate for name, rate in rates.items() if rate is not None}
    if not known:
        return f"{NOT_DETECTABLE}, up to {max(planted_copies.RATES):.0%} of the set"
    least = min(known.values())
    best = [name for name, rate in known.items() if rate == least]
    return f"would have been detected from {_tell_rate(least)} of the set on ({best[0]})"


def _write_tables(folder: pathlib.Path, result: Mapping[str, Any]) -> None:
    figures = [figure for space in result["spaces"] for figure in space["figures"]] + result["discriminator"]
    _write_csv(
        folder / "figures.csv",
        ["space", "figure", "value", "expected", "low", "high", "p_value", "p_holm", "indicated"],
        [
            [
                *(figure[key] for key in ("space", "name", "value", "expected")),
                *(figure["interval"] or (None, None)),
                figure["p_value"],
                figure.get("p_holm"),
                figure["indicated"],
            ]
            for figure in figures
        ],
    )
    _write_csv(
        folder / "power.csv",
        ["space", "figure", "kind", "rate", "copies", "power", "low", "high"],
        [
            [
                *(figure[key] for key in ("space", "name")),
                *(power[key] for key in ("kind", "rate", "copies", "detected")),
                *power["interval"],
            ]
            for figure in figures
            for power in figure["power"]
        ],
    )
    _write_csv(
        folder / "filter.csv",
        ["space", "distance", "removed", *(f"missed_{kind}" for kind in planted_copies.KINDS)],
        [
            [
                *(space[key] for key in ("space", "filter_distance", "filter_removes")),
                *(space["filter_misses"][kind] for kind in planted_copies.KINDS),
            ]
            for space in result["spaces"]
        ],
    )


def _write_csv(path: pathlib.Path, header: list[str], rows: list[list[Any]]) -> None:
    with files.atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _plot_distances(distances: Mapping[str, np.ndarray], space: Mapping[str, Any], path: pathlib.Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    bins = np.linspace(0, max(float(values.max()) for values in distances.values()) or 1.0, 60).tolist()
    for (name, values), colour in zip(distances.items(), plotting.COLOURS, strict=False):
        axes.hist(values, bins, color=colour, density=True, histtype="step", label=name.replace("_", " "))
    axes.axvline(space["filter_distance"], color=plotting.GREY, linestyle=":", label="nearest 1% of the holdout")
    axes.set_xlabel(f"distance to the nearest image, features {space['space']}")
    axes.set_ylabel("density")
    axes.legend()
    plotting.save(figure, path, 120)


def _plot_power(space: Mapping[str, Any], path: pathlib.Path) -> None:
    names = [figure["name"] for figure in space["figures"]]
    columns = [(power["kind"], power["rate"]) for power in space["figures"][0]["power"]]
    table = np.array([[power["detected"] for power in figure["power"]] for figure in space["figures"]])
    figure, axes = plt.subplots(figsize=(10, 4.2), layout="constrained")
    axes.imshow(table, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for row, column in np.ndindex(table.shape):
        colour = "white" if table[row, column] > 0.6 else "black"
        axes.text(column, row, f"{100 * table[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=7)
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(range(len(columns)), [f"{kind} {100 * rate:g}%" for kind, rate in columns], rotation=60, ha="right")
    axes.set_title("detected in % of the draws")
    plotting.save(figure, path, 110)
