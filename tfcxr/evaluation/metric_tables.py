"""Results as Markdown, in percent, and as tidy CSV, in fractions."""

import csv
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfcxr.classifiers import calibration
from tfcxr.evaluation import multilabel as label_metrics
from tfcxr.evaluation.subgroups import SMALL
from tfcxr.percentages import interval, percent
from tfrecords_builder import files

_MACRO = ("roc_auc", "average_precision", "f1")
_NAMES = {
    "roc_auc": "ROC-AUC",
    "average_precision": "average precision",
    "f1": "F1",
    "expected_calibration_error": "calibration error",
    "brier": "Brier score",
}


def write_csv(folder: pathlib.Path, result: Mapping[str, Any]) -> None:
    """Writes metrics.csv; also subgroups.csv, operating_points.csv and comparison.csv where there are rows for them.

    An empty cell stands for null; an empty class for all classes (`roc_auc`, `average_precision` and `f1`: macro mean)
    or for the mean over labels that do not exclude each other.
    """
    _write(folder / "metrics.csv", ["metric", "class", "value", "lo", "hi", "n"], _metric_rows(result))
    groups = [
        [group["attribute"], group["group"], *row[:-1], row[-1], group["num_patients"], group["small"]]
        for group in result["subgroups"]
        for row in _group_rows(group)
    ]
    columns = ["metric", "class", "value", "lo", "hi", "n"]
    _write(folder / "subgroups.csv", ["attribute", "group", *columns, "patients", "small"], groups)
    points = result["operating_points"]["rows"]
    _write(folder / "operating_points.csv", list(points[0]) if points else [], [list(row.values()) for row in points])
    if result["comparison"]:
        columns = ["metric", "class", "this", "other", "difference", "lo", "hi", "p_value"]
        rows = [
            [metric, name, row["this"], row["other"], difference["value"], *_ends(difference["ci95"]), row["p_value"]]
            for metric, name, row in _comparison_rows(result["comparison"])
            for difference in [row["difference"]]
        ]
        _write(folder / "comparison.csv", columns, rows)


