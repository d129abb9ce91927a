"""When a GAN is trained at which resolution, minibatch size and learning rate, counted in real images shown.

Source: Karras et al. 2018, section 2 and appendix A. Stage s means the resolution 2^s; n is the final stage; lod, the
level of detail, is n - s where 2^s is trained and falls from n - s + 1 to n - s while block s fades in (see `prog`).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

FIRST_RESOLUTION, LAST_RESOLUTION = 8, 512
# The thesis's (Schütte 2021), by final resolution: kimg of training and of fading at each resolution.
KIMG = {32: 1400, 64: 1000, 128: 1000}
# For the other final resolutions: the default of Karras 2018's own training code (its paper shows 800 thousand images).
OTHER_KIMG = 600
BATCH_SIZES = {8: 256, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4}
LEARNING_RATE = 0.001


@dataclasses.dataclass(frozen=True)
class Phase:
    """A span of training with one stage, minibatch size and learning rate.

    Attributes:
        stage: s of the resolution 2^s.
        fade_from, fade_to: lod goes linearly from n - stage + fade_from to n - stage + fade_to: 1 to 0 while a block
            fades in, 0 to 0 otherwise.
        first_image: real images shown before it.
        num_images: real images shown in it, a multiple of batch_size.
        batch_size: images per step.
        learning_rate: of both networks.
        new_optimizer: the optimizers' state starts anew, because a new layer starts its fade or has ended it.
    """

    stage: int
    fade_from: float
    fade_to: float
    first_image: int
    num_images: int
    batch_size: int
    learning_rate: float
    new_optimizer: bool


def growing(
    resolution: int,
    total_images: int,
    train_kimg: float | None = None,
    fade_kimg: float | None = None,
    batch_sizes: Mapping[int, int] | None = None,
    learning_rates: Mapping[int, float] | None = None,
) -> list[Phase]:
    """Training at 8x8, then for each next resolution a fade and training, the last until `total_images`.

    Args:
        resolution: the final one, a power of two from 8 to 512.
        total_images: length of the run; a short one ends wherever it is, perhaps amid a fade.
        train_kimg, fade_kimg: thousand images of each training and each fade, 1400 by default for 32 px, 1000 for 64
            and 128 px, 600 for others. A fade of 0 adds a new block at once.
        batch_sizes, learning_rates: by resolution; those not given are 256 at 8x8 and half at each next (4 at 512 px),
            and 0.001.

    Returns:
        Phases that follow each other without gaps, each of a whole number of steps (the nearest, at least one).

    Raises:
        ValueError: naming a bad argument.
    """
    _check_resolution("resolution", resolution)
    train_kimg, fade_kimg = (
        KIMG.get(resolution, OTHER_KIMG) if kimg is None else kimg for kimg in (train_kimg, fade_kimg)
    )
    if not 0 < train_kimg < math.inf:
        raise ValueError(f"train_kimg={train_kimg}: must be positive")
    if not 0 <= fade_kimg < math.inf:
        raise ValueError(f"fade_kimg={fade_kimg}: must not be negative")
    batch_sizes = {**BATCH_SIZES, **(batch_sizes or {})}
    learning_rates = learning_rates or {}

    phases: list[Phase] = []
    first, final = 0, resolution.bit_length() - 1
    for stage in range(FIRST_RESOLUTION.bit_length() - 1, final + 1):
        size, rate = batch_sizes[2**stage], learning_rates.get(2**stage, LEARNING_RATE)
        new = bool(phases)
        spans = [(0.0, train_kimg * 1000 if stage < final else math.inf)]
        if new:
            spans.insert(0, (1.0, fade_kimg * 1000))
        for fade, length in spans:
            if not length:
                continue
            whole = _whole(length, size)
            count = min(whole, _whole(total_images - first, size, at_least=0 if phases else 1))
            if not count:
                return phases
            # A fade that the end of the run cuts short stays as far as it has come.
            fade_to = fade * (1 - count / whole)
            phases.append(Phase(stage, fade, fade_to, first, int(count), size, rate, new))
            first += int(count)
            new = bool(fade)
    return phases


def constant(stage: int, total_images: int, batch_size: int, learning_rate: float) -> list[Phase]:
    """One phase at full resolution: a network that does not grow. At least one step."""
    count = int(_whole(total_images, batch_size))
    return [Phase(stage, 0.0, 0.0, 0, count, batch_size, learning_rate, new_optimizer=False)]


def at(phases: Sequence[Phase], images_shown: int) -> tuple[int, Phase]:
    """The index of the phase, and the phase, of the step after `images_shown` images; the last one at the end."""
    for index, phase in enumerate(phases):
        if images_shown < phase.first_image + phase.num_images:
            return index, phase
    return len(phases) - 1, phases[-1]


def lod(phase: Phase, stages: int, images_shown: int) -> float:
    """The level of detail after `images_shown` images of the whole run, within `phase`; stages: n."""
    part = min(max((images_shown - phase.first_image) / phase.num_images, 0.0), 1.0)
    return stages - phase.stage + phase.fade_from + part * (phase.fade_to - phase.fade_from)


def parse_table(text: str, kind: type = int) -> dict:
    """'8:256,16:128' -> {8: 256, 16: 128}: batch sizes (kind int) or learning rates (kind float) by resolution.

    Raises ValueError naming the bad entry. Resolutions are powers of two from 8 to 512, values positive, batch sizes at
    most 4 or divisible by 4 (the groups of the minibatch standard deviation). An empty text is an empty table.
    """
    table: dict = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        try:
            key, value = entry.split(":")
            resolution, number = int(key), kind(value)
        except ValueError:
            raise ValueError(f"{entry!r}: must be RESOLUTION:VALUE, such as 8:256") from None
        _check_resolution(repr(entry), resolution)
        if resolution in table:
            raise ValueError(f"{entry!r}: {resolution} has a value already")
        if not 0 < number < math.inf:
            raise ValueError(f"{entry!r}: the value must be positive")
        if kind is int and number > 4 and number % 4:
            raise ValueError(f"{entry!r}: a batch size must be at most 4 or divisible by 4")
        table[resolution] = number
    return table


def _check_resolution(name, resolution):
    if not FIRST_RESOLUTION <= resolution <= LAST_RESOLUTION or resolution & (resolution - 1):
        raise ValueError(f"{name}: the resolution must be a power of two from 8 to 512, not {resolution}")


def _whole(images, batch_size, at_least=1):
    """`images` as the nearest whole number of steps."""
    return math.inf if images == math.inf else max(at_least, round(images / batch_size)) * batch_size
