"""Pictures of a result: PNGs that can be read on a phone and by colour-blind eyes."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn import metrics as sklearn_metrics

from tfcxr import plotting
from tfcxr.evaluation import metric_tables, operating_points
from tfcxr.evaluation.predictions import Predictions
from tfcxr.evaluation.subgroups import SMALL
from tfcxr.percentages import percent

# With a colour and a style each, 21 lines can be told apart.
_STYLES = ("-", "--", ":")
_STYLE: Any = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.08,
}
_DPI = 150
_FEW_IN_BIN = 10


def draw_all(folder: pathlib.Path, result: Mapping[str, Any], predictions: Predictions) -> list[pathlib.Path]:
    """Draws every picture that the result has numbers for into `folder`; returns their paths."""
    multilabel = predictions.multilabel
    with mpl.rc_context(_STYLE):
        drawn = {"roc_auc": draw_label_scores(result)} if multilabel else {"confusion_matrix": draw_confusion(result)}
        drawn |= {
            "roc": draw_roc(result, predictions),
            "precision_recall": draw_precision_recall(result, predictions),
            "reliability": draw_label_reliability(result) if multilabel else draw_reliability(result),
        }
        if result["subgroups"]:
            drawn["subgroups"] = draw_subgroups(result)
        if result["comparison"]:
            drawn["comparison"] = draw_comparison(result)
        return [_save(figure, folder / f"{name}.png") for name, figure in drawn.items()]


def draw_confusion(result: Mapping[str, Any]) -> Figure:
    """Confusion matrix: counts, and shares of the true class as colour and percent."""
    counts, classes = np.asarray(result["confusion_matrix"]), result["classes"]
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.full(counts.shape, np.nan), where=support > 0)
    side = min(2.6 + 1.1 * len(classes), 13)
    figure = Figure(figsize=(side + 0.4, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, vmin=0, vmax=1, cmap=mpl.colormaps["Blues"].with_extremes(bad="#EEEEEE"))
    size = 13 if len(classes) < 5 else 10 if len(classes) < 9 else 6.5
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        text = f"{count:,}" + (f"\n{100 * share:.0f}%" if np.isfinite(share) and len(classes) < 9 else "")
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color="white" if share > 0.6 else "black")
    ticks = range(len(classes))
    names = [f"{name}\nn = {n:,}" for name, n in zip(classes, support[:, 0], strict=True)]
    if len(classes) > 2:
        axes.set_xticks(ticks, classes, rotation=30, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(ticks, classes)
    axes.set_yticks(ticks, names)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    _title(figure, "Confusion matrix", result)
    return figure


def draw_roc(result: Mapping[str, Any], predictions: Predictions) -> Figure:
    """ROC curve of each class against the rest; of two classes one, since the other's is its mirror image."""
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color=plotting.GREY, linewidth=1, label="chance")
    names = operating_points.positive_classes(result["classes"], multilabel=predictions.multilabel)
    for number, name, is_class, scores in _curves(result, predictions, names):
        rates = sklearn_metrics.roc_curve(is_class, scores)
        axes.plot(*rates[:2], label=_label(result, "roc_auc", name, "AUC"), **_line(number))
    axes.set_xlabel("1 − specificity")
    axes.set_ylabel("sensitivity (recall)")
    return _finish(figure, "ROC", result)


def draw_precision_recall(result: Mapping[str, Any], predictions: Predictions) -> Figure:
    """Precision-recall curve of each class against the rest, with the share of the class: what chance reaches."""
    figure, axes = _square()
    for number, name, is_class, scores in _curves(result, predictions, result["classes"]):
        precision, recall, _ = sklearn_metrics.precision_recall_curve(is_class, scores)
        line = _line(number)
        label = _label(result, "average_precision", name, "AP")
        # The last point is scikit-learn's own: precision 1 where nothing is called positive.
        axes.plot(recall[:-1], precision[:-1], drawstyle="steps-post", label=label, **line)
        axes.axhline(is_class.mean(), color=line["color"], linewidth=0.8, linestyle=(0, (1, 4)))
    axes.plot([], [], color=plotting.GREY, linewidth=0.8, linestyle=(0, (1, 4)), label="chance: share of the class")
    axes.set_xlabel("recall (sensitivity)")
    axes.set_ylabel("precision (PPV)")
    return _finish(figure, "Precision and recall", result)


