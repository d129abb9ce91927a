"""A study's report: question, answer, warnings, tables, pictures, and how each number was made.

Everything is read from study.json and the files of its jobs, so that a number whose run is gone cannot be in it.
"""

import datetime
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd

from tfcxr import plotting
from tfcxr.fidelity import report as fidelity_report
from tfcxr.percentages import NOTHING, interval, percent, signed
from tfcxr.studies import answer, checks, differences, results, study_figures
from tfcxr.studies.definition import Cell
from tfcxr.studies.differences import Compared, Estimate, Worth
from tfcxr.studies.results import Filled
from tfcxr.studies.running import DONE
from tfrecords_builder import files, pages
from tfrecords_builder.pages import Picture, Section, Table
from tfrecords_builder.statistics import published_differences as published_counts

_DPI = 110
_FIGURES = "figures"
_ABOUT_GAINS = (
    "Gain: points more than the classifier trained on the same source without adaptation (for as many steps, where the "
    "table has such a control: continued); where a source has several parts, more than the one trained on its last "
    "set's images alone. Gap closed: what share that is of the points by which this other one is behind the classifier "
    "trained on the target itself."
)
_ABOUT_WORTH = (
    "Worth: with which share of the target's patients, and their labels, the target's own images teach as much; read "
    "off the rows that learned parts of them, between which the score is taken to rise with the logarithm of the "
    "share. The mark ≤ or ≥ says that it may be less or more than what was tried."
)
_ABOUT_SOURCES = (
    "Sources: A>B is trained on A, then on B, or starts from the weights called A; A@10% is a tenth of A's patients; "
    "A+B is both mixed."
)
# By what weights were chosen, see classifiers.choices.CRITERIA.
_CRITERIA = {
    "source": "balanced accuracy on the validation images of the set that was learned",
    "entropy": "how certain the predictions for the target's validation images are (low entropy)",
    "density": "how close together the predictions for the target's validation images lie",
    "infomax": "how certain and how varied the predictions for the target's validation images are (mutual information)",
    "bnm": "how certain and how varied the predictions for the target's validation images are (nuclear norm)",
    "balance": "how certain the predictions for the target's validation images are, and how near the expected shares",
    "target": "balanced accuracy on the target's validation images, which uses the target's labels",
}


def write(
    folder: pathlib.Path, workspace: pathlib.Path, compared: tuple[dict[Cell, Compared], list[str]] | None = None
) -> pathlib.Path:
    """Writes report.html and report.md into a study's folder, and figures/, which they show.

    Args:
        folder: of the study; holds its study.json.
        workspace: where the outputs of its jobs lie.
        compared: what `differences.compare` has found of its rows; None: it is called here.

    Returns:
        The path of report.html.
    """
    study = files.read_json(folder / "study.json")
    (folder / _FIGURES).mkdir(exist_ok=True)
    with mpl.rc_context({"font.size": 11}):
        sections = _Report(study, folder, workspace, compared).build_sections()
    newest = max((_finished(workspace / job["output"]) for job in study["jobs"]), default="")
    pages.write(
        folder,
        title=study["question"] or f"Study {study['name']}",
        subtitle=f"Study {study['name']}, tfcxr {study['versions']['tfcxr']}, newest result of {newest or 'no job'}",
        program="tfcxr study",
        sections=sections,
    )
    return folder / "report.html"


