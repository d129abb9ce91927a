"""Judges a training by its reports: when something has gone wrong."""

from collections.abc import Mapping, Sequence

import numpy as np

# Spread of the samples of one label combination, as a fraction of the real images', under which they are one image.
COLLAPSED = 0.1
# Means of sign(D) beyond which the discriminator tells every real image from every generated one.
SATURATED = 0.95
# A critic's gradient norm, 1 where the penalty holds it, beyond which it does not.
RUNAWAY_NORM = 5.0


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
        loss: one of `choices.LOSSES`.
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
