"""What the rows of a study say of each other: intervals, what adaptation gains, and how much of the gap it closes.

A row is the cells that differ in their seed only. Rows of one label version and target are compared on the same test
images, patients drawn together (see evaluation.paired_test), each row standing for the mean over its seeds.

What a row is worth in labels: the rows that learned parts of the target's patients (`nih@10%`, `nih@30%`, `nih`) make
a curve of the score over the share of patients, linear in the logarithm of the share and never falling. A row that
learned none of these labels is worth the share at which the curve reaches its score.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tfcxr.evaluation import bootstrap, multilabel, paired_test, predictions
from tfcxr.evaluation.paired_test import Accuracy
from tfcxr.studies import sources
from tfcxr.studies.definition import CONTINUED, NONE, Cell
from tfcxr.studies.results import Filled
from tfrecords_builder.errors import InputError

RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A fraction, or a difference of fractions, with its 95% interval."""

    value: float
    ci95: tuple[float, float]

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.ci95[0] > 0 or self.ci95[1] < 0


@dataclasses.dataclass(frozen=True)
class Worth:
    """Which share of the target's patients, with their labels, teaches as much as a row; with its 95% interval.

    Attributes:
        value: fraction, from `least` to 1.
        ci95: its interval; an end at `least` or 1 may lie beyond it.
        least: the smallest share that was trained on.
    """

    value: float
    ci95: tuple[float, float]
    least: float

    def bound(self, share: float) -> str:
        """Whether a share may lie beyond what was tried: "at most", "at least" or empty."""
        return "at most" if share <= self.least * (1 + 1e-9) else "at least" if share >= 1 - 1e-9 else ""


@dataclasses.dataclass(frozen=True)
class Compared:
    """What is known of a row; None where there is nothing to compare with, or too few patients.

    Attributes:
        accuracy: balanced accuracy (or mean ROC-AUC, see results.Filled.score), mean over the seeds.
        gain: of an adaptation: difference from the classifier that was trained on the same source without it, for as
            many steps if the study has such a control. Of a classifier with first weights, trainings before or images
            mixed in: difference from the one that was trained on the images of its last set alone.
        lead: difference from the classifier that was trained on the target itself; negative if that is better.
        closed: gain as a share of what the unadapted one is behind the target's; None unless it is shown to be behind.
        lead_by_label: as `lead`, of the ROC-AUC of each label; empty where there are classes, or no lead.
        worth: of a classifier that learned none of the target's labels, if others learned parts of them.
    """

    accuracy: Estimate
    gain: Estimate | None
    lead: Estimate | None
    closed: Estimate | None
    lead_by_label: Mapping[str, Estimate] = dataclasses.field(default_factory=dict)
    worth: Worth | None = None


def compare(
    rows: Mapping[Cell, Sequence[Filled]], workspace: pathlib.Path, *, resamples: int = RESAMPLES
) -> tuple[dict[Cell, Compared], list[str]]:
    """Compares the rows of each label version and target.

    Args:
        rows: as of `results.group`; those with a cell that has no result are left out.
        workspace: where the evaluations lie.
        resamples: of the bootstrap over patients; its seed is 0.

    Returns:
        (what is known of the rows that could be compared, why others could not).
    """
    found: dict[Cell, Compared] = {}
    notes: list[str] = []
    for version, target in dict.fromkeys((cell.label_version, cell.target) for cell in rows):
        groups: dict[Cell, list[pathlib.Path]] = {}
        shared: Sequence[str] = ()
        for cell, seeds in rows.items():
            if (cell.label_version, cell.target) == (version, target) and all(each.result for each in seeds):
                groups[cell] = [workspace / each.evaluation for each in seeds if each.evaluation]
                shared = seeds[0].shared
        try:
            found |= _compare_group(groups, shared, resamples) if groups else {}
        except InputError as error:
            notes.append(f"{version}, {target}: the models cannot be compared: {error}")
    return found, notes


def _compare_group(
    groups: Mapping[Cell, Sequence[pathlib.Path]], shared: Sequence[str], resamples: int
) -> dict[Cell, Compared]:
    """`shared`: labels to take the mean over, where the models are of such; see results.Filled."""
    first, classes = _read(next(iter(groups.values()))[0], shared)
    read = {}
    for cell, folders in groups.items():
        read[cell] = [
            paired_test.align(_read(folder, shared)[0], first.ids, first.labels, str(folder / predictions.FILE))
            for folder in folders
        ]
    if not first.multilabel:
        sampled = paired_test.sample_accuracies(read, len(classes), resamples=resamples)
    else:
        sampled = multilabel.sample_means(read, shared, resamples=resamples) if shared else None
    if sampled is None:
        return {}
    return {cell: _compare_row(cell, sampled) for cell in sampled}