class _Report:
    """Collects the sections of one study's report."""

    def __init__(
        self,
        study: Mapping[str, Any],
        folder: pathlib.Path,
        workspace: pathlib.Path,
        compared: tuple[dict[Cell, Compared], list[str]] | None,
    ):
        self._study, self._folder, self._workspace = study, folder, workspace
        self._filled = results.read(study, workspace)
        self._rows = results.group(self._filled)
        known = results.Published()
        self._published = {
            cell: value for cell in self._rows if (value := known.find(study["table"], cell)) is not None
        }
        self._compared, self._notes = compared or differences.compare(self._rows, workspace)
        self._targets = {entry["job"]: entry["target"] for entry in study["cells"]}

    def build_sections(self) -> list[Section]:
        """All sections, in the order of the page."""
        found = [*self._notes, *checks.find_warnings(self._study, self._filled, self._workspace)]
        sections = [
            Section(
                "Answer",
                bullets=[
                    *answer.tell(self._rows, self._compared, self._published),
                    *(self._tell_counts(job) for job in self._done("label-stats")),
                ],
            ),
            Section("Warnings", [f"Looked for: {checks.CHECKED}.", *([] if found else ["None found."])], found),
            *self._tell_results(),
            self._tell_data(),
            self._tell_synthetic(),
            self._tell_examined(),
            self._tell_pretraining(),
            self._tell_trainings(),
            self._tell_making(),
        ]
        return [each for each in sections if each.text or each.bullets or each.tables or each.sections]

    def _tell_results(self) -> list[Section]:
        versions = dict.fromkeys(cell.label_version for cell in self._rows)
        return [self._tell_version(version) for version in versions]

    def _tell_version(self, version: str) -> Section:
        rows = {cell: seeds for cell, seeds in self._rows.items() if cell.label_version == version}
        published = {cell: value for cell, value in self._published.items() if cell in rows}
        table = f", the thesis's table {self._study['table']}" if self._study["table"] else ""
        cells = [each for seeds in rows.values() for each in seeds]
        score = results.name_score(cells)
        shown = (
            f"{score[0].upper()}{score[1:]}, mean over the seeds with its interval; ticks: seeds; blue: trained on "
            f"another source, orange: adapted, green: trained on the target{'; diamond: published' * bool(published)}."
        )
        picture = self._draw(study_figures.draw_accuracies(rows, self._compared, published), f"accuracy_{version}")
        return Section(
            f"Results {version}",
            [
                f"{results.explain_score(cells)} {results.ABOUT_INTERVALS}",
                *([_ABOUT_GAINS] if any(row.gain for row in map(self._compared.get, rows) if row) else []),
                *([_ABOUT_WORTH] if any(row.worth for row in map(self._compared.get, rows) if row) else []),
                *([_ABOUT_SOURCES] if any(set(cell.source) & set(">+@") for cell in rows) else []),
                *(f"{name}: {what}." for name, what in results.explain_methods(rows).items()),
            ],
            tables=[
                self._tabulate_accuracy(f"Label version {version}{table}, in %.", rows, published),
                self._tabulate_rest(f"Other measures in %, means over the seeds ({version}).", rows),
                *self._tabulate_gaps(rows),
            ],
            pictures=[Picture(picture, shown), *self._draw_worth(version, rows)],
        )

    def _draw_worth(self, version: str, rows: Mapping[Cell, Sequence[Filled]]) -> list[Picture]:
        """For each target of which parts were learned, what other rows are worth in its labels."""
        pictures = []
        for target in dict.fromkeys(cell.target for cell in rows):
            compared = {cell: row for cell, row in self._compared.items() if cell in rows and cell.target == target}
            if any(row.worth for row in compared.values()):
                figure = study_figures.draw_worth(
                    target, compared, results.name_score(f for s in rows.values() for f in s)
                )
                name = f"worth_{version}_{target}"
                caption = f"What classifiers that saw no label of {target} are worth in labels of its patients."
                pictures.append(Picture(self._draw(figure, name), caption))
        return pictures

    def _tabulate_accuracy(
        self, caption: str, rows: Mapping[Cell, Sequence[Filled]], published: Mapping[Cell, float]
    ) -> Table:
        score = results.name_score(each for seeds in rows.values() for each in seeds)
        columns = ["source → target", "method", score, "95% interval", "seeds"]
        columns += ["published", "difference"] if published else []
        worth = any(row.worth for row in map(self._compared.get, rows) if row)
        columns += ["gain", "gap closed", *(["worth"] if worth else []), "images"]
        body, alerts = [], []
        for cell, seeds in rows.items():
            values = [each.score[0] for each in seeds]
            missing = [each.status for each in seeds if each.result is None]
            accuracy, row = results.mean(values), self._compared.get(cell)
            ends = row.accuracy.ci95 if row else results.own_interval(seeds)
            line = [f"{cell.source} → {cell.target}", results.name_method(cell), percent(accuracy), interval(ends)]
            line.append(results.describe_seeds(seeds))
            if published:
                known = published.get(cell)
                line += [percent(known), signed(None if known is None or accuracy is None else accuracy - known)]
            line += [_describe(row.gain if row else None), _describe(row.closed if row else None, unit="%")]
            line += [describe_worth(row.worth if row else None)] if worth else []
            images = sorted({results.describe_images(each.result) for each in seeds if each.result})
            line.append("; ".join(images) or NOTHING)
            body.append(line)
            alerts.append(bool(missing))
        return _table(caption, columns, body, numeric=(score, "published", "difference"), alerts=alerts)

    def _tabulate_rest(self, caption: str, rows: Mapping[Cell, Sequence[Filled]]) -> Table:
        cells = [each for seeds in rows.values() for each in seeds]
        classes, multilabel = results.find_classes(cells), any(each.multilabel for each in cells)
        macro = {"average precision": "average_precision"} if multilabel else {"ROC-AUC": "roc_auc"}
        macro |= {"F1": "f1"}
        measures = [*(results.name_part(name, multilabel) for name in classes), *macro, "ECE"]
        body = []
        for cell, seeds in rows.items():
            known = [each for each in seeds if each.result]
            found = [each.result for each in seeds if each.result]
            values = [results.mean(results.part(each, name) for each in known) for name in classes]
            values += [results.mean(result[metric]["macro"] for result in found) for metric in macro.values()]
            errors = (result["expected_calibration_error"] for result in found)
            values.append(results.mean(error["macro"] if multilabel else error for error in errors))
            body.append([f"{cell.source} → {cell.target}", results.name_method(cell), *map(percent, values)])
        return _table(caption, ["source → target", "method", *measures], body, numeric=measures)

    def _tabulate_gaps(self, rows: Mapping[Cell, Sequence[Filled]]) -> list[Table]:
        """How far the ROC-AUC of each label is from that of the classifier trained on the target; none of classes."""
        gaps = {cell: row.lead_by_label for cell in rows if (row := self._compared.get(cell)) and row.lead_by_label}
        labels = list(dict.fromkeys(name for of_cell in gaps.values() for name in of_cell))
        body = []
        for cell, of_cell in gaps.items():
            lead = self._compared[cell].lead
            described = [_describe(lead), *(_describe(of_cell.get(name)) for name in labels)]
            body.append([f"{cell.source} → {cell.target}", results.name_method(cell), *described])
        caption = "ROC-AUC above the classifier trained on the target itself, in points, with 95% intervals."
        return [_table(caption, ["source → target", "method", "mean", *labels], body)] if body else []

    def _tell_data(self) -> Section:
        body, bullets = [], []
        for job in self._done("build-records", "generate"):
            info = self._read(job, "tfcxr_info.json")
            for name, split in info.get("splits", {}).items():
                classes = ", ".join(f"{c} {count:,}" for c, count in split["class_counts"].items()) or "multi-label"
                numbers = [f"{split['num_examples']:,}", f"{split['num_patients'] or 0:,}"]
                body.append([job["id"], name, *numbers, classes])
            skipped = self._read(job, "build_report.json").get("skipped", {})
            if skipped:
                left = ", ".join(f"{count:,} ({reason})" for reason, count in skipped.items())
                bullets.append(f"{job['id']} left out some rows of the table, with the reason in brackets: {left}.")
        sections = []
        for job in self._done("label-stats"):
            stats = self._read(job, "result.json")
            errata = published_counts.errata_of(stats["dataset"]).items()
            sections.append(
                Section(
                    f"Labels of {job['id'].removeprefix('label-stats-')}",
                    [f"{self._tell_counts(job)} All counts: {job['output']}/report.html."],
                    [f"Erratum, {version}, {name}: {erratum.note}" for (version, name), erratum in errata],
                    tables=_compare_counts(self._workspace / job["output"] / "class_counts.csv"),
                    pictures=self._show(job, "label_counts.png", "Images by the value of each label."),
                )
            )
        columns = ["record set", "fold", "images", "patients", "images of each class"]
        table = _table("Images of each fold.", columns, body, numeric=("images", "patients"))
        return Section("Data", bullets=bullets, tables=[table] if body else [], sections=sections)

    def _tell_counts(self, job: Mapping[str, Any]) -> str:
        """What a label-stats job found."""
        stats = self._read(job, "result.json")
        known = stats["published"]
        compared = known["not_compared"] or (
            f"of the {known['compared']} published counts {known['mismatches']} differ from these, "
            f"{known['explained']} of them because of a known error in print"
        )
        name = job["id"].removeprefix("label-stats-")
        return f"Labels of {name}: {stats['images']:,} images of {stats['patients']:,} patients; {compared}."

    def _tell_synthetic(self) -> Section:
        gans = self._done("train-gan")
        ticks = {job["id"]: self._read(job, "ticks.json") for job in gans}
        figure = study_figures.draw_fidelity(ticks)
        caption = "How far the generated images are from real ones, as the GANs learn; lower is nearer."
        pictures = [Picture(self._draw(figure, "fidelity"), caption)] if figure else []
        bullets, sections = [], []
        for job in gans:
            result = self._read(job, "result.json")
            if fidelity := result.get("fidelity"):
                kimg = ticks[job["id"]][-1]["kimg"] if ticks[job["id"]] else 0
                bullets.append(
                    f"{job['id']}: after {kimg:g} thousand images of training, the distance between generated and real "
                    f"images is {_short(fidelity['value'])} ({fidelity['name']}; lower is nearer). Its best value was "
                    f"{_short(fidelity['best'])}, after {_short(fidelity['best_kimg'])} thousand images. "
                    f"{fidelity['num_images']:,} images of each kind are compared."
                )
            samples = [
                *self._show(job, "samples/reals.png", "Real images, a row per label combination."),
                *self._show(job, "samples/fakes-*.png", "Generated images, at the end of training."),
            ]
            sections.append(Section(f"Samples of {job['id']}", pictures=samples))
        for job in self._done("generate"):
            result = self._read(job, "result.json")
            source = result["label_source"]
            bullets.append(f"{job['id']}: {result['num_images']:,} images. Where their labels come from: {source}.")
            sheet = self._show(job, "samples.png", "Generated images of each class.")
            sections.append(Section(f"Images of {job['id']}", pictures=sheet))
        sections = [section for section in sections if section.pictures]
        return Section("Synthetic images", bullets=bullets, pictures=pictures, sections=sections)

    def _tell_examined(self) -> Section:
        """Fidelity and privacy of the synthetic sets."""
        sections = []
        for job in self._done("compare-sets"):
            result = self._read(job, "result.json")
            columns = ["figure", *(fidelity_report.COLUMNS.get(name, name) for name in result["metrics"]), "better"]
            caption = (
                f"Fidelity and diversity, {result['num_images']:,} images of each set, features "
                f"{result['features']['name']}; held-out real images are what a perfect generator would reach."
            )
            sections.append(
                Section(
                    job["id"],
                    [f"Classes, intervals and all else: {job['output']}/report.html."],
                    [f"{warning}." for warning in result["warnings"]],
                    tables=[_table(caption, columns, fidelity_report.figure_rows(result), numeric=columns[1:])],
                    pictures=self._show(job, "features.png", "Images on the two directions in which the reals vary."),
                )
            )
        for job in self._done("audit-privacy"):
            result = self._read(job, "result.json")
            sections.append(
                Section(
                    job["id"],
                    [f"All figures, and what they would have detected: {job['output']}/report.html."],
                    [*result["conclusions"], *(f"{warning}." for warning in result["warnings"])],
                    pictures=self._show(
                        job, "power-*.png", "Share of the draws in which planted copies were detected."
                    ),
                )
            )
        return Section("Fidelity and privacy of the synthetic images", sections=sections)

    def _tell_pretraining(self) -> Section:
        sections = []
        for job in self._done("pretrain"):
            best = self._read(job, "result.json")["best"]
            probe = (
                f" A linear classifier of the features had ROC-AUC {_short(best['probe/auc'])} on validation images."
            )
            pictures = [
                *self._show(job, "curves.png", "What was watched while training."),
                *self._show(job, "samples/pairs.png", "Pairs of views that shall have like features."),
            ]
            text = f"The weights of step {best['step']} were kept.{probe if 'probe/auc' in best else ''}"
            sections.append(Section(job["id"], bullets=[text], pictures=pictures))
        return Section("Pretraining without labels", sections=sections)

    def _tell_trainings(self) -> Section:
        sections = [self._tell_training(job) for job in self._done("train-baseline", "train-dcan")]
        text = "Curves, features of source and target (t-SNE), confusion matrices and reliability of every model."
        return Section("Trainings", [text] if sections else [], sections=sections)

    def _tell_training(self, job: Mapping[str, Any]) -> Section:
        result = self._read(job, "result.json")
        best = result["best"]
        criteria = [f"{key.removeprefix('select/')} {_short(best[key])}" for key in best if key.startswith("select/")]
        bullets = [
            f"The weights of step {best['step']} of {result['steps']} were kept, chosen by "
            f"{_tell_criterion(result)}. What the criteria were at that step: {', '.join(criteria)}."
        ]
        pictures = [
            *self._show(job, "curves.png", "Losses, accuracy and what is watched while training."),
            *self._show(job, "samples/features_*.png", "Features of source and target (t-SNE), at the end."),
        ]
        for evaluation in self._done("evaluate"):
            if job["id"] in evaluation["depends_on"]:
                on = self._targets[evaluation["id"]]
                pictures += self._show(evaluation, "confusion_matrix.png", f"Confusion matrix on {on}.")
                pictures += self._show(evaluation, "roc_auc.png", f"ROC-AUC of each label on {on}.")
                pictures += self._show(evaluation, "reliability.png", f"Reliability on {on}.")
        return Section(job["id"], bullets=bullets, pictures=pictures)

    def _tell_making(self) -> Section:
        study = self._study
        machine = study["machine"]
        bullets = [
            f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
            f"{machine['platform']}",
            "Versions: " + ", ".join(f"{name} {version}" for name, version in study["versions"].items()),
            "A job's key is the digest of its flags, of what the files hold that they name, of the keys of the jobs "
            "whose output it reads, and of the version of the numbers that its command makes.",
            f"Intervals of rows and differences are of {differences.RESAMPLES:,} draws of the patients, with seed 0.",
        ]
        given = {name: value for name, value in study["definition"].items() if value not in (None, [], "", False)}
        flags = [[name, _join(value)] for name, value in given.items()]
        body = []
        for job in study["jobs"]:
            seconds = "" if job["seconds"] is None else f"{job['seconds']:,.0f}"
            finished = _finished(self._workspace / job["output"])
            status = f"{job['status']}: {job['error']}" if job["error"] else job["status"]
            body.append([job["id"], status, seconds, finished, job["key"][:12], " ".join(job["command"])])
        inputs = []
        for job in self._done("evaluate"):
            result = self._read(job, "result.json")
            digests = [result["model_digest"][:12], result["records"]["digest"][:12]]
            inputs.append([job["id"], *digests, result["split"]])
        tables = {
            "The study's flags": _table("Its definition.", ["flag", "value"], flags),
            "Jobs": _table(
                "Every job with the command that repeats it.",
                ["job", "status", "seconds", "finished (UTC)", "key", "command"],
                body,
                numeric=("seconds",),
                alerts=[job["status"] != DONE for job in study["jobs"]],
            ),
            "Digests": _table(
                "What each evaluation read: SHA-256 of weights and records, first 12 digits.",
                ["evaluation", "weights", "records", "fold"],
                inputs,
            ),
        }
        inner = [Section(title, tables=[table]) for title, table in tables.items()]
        return Section("How the numbers were made", bullets=bullets, sections=inner)

    def _done(self, *kinds: str) -> list[Mapping[str, Any]]:
        """The finished jobs of some commands whose result is still there."""
        jobs = [job for job in self._study["jobs"] if job["kind"] in kinds and job["status"] == DONE]
        return [job for job in jobs if (self._workspace / job["output"] / "result.json").is_file()]

    def _draw(self, figure: Any, name: str) -> str:
        plotting.save(figure, self._folder / _FIGURES / f"{name}.png", _DPI)
        return f"{_FIGURES}/{name}.png"

    def _read(self, job: Mapping[str, Any], name: str) -> Any:
        return results.read_output(job, self._workspace, name)

    def _show(self, job: Mapping[str, Any], pattern: str, caption: str) -> list[Picture]:
        """The last of a job's pictures of a pattern, in a list that is empty if there is none."""
        paths = sorted((self._workspace / job["output"]).glob(pattern))[-1:]
        return [Picture(os.path.relpath(path, self._folder), caption) for path in paths]


