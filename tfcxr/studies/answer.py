"""A study's answer in sentences, made of nothing but its numbers."""

import statistics
from collections.abc import Mapping, Sequence

from tfcxr.percentages import interval, percent
from tfcxr.studies.definition import NONE, UNADAPTED, Cell
from tfcxr.studies.differences import Compared, Estimate, Worth
from tfcxr.studies.results import Filled, describe_method, mean, name_score, part


def tell(
    rows: Mapping[Cell, Sequence[Filled]], compared: Mapping[Cell, Compared], published: Mapping[Cell, float]
) -> list[str]:
    """Sentences for each label version and target, and on the published figures.

    A difference is said to be more than chance explains only if its 95% interval leaves out zero.

    Args:
        rows: as of `results.group`.
        compared: as of `differences.compare`.
        published: row -> published balanced accuracy, a fraction.
    """
    known = {cell: value for cell, seeds in rows.items() if (value := _mean(seeds)) is not None}
    sentences = _summarise(compared)
    for version, target in dict.fromkeys((cell.label_version, cell.target) for cell in rows):
        here = [cell for cell in known if (cell.label_version, cell.target) == (version, target)]
        sentences += [f"{version}, tested on {target}: {text}" for text in _tell_target(here, rows, known, compared)]
    if missing := len(rows) - len(known):
        verb = "row of the table has" if missing == 1 else "rows of the table have"
        sentences.append(f"{missing} {verb} no result; nothing is said of {'it' if missing == 1 else 'them'}.")
    return [*sentences, *_tell_published(known, compared, published)]


def _summarise(compared: Mapping[Cell, Compared]) -> list[str]:
    leads = [row.lead for cell, row in compared.items() if row.lead and cell.method == NONE]
    gains = [row.gain for cell, row in compared.items() if row.gain and cell.method not in UNADAPTED]
    helped = [row.gain for cell, row in compared.items() if row.gain and cell.method == NONE]
    return [
        *_tally(
            leads,
            "classifier trained otherwise",
            "classifiers trained otherwise",
            "the one trained on the target's own images",
        ),
        *_tally(
            helped,
            "pretrained or mixed classifier",
            "pretrained or mixed classifiers",
            "the one of the last set's images alone",
        ),
        *_tally(gains, "adapted classifier", "adapted classifiers", "the one without adaptation"),
    ]


def _tally(differences: Sequence[Estimate], name: str, names: str, other: str) -> list[str]:
    """How many of the classifiers called `names`, one alone `name`, differ from the `other` one.

    No sentence if there are none.
    """
    better = sum(each.shown and each.value > 0 for each in differences)
    worse = sum(each.shown and each.value < 0 for each in differences)
    if not differences:
        return []
    if len(differences) > 1:
        verb = "is" if better == 1 else "are"
        return [
            f"In short: of the {len(differences)} {names}, {better} {verb} better than {other} and {worse} worse, by "
            f"more than chance explains; for {len(differences) - better - worse} the difference may be chance."
        ]
    if better or worse:
        return [
            f"In short: the {name} is {'better' if better else 'worse'} than {other}, by more than chance explains."
        ]
    return [f"In short: the difference between the {name} and {other} may be chance."]


def _mean(seeds: Sequence[Filled]) -> float | None:
    return mean(each.score[0] for each in seeds)


def _tell_target(
    here: Sequence[Cell],
    rows: Mapping[Cell, Sequence[Filled]],
    known: Mapping[Cell, float],
    compared: Mapping[Cell, Compared],
) -> list[str]:
    said = []
    plain = [cell for cell in here if cell.method == NONE]
    adapted = [cell for cell in here if cell.method not in UNADAPTED]
    for cell in plain:
        where = "the target's own images" if cell.source == cell.target else f"images of {cell.source}"
        variant = f" ({cell.variant})" if sum(other.source == cell.source for other in plain) > 1 else ""
        lead = compared[cell].lead if cell in compared else None
        told = _tell_difference(lead, "the one trained on the target's own images") if lead else ""
        gain = compared[cell].gain if cell in compared else None
        told += _tell_difference(gain, "the one of the last set's images alone", subject="it") if gain else ""
        told += _tell_worth(compared[cell].worth) if cell in compared else ""
        said.append(
            f"the classifier trained on {where}{variant} has a {name_score(rows[cell])} of "
            f"{_accuracy(cell, known, compared)}{_tell_labels(rows[cell])}{told}."
        )
    for source in dict.fromkeys(cell.source for cell in adapted):
        methods = [cell for cell in adapted if cell.source == source]
        said.append(_tell_adaptation(source, methods, known, compared))
    return said


