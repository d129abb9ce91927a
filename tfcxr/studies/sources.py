"""What a source of --cells says: on which images a classifier is trained, one training after another."""

import dataclasses
import re

from tfrecords_builder.errors import InputError

# First weights that every study knows, as --weights names them.
WEIGHTS = ("imagenet", "none")

_STAGE = re.compile(r"(?P<records>[^@+>]+)(@(?P<percent>[^@+>]+)%)?(\+(?P<extra>[^@+>]+))?")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        records: name of the set that is learned.
        percent: of its patients whose images are learned, above 0 and at most 100; None for all.
        extra: name of the set whose images are mixed in; None for none.
    """

    records: str
    percent: float | None = None
    extra: str | None = None

    @property
    def alone(self) -> str:
        """The source that learns the same images of the set itself, without a mix."""
        return self.records if self.percent is None else f"{self.records}@{self.percent:g}%"

    def __str__(self) -> str:
        return self.alone if self.extra is None else f"{self.alone}+{self.extra}"


@dataclasses.dataclass(frozen=True)
class Source:
    """Trainings, each of which starts from the weights of the one before.

    Attributes:
        start: first weights: the name of a pretraining, or one of WEIGHTS; None for those of --baseline_flags.
        stages: at least one.
    """

    start: str | None
    stages: tuple[Stage, ...]

    @property
    def names(self) -> list[str]:
        """Of all its sets."""
        return [name for stage in self.stages for name in (stage.records, stage.extra) if name]

    @property
    def alone(self) -> str | None:
        """The source of the last stage's own images alone, which shows what the rest adds; None if this is one."""
        last = self.stages[-1]
        return last.alone if self.start or len(self.stages) > 1 or last.extra else None

    def __str__(self) -> str:
        return ">".join([*([self.start] if self.start else []), *map(str, self.stages)])


def parse(text: str, starts: tuple[str, ...] = WEIGHTS) -> Source:
    """A source: `[START>]SET[@PERCENT%][+SET][>SET...]`.

    Args:
        text: `synthetic>nih@10%`: trained on synthetic, then on a tenth of nih's patients; `nih+synthetic`: on both.
        starts: names of first weights.

    Raises:
        InputError: saying what is wrong with the text.
    """
    words = ["".join(word.split()) for word in text.split(">")]
    start = words.pop(0) if words[0] in starts else None
    if not words:
        raise InputError(f"{text}: names first weights only; write {text}>SET")
    return Source(start, tuple(_parse_stage(text, word) for word in words))


def _parse_stage(text: str, word: str) -> Stage:
    found = _STAGE.fullmatch(word)
    if not found:
        raise InputError(f"{text}: {word or 'nothing'} is no set; must look like SET, SET@10%, SET+SET or SET>SET")
    percent = None
    if found["percent"]:
        try:
            percent = float(found["percent"])
        except ValueError:
            percent = 0.0
        if not 0 < percent <= 100:
            raise InputError(f"{text}: {found['percent']}% must be above 0 and at most 100")
    return Stage(found["records"], percent, found["extra"])
