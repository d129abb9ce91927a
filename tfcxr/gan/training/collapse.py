"""Judges a training by its reports: when it may stop, and when something has gone wrong."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Spread of the samples of one label combination, as a fraction of the real images', under which they are one image.
COLLAPSED = 0.1
# Means of sign(D) beyond which the discriminator tells every real image from every generated one.
SATURATED = 0.95
# A critic's gradient norm, 1 where the penalty holds it, beyond which it does not.
RUNAWAY_NORM = 5.0


@dataclasses.dataclass
class Patience:
    """Whether the distance still falls (the benchmark stops after two evaluations that do not improve on the best).

    Attributes:
      best: least distance so far; None before the first.
      best_kimg: where it was found.
      stale: evaluations since.
    """

    best: float | None = None
    best_kimg: float | None = None
    stale: int = 0

    def look(self, distance: float, kimg: float) -> bool:
        """Takes one evaluation; whether it is the best."""
        if not distance < (float("inf") if self.best is None else self.best):
            self.stale += 1
            return False
        self.best, self.best_kimg, self.stale = distance, kimg, 0
        return True

    def exhausted(self, patience: int, kimg: float, min_kimg: float) -> bool:
        """Whether to stop: `patience` evaluations without improvement (0: never), and at least `min_kimg` shown."""
        return patience > 0 and self.stale >= patience and kimg >= min_kimg

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)


def spread(images: np.ndarray) -> float:
    """How much images [N, R, R, 1] of one label combination differ: the mean over pixels of their deviation."""
    return float(np.std(images, axis=0, dtype=np.float64).mean())


def diversity(fakes: np.ndarray, reals: Sequence[np.ndarray]) -> list[float | None]:
    """Spread of the generated images of each label combination over that of its real images.

    Args:
      fakes: [C, N, R, R, 1] in [-1, 1].
      reals: C arrays [M, R, R, 1] of the same range; a combination of fewer than two has no figure.
    """
    found: list[float | None] = []
    for images, others in zip(fakes, reals, strict=True):
        there = spread(others) if len(others) > 1 else 0.0
        found.append(spread(np.clip(images, -1, 1)) / there if there > 0 else None)
    return found


def complaints(
    means: Mapping[str, float], ratios: Sequence[float | None], names: Sequence[str], *, loss: str
) -> dict[str, str]:
    """What looks wrong in one report, kind -> one line that says what to try.

    Args:
      means: measures of the steps since the last report, by the names of `steps`.
      ratios: of `diversity`, by label combination.
      names: of the combinations.
      loss: one of `steps.LOSSES`.
    """
    found = {}
    collapsed = [name for name, ratio in zip(names, ratios, strict=True) if ratio is not None and ratio < COLLAPSED]
    if collapsed:
        found["collapse"] = (
            f"samples of {', '.join(collapsed[:3])}{' and others' if len(collapsed) > 3 else ''} hardly differ (under "
            f"{COLLAPSED:.0%} of the real images' spread): mode collapse; try --loss=logistic_r1, a larger --r1_gamma, "
            "a smaller --learning_rate, or --augment=diffaugment"
        )
    if loss != "wgan_gp" and means.get("signs/real", 0) > SATURATED and means.get("signs/fake", 0) < -SATURATED:
        found["saturation"] = (
            "the discriminator tells all real images from all generated ones, and teaches the generator little: it has "
            "learned the training images by heart; try --augment=ada, a larger --r1_gamma, or a smaller "
            "--d_learning_rate"
        )
    if loss in ("wgan_gp", "hinge_gp") and means.get("penalty/gradient_norm", 0) > RUNAWAY_NORM:
        found["gradient_norm"] = (
            f"the critic's gradient norm is {means['penalty/gradient_norm']:.3g}, where the penalty wants 1; try a "
            "smaller --learning_rate or --reg_interval=1"
        )
    return found
