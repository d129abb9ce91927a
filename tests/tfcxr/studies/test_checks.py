"""Warnings of a study: leakage by patient, target labels, selection folds, and what jobs say of themselves."""

import json

import pytest

from tfcxr.studies import checks, results


def write(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def write_records(folder, source, rows, **report):
    """`rows`: (patient, fold) of each image."""
    table = "".join(f"{i},{patient},{fold}\n" for i, (patient, fold) in enumerate(rows))
    write(folder, "manifest.csv", f"id,patient,split\n{table}")
    write(folder, "tfcxr_info.json", {"source": source, "split_policy": report.pop("split_policy", "patient")})
    write(folder, "build_report.json", {"warnings": [], "hierarchy": {}, **report})


@pytest.fixture
def study(tmp_path):
    """A classifier trained on records a, its GAN on records g, tested on records t; all of the same data set."""
    write_records(tmp_path / "a", "chexpert", [("1", "train"), ("2", "validation"), ("9", "test")])
    write_records(tmp_path / "g", "chexpert", [("3", "train"), ("", "train")])
    write_records(tmp_path / "t", "chexpert", [("8", "train"), ("9", "test"), ("", "test")])
    write(tmp_path / "gan", "result.json", {"warnings": {}})
    write(tmp_path / "run", "result.json", {"selected_on_target_labels": False})
    evaluation = {"warnings": [], "selection_fold": False, "split": "test", "balanced_accuracy": {"value": 0.5}}
    write(tmp_path / "evaluation", "result.json", evaluation)
    needs = {
        "a": ("build-records", []),
        "g": ("build-records", []),
        "t": ("build-records", []),
        "gan": ("train-gan", ["g"]),
        "run": ("train-dcan", ["a", "gan"]),
        "evaluation": ("evaluate", ["run", "t"]),
    }
    jobs = [
        {"id": name, "kind": kind, "depends_on": needed, "output": name, "status": "done", "error": None}
        for name, (kind, needed) in needs.items()
    ]
    cell = {"label_version": "v2", "source": "a", "target": "t", "method": "dcan", "variant": None, "seed": 0}
    return {"jobs": jobs, "cells": [{**cell, "train_job": "run", "job": "evaluation"}]}


def find(study, workspace):
    return checks.find_warnings(study, results.read(study, workspace), workspace)


def test_nothing_is_found_where_nothing_is_wrong(study, tmp_path):
    assert find(study, tmp_path) == []


@pytest.mark.parametrize("records", ["a", "g"])
def test_a_patient_trained_on_by_the_classifier_or_its_gan_is_leakage(study, tmp_path, records):
    write_records(tmp_path / records, "chexpert", [("9", "train"), ("1", "train")])
    assert find(study, tmp_path) == [
        "v2 a -> t dcan seed 0: leakage: 1 patients of the test images are among the patients trained on."
    ]


def test_the_same_number_in_another_data_set_is_another_patient(study, tmp_path):
    write_records(tmp_path / "a", "chestxray", [("9", "train")])
    assert find(study, tmp_path) == []


def test_what_a_run_and_an_evaluation_say_is_repeated(study, tmp_path):
    write(tmp_path / "run", "result.json", {"selected_on_target_labels": True})
    evaluation = {"warnings": ["class B has no image"], "selection_fold": True, "split": "validation"}
    write(tmp_path / "evaluation", "result.json", evaluation)
    found = find(study, tmp_path)
    assert [text.partition(": ")[0] for text in found] == ["v2 a -> t dcan seed 0"] * 3
    assert "class B has no image" in found[0]
    assert "chosen by the labels of the target" in found[1]
    assert "fold that chose the weights" in found[2]


def test_what_jobs_say_is_repeated_once(study, tmp_path):
    write(tmp_path / "gan", "result.json", {"warnings": {"collapse": {"kimg": 12.0, "text": "all images are alike."}}})
    for name in ("a", "g"):
        write_records(
            tmp_path / name, "chexpert", [("1", "train")],
            warnings=["two images are one"], hierarchy={"Edema without Lung Opacity": 1200, "B without A": 3},
            split_policy="image",
        )  # fmt: skip
    assert find(study, tmp_path) == [
        "a, g: two images are one.",
        "a, g: labels questioned: 1,200 images have Edema without Lung Opacity, 3 images have B without A.",
        "a, g: folds are of images, not of patients: scores are too good.",
        "gan: at 12 kimg: all images are alike.",
    ]


def test_a_cell_without_a_result_is_named(study, tmp_path):
    (tmp_path / "evaluation" / "result.json").unlink()
    assert find(study, tmp_path) == ["v2 a -> t dcan seed 0: no result (missing: evaluation/result.json is gone)."]