def _compare_counts(path: pathlib.Path) -> list[Table]:
    """The class counts of label-stats that are in print, ours and the published ones; none if nothing is."""
    counts = pd.read_csv(path, keep_default_na=False, na_values={"count": "", "published": ""})
    printed = counts[counts["published"].notna()].astype({"published": int})
    if printed.empty:
        return []
    printed["difference"] = printed["count"] - printed["published"]
    caption = "Images of each class: ours, and those of the thesis's tables."
    return [pages.make_table(caption, printed, (printed["difference"] != 0).tolist())]


def _tell_criterion(result: Mapping[str, Any]) -> str:
    """By what a training chose its weights, of its result.json."""
    if result.get("multilabel"):
        return f"{result['measure']} on the validation images of the set that was learned"
    return _CRITERIA[result["select"]]


def _describe(estimate: Estimate | None, unit: str = "") -> str:
    if estimate is None:
        return NOTHING
    return f"{signed(estimate.value)}{unit} ({interval(estimate.ci95)})"


def describe_worth(worth: Worth | None) -> str:
    """A share with its interval; an end that may lie beyond what was tried is marked."""
    if worth is None:
        return NOTHING
    ends = [f"{_mark(end, worth)}{percent(end)}" for end in worth.ci95]
    return f"{_mark(worth.value, worth)}{percent(worth.value)}% ({'–'.join(ends)})"


def _mark(share: float, worth: Worth) -> str:
    return {"at most": "≤ ", "at least": "≥ ", "": ""}[worth.bound(share)]


def _short(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}"


def _table(
    caption: str,
    columns: list[str],
    rows: list[list[str]],
    *,
    numeric: Sequence[str] = (),
    alerts: Sequence[bool] | None = None,
) -> Table:
    """`numeric`: names of the columns to align right."""
    return Table(caption, columns, rows, [name in numeric for name in columns], list(alerts or [False] * len(rows)))


def _join(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def _finished(folder: pathlib.Path) -> str:
    """When a job wrote its result, to the minute, UTC; empty if there is none."""
    path = folder / "result.json"
    if not path.is_file():
        return ""
    return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")
