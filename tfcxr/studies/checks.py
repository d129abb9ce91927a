"""What a reader of a study's numbers should be warned of."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from tfcxr.studies.results import Filled, name_method
from tfcxr.studies.running import DONE
from tfrecords_builder import files

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
    found: dict[str, list[str]] = {}
    for entry, each in zip(study["cells"], filled, strict=True):
        for text in _check_cell(each, jobs[entry["train_job"]], jobs[entry["job"]], jobs, workspace):
            found.setdefault(text, []).append(_name(each))
    for job in jobs.values():
        for text in _check_job(job, workspace):
            found.setdefault(text, []).append(job["id"])
    return [f"{', '.join(names)}: {text}." for text, names in found.items()]


def _name(each: Filled) -> str:
    cell = each.cell
    return f"{cell.label_version} {cell.source} -> {cell.target} {name_method(cell)} seed {cell.seed}"


def _check_cell(
    each: Filled,
    training: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    jobs: Mapping[str, Mapping[str, Any]],
    workspace: pathlib.Path,
) -> Iterator[str]:
    if each.result is None:
        yield f"no result ({each.status})"
        return
    yield from each.result["warnings"]
    run = _read(workspace / training["output"] / "result.json")
    if run.get("selected_on_target_labels"):
        yield "the weights were chosen by the labels of the target, which an unsupervised method does not have"
    if each.result["selection_fold"]:
        yield "the score is of the fold that chose the weights, and flatters"
    shared = _count_shared_patients(each.result["split"], training, evaluation, jobs, workspace)
    if shared:
        yield f"leakage: {shared} patients of the test images are among the patients trained on"


def _count_shared_patients(
    split: str,
    training: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    jobs: Mapping[str, Mapping[str, Any]],
    workspace: pathlib.Path,
) -> int:
    """Patients of the evaluated fold whose images of other folds the classifier, or the GAN behind it, was given."""
    tested = _patients(evaluation, jobs, workspace, [split])
    trained: set[tuple[str, str]] = set()
    for job in _ancestors(training, jobs):
        trained |= _patients_of(job, workspace, [name for name in ("train", "validation") if name != split])
    return len(tested & trained)


def _ancestors(job: Mapping[str, Any], jobs: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    waiting = list(job["depends_on"])
    while waiting:
        need = waiting.pop()
        if need not in found:
            found[need] = jobs[need]
            waiting += jobs[need]["depends_on"]
    return list(found.values())


def _patients(
    job: Mapping[str, Any], jobs: Mapping[str, Mapping[str, Any]], workspace: pathlib.Path, splits: Sequence[str]
) -> set[tuple[str, str]]:
    """Of the record sets that a job reads itself."""
    found: set[tuple[str, str]] = set()
    for need in job["depends_on"]:
        found |= _patients_of(jobs[need], workspace, splits)
    return found


def _patients_of(job: Mapping[str, Any], workspace: pathlib.Path, splits: Sequence[str]) -> set[tuple[str, str]]:
    """(data set, patient) of the folds of a job's record set; patients of two data sets are different people."""
    folder = workspace / job["output"]
    if job["kind"] != "build-records" or not (folder / "manifest.csv").is_file():
        return set()
    source = _read(folder / "tfcxr_info.json").get("source", job["id"])
    table = pd.read_csv(folder / "manifest.csv", usecols=["patient", "split"], dtype=str, keep_default_na=False)
    patients = table.loc[table["split"].isin(splits) & (table["patient"] != ""), "patient"].unique()
    return {(source, patient) for patient in patients}


def _check_job(job: Mapping[str, Any], workspace: pathlib.Path) -> Iterator[str]:
    folder = workspace / job["output"]
    if job["status"] != DONE:
        return
    if job["kind"] == "train-gan":
        for warning in _read(folder / "result.json").get("warnings", {}).values():
            yield f"at {warning['kimg']:g} kimg: {warning['text'].rstrip('.')}"
    if job["kind"] == "build-records":
        report = _read(folder / "build_report.json")
        yield from (text.rstrip(".") for text in report.get("warnings", []))
        questioned = [f"{count:,} images have {pair}" for pair, count in report.get("hierarchy", {}).items()]
        if questioned:
            yield f"labels questioned: {', '.join(questioned)}"
        if _read(folder / "tfcxr_info.json").get("split_policy") == "image":
            yield "folds are of images, not of patients: scores are too good"


def _read(path: pathlib.Path) -> dict[str, Any]:
    return files.read_json(path) if path.is_file() else {}
