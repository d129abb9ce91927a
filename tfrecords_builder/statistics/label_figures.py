"""Draws the counts of counting as PNGs, in Okabe and Ito's palette, which colour-blind eyes can tell apart."""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tfrecords_builder import labels
from tfrecords_builder.labels import combinations
from tfrecords_builder.pages import Picture
from tfrecords_builder.statistics.counting import ANY_LABEL

TOP = 15
DPI = 110
_VALUE_COLOURS = {"positive": "#0072B2", "uncertain": "#E69F00", "negative": "#999999", "blank": "#E5E5E5"}
_SPLIT_COLOURS = ("#000000", "#0072B2", "#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#D55E00")
_DOT, _NO_DOT = "#0072B2", "#DDDDDD"


def draw_labels(folder: str | os.PathLike, counts: pd.DataFrame, subtitle: str) -> Picture:
    """Stacked bars of the frame of `count_labels`."""
    picture = Picture("label_counts.png", "Images by the value of each label in the table.")
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(counts))
    for value, colour in _VALUE_COLOURS.items():
        axes.barh(counts["label"], counts[value], left=left, color=colour, label=value, edgecolor="#666666", lw=0.4)
        left += counts[value].to_numpy()
    for y, positive in enumerate(counts["positive"]):
        axes.text(left.max() * 1.01, y, f"{positive:,}", va="center", fontsize=9)
    axes.text(left.max() * 1.01, -0.9, "positive", fontsize=9, color=_VALUE_COLOURS["positive"])
    _style(axes, left.max() * 1.1)
    axes.set_xlabel("images")
    figure.legend(ncols=4, loc="outside lower center", frameon=False)
    return _save(figure, folder, picture, subtitle)


def draw_pairs(folder: str | os.PathLike, pairs: pd.DataFrame, subtitle: str) -> Picture:
    """Heat map of the frame of `count_pairs`: numbers are images, colours the share of the row's label."""
    picture = Picture(
        "cooccurrence.png",
        "Images with both labels; the diagonal counts the label itself. Colour: share of the images of the row's label "
        "that have the column's label too; grey: no image has the row's label.",
    )
    counts = pairs.to_numpy(float)
    diagonal = np.diag(counts)[:, None]
    share = np.divide(counts, diagonal, out=np.full_like(counts, np.nan), where=diagonal > 0)
    figure = Figure(figsize=(12.5, 9.5), layout="constrained")
    axes = figure.subplots()
    colours = mpl.colormaps["Blues"].with_extremes(bad="#EEEEEE")
    image = axes.imshow(100 * share, cmap=colours, vmin=0, vmax=100, aspect="auto")
    for row, column in np.ndindex(counts.shape):
        text = f"{int(counts[row, column]):,}"
        if row != column and share[row, column] > 0:
            text += f"\n{100 * share[row, column]:.1f}%"
        dark = share[row, column] > 0.55
        axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color="white" if dark else "black")
    axes.set_xticks(range(len(pairs)), pairs.columns, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(pairs)), pairs.index)
    axes.set_ylabel("images with this label")
    axes.set_xlabel("have this label too")
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="share of the row's images, %", pad=0.01, aspect=40)
    return _save(figure, folder, picture, subtitle)


def draw_classes(folder: str | os.PathLike, counts: pd.DataFrame, subtitle: str) -> Picture:
    """Bars of the frame of `count_classes`: a panel per label version, a group per class, a bar per split."""
    picture = Picture("class_counts.png", "Images of each class of each label version, in each split (logarithmic).")
    versions = list(counts["label_version"].unique())
    parts = list(counts["split"].unique())
    rows = [len(counts.loc[counts["label_version"] == version, "class"].unique()) for version in versions]
    height = sum(rows) * (0.16 * len(parts) + 0.12) + 0.5 * len(rows) + 1
    figure = Figure(figsize=(10, height), layout="constrained")
    panels = figure.subplots(len(versions), 1, sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    limit = max(counts["count"].max(), 1)
    for axes, version in zip(panels, versions, strict=True):
        table = counts[counts["label_version"] == version].pivot(index="class", columns="split", values="count")
        table = table.loc[list(dict.fromkeys(counts.loc[counts["label_version"] == version, "class"])), parts]
        width = 0.84 / len(parts)
        for i, part in enumerate(parts):
            y = np.arange(len(table)) + (i - (len(parts) - 1) / 2) * width
            colour = _SPLIT_COLOURS[i % len(_SPLIT_COLOURS)]
            axes.barh(y, table[part], height=width * 0.9, color=colour, label=part)
            for place, count in zip(y, table[part], strict=True):
                axes.text(max(count, 1) * 1.06, place, f"{count:,}", va="center", fontsize=7.5)
        axes.set_yticks(range(len(table)), table.index)
        axes.set_title(version, loc="left", fontsize=10, fontweight="bold")
        axes.set_xscale("log")
        _style(axes, limit * 3, low=0.8)
    panels[-1].set_xlabel("images")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, ncols=min(len(parts), 6), loc="outside lower center", frameon=False)
    return _save(figure, folder, picture, subtitle)


