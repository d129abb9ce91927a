"""The course of an adaptation as one picture."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from tfcxr import plotting


def plot(
    history: Sequence[Mapping[str, Any]],
    best_by: Mapping[str, Mapping[str, Any] | None],
    source_shares: Mapping[str, float],
    path: str | os.PathLike,
) -> None:
    """Writes a PNG of four panels: losses, balanced accuracies with what each criterion chooses, MMD, and shares.

    Args:
        history: rows of history.json.
        best_by: of selection.best_by_criterion.
        source_shares: class -> its share of the labelled images; dashed beside the predicted shares of target images.
        path: of the PNG.
    """
    steps = [row["step"] for row in history]
    figure, panels = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    (terms, accuracies), (distances, shares) = panels

    def curve(axis, name: str, label: str, **style) -> None:
        values = [np.nan if row.get(name) is None else row[name] for row in history]
        axis.plot(steps, values, marker=".", label=label, **style)

    for name in (n for n in history[-1] if n.startswith("train/") and n != "train/accuracy"):
        curve(terms, name, name.removeprefix("train/"))
    terms.set_title("losses, means since the last evaluation")
    for number, domain in enumerate(("source", "target")):
        curve(accuracies, f"{domain}/balanced_accuracy", f"{domain} validation", color=f"C{number}")
    for number, (criterion, chosen) in enumerate(best_by.items()):
        if chosen and chosen["target"] is not None:
            accuracies.scatter(
                chosen["step"], chosen["target"], 90 + 60 * number, facecolors="none", edgecolors=f"C{number + 2}",
                label=f"chosen by {criterion}",
            )  # fmt: skip
    accuracies.set_title("balanced accuracy")
    accuracies.set_ylim(0, 1.03)
    curve(distances, "mmd/before_correction", "before correction" if "mmd/after_correction" in history[-1] else "MMD")
    if "mmd/after_correction" in history[-1]:
        curve(distances, "mmd/after_correction", "after correction")
    distances.set_title("MMD between source and target features")
    distances.set_ylim(bottom=0)
    for number, (name, share) in enumerate(source_shares.items()):
        curve(shares, f"target/predicted/{name}", name, color=f"C{number % 10}")
        shares.axhline(share, color=f"C{number % 10}", linestyle="--", linewidth=1)
    shares.set_title("predicted shares of target (dashed: of source labels)")
    shares.set_ylim(-0.03, 1.03)
    for axis in panels.flat:
        axis.set_xlabel("step")
        axis.legend(fontsize=8)
    plotting.save(figure, path, 110)
