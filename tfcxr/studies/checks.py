"""What a reader of a study's numbers should be warned of."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfcxr.evaluation import leakage
from tfcxr.studies import results
from tfcxr.studies.results import Filled
from tfcxr.studies.running import DONE
from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.records import load_info
from tfrecords_builder.records.overlap import Overlap, find_overlap

CHECKED = (
    "cells without a result, models that have collapsed or hardly recognise a class, classes with few patients, "
    "weights chosen by target labels, scores on the fold that chose the weights, patients and images of the test that "
    "were trained on, GANs that collapsed, and what the record sets say of their labels"
)


def find_warnings(study: Mapping[str, Any], filled: Sequence[Filled], workspace: pathlib.Path) -> list[str]:
    """All warnings of a study, each a sentence; a warning that several cells share names them once.

    Args:
        study: its study.json.
        filled: its cells.
        workspace: where the outputs of its jobs lie.
    """
    jobs = {job["id"]: job for job in study["jobs"]}
    known = _Leakage(jobs, workspace)
    found: dict[str, list[str]] = {}
    for entry, each in zip(study["cells"], filled, strict=True):
        training, evaluation = jobs[entry["train_job"]], jobs[entry["job"]]
        leaks = known.check(each.result["split"], training, evaluation) if each.result else []
        for text in [*_check_cell(each, results.read_output(training, workspace, "result.json"), leaks), *leaks]:
            found.setdefault(text, []).append(_name(each))
    for job in jobs.values():
        for text in _check_job(job, workspace):
            found.setdefault(text, []).append(job["id"])
    return [f"{', '.join(names)}: {text}." for text, names in found.items()]


def _name(each: Filled) -> str:
    cell = each.cell
    return f"{cell.label_version} {cell.source} -> {cell.target} {results.name_method(cell)} seed {cell.seed}"


def _check_cell(each: Filled, run: Mapping[str, Any], leaks: Sequence[str]) -> Iterator[str]:
    """`run`: result.json of the training; `leaks`: what was found of images that were trained on."""
    if each.result is None:
        yield f"there is no result ({each.status})"
        return
    # The study knows more than the evaluation, whose own warning of leakage then says nothing new.
    yield from (text for text in each.result["warnings"] if not (leaks and text.startswith(leakage.MARK)))
    if run.get("selected_on_target_labels"):
        yield "the weights were chosen by the labels of the target, which an unsupervised method does not have"
    if each.result["split"] == "validation":
        yield "the score is of the fold by which the weights were chosen, and looks better than it is"


class _Leakage:
    """Looks for images and patients of the evaluated fold among those that the classifier or its GAN was given."""

    def __init__(self, jobs: Mapping[str, Mapping[str, Any]], workspace: pathlib.Path):
        self._jobs = jobs
        self._sets = {}
        for name, job in jobs.items():
            with contextlib.suppress(InputError):  # not made yet, or gone
                if job["kind"] == "build-records":
                    self._sets[name] = load_info(workspace / job["output"])
        self._known: dict[tuple[str, str, str], Overlap] = {}

    def check(self, split: str, training: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[str]:
        """What a training was given of the `split` that an evaluation read."""
        tested = [name for name in evaluation["depends_on"] if name in self._sets]
        trained = [name for name in _ancestors(training, self._jobs) if name in self._sets]
        try:
            found = [self._find(one, other, split) for one in tested for other in trained]
        except (InputError, RunError) as error:
            return [leakage.describe_failure(error)]
        return leakage.describe(
            Overlap(
                frozenset().union(*(each.patients for each in found)),
                frozenset().union(*(each.images for each in found)),
            )
        )

    def _find(self, tested: str, trained: str, split: str) -> Overlap:
        key = (tested, trained, split)
        if key not in self._known:
            folds = [fold for fold in leakage.GIVEN if tested != trained or fold != split]
            self._known[key] = find_overlap(self._sets[tested], split, self._sets[trained], folds)
        return self._known[key]


def _ancestors(job: Mapping[str, Any], jobs: Mapping[str, Mapping[str, Any]]) -> set[str]:
    found: set[str] = set()
    waiting = list(job["depends_on"])
    while waiting:
        need = waiting.pop()
        if need not in found:
            found.add(need)
            waiting += jobs[need]["depends_on"]
    return found


def _check_job(job: Mapping[str, Any], workspace: pathlib.Path) -> Iterator[str]:
    if job["status"] != DONE:
        return
    if job["kind"] == "train-gan":
        for warning in results.read_output(job, workspace, "result.json").get("warnings", {}).values():
            yield f"after {warning['kimg']:g} thousand images of training: {warning['text'].rstrip('.')}"
    if job["kind"] == "build-records":
        report = results.read_output(job, workspace, "build_report.json")
        yield from (text.rstrip(".") for text in report.get("warnings", []))
        questioned = [f"{count:,} images have {pair}" for pair, count in report.get("hierarchy", {}).items()]
        if questioned:
            yield f"some labels contradict the hierarchy of findings: {', '.join(questioned)}"
        if results.read_output(job, workspace, "tfcxr_info.json").get("split_policy") == "image":
            yield "images of one patient can be in several folds, since these were drawn by image: scores are too good"
