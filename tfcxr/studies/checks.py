"""What a reader of a study's numbers should be warned of."""

import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from tfcxr.studies import results
from tfcxr.studies.results import Filled
from tfcxr.studies.running import DONE

# (fold, (data set, patient)) each.
_Patients = set[tuple[str, tuple[str, str]]]

CHECKED = (
    "cells without a result, models that predict one class only, classes with few patients, weights chosen by target "
    "labels, scores on the fold that chose the weights, patients of the test images among those trained on, GANs that "
    "collapsed, and what the record sets say of their labels"
)


def find_warnings(study: Mapping[str, Any], filled: Sequence[Filled], workspace: pathlib.Path) -> list[str]:
    """All warnings of a study, each a sentence; a warning that several cells share names them once.

    Args:
      study: its study.json.
      filled: its cells.
      workspace: where the outputs of its jobs lie.
    """
    jobs = {job["id"]: job for job in study["jobs"]}
    patients = {name: _read_patients(job, workspace) for name, job in jobs.items() if job["kind"] == "build-records"}
    found: dict[str, list[str]] = {}
    for entry, each in zip(study["cells"], filled, strict=True):
        training, evaluation = jobs[entry["train_job"]], jobs[entry["job"]]
        for text in [
            *_check_cell(each, results.read_output(training, workspace, "result.json")),
            *(_check_leakage(each.result["split"], training, evaluation, jobs, patients) if each.result else []),
        ]:
            found.setdefault(text, []).append(_name(each))
    for job in jobs.values():
        for text in _check_job(job, workspace):
            found.setdefault(text, []).append(job["id"])
    return [f"{', '.join(names)}: {text}." for text, names in found.items()]


def _name(each: Filled) -> str:
    cell = each.cell
    return f"{cell.label_version} {cell.source} -> {cell.target} {results.name_method(cell)} seed {cell.seed}"


def _check_cell(each: Filled, run: Mapping[str, Any]) -> Iterator[str]:
    """`run`: result.json of the training."""
    if each.result is None:
        yield f"no result ({each.status})"
        return
    yield from each.result["warnings"]
    if run.get("selected_on_target_labels"):
        yield "the weights were chosen by the labels of the target, which an unsupervised method does not have"
    if each.result["selection_fold"]:
        yield "the score is of the fold that chose the weights, and flatters"


def _check_leakage(
    split: str,
    training: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    jobs: Mapping[str, Mapping[str, Any]],
    patients: Mapping[str, _Patients],
) -> Iterator[str]:
    """Of patients of the evaluated fold, images of other folds may have been given to the classifier or its GAN."""
    tested = _of_folds(evaluation["depends_on"], patients, {split})
    trained = _of_folds(_ancestors(training, jobs), patients, {"train", "validation"} - {split})
    if shared := len(tested & trained):
        yield f"leakage: {shared} patients of the test images are among the patients trained on"


def _ancestors(job: Mapping[str, Any], jobs: Mapping[str, Mapping[str, Any]]) -> set[str]:
    found: set[str] = set()
    waiting = list(job["depends_on"])
    while waiting:
        need = waiting.pop()
        if need not in found:
            found.add(need)
            waiting += jobs[need]["depends_on"]
    return found


def _of_folds(names: Iterable[str], patients: Mapping[str, _Patients], folds: set[str]) -> set[tuple[str, str]]:
    """(data set, patient) in the folds of those of the jobs that made records."""
    return {who for name in names for fold, who in patients.get(name, ()) if fold in folds}


def _read_patients(job: Mapping[str, Any], workspace: pathlib.Path) -> _Patients:
    """Of a job's record set; patients of two data sets are different people, whatever their numbers."""
    manifest = workspace / job["output"] / "manifest.csv"
    if not manifest.is_file():
        return set()
    source = results.read_output(job, workspace, "tfcxr_info.json").get("source", job["id"])
    table = pd.read_csv(manifest, usecols=["patient", "split"], dtype=str, keep_default_na=False).drop_duplicates()
    known = table[table["patient"] != ""]
    return {(fold, (source, patient)) for fold, patient in zip(known["split"], known["patient"], strict=True)}


def _check_job(job: Mapping[str, Any], workspace: pathlib.Path) -> Iterator[str]:
    if job["status"] != DONE:
        return
    if job["kind"] == "train-gan":
        for warning in results.read_output(job, workspace, "result.json").get("warnings", {}).values():
            yield f"at {warning['kimg']:g} kimg: {warning['text'].rstrip('.')}"
    if job["kind"] == "build-records":
        report = results.read_output(job, workspace, "build_report.json")
        yield from (text.rstrip(".") for text in report.get("warnings", []))
        questioned = [f"{count:,} images have {pair}" for pair, count in report.get("hierarchy", {}).items()]
        if questioned:
            yield f"labels questioned: {', '.join(questioned)}"
        if results.read_output(job, workspace, "tfcxr_info.json").get("split_policy") == "image":
            yield "folds are of images, not of patients: scores are too good"
