"""What a study writes: study.json, results.csv, and its table in Markdown. Every number is read from a result.json."""

import csv
import dataclasses
import io
import pathlib
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tfcxr.classifiers.adaptation import methods
from tfcxr.percentages import NOTHING, interval, percent
from tfcxr.studies.definition import MULTILABEL, Cell
from tfcxr.studies.running import DONE
from tfrecords_builder import files

COLUMNS = (
    "table", "label_version", "source", "target", "method", "variant", "seed", "metric", "class", "value", "lo", "hi",
    "num_images", "published", "status",
)  # fmt: skip

ABOUT_INTERVALS = (
    "95% interval: of the mean over the seeds, by drawing the patients of the test images anew (bootstrap). It does "
    "not hold how much trainings with other seeds differ; the numbers of the seeds show that."
)

# Row (as of `group`) -> ends of the 95% interval of its score, fractions.
Intervals = Mapping[Cell, Sequence[float]]

_MEAN_AUC = "mean ROC-AUC"
_PUBLISHED = pathlib.Path(__file__).with_name("thesis_results.csv")
_MACRO = ("roc_auc", "average_precision", "f1")
_MACRO_OF_LABELS = (*_MACRO, "expected_calibration_error", "brier")


@dataclasses.dataclass(frozen=True)
class Filled:
    """A cell with the result.json of its evaluation, None while there is none, and why not in `status` (else "done").

    Attributes:
        evaluation: the folder of the evaluation, below the workspace; None as long as there is none.
        shared: labels that have a number in each result of this label version and target, where these are of labels
            that do not exclude each other: means are over these.
    """

    cell: Cell
    result: Mapping[str, Any] | None
    status: str
    evaluation: str | None
    shared: Sequence[str] = ()

    @property
    def multilabel(self) -> bool:
        """Whether the result is of labels that do not exclude each other; if there is none, by the label version."""
        if self.result is None:
            return self.cell.label_version == MULTILABEL
        return self.result.get("multilabel", False)

    @property
    def score(self) -> tuple[float | None, Sequence[float] | None]:
        """What the table is about, with its 95% interval: balanced accuracy, or mean ROC-AUC over the shared labels."""
        if self.result is None:
            return None, None
        if not self.multilabel:
            return self.result["balanced_accuracy"]["value"], self.result["balanced_accuracy"]["ci95"]
        auc = self.result["roc_auc"]
        same = set(self.shared) == set(self.result["mean_of"])
        return mean(auc["per_class"][name] for name in self.shared), auc["macro_ci95"] if same else None


def read(study: Mapping[str, Any], workspace: pathlib.Path) -> list[Filled]:
    """Reads the results of the cells of a study.json.

    An evaluation is read if it and its training are done: no number stands without its run. Where its result.json is
    gone since, the cell is empty, and says so.
    """
    jobs = {job["id"]: job for job in study["jobs"]}
    filled = []
    for entry in study["cells"]:
        cell = Cell(**{field.name: entry[field.name] for field in dataclasses.fields(Cell)})
        job = jobs[entry["job"] if jobs[entry["train_job"]]["status"] == DONE else entry["train_job"]]
        status = f"{job['status']}: {job['error']}" if job["error"] else job["status"]
        result = (read_output(job, workspace, "result.json") or None) if job["status"] == DONE else None
        if job["status"] == DONE and not result:
            status = f"missing: {job['output']}/result.json is gone"
        filled.append(Filled(cell, result, status, job["output"] if result else None))
    return [dataclasses.replace(each, shared=_find_shared(each, filled)) for each in filled]


def _find_shared(cell: Filled, filled: Sequence[Filled]) -> Sequence[str]:
    """`Filled.shared` of a cell of a study."""
    alike = [
        each.result["roc_auc"]["per_class"]
        for each in filled
        if each.result
        and each.multilabel
        and (each.cell.label_version, each.cell.target) == (cell.cell.label_version, cell.cell.target)
    ]
    if not cell.multilabel or not alike:
        return ()
    return [name for name in alike[0] if all(scores.get(name) is not None for scores in alike)]


def name_score(filled: Iterable[Filled]) -> str:
    """What `Filled.score` of cells of one label version is."""
    return _MEAN_AUC if any(each.multilabel for each in filled) else "balanced accuracy"


def explain_score(filled: Iterable[Filled]) -> str:
    """A sentence on what `Filled.score` of cells of one label version is."""
    filled = list(filled)
    if name_score(filled) != _MEAN_AUC:
        return "Balanced accuracy is the mean, over the classes, of the share of its images that are recognised."
    by_target = {each.cell.target: each.shared for each in filled if each.shared}
    over = "; ".join(f"on {target}: {', '.join(names)}" for target, names in by_target.items())
    return (
        "Mean ROC-AUC is over the labels that all models of a target know and of which the test images have both values"
        f"{f' ({over})' if over else ''}; chance is 50%."
    )


