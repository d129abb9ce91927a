"""Fractions, their differences and intervals, written in percent: the same in every table and sentence."""

from collections.abc import Sequence

NOTHING = "–"


def percent(value: float | None) -> str:
    """`71.3` of 0.713; a dash of None."""
    return NOTHING if value is None else f"{100 * value:.1f}"


def signed(value: float | None) -> str:
    """`+1.4` of 0.014, a difference in points; a dash of None."""
    return NOTHING if value is None else f"{100 * value:+.1f}"


def interval(ends: Sequence[float] | None) -> str:
    """`65.0–77.1` of (0.65, 0.771), `-3.5 to 3.2` where an end is negative; a dash of None."""
    if ends is None:
        return NOTHING
    # A minus sign beside a dash cannot be read.
    return f"{percent(ends[0])}{'–' if min(ends) >= 0 else ' to '}{percent(ends[1])}"