def draw_combinations(
    folder: str | os.PathLike, counts: pd.DataFrame, subtitle: str, order: Sequence[str]
) -> list[Picture]:
    """One figure per class of the frame of `count_combinations` that has more than one combination: the TOP ones.

    `order` is that of the labels.
    """
    pictures = []
    for (version, name), group in counts.groupby(["label_version", "class"], sort=False):
        if len(group) > 1:
            pictures.append(_draw_class(folder, str(version), str(name), group, subtitle, order))
    return pictures


def _draw_class(
    folder: str | os.PathLike, version: str, name: str, group: pd.DataFrame, subtitle: str, order: Sequence[str]
) -> Picture:
    top, images = group.head(TOP), int(group["count"].sum())
    of = version if name == ANY_LABEL else f"{version}, class {name}"
    if len(group) > TOP:
        shown = int(top["count"].sum())
        what = f"the {TOP} most frequent of {len(group):,} label combinations, {shown:,} of {images:,} images"
    else:
        what = f"its {len(group)} label combinations, {images:,} images"
    picture = Picture(f"combinations_{version}_{_slug(name)}.png", f"{of}: {what}.")
    # The combination of no label at all is an empty text.
    sets = [list(filter(None, combination.split(labels.EXTRA_SEPARATOR))) for combination in top["labels"]]
    present = {label for names in sets for label in names}
    columns = combinations.join(sorted(present), order).split(combinations.SEPARATOR)
    figure = Figure(figsize=(max(5.4 + 0.36 * len(columns), 8), 2.5 + 0.3 * len(top)), layout="constrained")
    dots, bars = figure.subplots(1, 2, sharey=True, width_ratios=[0.36 * len(columns), 4])
    y = np.arange(len(top))
    for row, names in enumerate(sets):
        places = [columns.index(label) for label in names]
        dots.plot(range(len(columns)), [row] * len(columns), "o", color=_NO_DOT, ms=5, zorder=1)
        dots.plot(places, [row] * len(places), "o-", color=_DOT, ms=7, lw=1.6, zorder=2)
    dots.set_xticks(range(len(columns)), columns, rotation=50, ha="left", rotation_mode="anchor", fontsize=9)
    dots.xaxis.tick_top()
    dots.set_xlim(-0.7, len(columns) - 0.3)
    dots.set_yticks([])
    dots.spines[:].set_visible(False)
    dots.tick_params(length=0)
    bars.barh(y, top["count"], color=_DOT, height=0.7)
    for row, count in enumerate(top["count"]):
        bars.text(count, row, f" {count:,}  ({100 * count / images:.1f}%)", va="center", fontsize=9)
    _style(bars, top["count"].max() * 1.45)
    bars.set_xlabel("images")
    bars.tick_params(axis="y", length=0)
    return _save(figure, folder, picture, subtitle)


def _style(axes: Axes, high: float, low: float = 0) -> None:
    """Horizontal bars from the top down, thousands separated, no frame."""
    axes.set_xlim(low, max(high, 1))
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    if axes.get_xscale() == "linear":
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="x", color="#DDDDDD", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, folder: str | os.PathLike, picture: Picture, subtitle: str) -> Picture:
    title, _, _ = picture.caption.partition(". ")
    figure.suptitle(f"{title.rstrip('.')}\n{subtitle}", fontsize=10, x=0.01, ha="left")
    # Without the writer's version in it, the same counts give the same file.
    figure.savefig(pathlib.Path(folder) / picture.file, dpi=DPI, metadata={"Software": None})
    return picture


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def draw_all(folder: str | os.PathLike, subtitle: str, frames: Mapping[str, pd.DataFrame]) -> list[Picture]:
    """Draws every figure, of the frames label_counts, cooccurrence, class_counts and combinations, into a folder."""
    return [
        draw_labels(folder, frames["label_counts"], subtitle),
        draw_pairs(folder, frames["cooccurrence"], subtitle),
        draw_classes(folder, frames["class_counts"], subtitle),
        *draw_combinations(folder, frames["combinations"], subtitle, list(frames["label_counts"]["label"])),
    ]
