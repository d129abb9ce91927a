"""The report of utility: report.html, report.md, utility.csv and pictures."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from tfcxr import plotting
from tfcxr.percentages import interval, percent, signed
from tfrecords_builder import files, pages
from tfrecords_builder.pages import Picture, Section, Table

ARMS = {
    "real": "real images",
    "synthetic": "synthetic images",
    "mixed": "real and synthetic images",
    "control": "real images, repeated as often as synthetic ones would be added",
    "on_synthetic": "real images, tested on synthetic ones",
}
_SHORT = {"control": "real, repeated", "mixed": "real and synthetic", "on_synthetic": "real, tested on synthetic"}


def write(folder: pathlib.Path, result: Mapping[str, Any]) -> None:
    """Writes the report of what result.json holds."""
    with files.atomic_path(folder / "utility.csv") as temporary:
        frame = pd.DataFrame(_list_figures(result))
        frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    several = result["multilabel"]
    per_what = "label" if several else "class"
    sections = [
        Section(
            "What classifiers learn",
            [
                f"{result['num_images']} real images of {result['num_patients'] or 'unknown'} patients "
                f"({result['records']['source']}, {result['split']}). {_measure(result)}, in percent with 95% "
                "intervals over patients; mean over the trainings of each row.",
            ],
            tables=[_arms_table(result)],
        )
    ]
    if result["gaps"]:
        _draw_gaps(result, folder / "gaps.png")
        sections.append(
            Section(
                f"Gaps, by {per_what}",
                [
                    "Differences in points, with 95% intervals; the same patients are drawn for both, so that they are "
                    "paired. Where the interval leaves out zero, the difference is more than chance among patients.",
                    *(
                        ["Tested on synthetic images: other images, so that its differences are not paired."]
                        if "on_synthetic" in result["arms"]
                        else []
                    ),
                ],
                tables=[_gaps_table(result)],
                pictures=[Picture("gaps.png", f"Differences of {result['of_parts']} by {per_what}, in points")],
            )
        )
    if any(row["gaps"] for row in result["subgroups"]):
        _draw_subgroups(result, folder / "subgroups.png")
    sections.append(_subgroups(result))
    if result["warnings"]:
        sections.insert(0, Section("Warnings", bullets=[f"{warning}." for warning in result["warnings"]]))
    pages.write(
        folder,
        title="Utility of a synthetic set",
        subtitle="What classifiers learn from it, beside what they learn from real images.",
        program="tfcxr utility",
        sections=sections,
    )


def to_text(result: Mapping[str, Any]) -> str:
    """The main numbers in sentences."""
    lines = [
        f"Trained on {ARMS[name]}: {result['measure']} {percent(arm['value'])}% ({interval(arm['ci95'])})."
        for name, arm in result["arms"].items()
    ]
    lines += [f"{_name_gap(gap)}: {signed(gap['value'])} points ({interval(gap['ci95'])})." for gap in result["gaps"]]
    return "\n".join([*lines, *(f"Warning: {warning}." for warning in result["warnings"])])


def _measure(result: Mapping[str, Any]) -> str:
    measure = str(result["measure"])
    text = measure[0].upper() + measure[1:]
    return f"{text} of {', '.join(result['labels'])}" if result["multilabel"] else text


def _name_arm(name: str) -> str:
    return _SHORT.get(name, name)


def _name_gap(gap: Mapping[str, Any]) -> str:
    return f"{_name_arm(gap['arm'])} − {_name_arm(gap['reference'])}"


def _cell(one: Mapping[str, Any], write: Any = percent) -> str:
    return f"{write(one['value'])} ({interval(one['ci95'])})"


def _arms_table(result: Mapping[str, Any]) -> Table:
    labels = result["labels"]
    rows = [
        [ARMS[name], str(len(arm["classifiers"])), _cell(arm), *(percent(_value(arm, label)) for label in labels)]
        for name, arm in result["arms"].items()
    ]
    columns = ["trained on", "trainings", result["measure"], *labels]
    caption = f"Classifiers on the test images; under each name: {result['of_parts']}."
    return Table(caption, columns, rows, [False] + [True] * (len(columns) - 1), [False] * len(rows))


def _value(arm: Mapping[str, Any], label: str) -> float | None:
    return arm["parts"][label]["value"] if label in arm["parts"] else None


def _gaps_table(result: Mapping[str, Any]) -> Table:
    rows = [[result["measure"], *(_cell(gap, signed) for gap in result["gaps"])]]
    for label in result["labels"]:
        parts = [gap["parts"].get(label) for gap in result["gaps"]]
        rows.append([label, *(_cell(part, signed) if part else "" for part in parts)])
    columns = ["", *(_name_gap(gap) for gap in result["gaps"])]
    return Table(
        f"Differences in points, first of the {result['measure']}, then of the {result['of_parts']}.",
        columns,
        rows,
        [False] + [True] * len(result["gaps"]),
        [False] * len(rows),
    )


def _subgroups(result: Mapping[str, Any]) -> Section:
    if not result["subgroups"]:
        return Section("By sex, age and view", ["The records say nothing of sex, age or view."])
    names = [_name_gap(gap) for gap in result["gaps"] if gap["arm"] != "on_synthetic"]
    rows = []
    for row in result["subgroups"]:
        cells = {_name_gap(gap): _cell(gap, signed) for gap in row["gaps"]}
        patients = "" if row["num_patients"] is None else str(row["num_patients"])
        real = _cell(row["arms"]["real"]) if row["arms"] else ""
        counts = [str(row["num_images"]), patients, *([str(len(row["labels"]))] if result["multilabel"] else [])]
        rows.append([row["attribute"], row["group"], *counts, real, *(cells.get(name, "") for name in names)])
    columns = ["", "group", "images", "patients", *(["labels"] if result["multilabel"] else []), "real", *names]
    text = [
        "Within each group; a group with few patients has a wide interval, and one in which fewer than two patients "
        "have a class, or none of the labels, has none."
    ]
    if result["multilabel"]:
        text.append("Means are of those labels that two patients or more of the group have, and lack.")
    pictured = any(row["gaps"] for row in result["subgroups"])
    caption = f"{result['measure']} of classifiers of real images in percent, and differences in points."
    return Section(
        "By sex, age and view",
        text,
        tables=[
            Table(
                caption[0].upper() + caption[1:],
                columns,
                rows,
                [False, False] + [True] * (len(columns) - 2),
                [row["small"] for row in result["subgroups"]],
            )
        ],
        pictures=[Picture("subgroups.png", f"Differences of {result['measure']} by group, in points")]
        if pictured
        else [],
    )


def _list_figures(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each number: of arms and gaps, of all images and of groups, of means and of labels."""

    def row(figures: Mapping[str, Any], arm: str, reference: str = "", label: str = "", **group: Any) -> dict[str, Any]:
        low, high = figures["ci95"] or (None, None)
        return {
            "attribute": group.get("attribute", ""),
            "group": group.get("group", ""),
            "num_images": group.get("num_images", result["arms"][arm]["num_images"]),
            "arm": arm,
            "reference": reference,
            "measure": result["of_parts"] if label else result["measure"],
            "label": label,
            "value": figures["value"],
            "low": low,
            "high": high,
            "p_value": figures.get("p_value"),
        }

    def unfold(gap: Mapping[str, Any], **group: Any) -> Iterator[dict[str, Any]]:
        yield row(gap, gap["arm"], gap["reference"], **group)
        for label, part in gap["parts"].items():
            yield row(part, gap["arm"], gap["reference"], label, **group)

    for name, arm in result["arms"].items():
        yield row(arm, name)
        for label, part in arm["parts"].items():
            yield row(part, name, label=label)
    for gap in result["gaps"]:
        yield from unfold(gap)
    for found in result["subgroups"]:
        group = {key: found[key] for key in ("attribute", "group", "num_images")}
        for name, arm in found["arms"].items():
            yield row(arm, name, **group)
        for gap in found["gaps"]:
            yield from unfold(gap, **group)