def _write(path: pathlib.Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([columns, *rows])
        files.write_text(path, text.getvalue())


def _ends(interval: Sequence[float] | None) -> Sequence[float | None]:
    return interval or (None, None)


def _metric_rows(result: Mapping[str, Any]) -> list[list[Any]]:
    """[metric, class, value, lo, hi, n] each."""
    images, multilabel = result["num_images"], is_multilabel(result)
    rows = [] if multilabel else _group_rows(result)
    for metric in label_metrics.MEASURES if multilabel else _MACRO:
        scores = result[metric]
        rows.append([metric, "", scores["macro"], *_ends(scores["macro_ci95"]), images])
        for name, value in scores["per_class"].items():
            rows.append([metric, name, value, *_ends(scores["per_class_ci95"][name]), support(result, name)])
    if multilabel:
        return rows
    rows.append(["expected_calibration_error", "", result["expected_calibration_error"], None, None, images])
    return rows


def is_multilabel(result: Mapping[str, Any]) -> bool:
    """Whether a result.json is of labels that do not exclude each other; earlier ones are of classes all."""
    return result.get("multilabel", False)


def support(result: Mapping[str, Any], name: str) -> int:
    """Images of a class, or with a label."""
    return result["support"][name]["images"] if is_multilabel(result) else result["recall"][name]["support"]


def _group_rows(group: Mapping[str, Any]) -> list[list[Any]]:
    """Balanced accuracy and recalls of a result or of one of its subgroups."""
    accuracy = group["balanced_accuracy"]
    rows = [["balanced_accuracy", "", accuracy["value"], *_ends(accuracy["ci95"]), group["num_images"]]]
    for name, recall in group["recall"].items():
        rows.append(["recall", name, recall["value"], *_ends(recall["ci95"]), recall["support"]])
    return rows


def _comparison_rows(comparison: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(metric, class, values)."""
    if "per_class" in comparison:
        for metric in label_metrics.COMPARED:
            yield metric, "", comparison[metric]
            yield from ((metric, name, row) for name, row in comparison["per_class"][metric].items())
        return
    yield "balanced_accuracy", "", comparison["balanced_accuracy"]
    for name, row in comparison["recall"].items():
        yield "recall", name, row
    yield "roc_auc", "", comparison["roc_auc"]


def to_markdown(result: Mapping[str, Any], pictures: Sequence[pathlib.Path] = ()) -> str:
    """A whole result as Markdown; `pictures` lie beside the text."""
    parts = [f"# {result['model']} on {result['records']['source']}", summarise_in_words(result)]
    if result["operating_points"]["rows"]:
        parts += ["## Operating points", *_operating_points(result["operating_points"])]
    if result["subgroups"]:
        parts += ["## Subgroups", *_subgroups(result)]
    if pictures:
        parts += ["## Pictures", *(f"![{path.stem.replace('_', ' ')}]({path.name})" for path in pictures)]
    return "\n\n".join(parts) + "\n"


def summarise_in_words(result: Mapping[str, Any]) -> str:
    """What matters most: the table of metrics, warnings, and the comparison, as Markdown."""
    fold = " (by which the weights were chosen)" if result["split"] == "validation" else ""
    fold += ", mean over ten crops of each image" if result["ten_crop"] else ""
    patients = f"{result['num_patients']} patients" if result["num_patients"] else "unknown patients"
    head = f"{result['num_images']} images of {patients}, {result['split']} fold{fold}"
    lines = [head, "", *(_label_lines if is_multilabel(result) else _class_lines)(result)]
    if before := (result.get("calibration") or {}).get("before"):
        after = {name: result[name]["macro"] if is_multilabel(result) else result[name] for name in before}
        told = [f"{_NAMES[name]} {percent(before[name])}% before, {percent(after[name])}% after" for name in before]
        lines.append(f"\nCalibrated on {result['calibration']['fitted_on']['num_images']} images: {'; '.join(told)}.")
    lines += [f"\nWarning: {warning}." for warning in result["warnings"]]
    if result["comparison"]:
        lines += ["", *_comparison(result["comparison"])]
    return "\n".join(lines)


def _class_lines(result: Mapping[str, Any]) -> list[str]:
    """The table of metrics of classes."""
    lines = [
        "| % | value | 95% interval | images |",
        "|---|---|---|---|",
        f"| balanced accuracy | {_with_interval(result['balanced_accuracy'])} | {result['num_images']} |",
    ]
    for name, recall in result["recall"].items():
        lines.append(f"| recall {_cell(name)} | {_with_interval(recall)} | {recall['support']} |")
    for metric in _MACRO:
        macro = {"value": result[metric]["macro"], "ci95": result[metric]["macro_ci95"]}
        lines.append(f"| {_NAMES[metric]} (macro) | {_with_interval(macro)} | {result['num_images']} |")
    error = {"value": result["expected_calibration_error"], "ci95": None}
    lines.append(f"| expected calibration error | {_with_interval(error)} | {result['num_images']} |")
    return lines


def _label_lines(result: Mapping[str, Any]) -> list[str]:
    """The table of metrics of labels that do not exclude each other, and what it rests on."""
    others = label_metrics.MEASURES[1:]
    lines = [
        f"| % | images with it | patients | ROC-AUC | 95% interval | {' | '.join(_NAMES[name] for name in others)} |",
        "|---|---|---|---|---|" + "---|" * len(others),
    ]
    means = {name: result[name]["macro"] for name in others}
    auc = {"value": result["roc_auc"]["macro"], "ci95": result["roc_auc"]["macro_ci95"]}
    cells = " | ".join(percent(value) for value in means.values())
    lines.append(f"| mean of {len(result['mean_of'])} labels | – | – | {_with_interval(auc)} | {cells} |")
    for name in result["classes"]:
        auc = {"value": result["roc_auc"]["per_class"][name], "ci95": result["roc_auc"]["per_class_ci95"][name]}
        cells = " | ".join(percent(result[metric]["per_class"][name]) for metric in others)
        of = result["support"][name]
        lines.append(f"| {_cell(name)} | {of['images']} | {of['patients']} | {_with_interval(auc)} | {cells} |")
    return [*lines, f"\nMeans are over {', '.join(result['mean_of']) or 'no label'}. {_tell_thresholds(result)}"]


def _tell_thresholds(result: Mapping[str, Any]) -> str:
    """At which probabilities F1 was taken."""
    source = result["operating_points"]["chosen_on"]
    if source["path"] is None:
        return "F1 is that of calling a label at a probability of 0.5."
    half = [name for name, cut in result["f1_thresholds"].items() if cut == calibration.HALF]
    rest = f"; of {', '.join(half)} at 0.5" if half else ""
    return f"F1 is at the thresholds of the best F1 on the {source['split']} fold, in {source['path']}{rest}."


def _comparison(comparison: Mapping[str, Any]) -> list[str]:
    lines = [
        f"Against {comparison['with']}, on the same images and resamples of patients:",
        "",
        "| % | this | other | difference | 95% interval | p |",
        "|---|---|---|---|---|---|",
    ]
    several = "per_class" in comparison
    for metric, name, row in _comparison_rows(comparison):
        if several and name and metric != "roc_auc":
            continue  # in comparison.csv
        title = _NAMES.get(metric, metric.replace("_", " ")) + f" {_cell(name) or '(mean)' * several}".rstrip()
        cells = [percent(row["this"]), percent(row["other"]), _with_interval(row["difference"])]
        lines.append(f"| {title} | {' | '.join(cells)} | {_p_value(row['p_value'])} |")
    if several:
        return [*lines, f"\nMeans are over {', '.join(comparison['mean_of']) or 'no label'}."]
    test = comparison["mcnemar"]
    lines.append(
        f"\nOnly this model is right on {test['only_this_right']} images, only the other on "
        f"{test['only_other_right']}: p {_p_value(test['p_value'])} by McNemar's exact test, which takes all images as "
        "independent."
    )
    return lines


def _operating_points(points: Mapping[str, Any]) -> list[str]:
    source = points["chosen_on"]
    if source["path"] is None:
        note = "The thresholds were chosen on these images themselves, so that the figures look better than they are; "
        note += "--thresholds_from takes those of an evaluation on the validation fold."
    else:
        note = f"The thresholds were chosen on the {source['split']} fold, in {source['path']}."
        if points["optimistic"]:
            note += " That is the fold evaluated here, so that the figures look better than they are."
    lines = [
        "| % | chosen for | threshold | sensitivity | specificity | PPV | NPV | prevalence |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in points["rows"]:
        threshold = "–" if row["threshold"] is None else f"{row['threshold']:.4f}"
        shares = [percent(row[name]) for name in ("sensitivity", "specificity", "ppv", "npv", "prevalence")]
        lines.append(f"| {_cell(row['class'])} | {row['criterion']} | {threshold} | {' | '.join(shares)} |")
    return [
        "\n".join(lines),
        f"{note} PPV and NPV, the shares of positive and of negative calls that are right, hold for this prevalence.",
    ]


def _subgroups(result: Mapping[str, Any]) -> list[str]:
    recalls = " | ".join(f"recall {_cell(name)}" for name in result["classes"])
    lines = [
        f"| % | images | patients | balanced accuracy | 95% interval | {recalls} |",
        "|---|---|---|---|---|" + "---|" * len(result["classes"]),
    ]
    for group in result["subgroups"]:
        cells = [percent(recall["value"]) for recall in group["recall"].values()]
        mark = " *" if group["small"] else ""
        lines.append(
            f"| {group['attribute']} {group['group']}{mark} | {group['num_images']} | {group['num_patients'] or '–'} |"
            f" {_with_interval(group['balanced_accuracy'])} | {' | '.join(cells)} |"
        )
    notes = "–: no image of a class, or too few patients for an interval."
    if any(group["small"] for group in result["subgroups"]):
        notes += f" *: fewer than {SMALL} images."
    return ["\n".join(lines), notes]


def _with_interval(metric: Mapping[str, Any]) -> str:
    """`71.3 | 65.0–77.1` of {"value": 0.713, "ci95": [...]}; dashes for what is null."""
    return f"{percent(metric['value'])} | {interval(metric['ci95'])}"


def _cell(name: str) -> str:
    """A class's name in a Markdown table: those of label combinations hold the bar that separates cells."""
    return name.replace("|", "\\|")


def _p_value(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if value >= 0.001 else "< 0.001"
