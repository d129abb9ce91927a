"""Scores the answers of readers: exact intervals for each, and how far they agree."""

import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn import metrics

from tfcxr.percentages import interval, percent
from tfcxr.reader_study.page import KEY_FILE, REAL, SCHEMA_VERSION, SYNTHETIC, name_study
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.pages import escape_markdown

_COLUMNS = ["study", "reader", "number", "answer", "finding", "seconds"]
_YES, _NO = "yes", "no"


def score_study(
    *, study: str | os.PathLike, answers: Sequence[str | os.PathLike], output_dir: pathlib.Path
) -> dict[str, Any]:
    """Scores answers against the key; writes result.json, scores.csv and scores.md.

    Args:
        study: folder with key.json.
        answers: CSV files that the page has written, one of each reader.
        output_dir: existing folder to write into.

    Returns:
        What result.json holds: of each reader "answered" and "left_out", and {"value", "ci95", "of"} of "accuracy",
        "synthetic_recognised" (share of the synthetic images called synthetic), "real_recognised" and, if asked,
        "finding"; "p_value" of guessing; of each pair of readers "kappa" (Cohen 1960) and "agreement".

    Raises:
        InputError: no key, a key that was changed, or answers of another study, twice by one reader, or no answers.
    """
    path = pathlib.Path(study) / KEY_FILE
    if not path.is_file():
        raise InputError(f"--study={study}: has no {KEY_FILE}; give the folder that reader-study wrote")
    key = _read_key(path)
    truth = pd.DataFrame(key["images"]).set_index("number")
    readers: dict[str, pd.DataFrame] = {}
    for file in answers:
        table = _read(file, name_study(key), truth.index)
        reader = str(table["reader"].iloc[0])
        if reader in readers:
            raise InputError(f"--score={file}: there are answers of reader {reader!r} already; give each reader once")
        readers[reader] = table
    result = {
        "schema_version": SCHEMA_VERSION,
        "study": name_study(key),
        "num_images": len(truth),
        "finding": key["finding"],
        "readers": {name: _score(table, truth, key["finding"]) for name, table in readers.items()},
        "pairs": [
            _compare(first, readers[first], second, readers[second])
            for first, second in itertools.combinations(readers, 2)
        ],
    }
    files.write_json(output_dir / "result.json", result)
    files.write_text(output_dir / "scores.md", to_markdown(result))
    columns = ["reader", "measure", "value", "low", "high", "of"]
    rows = [
        [reader, measure, found["value"], *(found["ci95"] or (None, None)), found["of"]]
        for reader, scores in result["readers"].items()
        for measure, found in scores.items()
        if isinstance(found, dict)
    ]
    with files.atomic_path(output_dir / "scores.csv") as temporary:
        pd.DataFrame(rows, columns=columns).to_csv(temporary, index=False)
    return result


def to_markdown(result: dict[str, Any]) -> str:
    """The scores as tables."""
    measures = ["accuracy", "synthetic_recognised", "real_recognised", *(["finding"] if result["finding"] else [])]
    lines = [
        f"Reader study {result['study']}: {result['num_images']} images. Percent, with exact 95% intervals "
        "(Clopper and Pearson); guessing gives 50.",
        "",
        f"| reader | answered | {' | '.join(name.replace('_', ' ') for name in measures)} | p of guessing |",
        "|---|---:|" + "---:|" * (len(measures) + 1),
    ]
    for reader, scores in result["readers"].items():
        cells = [f"{percent(scores[name]['value'])} ({interval(scores[name]['ci95'])})" for name in measures]
        who = escape_markdown(reader)
        lines.append(f"| {who} | {scores['answered']} | {' | '.join(cells)} | {scores['p_value']:.3f} |")
    if result["pairs"]:
        lines += ["", "| readers | images | agreement | Cohen's kappa |", "|---|---:|---:|---:|"]
        for pair in result["pairs"]:
            kappa = "–" if pair["kappa"] is None else f"{pair['kappa']:.2f}"
            who = escape_markdown(" and ".join(pair["readers"]))
            lines.append(f"| {who} | {pair['of']} | {percent(pair['agreement'])} | {kappa} |")
    lines += [
        "",
        "An interval that holds 50% does not show that nobody can tell: it shows what this many images can tell of "
        "this reader.",
    ]
    lines += [
        f"\nWarning: {escape_markdown(reader)} left out {scores['left_out']} images."
        for reader, scores in result["readers"].items()
        if scores["left_out"]
    ]
    return "\n".join(lines) + "\n"


