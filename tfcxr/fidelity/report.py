"""The report of a comparison: report.html, report.md, figures.csv, classes.csv and pictures."""

import csv
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import pyplot as plt

from tfcxr import plotting
from tfcxr.fidelity import by_class, diversity, feature_names
from tfcxr.percentages import NOTHING, interval, percent
from tfrecords_builder import files, pages
from tfrecords_builder.pages import Picture, Section, Table

COLUMNS = {"holdout": "held-out real"}

_BETTER = {"fid": "lower", "kid": "lower", "precision": "higher", "recall": "higher", "density": "near 1"}
_CSV_COLUMNS = ("kind", "name", "set", "features", "num_images", "measure", "value", "low", "high")


def figure_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Rows of the main table: name of the figure, a cell for each set, and which way is better."""
    name = result["features"]["name"]
    rows = []
    for measure in feature_names.METRICS:
        metric = feature_names.metric_name(measure, name)
        cells = []
        for column, values in result["metrics"].items():
            spread = f" ± {values[feature_names.metric_name('kid_std', name)]:.2g}" if measure == "kid" else ""
            ends = result["intervals"].get(column, {}).get(metric)
            brackets = f" ({ends[0]:.4g} to {ends[1]:.4g})" if ends else ""
            cells.append(f"{values[metric]:.4g}{spread}{brackets}")
        rows.append([metric, *cells, _BETTER.get(measure, "higher")])
        if measure == "fid":
            infinities = [f"{one['infinity']:.4g}" for one in result["fid_by_number"].values()]
            rows.append([feature_names.metric_name("fid_infinity", name), *infinities, "lower"])
    return rows


def write(folder: pathlib.Path, result: Mapping[str, Any]) -> None:
    """Writes the report of what result.json holds; features.png has to be there."""
    _write_csv(folder / "figures.csv", _figures(result))
    _write_csv(folder / "classes.csv", _group_figures(result))
    _plot_numbers(result, folder / "fid_by_number.png")
    pictures = {
        "fid_by_number": "Fréchet distance at several numbers of images, over 1 / number; crosses: FID-infinity"
    }
    if result["groups"]:
        _plot_groups(result, folder / "classes.png")
    name, sets = result["features"]["name"], result["sets"]
    reference = (
        f"Held-out real images ({sets['holdout']['source']}, {sets['holdout']['split']}) are measured in the same way: "
        "about that a perfect generator would reach."
        if "holdout" in sets
        else "There is no holdout, so nothing shows what a perfect generator would reach: give --holdout."
    )
    sections = [
        Section(
            "Whole sets",
            [
                f"Features: {name} ({result['features']['width']} numbers of each image). {result['num_images']} "
                f"images of each set; figures of other features or another number are not comparable. {reference}",
                _tell_intervals(result),
                "FID-infinity is the intercept of a line through the Fréchet distances at "
                f"{len(next(iter(result['fid_by_number'].values()))['numbers'])} numbers of images, over 1 / number "
                "(Chong and Forsyth 2020): free of the bias of few images, as far as the points lie on a line.",
            ],
            tables=[_table("Fidelity and diversity.", ["figure", *_columns(result), "better"], figure_rows(result))],
            pictures=[
                Picture("features.png", f"Images on the two directions in which the reals vary most, features {name}"),
                Picture("fid_by_number.png", pictures["fid_by_number"]),
            ],
        ),
        *_agreement(result),
        _classes(result),
        _diversity(result),
    ]
    if result["warnings"]:
        sections.insert(0, Section("Warnings", bullets=[f"{warning}." for warning in result["warnings"]]))
    pages.write(
        folder,
        title="Fidelity and diversity of a synthetic set",
        subtitle=f"{sets['synthetic']['source']} against {sets['real']['source']}, features {name}.",
        program="tfcxr compare-sets",
        sections=sections,
    )


def _columns(result: Mapping[str, Any]) -> list[str]:
    return [COLUMNS.get(name, name) for name in result["metrics"]]


def _table(caption: str, columns: Sequence[str], rows: list[list[str]]) -> Table:
    return Table(caption, list(columns), rows, [False] + [True] * (len(columns) - 1), [False] * len(rows))


def _tell_intervals(result: Mapping[str, Any]) -> str:
    resamples = result["intervals"]["resamples"]
    if not resamples:
        return "No intervals were computed (--resamples=0)."
    return (
        f"In brackets: 95% intervals of FID and KID from {resamples} bootstrap resamples of both sets, of real images "
        "by whole patients. A resample repeats images, which biases it upwards like a smaller set; so its spread is "
        "laid around the figure itself. ±: standard deviation of KID's subsets."
    )


def _agreement(result: Mapping[str, Any]) -> list[Section]:
    found = result["label_agreement"]
    if found is None:
        return []
    sets = [name for name in ("synthetic", "holdout", "real") if name in found]
    share = found["synthetic"]["measure"] == "share"

    def cell(one: Mapping[str, Any]) -> str:
        if one["value"] is None:
            return NOTHING
        if not share:
            return f"{one['value']:.3f}"
        return f"{percent(one['value'])} ({interval(one['interval'])}) of {one['num_images']}"

    names = list(found["synthetic"]["classes"])
    rows = [[name, *(cell(found[s]["classes"][name]) for s in sets)] for name in names]
    rows.append(["all" if share else "mean", *(cell(found[s]["all"]) for s in sets)])
    caption = (
        "Percent of the images whose predicted class is their label, with exact 95% intervals."
        if share
        else "ROC-AUC of each label."
    )
    text = (
        "Does the classifier see in the images what was asked for? It cannot agree more than it is right: compare with "
        "its agreement on held-out real images. More agreement than there means that the images are more typical of "
        "their class than real ones."
    )
    return [
        Section(
            "Label agreement",
            [f"Classifier {found['classifier']}. {text}"],
            tables=[_table(caption, ["class", *(COLUMNS.get(s, s) for s in sets)], rows)],
        )
    ]


def _classes(result: Mapping[str, Any]) -> Section:
    name = result["features"]["name"]
    rows = []
    for group in result["groups"]:
        for column, values in group["metrics"].items():
            cells = [f"{values[feature_names.metric_name(m, name)]:.4g}" for m in feature_names.METRICS]
            rows.append([group["name"], COLUMNS.get(column, column), str(group["num_images"]), *cells])
    text = [
        f"Classes, and label combinations, of which each set has at least {by_class.LEAST_IMAGES} of the images that "
        f"were drawn, each cut to as many images of every set; features {name}. With few images for "
        f"{result['features']['width']} features the FID is biased far upwards: compare it with that of the held-out "
        "images in the same row, or look at the KID."
    ]
    if result["groups_left_out"]:
        sets = ", ".join(COLUMNS.get(name, name) for name in result["sets"])
        named = [
            f"{one['name']} ({', '.join(str(count) for count in one['num_images'].values())})"
            for one in result["groups_left_out"]
        ]
        text.append(f"Left out, with too few images ({sets}): {'; '.join(named)}.")
    if not rows:
        return Section("By class", text)
    table = _table(
        "Each class or label combination.", ["class or labels", "set", "images", *feature_names.METRICS], rows
    )
    table = Table(table.caption, table.columns, rows, [False, False, *[True] * (len(table.columns) - 2)], table.alerts)
    return Section("By class", text, tables=[table])


def _diversity(result: Mapping[str, Any]) -> Section:
    name = result["features"]["name"]
    sets = list(result["sets"])
    header = ["class or labels", "images", *(f"MS-SSIM, {COLUMNS.get(s, s)}" for s in sets)]
    header += [f"near duplicates, {COLUMNS.get(s, s)}" for s in sets] + ["threshold"]
    rows = []
    for group in result["groups"]:
        similar, near = group["ms_ssim"], group["near_duplicates"]
        row = [group["name"], str(group["num_images"])]
        row += [
            f"{similar[s]['mean']:.3f} ± {similar[s]['standard_error']:.2g}" if similar.get(s) else NOTHING
            for s in sets
        ]
        row += [f"{percent(near[s])}%" if s in near else NOTHING for s in sets]
        rows.append([*row, f"{near['threshold']:.4g}"])
    scales = result["ms_ssim_scales"]
    text = [
        f"MS-SSIM: mean structural similarity of up to {diversity.PAIRS} random pairs of images of different patients "
        f"within a class, ± its standard error, at {scales} scale{'s' if scales > 1 else ''} (as many of the five as "
        "fit this resolution), of the grey values. Higher than among the real images means less diverse (Odena et al. "
        "2017).",
        f"Near duplicates: percent of the images with another one of their class, and of another patient, nearer than "
        f"the threshold in features {name}. The threshold is the distance below which "
        f"{diversity.DUPLICATE_QUANTILE:.0%} of the real images of the class have one.",
    ]
    if not rows:
        return Section("Diversity within a class", ["No class has enough images."])
    pictures = [Picture("classes.png", "MS-SSIM and near duplicates within each class or label combination")]
    return Section(
        "Diversity within a class",
        text,
        tables=[_table("Each class or label combination.", header, rows)],
        pictures=pictures,
    )


def _figures(result: Mapping[str, Any]) -> list[list[Any]]:
    """All figures of the whole sets, as rows of _CSV_COLUMNS."""
    name, number = result["features"]["name"], result["num_images"]
    rows = []
    for column, values in result["metrics"].items():
        intervals = result["intervals"].get(column, {})
        for metric, value in values.items():
            rows.append(
                ["all", "", column, name, number, metric.split("/")[0], value, *intervals.get(metric, ("", ""))]
            )
        by_number = result["fid_by_number"][column]
        rows.append(["all", "", column, name, "infinity", "fid", by_number["infinity"], "", ""])
        for n, value in zip(by_number["numbers"], by_number["values"], strict=True):
            if n != number:
                rows.append(["all", "", column, name, n, "fid", value, "", ""])
    for column, found in (result["label_agreement"] or {}).items():
        if isinstance(found, Mapping):
            for class_name, one in found["classes"].items():
                ends = one["interval"] or ("", "")
                measure = f"agreement_{found['measure']}"
                rows.append(
                    ["class", class_name, column, "classifier", one["num_images"], measure, one["value"], *ends]
                )
    return rows


def _group_figures(result: Mapping[str, Any]) -> list[list[Any]]:
    name = result["features"]["name"]
    rows = []
    for group in result["groups"]:
        start = [group["kind"], group["name"]]
        for column, values in group["metrics"].items():
            for metric, value in values.items():
                rows.append([*start, column, name, group["num_images"], metric.split("/")[0], value, "", ""])
        for column in result["sets"]:
            if column in group["near_duplicates"]:
                share = group["near_duplicates"][column]
                rows.append([*start, column, name, group["num_images"], "near_duplicates", share, "", ""])
            similar = group["ms_ssim"].get(column)
            if similar:
                rows.append([*start, column, "grey values", similar["pairs"], "ms_ssim", similar["mean"], "", ""])
    return rows


def _write_csv(path: pathlib.Path, rows: list[list[Any]]) -> None:
    with files.atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_CSV_COLUMNS)
        writer.writerows(rows)


def _plot_numbers(result: Mapping[str, Any], path: pathlib.Path) -> None:
    figure, axes = plt.subplots(figsize=(5.5, 3.5), layout="constrained")
    for (name, one), colour in zip(result["fid_by_number"].items(), plotting.COLOURS, strict=False):
        inverse = [1 / number for number in one["numbers"]]
        axes.plot(inverse, one["values"], "o", color=colour, label=COLUMNS.get(name, name))
        axes.plot([0, inverse[0]], [one["infinity"], one["infinity"] + one["slope"] * inverse[0]], color=colour, lw=1)
        axes.plot(0, one["infinity"], "x", color=colour)
    axes.set_xlabel("1 / number of images of each set")
    axes.set_ylabel(f"Fréchet distance, {result['features']['name']}")
    axes.legend()
    plotting.save(figure, path, 120)


def _plot_groups(result: Mapping[str, Any], path: pathlib.Path) -> None:
    groups = result["groups"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 1.2 + 0.35 * len(groups)), sharey=True, layout="constrained")
    for index, (name, colour) in enumerate(zip(result["sets"], plotting.COLOURS, strict=False)):
        rows = [row + 0.2 * (index - 1) for row in range(len(groups))]
        similar = [group["ms_ssim"].get(name) for group in groups]
        left.errorbar(
            [one["mean"] if one else float("nan") for one in similar],
            rows,
            xerr=[1.96 * one["standard_error"] if one else 0 for one in similar],
            fmt="o",
            color=colour,
            label=COLUMNS.get(name, name),
        )
        right.plot(
            [100 * group["near_duplicates"].get(name, float("nan")) for group in groups], rows, "o", color=colour
        )
    left.set_yticks(range(len(groups)), [group["name"] for group in groups])
    left.set_xlabel("MS-SSIM of random pairs")
    right.set_xlabel(f"near duplicates in %, {result['features']['name']}")
    left.legend()
    plotting.save(figure, path, 120)