def find_classes(filled: Iterable[Filled]) -> Sequence[str]:
    """The classes, or all labels, of cells of one label version; empty while none has a result."""
    return list(dict.fromkeys(name for each in filled if each.result for name in each.result["classes"]))


def name_part(name: str, multilabel: bool) -> str:
    """What a column of a class or label is called."""
    return f"ROC-AUC {name}" if multilabel else f"recall {name}"


def part(each: Filled, name: str) -> float | None:
    """The recall of a class, or the ROC-AUC of a label; None of one that the model does not know."""
    assert each.result is not None
    if each.multilabel:
        return each.result["roc_auc"]["per_class"].get(name)
    return each.result["recall"][name]["value"]


def read_output(job: Mapping[str, Any], workspace: pathlib.Path, name: str) -> Any:
    """A JSON file of a job's output, {} if it is not there."""
    path = workspace / job["output"] / name
    return files.read_json(path) if path.is_file() else {}


def group(filled: Sequence[Filled]) -> dict[Cell, list[Filled]]:
    """The cells that differ in their seed only, in the order of the table; the key is the first of each group."""
    rows: dict[Cell, list[Filled]] = {}
    for each in filled:
        rows.setdefault(dataclasses.replace(each.cell, seed=0), []).append(each)
    return {cells[0].cell: cells for cells in rows.values()}


class Published:
    """The thesis's figures, balanced accuracy in percent in its tables 5.8 to 5.14."""

    def __init__(self) -> None:
        with _PUBLISHED.open(newline="", encoding="utf-8") as stream:
            self._rows = list(csv.DictReader(stream))

    @property
    def tables(self) -> list[str]:
        """The numbers of the tables."""
        return sorted({row["table"] for row in self._rows}, key=lambda name: [int(part) for part in name.split(".")])

    def find(self, table: str | None, cell: Cell) -> float | None:
        """Balanced accuracy as a fraction, or None where the thesis prints none for this cell of this table.

        A row without a variant is of a baseline whose variant the thesis does not name: it stands beside any.
        """
        for row in self._rows:
            same = all(row[name] == getattr(cell, name) for name in ("label_version", "source", "target", "method"))
            if row["table"] == table and same and row["variant"] in ("", cell.variant):
                return float(row["balanced_accuracy"]) / 100
        return None


def to_csv(filled: Sequence[Filled], table: str | None, intervals: Intervals) -> str:
    """results.csv: tidy, fractions; a cell without a result is one row with an empty value and its status.

    `lo` and `hi` are the ends of 95% bootstrap intervals over patients. Where a row of the table has several seeds, a
    line whose seed is `mean` has their mean balanced accuracy, or mean ROC-AUC, with its interval.
    """
    published = Published()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in filled:
        start = [table, *dataclasses.astuple(each.cell)]
        known = published.find(table, each.cell)
        if each.result is None:
            writer.writerow([*start, _metric(each), "", None, None, None, None, known, each.status])
            continue
        for row in _metric_rows(each):
            writer.writerow([*start, *row, known if row[0] == "balanced_accuracy" else None, each.status])
    for cell, seeds in group(filled).items():
        if len(seeds) > 1 and (ends := intervals.get(cell)):
            start = [table, *dataclasses.astuple(dataclasses.replace(cell, seed=0))[:-1], "mean"]
            values = [each.score[0] for each in seeds if each.result]
            images = next(each.result["num_images"] for each in seeds if each.result)
            known = published.find(table, cell)
            writer.writerow([*start, _metric(seeds[0]), "", mean(values), *ends, images, known, DONE])
    return text.getvalue()


def _metric(each: Filled) -> str:
    """The score's name in results.csv."""
    return "roc_auc" if each.multilabel else "balanced_accuracy"


def _metric_rows(each: Filled) -> Iterator[list[Any]]:
    """[metric, class, value, lo, hi, images] each; for macro metrics class is empty.

    `images` of a label is the number of those that have it.
    """
    result = each.result
    assert result is not None
    images = result["num_images"]
    value, ends = each.score
    yield [_metric(each), "", value, *_ends(ends), images]
    if each.multilabel:
        for name, value in result["roc_auc"]["per_class"].items():
            ends = result["roc_auc"]["per_class_ci95"][name]
            yield ["roc_auc", name, value, *_ends(ends), result["support"][name]["images"]]
        for metric in _MACRO_OF_LABELS[1:]:
            yield [metric, "", result[metric]["macro"], *_ends(result[metric]["macro_ci95"]), images]
        return
    for name, recall in result["recall"].items():
        yield ["recall", name, recall["value"], *_ends(recall["ci95"]), recall["support"]]
    for metric in _MACRO:
        yield [metric, "", result[metric]["macro"], *_ends(result[metric]["macro_ci95"]), images]