def _read_key(path: pathlib.Path) -> dict[str, Any]:
    key = files.read_json(path)
    if (
        not isinstance(key, dict)
        or key.get("schema_version") != SCHEMA_VERSION
        or not {"finding", "images"} <= set(key)
    ):
        raise InputError(f"{path}: is no key of this version of reader-study")
    return key


def _read(path: str | os.PathLike, study: str, numbers: pd.Index) -> pd.DataFrame:
    """The answers of one reader that are no blanks, by number of the image."""
    where = f"--score={path}"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: cannot be read ({' '.join(str(error).split())})") from error
    absent = [column for column in _COLUMNS if column not in table]
    if absent:
        raise InputError(f"{where}: has no column {absent[0]}; give the file that the page of the study wrote")
    if table.empty or (table["answer"] == "").all():
        raise InputError(f"{where}: has no answers")
    others = set(table["study"]) - {study}
    if others:
        raise InputError(f"{where}: answers study {min(others)}, the key is that of {study} (or was changed since)")
    if table["reader"].nunique() > 1:
        raise InputError(f"{where}: has answers of several readers; give a file of each")
    for column, allowed in (("answer", {REAL, SYNTHETIC, ""}), ("finding", {_YES, _NO, ""})):
        wrong = ~table[column].isin(allowed)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"{where}: line {row + 2}: {column} is {table[column].iloc[row]!r}, not {min(allowed - {''})}"
            )
    given = pd.to_numeric(table["number"], errors="coerce")
    unknown = ~given.isin(numbers) | given.duplicated()
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        number = table["number"].iloc[row]
        raise InputError(f"{where}: line {row + 2}: image {number!r} is not in the study, or twice")
    table = table.assign(number=given.astype(int)).set_index("number")
    return table[table["answer"] != ""]


def _score(table: pd.DataFrame, truth: pd.DataFrame, finding: str | None) -> dict[str, Any]:
    true = truth.loc[table.index]
    right = (table["answer"] == true["set"]).to_numpy()
    synthetic = (true["set"] == SYNTHETIC).to_numpy()
    scores = {
        "answered": len(table),
        "left_out": len(truth) - len(table),
        "accuracy": _share(right),
        "synthetic_recognised": _share(right[synthetic]),
        "real_recognised": _share(right[~synthetic]),
        "p_value": float(stats.binomtest(int(right.sum()), len(right)).pvalue),
    }
    if finding:
        asked = (table["finding"] != "").to_numpy()
        scores["finding"] = _share(((table["finding"] == _YES) == true["finding"].astype(bool)).to_numpy()[asked])
    return scores


def _share(right: np.ndarray) -> dict[str, Any]:
    if not len(right):
        return {"value": None, "ci95": None, "of": 0}
    exact = stats.binomtest(int(right.sum()), len(right)).proportion_ci(method="exact")
    return {"value": float(right.mean()), "ci95": [float(exact.low), float(exact.high)], "of": len(right)}


def _compare(first: str, answers: pd.DataFrame, second: str, others: pd.DataFrame) -> dict[str, Any]:
    both = answers.join(others, rsuffix="_other", how="inner")
    a, b = both["answer"], both["answer_other"]
    # Undefined where both gave one and the same answer to everything.
    defined = len(both) and pd.concat([a, b]).nunique() > 1
    return {
        "readers": [first, second],
        "of": len(both),
        "agreement": float((a == b).mean()) if len(both) else None,
        "kappa": float(metrics.cohen_kappa_score(a, b)) if defined else None,
    }
