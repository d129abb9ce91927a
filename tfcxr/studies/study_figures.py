"""The pictures of a study's report."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tfcxr import plotting
from tfcxr.studies import differences, results
from tfcxr.studies.definition import NONE, Cell
from tfcxr.studies.differences import Compared
from tfcxr.studies.results import Filled


def draw_accuracies(
    rows: Mapping[Cell, Sequence[Filled]], compared: Mapping[Cell, Compared], published: Mapping[Cell, float]
) -> Figure:
    """A line per row of one label version: its score with interval, each seed, and the published figure."""
    figure = Figure(figsize=(8.5, 1.5 + 0.36 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for y, (cell, seeds) in enumerate(rows.items()):
        known = [each.score for each in seeds if each.result]
        values = [value for value, _ in known if value is not None]
        unadapted = plotting.GREEN if cell.source == cell.target else plotting.BLUE
        colour = unadapted if cell.method == NONE else plotting.VERMILION
        row = compared.get(cell)
        ends = row.accuracy.ci95 if row else known[0][1] if len(known) == 1 else None
        if ends:
            axes.plot([100 * end for end in ends], [y, y], color=colour, lw=2.5, alpha=0.5, solid_capstyle="butt")
        if len(values) > 1:
            axes.plot([100 * value for value in values], [y] * len(values), "|", color=colour, ms=9, mew=1.2)
        if values:
            axes.plot(100 * statistics.mean(values), y, "o", color=colour, ms=7)
        else:
            axes.text(0.01, y, "no result", transform=axes.get_yaxis_transform(), va="center", color=plotting.GREY)
        if cell in published:
            axes.plot(100 * published[cell], y, "D", mfc="none", mec="black", ms=6)
    cells = [each for seeds in rows.values() for each in seeds]
    classes = results.find_classes(cells)
    if classes:
        chance, above = 50 if any(each.multilabel for each in cells) else 100 / len(classes), axes.get_xaxis_transform()
        axes.axvline(chance, color=plotting.GREY, ls="--", lw=1)
        axes.text(chance, 1.01, "chance", color=plotting.GREY, ha="center", transform=above, size=9)
    axes.set_yticks(range(len(rows)), [f"{cell.source} → {cell.target}, {results.name_method(cell)}" for cell in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"{results.name_score(cells)}, %")
    axes.grid(axis="x", color="#DDDDDD", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def draw_worth(target: str, compared: Mapping[Cell, Compared], score: str) -> Figure:
    """The score over the share of a target's patients that were learned, and where rows without their labels lie.

    Args:
        target: its name.
        compared: the rows of one label version that were tested on it.
        score: what the score is called.
    """
    figure = Figure(figsize=(8.5, 3.8), layout="constrained")
    axes = figure.subplots()
    curve = differences.find_curve(target, compared)
    shares = [100 * share for share in curve]
    accuracies = [compared[cell].accuracy for cell in curve.values()]
    values = [100 * each.value for each in accuracies]
    ends = np.array([[100 * end for end in each.ci95] for each in accuracies])
    errors = np.abs(ends.T - values)
    axes.errorbar(shares, values, errors, fmt="o-", color=plotting.GREEN, lw=1.5, capsize=3, label=f"{target}")
    others = {cell: row for cell, row in compared.items() if row.worth and cell.method == NONE}
    for (cell, row), colour in zip(others.items(), plotting.COLOURS * len(others), strict=False):
        worth = row.worth
        assert worth is not None
        axes.axhline(100 * row.accuracy.value, color=colour, ls="--", lw=1, label=cell.source)
        axes.plot([100 * end for end in worth.ci95], [100 * row.accuracy.value] * 2, color=colour, lw=3, alpha=0.5)
        axes.plot(100 * worth.value, 100 * row.accuracy.value, "D", color=colour, ms=6)
    axes.set_xscale("log")
    axes.set_xticks(shares, [f"{share:g}" for share in shares], minor=False)
    axes.minorticks_off()
    axes.set_xlabel(f"patients of {target} whose labels were learned, %")
    axes.set_ylabel(f"{score}, %")
    axes.grid(color="#DDDDDD", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def draw_fidelity(ticks: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure | None:
    """The Fréchet distance of each GAN over the images it was shown; None if none was measured.

    `ticks`: GAN -> its ticks.json.
    """
    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    axes = figure.subplots()
    names = set()
    for (gan, entries), colour in zip(ticks.items(), plotting.COLOURS * len(ticks), strict=False):
        for name in sorted({key for entry in entries for key in entry if key.startswith("fid/")}):
            points = [(entry["kimg"], entry[name]) for entry in entries if entry.get(name) is not None]
            axes.plot(*zip(*points, strict=True), "o-", color=colour, ms=3.5, lw=1.5, label=gan)
            names.add(name.removeprefix("fid/"))
    if not names:
        return None
    axes.set_yscale("log")
    axes.set_xlabel("thousands of images shown")
    axes.set_ylabel(f"Fréchet distance ({', '.join(sorted(names))})")
    axes.grid(color="#DDDDDD", lw=0.6, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
