"""results.csv and the table: numbers of finished jobs only, published figures where the thesis prints them."""

import csv
import dataclasses
import io
import json

import pytest

from tfcxr.classifiers.adaptation.methods import FORMER_NAMES
from tfcxr.studies import results
from tfcxr.studies.definition import Cell


def make_result(accuracy, ci95=None):
    macro = {"macro": 0.75, "macro_ci95": [0.6, 0.9]}
    recall = {"value": accuracy - 0.1, "ci95": None, "support": 30}
    return {
        "num_images": 40,
        "num_patients": 12,
        "selection_fold": False,
        "split": "test",
        "classes": ["No Finding", "Pneumothorax"],
        "balanced_accuracy": {"value": accuracy, "ci95": ci95},
        "recall": {"No Finding": recall, "Pneumothorax": {"value": None, "ci95": None, "support": 0}},
        "roc_auc": macro,
        "average_precision": macro,
        "f1": {"macro": None, "macro_ci95": None},
    }


def make_cell(method="none", variant=None, seed=0, source="synthetic", target="chexpert"):
    return Cell("v1_0s", source, target, method, variant, seed)


def fill(tmp_path, *cells):
    """`cells`: (cell, accuracy or the status and error of its evaluation or result.json)."""
    jobs, entries = [], []
    for number, (cell, given) in enumerate(cells):
        folder = tmp_path / f"evaluate{number}"
        folder.mkdir()
        # A result that lies there without a finished job must not be read.
        result = given if isinstance(given, dict) else make_result(0.99)
        status, error = given if isinstance(given, tuple) else ("done", None)
        if isinstance(given, float):
            result = make_result(given, [given - 0.05, given + 0.05])
        (folder / "result.json").write_text(json.dumps(result))
        jobs.append({"id": f"evaluate{number}", "status": status, "error": error, "output": folder.name})
        jobs.append({"id": f"train{number}", "status": "done", "error": None, "output": "run"})
        entries.append(dataclasses.asdict(cell) | {"train_job": f"train{number}", "job": f"evaluate{number}"})
    return results.read({"jobs": jobs, "cells": entries}, tmp_path)