def _draw_gaps(result: Mapping[str, Any], path: pathlib.Path) -> None:
    names = [result["measure"], *result["labels"]]
    series = {_name_gap(gap): [gap, *(gap["parts"].get(label) for label in result["labels"])] for gap in result["gaps"]}
    _draw(names, series, path)


def _draw_subgroups(result: Mapping[str, Any], path: pathlib.Path) -> None:
    shown = [row for row in result["subgroups"] if row["gaps"]]
    names = [f"{row['attribute']}: {row['group']} ({row['num_images']})" for row in shown]
    pairs = [_name_gap(gap) for gap in shown[0]["gaps"]]
    found = [{_name_gap(gap): gap for gap in row["gaps"]} for row in shown]
    _draw(names, {pair: [gaps.get(pair) for gaps in found] for pair in pairs}, path)


def _draw(names: Sequence[str], series: Mapping[str, Sequence[Mapping[str, Any] | None]], path: pathlib.Path) -> None:
    """Differences with intervals: a line of the picture for each name, a colour for each of the series."""
    figure = Figure(figsize=(6.5, 1.2 + 0.22 * len(names) * (1 + len(series))), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=plotting.GREY, linewidth=1)
    step = 0.8 / len(series)
    for number, (label, found) in enumerate(series.items()):
        colour = plotting.COLOURS[number % len(plotting.COLOURS)]
        offset = step * (number - (len(series) - 1) / 2)
        known = [(i + offset, one) for i, one in enumerate(found) if one and one["value"] is not None]
        axes.plot([100 * one["value"] for _, one in known], [y for y, _ in known], "o", color=colour, label=label)
        for y, one in known:
            if one["ci95"]:
                axes.plot([100 * end for end in one["ci95"]], [y, y], color=colour)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("difference in points")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25 if len(names) < 6 else -0.12), fontsize="small")
    plotting.save(figure, path, 120)