def _ends(interval: Sequence[float] | None) -> Sequence[float | None]:
    return interval or (None, None)


def to_markdown(filled: Sequence[Filled], table: str | None, intervals: Intervals) -> str:
    """A table for each label version: a row per source, target and method, published figures beside.

    Args:
        filled: the cells.
        table: of the thesis; None for none.
        intervals: row -> 95% interval of its mean over the seeds, fractions. Without, a row of one seed has the
            interval of its evaluation, and a row of several a dash.
    """
    published = Published()
    versions = dict.fromkeys(each.cell.label_version for each in filled)
    return "\n\n".join(
        _version_table(
            version, [each for each in filled if each.cell.label_version == version], table, published, intervals
        )
        for version in versions
    )


def _version_table(
    version: str, filled: Sequence[Filled], table: str | None, published: Published, intervals: Intervals
) -> str:
    classes = find_classes(filled)
    multilabel, score = any(each.multilabel for each in filled), name_score(filled)
    parts = "".join(f" {name_part(name, multilabel).replace('|', '/')} |" for name in classes)
    title = f"Label version {version}" + (f", the thesis's table {table}" if table else "")
    beside = " published |" if table else ""
    lines = [
        f"{title}; in %. {f'{explain_score(filled)} ' if multilabel else ''}{ABOUT_INTERVALS}",
        "",
        f"| source -> target | method | {score} | 95% interval | seeds |{beside}{parts} images |",
        "|---|---|---|---|---|" + "---|" * (len(classes) + 1 + bool(table)),
    ]
    for cell, seeds in group(filled).items():
        results = [each.result for each in seeds if each.result]
        cells = [f"{cell.source} -> {cell.target}", name_method(cell)]
        cells.append(percent(mean(each.score[0] for each in seeds)))
        cells += [interval(intervals.get(cell) or own_interval(seeds)), describe_seeds(seeds).replace("|", "/")]
        if table:
            cells.append(percent(published.find(table, cell)))
        for name in classes:
            cells.append(percent(mean(part(each, name) for each in seeds if each.result)))
        cells.append("; ".join(sorted({describe_images(result) for result in results})) or NOTHING)
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\n{name}: {what}." for name, what in explain_methods(each.cell for each in filled).items()]
    return "\n".join(lines)


def own_interval(seeds: Sequence[Filled]) -> Sequence[float] | None:
    """The interval that a row's only evaluation found; None for a row of several seeds."""
    found = [each.score[1] for each in seeds if each.result]
    return found[0] if len(seeds) == len(found) == 1 else None


def describe_seeds(seeds: Sequence[Filled]) -> str:
    """The seed of a row with one, the score of each seed of a row with several; and what is missing."""
    values = [each.score[0] for each in seeds if each.result]
    missing = [each.status for each in seeds if not each.result]
    if len(seeds) == 1:
        return f"no result: {missing[0]}" if missing else str(seeds[0].cell.seed)
    parts = [", ".join(percent(value) for value in values)] if values else []
    parts += [f"no result of {len(missing)} of {len(seeds)} seeds: {missing[0]}"] if missing else []
    return "; ".join(parts)


def explain_methods(cells: Iterable[Cell]) -> dict[str, str]:
    """What the methods of adaptation among the cells are, where their name is not that of a paper."""
    used = {cell.method for cell in cells}
    return {name: methods.METHODS[name][2] for name in ("dcan_noreg",) if name in used}


def describe_method(cell: Cell) -> str:
    """As `name_method`; says whose it is where the name is not that of a paper."""
    known = explain_methods([cell])
    return f"{name_method(cell)} ({known[cell.method]})" if known else name_method(cell)


def name_method(cell: Cell) -> str:
    """The method as --cells names it."""
    return f"{cell.method}/{cell.variant}" if cell.variant else cell.method


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that there are."""
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def describe_images(result: Mapping[str, Any]) -> str:
    """How many images and patients an evaluation had, and which fold."""
    patients = f" of {result['num_patients']} patients" if result["num_patients"] else ""
    fold = "the fold that chose the weights" if result["selection_fold"] else result["split"]
    return f"{result['num_images']}{patients}, {fold}"
