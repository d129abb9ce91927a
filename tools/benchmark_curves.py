"""The benchmark's curves from its two studies: how far synthetic images are behind as many real ones, by their number.

Example: python -m tools.benchmark_curves --workspace=workspace --output=benchmark_curves.png
"""

import pathlib
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from flags import app, common
from tfcxr import plotting
from tfcxr.evaluation import bootstrap, multilabel, paired_test, predictions
from tfcxr.studies import results
from tfrecords_builder import files

# Study -> what its curve is over, and the title of its panel.
STUDIES = {"benchmark_classes": "label combinations", "benchmark_samples": "training images of each combination"}


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of the tool."""
    flags.DEFINE_string("workspace", "workspace", "of both studies", flag_values=fv)
    flags.DEFINE_string("output", None, "PNG to write; the numbers go beside it, as JSON", flag_values=fv)
    common.define_required(fv, "output", "the PNG to write")


def find_number(label_version: str, source: str) -> int:
    """The N of classes-N, or else of a source such as n200 or synthetic200."""
    found = re.fullmatch(r"classes-(\d+)", label_version) or re.fullmatch(r"[a-z]+(\d+)", source)
    if not found:
        raise ValueError(f"{label_version}, {source}: no number")
    return int(found[1])


def measure(workspace: pathlib.Path, name: str) -> dict[int, dict[str, Any]]:
    """Number -> mean ROC-AUC of real and of synthetic images and their difference, each with its 95% interval."""
    study = files.read_json(workspace / "studies" / name / "study.json")
    pairs: dict[int, dict[str, list[results.Filled]]] = {}
    for cell, seeds in results.group(results.read(study, workspace)).items():
        kind = "synthetic" if cell.source.startswith("synthetic") else "real"
        pairs.setdefault(find_number(cell.label_version, cell.source), {})[kind] = list(seeds)
    return {number: _compare(workspace, pair) for number, pair in sorted(pairs.items())}


def _compare(workspace: pathlib.Path, pair: Mapping[str, list[results.Filled]]) -> dict[str, Any]:
    shared = pair["real"][0].shared
    read: dict[str, list[predictions.Predictions]] = {}
    first: predictions.Predictions | None = None
    for kind, seeds in pair.items():
        for each in seeds:
            assert each.evaluation is not None
            path = workspace / each.evaluation / predictions.FILE
            found, names = predictions.read(path)
            found = found.of([names.index(label) for label in shared])
            first = first or found
            read.setdefault(kind, []).append(paired_test.align(found, first.ids, first.labels, str(path)))
    sampled = multilabel.sample_means(read, shared)
    assert sampled is not None
    made: dict[str, Any] = {
        kind: {"mean": one.value, "ci95": bootstrap.interval(one.sampled, 2)} for kind, one in sampled.items()
    }
    gap = sampled["synthetic"].sampled - sampled["real"].sampled
    value = sampled["synthetic"].value - sampled["real"].value
    return made | {"difference": {"mean": value, "ci95": bootstrap.interval(gap, 2)}, "labels": list(shared)}


def draw(curves: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> Figure:
    """A panel for each study."""
    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    for axes, (name, curve) in zip(figure.subplots(1, len(curves), sharey=True), curves.items(), strict=True):
        for kind, colour in (("real", plotting.GREEN), ("synthetic", plotting.BLUE)):
            values = np.array([100 * curve[number][kind]["mean"] for number in curve])
            ends = np.array([[100 * end for end in curve[number][kind]["ci95"]] for number in curve])
            axes.errorbar(list(curve), values, np.abs(ends.T - values), fmt="o-", color=colour, capsize=3, label=kind)
        axes.set_xscale("log")
        axes.set_xticks(list(curve), [str(number) for number in curve], minor=False)
        axes.minorticks_off()
        axes.set_xlabel(STUDIES[name])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#DDDDDD", lw=0.6)
    figure.axes[0].set_ylabel("mean ROC-AUC, %")
    figure.axes[0].legend(frameon=False)
    return figure


def main(fv: flags.FlagValues) -> None:
    """Measures, draws, writes."""
    curves = {name: measure(pathlib.Path(fv.workspace), name) for name in STUDIES}
    plotting.save(draw(curves), fv.output, dpi=110)
    files.write_json(pathlib.Path(fv.output).with_suffix(".json"), curves)
    for name, curve in curves.items():
        for number, row in curve.items():
            gap, (low, high) = 100 * row["difference"]["mean"], [100 * end for end in row["difference"]["ci95"]]
            print(f"{name} {number}: {gap:+.1f} points ({low:.1f} to {high:.1f})")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
