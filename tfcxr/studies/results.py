"""What a study writes: study.json, results.csv, and its table in Markdown. Every number is read from a result.json."""

import csv
import dataclasses
import io
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfcxr.studies.definition import NONE, Cell
from tfcxr.studies.running import DONE, Outcome
from tfrecords_builder import files

COLUMNS = (
    "table", "label_version", "source", "target", "method", "variant", "seed", "metric", "class", "value", "lo", "hi",
    "num_images", "published", "status",
)  # fmt: skip

_PUBLISHED = pathlib.Path(__file__).with_name("thesis_results.csv")
_MACRO = ("roc_auc", "average_precision", "f1")


@dataclasses.dataclass(frozen=True)
class Filled:
    """A cell with its evaluation's result.json, None while there is none, and why not in `status` (else "done")."""

    cell: Cell
    result: Mapping[str, Any] | None
    status: str


def fill(
    cells: Sequence[tuple[Cell, str, str]], outcomes: Mapping[str, Outcome], results: Mapping[str, pathlib.Path]
) -> list[Filled]:
    """Reads the results of the cells.

    Args:
      cells: (cell, id of its training, id of its evaluation).
      outcomes: of all jobs; an evaluation is read if it and its training are done: no number stands without its run.
      results: job id -> its result.json.
    """
    filled = []
    for cell, training, evaluation in cells:
        outcome = outcomes[evaluation if outcomes[training].status == DONE else training]
        result = files.read_json(results[evaluation]) if outcome.status == DONE else None
        filled.append(Filled(cell, result, f"{outcome.status}: {outcome.error}" if outcome.error else outcome.status))
    return filled


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
    classes: Sequence[str] = next((each.result["classes"] for each in filled if each.result), [])
    recalls = "".join(f" recall {name.replace('|', '/')} |" for name in classes)
    title = f"Label version {version}" + (f", the thesis's table {table}" if table else "")
    beside = " published |" if table else ""
    lines = [
        f"{title}; balanced accuracy and recalls in %; 95% bootstrap intervals, or the range over seeds.",
        "",
        f"| source -> target | method | balanced accuracy | interval |{beside}{recalls} images |",
        "|---|---|---|---|" + "---|" * (len(classes) + 1 + bool(table)),
    ]
    rows: dict[tuple[str, str, str, str | None], list[Filled]] = {}
    for each in filled:
        key = (each.cell.source, each.cell.target, each.cell.method, each.cell.variant)
        rows.setdefault(key, []).append(each)
    for (source, target, method, variant), seeds in rows.items():
        known = published.find(table, seeds[0].cell)
        cells = [f"{source} -> {target}", f"{NONE}/{variant}" if variant else method, *_summarise(seeds)]
        if table:
            cells.append("–" if known is None else f"{100 * known:.1f}")
        results = [each.result for each in seeds if each.result]
        for name in classes:
            cells.append(_mean([result["recall"][name]["value"] for result in results]))
        cells.append("; ".join(sorted({_images(result) for result in results})) or "–")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _summarise(seeds: Sequence[Filled]) -> tuple[str, str]:
    """Balanced accuracy, and its interval (one seed) or range (several); or what is wrong."""
    results = [each.result for each in seeds if each.result]
    missing = [each.status for each in seeds if not each.result]
    if len(seeds) == 1 and results:
        ends = results[0]["balanced_accuracy"]["ci95"]
        interval = "–" if ends is None else f"{100 * ends[0]:.1f}–{100 * ends[1]:.1f}"
        return _mean([results[0]["balanced_accuracy"]["value"]]), interval
    values = [result["balanced_accuracy"]["value"] for result in results]
    known = [value for value in values if value is not None]
    words = f"{100 * min(known):.1f}–{100 * max(known):.1f} of {len(known)} seeds" if known else "–"
    if missing:
        words = f"{words}; {len(missing)} of {len(seeds)} {missing[0]}" if known else missing[0]
    return _mean(values), words.replace("|", "/")


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{100 * statistics.mean(known):.1f}" if known else "–"


def _images(result: Mapping[str, Any]) -> str:
    patients = f" of {result['num_patients']} patients" if result["num_patients"] else ""
    fold = "the fold that chose the weights" if result["selection_fold"] else result["split"]
    return f"{result['num_images']}{patients}, {fold}"
