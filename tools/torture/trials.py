"""What every kind of torture shares: trials that are counted, each with a time limit, and what became of them."""

import contextlib
import dataclasses
import pathlib
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

import hypothesis
from hypothesis import strategies

from tfrecords_builder.errors import InputError, RunError

SECONDS = 20  # of processor time that one input may take
_BATCH = 500  # inputs that Hypothesis draws at a time, at most
_FAULTS = 20  # that are told of one kind


class SilentlyWrong(AssertionError):
    """A result that differs from the right one although nothing said so."""


class Hang(BaseException):
    """An input took longer than SECONDS. Nothing that is tried catches it."""


@dataclasses.dataclass(frozen=True)
class Surface:
    """Something that reads what others wrote.

    Attributes:
        inputs: an endless stream, or one that ends; a function of a seed.
        check: reads one input. Raises SilentlyWrong, or whatever the reader raises.
        refusals: exceptions by which the reader may refuse an input.
        count: inputs of a whole run.
    """

    inputs: Callable[[int], Iterable[bytes]]
    check: Callable[[bytes], object]
    refusals: tuple[type[BaseException], ...] = (InputError, RunError)
    count: int = 5000


@dataclasses.dataclass
class Row:
    """A row of the summary: what was tried of one kind, and what failed, with how to see it again."""

    kind: str
    trials: int = 0
    refused: int = 0
    seconds: float = 0.0
    note: str = ""
    failures: list[dict[str, str]] = dataclasses.field(default_factory=list)
    outcomes: dict[str, str] = dataclasses.field(default_factory=dict)  # of limits: command -> exit codes

    @property
    def passed(self) -> int:
        """Trials that did not fail."""
        return self.trials - len(self.failures)


def draw(strategy: strategies.SearchStrategy, seed: int) -> Iterator:
    """Yields what Hypothesis draws, without end, the same for the same seed."""
    for number in range(sys.maxsize):
        settings = hypothesis.settings(
            max_examples=min(_BATCH, 20 << number),
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        yield from _draw_batch(hypothesis.seed(f"{seed}/{number}"), settings, strategy)


def _draw_batch(seeded: Callable, settings: hypothesis.settings, strategy: strategies.SearchStrategy) -> list:
    found: list = []

    @seeded
    @settings
    @hypothesis.given(strategy)
    def keep(value: object) -> None:
        found.append(value)

    keep()
    return found


def try_inputs(kind: str, surface: Surface, folder: pathlib.Path, *, seed: int, count: int, until: float) -> Row:
    """Gives a surface `count` inputs, or as many as there is time for.

    Args:
        kind: its name.
        surface: what is tried.
        folder: keeps the inputs that failed, and in `last` the one that is being tried.
        seed: of the inputs.
        count: how many, at most.
        until: the time.monotonic() at which to end.
    """
    row, start = Row(kind), time.monotonic()
    seen: set[str] = set()
    last = folder / "last"
    for data in surface.inputs(seed):
        if row.trials >= count or time.monotonic() > until:
            break
        last.write_bytes(data)
        row.trials += 1
        try:
            with at_most(SECONDS):
                surface.check(data)
        except surface.refusals as error:
            row.refused += 1
            if "\n" in str(error) and isinstance(error, InputError):
                seen.add(_record(row, folder, data, "a message of several lines", f"{error!r}", seed, seen))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever it is, it is a fault
            seen.add(_record(row, folder, data, _place(error), _shown(error), seed, seen))
    row.seconds = time.monotonic() - start
    last.unlink(missing_ok=True)
    return row


def _record(row: Row, folder: pathlib.Path, data: bytes, place: str, what: str, seed: int, seen: set[str]) -> str:
    """Keeps the first input of each place in the code at which one failed."""
    if place not in seen and len(row.failures) < _FAULTS:
        path = folder / f"fault-{len(row.failures)}"
        path.write_bytes(data)
        command = f"python -m tools.torture --only={row.kind} --seed={seed} --input={path}"
        row.failures.append({"what": what, "where": place, "command": command})
    return place


def _shown(error: BaseException) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text[:300]


def _place(error: BaseException) -> str:
    """Where in our code an error was raised: file:line of the innermost frame outside of libraries."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    frames = [frame for frame in frames if "/lib/python" not in frame.filename] or frames
    return f"{pathlib.Path(frames[-1].filename).name}:{frames[-1].lineno} {type(error).__name__}" if frames else ""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises Hang in the main thread after so many seconds of processor time, or ten times as many by the clock."""

    def stop(_: int, frame: FrameType | None) -> None:
        raise Hang(f"took longer than {seconds} s")

    timers = ((signal.ITIMER_PROF, signal.SIGPROF, seconds), (signal.ITIMER_REAL, signal.SIGALRM, 10 * seconds))
    before = {number: signal.signal(number, stop) for _, number, _ in timers}
    for timer, _, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for timer, number, _ in timers:
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def fresh(folder: pathlib.Path) -> pathlib.Path:
    """An empty folder of that name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def damaged(data: bytes, rng: random.Random, *, others: Iterable[bytes] = ()) -> bytes:
    """One to three changes at random places: bits, bytes, numbers, lengths, parts that are cut, doubled or foreign."""
    result = bytearray(data)
    foreign = [*others, data]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place = rng.randrange(len(result) + 1)
        # Headers are short and say most.
        place = min(place, rng.choice((len(result), 64, 256)))
        size = rng.choice((1, 2, 4, 8, 16, 64))
        kind = rng.randrange(8)
        if kind == 0 and place < len(result):
            result[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and place < len(result):
            result[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
        elif kind == 2:
            result[place : place + size] = rng.randbytes(size)
        elif kind == 3:
            del result[place : place + size]
        elif kind == 4:
            result[place:place] = result[place : place + size]
        elif kind == 5:
            number = rng.choice((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**31, 2**20))
            result[place : place + 4] = number.to_bytes(4, rng.choice(("big", "little")))
        elif kind == 6:
            del result[place:]
        else:
            other = rng.choice(foreign)
            start = rng.randrange(len(other) + 1)
            result[place : place + size] = other[start : start + size]
    return bytes(result)


def mutants(bases: list[bytes], seed: int) -> Iterator[bytes]:
    """Yields changed copies of the bases, in turn, without end."""
    rng = random.Random(seed)
    yield from bases
    while True:
        for base in bases:
            yield damaged(base, rng, others=bases)


def every_damage(data: bytes, seed: int) -> Iterator[bytes]:
    """One flipped bit at every byte, and the data cut before every byte."""
    rng = random.Random(seed)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << rng.randrange(8)
        yield bytes(changed)
        yield data[:place]


def sampled_damage(data: bytes, seed: int) -> Iterator[bytes]:
    """The same at places drawn at random, without end; for what is long or slow to read."""
    rng = random.Random(seed)
    while True:
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield bytes(changed)
        if rng.random() < 0.2:
            yield data[: rng.randrange(len(data))]
