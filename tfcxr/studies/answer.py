"""A study's answer in sentences, made of nothing but its numbers."""

import statistics
from collections.abc import Mapping, Sequence

from tfcxr.studies.definition import NONE, Cell
from tfcxr.studies.differences import Compared, Estimate
from tfcxr.studies.results import Filled, mean, name_method, percent, percent_range


def tell(
    rows: Mapping[Cell, Sequence[Filled]], compared: Mapping[Cell, Compared], published: Mapping[Cell, float]
) -> list[str]:
    """Sentences for each label version and target, and on the published figures.

    A difference is called one only if its 95% interval leaves out zero.

    Args:
      rows: as of `results.group`.
      compared: as of `comparisons.compare`.
      published: row -> published balanced accuracy, a fraction.
    """
    known = {cell: value for cell, seeds in rows.items() if (value := _mean(seeds)) is not None}
    sentences = _summarise(compared)
    for version, target in dict.fromkeys((cell.label_version, cell.target) for cell in rows):
        here = [cell for cell in known if (cell.label_version, cell.target) == (version, target)]
        sentences += [f"{version}, tested on {target}: {text}" for text in _tell_target(here, known, compared)]
    if len(known) < len(rows):
        sentences.append(f"{len(rows) - len(known)} of {len(rows)} rows have no result; nothing is said of them.")
    return [*sentences, *_tell_published(known, compared, published)]


def _summarise(compared: Mapping[Cell, Compared]) -> list[str]:
    sentences = []
    leads = [row.lead for cell, row in compared.items() if row.lead and cell.method == NONE]
    if leads:
        behind = sum(each.shown and each.value < 0 for each in leads)
        sentences.append(
            f"In short: {behind} of {len(leads)} classifiers trained on another source are shown to be behind the one "
            "trained on the target."
        )
    gains = [row.gain for row in compared.values() if row.gain]
    if gains:
        better = sum(each.shown and each.value > 0 for each in gains)
        worse = sum(each.shown and each.value < 0 for each in gains)
        sentences.append(
            f"In short: of {len(gains)} adapted classifiers {better} are shown to be better than the unadapted one, "
            f"{worse} to be worse; of {len(gains) - better - worse} neither is shown."
        )
    return sentences


def _mean(seeds: Sequence[Filled]) -> float | None:
    return mean(each.result["balanced_accuracy"]["value"] for each in seeds if each.result)


def _tell_target(here: Sequence[Cell], known: Mapping[Cell, float], compared: Mapping[Cell, Compared]) -> list[str]:
    said = []
    plain = [cell for cell in here if cell.method == NONE]
    adapted = [cell for cell in here if cell.method != NONE]
    for cell in plain:
        where = "the target itself" if cell.source == cell.target else cell.source
        variant = f" ({cell.variant})" if sum(other.source == cell.source for other in plain) > 1 else ""
        lead = compared[cell].lead if cell in compared else None
        told = _tell_difference(lead, "trained on the target") if lead else ""
        said.append(f"trained on {where}{variant} {_accuracy(cell, known, compared)}{told}.")
    for source in dict.fromkeys(cell.source for cell in adapted):
        methods = [cell for cell in adapted if cell.source == source]
        said.append(_tell_adaptation(source, methods, known, compared))
    return said


def _tell_difference(difference: Estimate, other: str) -> str:
    points = f"{100 * difference.value:+.1f} points against {other} ({difference})"
    return f"; {points}" if difference.shown else f"; no difference from {other} is shown: {points}"


def _tell_adaptation(
    source: str, methods: Sequence[Cell], known: Mapping[Cell, float], compared: Mapping[Cell, Compared]
) -> str:
    best = max(methods, key=lambda cell: known[cell])
    several = f", the best of {len(methods)} methods (the best of several looks better than it is)"
    text = f"adapted from {source} by {name_method(best)} {_accuracy(best, known, compared)}"
    text += several if len(methods) > 1 else ""
    row = compared.get(best)
    if row is None or row.gain is None:
        return f"{text}."
    text += _tell_difference(row.gain, "no adaptation")
    gains = {cell: compared[cell].gain for cell in methods if cell in compared}
    worse = [cell for cell, gain in gains.items() if gain and gain.shown and gain.value < 0]
    if row.closed:
        share = f"{100 * row.closed.value:.0f}%"
        text += f"; it closes {share} of the gap to training on the target ({row.closed})"
    if worse:
        text += f"; shown to be worse than no adaptation: {', '.join(name_method(cell) for cell in worse)}"
    return f"{text}."


def _tell_published(
    known: Mapping[Cell, float], compared: Mapping[Cell, Compared], published: Mapping[Cell, float]
) -> list[str]:
    both = [cell for cell in known if cell in published]
    if not both:
        return []
    inside = [cell for cell in both if cell in compared and _holds(compared[cell].accuracy, published[cell])]
    difference = statistics.mean(known[cell] - published[cell] for cell in both)
    return [
        f"Of {len(both)} published figures {len(inside)} lie in our interval; ours are {100 * difference:+.1f} points "
        "from the published ones on average."
    ]


def _holds(estimate: Estimate, value: float) -> bool:
    return estimate.ci95[0] <= value <= estimate.ci95[1]


def _accuracy(cell: Cell, known: Mapping[Cell, float], compared: Mapping[Cell, Compared]) -> str:
    interval = f" ({percent_range(compared[cell].accuracy.ci95)})" if cell in compared else ""
    return f"{percent(known[cell])}%{interval}"