def draw_reliability(result: Mapping[str, Any]) -> Figure:
    """Reliability diagram: how often predictions of some confidence are right; images per bin below."""
    bins = [row for row in result["reliability"] if row["count"]]
    figure = Figure(figsize=(5.2, 6.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    lowest = 1 / len(result["classes"])
    upper.plot([lowest, 1], [lowest, 1], color=plotting.GREY, linewidth=1, label="perfect calibration")
    upper.plot(
        [row["confidence"] for row in bins],
        [row["accuracy"] for row in bins],
        "o-",
        color=plotting.BLUE,
        markersize=7,
        label=f"calibration error {percent(result['expected_calibration_error'])}%",
    )
    upper.set_ylim(-0.02, 1.02)
    upper.set_ylabel("share of right predictions")
    upper.grid(color="#DDDDDD", linewidth=0.6)
    highest = max(row["count"] for row in bins)
    for row in bins:
        width = row["high"] - row["low"]
        lower.bar(row["low"] + width / 2, row["count"], width=0.94 * width, color=plotting.BLUE)
        lower.text(row["low"] + width / 2, row["count"] + 0.04 * highest, f"{row['count']:,}", ha="center", fontsize=9)
    lower.set_ylim(0, 1.25 * highest)
    lower.set_yticks([])
    lower.spines["left"].set_visible(False)
    lower.set_ylabel("images")
    lower.set_xlabel("confidence (probability of the predicted class)")
    lower.set_xlim(min(lowest, bins[0]["low"]) - 0.01, 1.01)
    return _finish(figure, "Reliability", result)


def draw_label_scores(result: Mapping[str, Any]) -> Figure:
    """ROC-AUC of each label, and the mean, with intervals."""
    scores = result["roc_auc"]
    rows = [("mean", "", {"value": scores["macro"], "ci95": scores["macro_ci95"]})]
    for name, value in scores["per_class"].items():
        metric = {"value": value, "ci95": scores["per_class_ci95"][name]}
        rows.append((name, f"{metric_tables.support(result, name):,}", metric))
    return _forest(rows, "ROC-AUC of each label", ["%; line: chance; n: images with the label"], result, 0.5)


def draw_label_reliability(result: Mapping[str, Any]) -> Figure:
    """How many of the images that are given some probability of a label have it: a line for each label.

    Bins of fewer than 10 images are left out.
    """
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color=plotting.GREY, linewidth=1, label="perfect calibration")
    for number, (name, rows) in enumerate(result["reliability"].items()):
        bins = [row for row in rows if row["count"] >= _FEW_IN_BIN]
        error = result["expected_calibration_error"]["per_class"][name]
        if error is None:
            continue
        line = {**_line(number), "linewidth": 1.5, "marker": "o", "markersize": 4}
        label = f"{name}: calibration error {percent(error)}%"
        axes.plot([row["confidence"] for row in bins], [row["accuracy"] for row in bins], label=label, **line)
    axes.set_xlabel("probability of the label")
    axes.set_ylabel("share of images with the label")
    return _finish(figure, "Reliability", result)


def draw_subgroups(result: Mapping[str, Any]) -> Figure:
    """Balanced accuracy of each subgroup with its interval."""
    rows = [
        (
            f"{group['attribute']} {group['group']}",
            f"{group['num_images']:,}" + ("*" if group["small"] else ""),
            group["balanced_accuracy"],
        )
        for group in result["subgroups"]
    ]
    rows.insert(0, ("all", f"{result['num_images']:,}", result["balanced_accuracy"]))
    notes = ["%; line: chance"]
    if any(group["small"] for group in result["subgroups"]):
        notes.append(f"*: fewer than {SMALL} images")
    return _forest(rows, "Balanced accuracy by subgroup", notes, result, 1 / len(result["classes"]))


def draw_comparison(result: Mapping[str, Any]) -> Figure:
    """Differences to the other model with their intervals."""
    comparison = result["comparison"]
    if "per_class" in comparison:
        labels = comparison["per_class"]["roc_auc"].items()
        rows = [("mean", "", comparison["roc_auc"]["difference"])]
        rows += [(name, "", row["difference"]) for name, row in labels]
        return _forest(rows, "ROC-AUC, this model − the other", ["difference, percentage points"], result, 0)
    rows = [("balanced accuracy", "", comparison["balanced_accuracy"]["difference"])]
    rows += [(f"recall {name}", "", row["difference"]) for name, row in comparison["recall"].items()]
    rows.append(("ROC-AUC (macro)", "", comparison["roc_auc"]["difference"]))
    return _forest(rows, "This model − the other", ["difference, percentage points"], result, 0)


def _forest(
    rows: Sequence[tuple[str, str, Mapping[str, Any]]],
    title: str,
    notes: Sequence[str],
    result: Mapping[str, Any],
    line: float,
) -> Figure:
    """A row of (name, images, {"value", "ci95"}) under the other, in percent, with a line at `line`; notes below."""
    figure = Figure(figsize=(5.8, 2 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(100 * line, color=plotting.GREY, linewidth=1)
    for y, (_, _, metric) in enumerate(rows):
        if metric["ci95"] is not None:
            axes.plot([100 * end for end in metric["ci95"]], [y, y], color=plotting.BLUE, linewidth=2)
        if metric["value"] is None:
            axes.text(100 * line, y, "  images are lacking", va="center", color=plotting.GREY, fontsize=10)
        else:
            # Without an interval a hollow point, which says less.
            fill = plotting.BLUE if metric["ci95"] is not None else "white"
            axes.plot(100 * metric["value"], y, "o", color=plotting.BLUE, markerfacecolor=fill, markersize=8)
    axes.set_yticks(range(len(rows)), [f"{name}  (n = {n})" if n else name for name, n, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    if any(metric["value"] is not None and metric["ci95"] is None for _, _, metric in rows):
        notes = [*notes, "hollow: no interval"]
    axes.set_xlabel(notes[0])
    if len(notes) > 1:
        figure.supxlabel("; ".join(notes[1:]), fontsize=10)
    _title(figure, title, result)
    return figure


def _square() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 5.9), layout="constrained")
    axes = figure.subplots()
    axes.set_aspect("equal")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    return figure, axes


def _finish(figure: Figure, title: str, result: Mapping[str, Any]) -> Figure:
    """Adds a legend below and the title; the figure grows with the legend."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.set_figheight(figure.get_figheight() + 0.22 * max(0, len(names) - 3))
    figure.legend(handles, names, loc="outside lower center", frameon=False, fontsize=10.5)
    _title(figure, title, result)
    return figure


def _curves(result: Mapping[str, Any], predictions: Predictions, names: Sequence[str]):
    """(number, name, bool [N], scores [N]) of each class that has images on both sides."""
    for number, name in enumerate(names):
        k = result["classes"].index(name)
        is_class = predictions.members[:, k]
        if 0 < is_class.sum() < len(is_class):
            yield number, name, is_class, predictions.probabilities[:, k]


def _line(number: int) -> dict[str, Any]:
    return {
        "color": plotting.COLOURS[number % len(plotting.COLOURS)],
        "linestyle": _STYLES[number % len(_STYLES)],
        "linewidth": 2,
    }


def _label(result: Mapping[str, Any], metric: str, name: str, short: str) -> str:
    value, ends = result[metric]["per_class"][name], result[metric]["per_class_ci95"][name]
    interval = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else ""
    return f"{name} (n = {metric_tables.support(result, name):,}): {short} {value:.2f}{interval}"


def _title(figure: Figure, what: str, result: Mapping[str, Any]) -> None:
    patients = f" of {result['num_patients']:,} patients" if result["num_patients"] else ""
    fold = f"{result['split']} fold" + (" (chose the weights)" if result["split"] == "validation" else "")
    figure.suptitle(f"{what}\n{fold}, n = {result['num_images']:,} images{patients}", fontsize=12, x=0.02, ha="left")


def _save(figure: Figure, path: pathlib.Path) -> pathlib.Path:
    plotting.save(figure, path, _DPI)
    return path