def _tell_worth(worth: Worth | None) -> str:
    """With which share of the target's labels its own images would teach as much."""
    if worth is None:
        return ""
    share = f"{worth.bound(worth.value)} {percent(worth.value)}% of the target's patients".strip()
    return f"; so its images are worth those of {share} with their labels (interval {interval(worth.ci95)}%)"


def _tell_labels(seeds: Sequence[Filled]) -> str:
    """Between which ROC-AUCs the labels of a row lie; nothing of classes."""
    shared = next((each.shared for each in seeds if each.result), ())
    scores = {name: value for name in shared if (value := mean(part(each, name) for each in seeds if each.result))}
    if len(scores) < 2:
        return ""
    low, high = min(scores, key=scores.__getitem__), max(scores, key=scores.__getitem__)
    return f" over {len(scores)} labels, from {percent(scores[low])}% ({low}) to {percent(scores[high])}% ({high})"


def _tell_difference(difference: Estimate, other: str, *, subject: str = "that") -> str:
    points = f"{percent(abs(difference.value))} points {'more' if difference.value >= 0 else 'less'}"
    text = f"{subject} is {points} than {other} (interval of the difference: {interval(difference.ci95)})"
    return f"; {text}" if difference.shown else f"; {text}, which may be chance"


def _tell_adaptation(
    source: str, methods: Sequence[Cell], known: Mapping[Cell, float], compared: Mapping[Cell, Compared]
) -> str:
    best = max(methods, key=lambda cell: known[cell])
    text = f"adapted from {source} by {describe_method(best)}, the classifier has {_accuracy(best, known, compared)}"
    if len(methods) > 1:
        text += f", the best of {len(methods)} methods (the best of several looks better than it is)"
    row = compared.get(best)
    if row is None or row.gain is None:
        return f"{text}."
    text += _tell_difference(row.gain, "without adaptation")
    if row.closed:
        share = f"{100 * row.closed.value:.0f}%"
        text += (
            f"; so adaptation closes {share} of the gap to the classifier trained on the target's own images "
            f"(interval {interval(row.closed.ci95)}%)"
        )
    gains = {cell: compared[cell].gain for cell in methods if cell in compared}
    worse = [cell for cell, gain in gains.items() if gain and gain.shown and gain.value < 0]
    if worse:
        text += (
            f"; worse than without adaptation, by more than chance explains: {', '.join(map(describe_method, worse))}"
        )
    return f"{text}."


def _tell_published(
    known: Mapping[Cell, float], compared: Mapping[Cell, Compared], published: Mapping[Cell, float]
) -> list[str]:
    both = [cell for cell in known if cell in published]
    if not both:
        return []
    inside = [cell for cell in both if cell in compared and _holds(compared[cell].accuracy, published[cell])]
    difference = statistics.mean(known[cell] - published[cell] for cell in both)
    figures = "the published figure" if len(both) == 1 else f"the {len(both)} published figures"
    return [
        f"Of {figures}, {len(inside) or 'none'} {'lies' if len(inside) == 1 else 'lie'} in the 95% interval of this "
        f"study; on average this study is {percent(abs(difference))} points "
        f"{'higher' if difference >= 0 else 'lower'}."
    ]


def _holds(estimate: Estimate, value: float) -> bool:
    return estimate.ci95[0] <= value <= estimate.ci95[1]


def _accuracy(cell: Cell, known: Mapping[Cell, float], compared: Mapping[Cell, Compared]) -> str:
    ends = f" (95% interval {interval(compared[cell].accuracy.ci95)})" if cell in compared else ""
    return f"{percent(known[cell])}%{ends}"