def test_published_figures_are_those_of_the_thesis(shared_dir):
    with (shared_dir / "spec" / "thesis_results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    published = results.Published()
    assert published.tables == ["5.8", "5.9", "5.10", "5.11", "5.12", "5.13", "5.14"]
    assert len(rows) == len(published._rows) == 68
    for row in rows:
        method, _, variant = row["method"].replace("baseline", "none").partition("/")
        matching = [
            float(found["balanced_accuracy"])
            for found in published._rows
            if found["table"] == row["table"]
            and [found[name] for name in ("label_version", "source", "target", "method")]
            == [row["version"], row["source"], row["target"], FORMER_NAMES.get(method, method)]
            and variant in ("", found["variant"])
        ]
        assert matching == [float(row["balanced_accuracy"])]


def test_a_baseline_of_another_variant_has_no_published_figure():
    published = results.Published()
    assert published.find("5.10", make_cell(variant="layer_lr_sched")) == pytest.approx(0.6331)
    assert published.find("5.10", make_cell(variant="plain")) is None
    assert published.find("5.8", make_cell(variant="plain")) == pytest.approx(0.5571)
    assert published.find("5.10", make_cell("dcan_noreg")) == pytest.approx(0.7398)
    assert published.find(None, make_cell("dcan_noreg")) is None
    # Table 5.12 does not say which variant learned real images.
    real = Cell("v2", "chexpert", "chexpert", "none", "plain", 0)
    assert published.find("5.12", real) == pytest.approx(0.7478)


def test_what_5_10_says_of_the_baseline_is_the_figure_of_5_8_or_5_9():
    rows = results.Published()._rows
    baselines = {
        (row["source"], row["target"], row["variant"]): row["balanced_accuracy"]
        for row in rows
        if row["table"] in ("5.8", "5.9")
    }
    again = [row for row in rows if row["table"] == "5.10" and row["method"] == "none"]
    assert len(again) == 4
    for row in again:
        assert baselines[row["source"], row["target"], row["variant"]] == row["balanced_accuracy"]


def test_csv_holds_finished_cells_and_marks_the_others(tmp_path):
    failed = ("blocked", "records failed: no space")
    filled = fill(tmp_path, (make_cell("dcan"), 0.75), (make_cell("dcan_noreg"), failed))
    rows = list(csv.DictReader(io.StringIO(results.to_csv(filled, "5.10", {}))))
    assert tuple(rows[0]) == results.COLUMNS
    assert [row["metric"] for row in rows[:-1]] == [
        "balanced_accuracy", "recall", "recall", "roc_auc", "average_precision", "f1",
    ]  # fmt: skip
    first = rows[0]
    assert [first[name] for name in ("table", "label_version", "source", "target", "method", "variant", "seed")] == [
        "5.10", "v1_0s", "synthetic", "chexpert", "dcan", "", "0",
    ]  # fmt: skip
    assert [float(first[name]) for name in ("value", "lo", "hi", "num_images", "published")] == pytest.approx(
        [0.75, 0.7, 0.8, 40, 0.7303]
    )
    assert first["status"] == "done"
    assert [rows[1][name] for name in ("class", "value", "num_images", "published")] == ["No Finding", "0.65", "30", ""]
    assert [rows[2][name] for name in ("class", "value", "num_images")] == ["Pneumothorax", "", "0"]
    last = rows[-1]
    assert [last[name] for name in ("method", "value", "lo", "num_images")] == ["dcan_noreg", "", "", ""]
    assert last["published"] == "0.7398"
    assert last["status"] == "blocked: records failed: no space"


def test_an_evaluation_whose_training_is_not_there_is_not_read(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(make_result(0.9)))
    jobs = [
        {"id": "train", "status": "failed", "error": "disk full", "output": "."},
        {"id": "evaluate", "status": "done", "error": None, "output": "."},
    ]
    entry = dataclasses.asdict(make_cell()) | {"train_job": "train", "job": "evaluate"}
    assert results.read({"jobs": jobs, "cells": [entry]}, tmp_path) == [
        results.Filled(make_cell(), None, "failed: disk full", None)
    ]


def test_a_result_that_is_gone_leaves_its_cell_empty_and_marked(tmp_path):
    jobs = [{"id": name, "status": "done", "error": None, "output": name} for name in ("train", "evaluate")]
    entry = dataclasses.asdict(make_cell()) | {"train_job": "train", "job": "evaluate"}
    [filled] = results.read({"jobs": jobs, "cells": [entry]}, tmp_path)
    assert (filled.result, filled.status) == (None, "missing: evaluate/result.json is gone")


def test_the_table_has_a_row_per_method_over_seeds(tmp_path):
    missing = ("failed", "a|b")
    filled = fill(
        tmp_path,
        (make_cell("none", "layer_lr_sched", 0), 0.6),
        (make_cell("none", "layer_lr_sched", 1), 0.7),
        (make_cell("none", "layer_lr_sched", 2), missing),
        (make_cell("dcan"), 0.8),
        (make_cell("dcan_noreg"), missing),
    )
    baseline = make_cell("none", "layer_lr_sched", 0)
    lines = results.to_markdown(filled, "5.10", {baseline: (0.55, 0.75)}).splitlines()
    assert lines[0].startswith("Label version v1_0s, the thesis's table 5.10; in %. 95% interval: ")
    assert lines[2].startswith("| source -> target | method | balanced accuracy | 95% interval | seeds | published |")
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:7]] == [
        ["synthetic -> chexpert", "none/layer_lr_sched", "65.0", "55.0–75.0",
         "60.0, 70.0; no result of 1 of 3 seeds: failed: a/b", "63.3", "55.0", "–", "40 of 12 patients, test"],
        ["synthetic -> chexpert", "dcan", "80.0", "75.0–85.0", "0", "73.0", "70.0", "–", "40 of 12 patients, test"],
        ["synthetic -> chexpert", "dcan_noreg", "–", "–", "no result: failed: a/b", "74.0", "–", "–", "–"],
    ]  # fmt: skip
    assert lines[8] == "dcan_noreg: the thesis's variant of DCAN, without its regulariser."
    assert "published" not in results.to_markdown(filled, None, {})


def test_the_mean_over_seeds_and_its_interval_are_a_line_of_the_csv_file(tmp_path):
    filled = fill(tmp_path, (make_cell(seed=3), 0.6), (make_cell(seed=5), 0.8), (make_cell("dcan"), 0.7))
    intervals = {make_cell(seed=3): (0.65, 0.75), make_cell("dcan"): (0.6, 0.8)}
    rows = list(csv.DictReader(io.StringIO(results.to_csv(filled, None, intervals))))
    [mean] = [row for row in rows if row["seed"] == "mean"]
    assert [mean[name] for name in ("method", "metric", "value", "lo", "hi", "num_images", "status")] == [
        "none", "balanced_accuracy", "0.7", "0.65", "0.75", "40", "done",
    ]  # fmt: skip


def test_a_result_of_the_selection_fold_says_so(tmp_path):
    result = make_result(0.9) | {"selection_fold": True, "split": "validation", "num_patients": None}
    filled = fill(tmp_path, (make_cell(), result))
    assert results.to_markdown(filled, None, {}).endswith("| 40, the fold that chose the weights |")


def test_cells_that_differ_in_their_seed_are_one_row(tmp_path):
    filled = fill(tmp_path, (make_cell(seed=3), 0.6), (make_cell("dcan_noreg", seed=3), 0.7), (make_cell(seed=5), 0.8))
    rows = results.group(filled)
    assert [[each.cell.seed for each in seeds] for seeds in rows.values()] == [[3, 5], [3]]
    assert [cell.method for cell in rows] == ["none", "dcan_noreg"]