def _read(folder: pathlib.Path, shared: Sequence[str]) -> tuple[predictions.Predictions, list[str]]:
    """Predictions of an evaluation, and its classes; of labels the shared ones."""
    found, names = predictions.read(folder / predictions.FILE)
    if not found.multilabel:
        return found, names
    return found.of([names.index(name) for name in shared]), list(shared)


def _compare_row(cell: Cell, sampled: Mapping[Cell, Accuracy]) -> Compared:
    own, plain, target = sampled[cell], find_unadapted(cell, sampled), find_target_trained(cell, sampled)
    gain = lead = closed = None
    by_label = {}
    if plain and plain != cell:
        gain = _estimate(own.value - sampled[plain].value, own.sampled - sampled[plain].sampled)
    if target and target != cell:
        lead = _estimate(own.value - sampled[target].value, own.sampled - sampled[target].sampled)
        for name, there in sampled[target].parts.items():
            here = own.parts[name]
            by_label[name] = _estimate(here.value - there.value, here.sampled - there.sampled)
    if gain and target and plain and cell.source != cell.target:
        gap = sampled[target].value - sampled[plain].value
        gaps = sampled[target].sampled - sampled[plain].sampled
        if _estimate(gap, gaps).ci95[0] > 0:
            with np.errstate(divide="ignore", invalid="ignore"):  # a resample may have no gap; it is left out
                closed = _estimate(gain.value / gap, (own.sampled - sampled[plain].sampled) / gaps)
    return Compared(_estimate(own.value, own.sampled), gain, lead, closed, by_label, _find_worth(cell, sampled))


def find_unadapted(cell: Cell, rows: Mapping[Cell, object]) -> Cell | None:
    """The row without adaptation of the same source and target: the control, else the baseline's first variant.

    Of a row without adaptation: that of the last set's images alone, see `sources.Source.alone`.
    """
    same = ("label_version", "source", "target")
    alone = dataclasses.replace(cell, source=_find_alone(cell.source)) if cell.method == NONE else cell
    alike = [row for row in rows if all(getattr(row, name) == getattr(alone, name) for name in same)]
    references = {NONE: (NONE,) if alone != cell else (), CONTINUED: (NONE,)}.get(cell.method, (CONTINUED, NONE))
    return next((row for method in references for row in alike if row.method == method), None)


def find_curve(target: str, rows: Iterable[Cell]) -> dict[float, Cell]:
    """Share of the target's patients, ascending -> the first row that learned their labels and nothing else."""
    shares: dict[float, Cell] = {}
    for row in rows:
        source = sources.parse(row.source, ())
        [*before, last] = source.stages
        if row.method == NONE and not before and last.records == target and source.alone is None:
            shares.setdefault((last.percent or 100) / 100, row)
    return dict(sorted(shares.items()))


def _find_worth(cell: Cell, sampled: Mapping[Cell, Accuracy]) -> Worth | None:
    """Of a row that learned none of the target's labels."""
    alike = [row for row in sampled if row.label_version == cell.label_version and row.target == cell.target]
    curve = find_curve(cell.target, alike)
    if len(curve) < 2 or 1.0 not in curve or cell.target in sources.parse(cell.source, ()).names:
        return None
    logs = np.log(list(curve))
    of_value = _invert(logs, np.array([[sampled[row].value] for row in curve.values()]), sampled[cell].value)
    drawn = _invert(logs, np.stack([sampled[row].sampled for row in curve.values()]), sampled[cell].sampled)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Worth(float(of_value[0]), (float(low), float(high)), min(curve))


def _invert(logs: np.ndarray, scores: np.ndarray, wanted: float | np.ndarray) -> np.ndarray:
    """Where curves reach scores.

    Args:
        logs: logarithms of the P shares, ascending.
        scores: [P, B], of B curves.
        wanted: [B], or one number.

    Returns:
        Shares [B], between the least and the greatest one.
    """
    rising = np.maximum.accumulate(scores, axis=0)
    wanted = np.broadcast_to(wanted, rising.shape[1:])
    return np.exp([np.interp(want, column, logs) for want, column in zip(wanted, rising.T, strict=True)])


def _find_alone(source: str) -> str:
    # Whether the first word is a set or first weights makes no difference to the last set.
    return sources.parse(source, ()).alone or source


def find_target_trained(cell: Cell, rows: Mapping[Cell, object]) -> Cell | None:
    """The row that was trained on the target itself: the first, where there are several variants."""
    return next(
        (
            row
            for row in rows
            if row.method == NONE
            and row.label_version == cell.label_version
            and row.source == row.target == cell.target
        ),
        None,
    )


def _estimate(value: float, sampled: np.ndarray) -> Estimate:
    # Groups are sampled only where every class has images of several patients, see `paired_test.sample_accuracies` and
    # `multilabel.sample_means`.
    ends = bootstrap.interval(sampled, holders=2)
    assert ends is not None
    return Estimate(value, (ends[0], ends[1]))
