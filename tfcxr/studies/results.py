"""What a study writes: study.json, results.csv, and its table in Markdown. Every number is read from a result.json."""

import csv
import dataclasses
import io
import pathlib
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tfcxr.studies.definition import NONE, Cell
from tfcxr.studies.running import DONE
from tfrecords_builder import files

COLUMNS = (
    "table", "label_version", "source", "target", "method", "variant", "seed", "metric", "class", "value", "lo", "hi",
    "num_images", "published", "status",
)  # fmt: skip

_PUBLISHED = pathlib.Path(__file__).with_name("thesis_results.csv")
_MACRO = ("roc_auc", "average_precision", "f1")


@dataclasses.dataclass(frozen=True)
class Filled:
    """A cell with the result.json of its evaluation, None while there is none, and why not in `status` (else "done").

    `evaluation` is the folder of the evaluation, below the workspace; None as long as there is none.
    """

    cell: Cell
    result: Mapping[str, Any] | None
    status: str
    evaluation: str | None


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
    return filled


def find_classes(filled: Iterable[Filled]) -> Sequence[str]:
    """The classes of cells of one label version; empty while none has a result."""
    return next((each.result["classes"] for each in filled if each.result), [])


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


def to_csv(filled: Sequence[Filled], table: str | None) -> str:
    """results.csv: tidy, fractions; a cell without a result is one row with an empty value and its status."""
    published = Published()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in filled:
        start = [table, *dataclasses.astuple(each.cell)]
        known = published.find(table, each.cell)
        if each.result is None:
            writer.writerow([*start, "balanced_accuracy", "", None, None, None, None, known, each.status])
            continue
        for row in _metric_rows(each.result):
            writer.writerow([*start, *row, known if row[0] == "balanced_accuracy" else None, each.status])
    return text.getvalue()


def _metric_rows(result: Mapping[str, Any]) -> Iterator[list[Any]]:
    """[metric, class, value, lo, hi, images] each; for macro metrics class is empty."""
    images = result["num_images"]
    accuracy = result["balanced_accuracy"]
    yield ["balanced_accuracy", "", accuracy["value"], *_ends(accuracy["ci95"]), images]
    for name, recall in result["recall"].items():
        yield ["recall", name, recall["value"], *_ends(recall["ci95"]), recall["support"]]
    for metric in _MACRO:
        yield [metric, "", result[metric]["macro"], *_ends(result[metric]["macro_ci95"]), images]


def _ends(interval: Sequence[float] | None) -> Sequence[float | None]:
    return interval or (None, None)


def to_markdown(filled: Sequence[Filled], table: str | None) -> str:
    """A table for each label version: a row per source, target and method, over seeds, published figures beside."""
    published = Published()
    versions = dict.fromkeys(each.cell.label_version for each in filled)
    return "\n\n".join(
        _version_table(version, [each for each in filled if each.cell.label_version == version], table, published)
        for version in versions
    )


def _version_table(version: str, filled: Sequence[Filled], table: str | None, published: Published) -> str:
    classes = find_classes(filled)
    recalls = "".join(f" recall {name.replace('|', '/')} |" for name in classes)
    title = f"Label version {version}" + (f", the thesis's table {table}" if table else "")
    beside = " published |" if table else ""
    lines = [
        f"{title}; balanced accuracy and recalls in %; 95% bootstrap intervals, or the range over seeds.",
        "",
        f"| source -> target | method | balanced accuracy | interval |{beside}{recalls} images |",
        "|---|---|---|---|" + "---|" * (len(classes) + 1 + bool(table)),
    ]
    for cell, seeds in group(filled).items():
        cells = [f"{cell.source} -> {cell.target}", name_method(cell), *_summarise(seeds)]
        if table:
            cells.append(percent(published.find(table, cell)))
        results = [each.result for each in seeds if each.result]
        for name in classes:
            cells.append(percent(mean(result["recall"][name]["value"] for result in results)))
        cells.append("; ".join(sorted({describe_images(result) for result in results})) or "–")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _summarise(seeds: Sequence[Filled]) -> tuple[str, str]:
    """Balanced accuracy, and its interval (one seed) or range (several); or what is wrong."""
    results = [each.result for each in seeds if each.result]
    missing = [each.status for each in seeds if not each.result]
    if len(seeds) == 1 and results:
        accuracy = results[0]["balanced_accuracy"]
        return percent(accuracy["value"]), percent_range(accuracy["ci95"])
    values = [result["balanced_accuracy"]["value"] for result in results]
    known = [value for value in values if value is not None]
    words = f"{percent_range((min(known), max(known)))} of {len(known)} seeds" if known else "–"
    if missing:
        words = f"{words}; {len(missing)} of {len(seeds)} {missing[0]}" if known else missing[0]
    return percent(mean(values)), words.replace("|", "/")


def name_method(cell: Cell) -> str:
    """The method as --cells names it."""
    return f"{NONE}/{cell.variant}" if cell.variant else cell.method


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that there are."""
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def percent(value: float | None) -> str:
    """A fraction in percent."""
    return "–" if value is None else f"{100 * value:.1f}"


def percent_range(ends: Sequence[float] | None) -> str:
    """Two fractions in percent."""
    if ends is None:
        return "–"
    return f"{percent(ends[0])}{'–' if ends[0] >= 0 else ' to '}{percent(ends[1])}"


def describe_images(result: Mapping[str, Any]) -> str:
    """How many images and patients an evaluation had, and which fold."""
    patients = f" of {result['num_patients']} patients" if result["num_patients"] else ""
    fold = "the fold that chose the weights" if result["selection_fold"] else result["split"]
    return f"{result['num_images']}{patients}, {fold}"
