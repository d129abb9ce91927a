"""Warnings of a study: leakage by patient, target labels, selection folds, and what jobs say of themselves."""

import json
import shutil

import pytest

from tests import fakes
from tfcxr.studies import checks, results


def write(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def write_records(folder, *, seed, dataset_name="chexpert", patients=(), split_policy="patient", **report):
    """Records of 2 images of 2 patients in each fold; `patients`: (id, other id to give its images)."""
    if not folder.exists():
        fakes.make_records(folder, per_class=1, seed=seed, dataset_name=dataset_name)
    manifest = folder / "manifest.csv"
    for old, new in patients:
        assert f",{old}," in manifest.read_text()
        manifest.write_text(manifest.read_text().replace(f",{old},", f",{new},"))
    info = json.loads((folder / "tfcxr_info.json").read_text())
    write(folder, "tfcxr_info.json", {**info, "split_policy": split_policy})
    write(folder, "build_report.json", {"warnings": [], "hierarchy": {}, **report})


@pytest.fixture
def study(tmp_path):
    """A classifier trained on records a, its GAN on records g, tested on records t; all of the same data set."""
    for seed, name in enumerate("agt"):
        write_records(tmp_path / name, seed=seed)
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
    write_records(tmp_path / records, seed=0, patients=[("train-0-0", "test-0-1")])
    evaluation = json.loads((tmp_path / "evaluation" / "result.json").read_text())
    # What the evaluation itself has found of it is not said twice.
    write(tmp_path / "evaluation", "result.json", {**evaluation, "warnings": ["leakage: 1 patient"]})
    assert find(study, tmp_path) == [
        "v2 a -> t dcan seed 0: leakage: of the test, 1 patient was also given to the training, so that the score is "
        "too good."
    ]


def test_an_image_of_another_data_set_that_is_the_same_picture_is_leakage(study, tmp_path):
    for name, seed in (("a", 2), ("g", 1)):  # a has the seed of t
        shutil.rmtree(tmp_path / name)
        write_records(tmp_path / name, seed=seed, dataset_name="copied")
    # The test fold is not given to a training.
    assert find(study, tmp_path) == []
    evaluation = json.loads((tmp_path / "evaluation" / "result.json").read_text())
    write(tmp_path / "evaluation", "result.json", {**evaluation, "split": "train"})
    assert find(study, tmp_path) == [
        "v2 a -> t dcan seed 0: leakage: of the test, 2 images were also given to the training, so that the score is "
        "too good."
    ]


def test_the_same_number_in_another_data_set_is_another_patient(study, tmp_path):
    shutil.rmtree(tmp_path / "a")
    write_records(tmp_path / "a", seed=0, dataset_name="chestxray", patients=[("train-0-0", "test-0-1")])
    assert find(study, tmp_path) == []


def test_record_sets_that_cannot_be_compared_are_said(study, tmp_path):
    manifest = tmp_path / "a" / "manifest.csv"
    manifest.write_text(manifest.read_text().splitlines()[0] + "\n")
    [found] = find(study, tmp_path)
    assert "cannot be found out" in found and "manifest.csv" in found


def test_what_a_run_and_an_evaluation_say_is_repeated(study, tmp_path):
    write(tmp_path / "run", "result.json", {"selected_on_target_labels": True})
    evaluation = {"warnings": ["class B has no image"], "selection_fold": True, "split": "validation"}
    write(tmp_path / "evaluation", "result.json", evaluation)
    found = find(study, tmp_path)
    assert [text.partition(": ")[0] for text in found] == ["v2 a -> t dcan seed 0"] * 4
    assert "class B has no image" in found[0]
    assert "chosen by the labels of the target" in found[1]
    assert "fold by which the weights were chosen" in found[2]
    assert "leakage" in found[3]  # the fake patients have the same ids in the same fold of every set


def test_what_jobs_say_is_repeated_once(study, tmp_path):
    write(tmp_path / "gan", "result.json", {"warnings": {"collapse": {"kimg": 12.0, "text": "all images are alike."}}})
    for name in ("a", "g"):
        write_records(
            tmp_path / name, seed=0,
            warnings=["two images are one"], hierarchy={"Edema without Lung Opacity": 1200, "B without A": 3},
            split_policy="image",
        )  # fmt: skip
    assert find(study, tmp_path) == [
        "a, g: two images are one.",
        "a, g: some labels contradict the hierarchy of findings: "
        "1,200 images have Edema without Lung Opacity, 3 images have B without A.",
        "a, g: images of one patient can be in several folds, since these were drawn by image: scores are too good.",
        "gan: after 12 thousand images of training: all images are alike.",
    ]


def test_a_cell_without_a_result_is_named(study, tmp_path):
    (tmp_path / "evaluation" / "result.json").unlink()
    assert find(study, tmp_path) == [
        "v2 a -> t dcan seed 0: there is no result (missing: evaluation/result.json is gone)."
    ]
