"""Early stopping: training ends when a measure has not become better for a number of evaluations."""

import dataclasses


@dataclasses.dataclass
class EarlyStop:
    """The best value of a measure so far, and how many evaluations have passed since.

    Attributes:
        measure: its name.
        patience: evaluations without a better value after which training stops; 0: it never stops early.
        maximize: whether higher is better.
        not_before: where training may stop at the earliest, in the unit of `look`.
        best: best value so far, of equal ones the first; None before there is one.
        best_at: where it was found.
        stale: evaluations since.
    """

    measure: str
    patience: int
    maximize: bool
    not_before: float = 0.0
    best: float | None = None
    best_at: float | None = None
    stale: int = 0

    def look(self, value: float | None, at: float) -> bool:
        """Takes one evaluation; whether it is the best. None and NaN never are."""
        worst = float("-inf") if self.maximize else float("inf")
        best = worst if self.best is None else self.best
        if value is None or not (value > best if self.maximize else value < best):
            self.stale += 1
            return False
        self.best, self.best_at, self.stale = value, at, 0
        return True

    def is_due(self, at: float) -> bool:
        """Whether to stop: there is a best value, and `patience` evaluations were not better."""
        return self.best is not None and 0 < self.patience <= self.stale and at >= self.not_before
