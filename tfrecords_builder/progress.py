"""Progress: a bar on a terminal, a plain line every few seconds otherwise."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import tqdm


class Progress(Protocol):
    """What `progress` yields."""

    def update(self, n: int = 1) -> object:
        """Counts `n` more units as done."""


class _Lines:
    def __init__(self, total: int, description: str, unit: str, interval: float, initial: int):
        self._total, self._description, self._unit, self._interval = total, description, unit, interval
        self._done = self._start = initial
        self._began = self._printed = time.monotonic()

    def update(self, n: int = 1) -> None:
        self._done += n
        if time.monotonic() - self._printed >= self._interval:
            self.print()

    def print(self) -> None:
        self._printed = time.monotonic()
        rate = (self._done - self._start) / max(self._printed - self._began, 1e-9)
        left = f", {(self._total - self._done) / rate:.0f} s left" if rate and self._done < self._total else ""
        count = f"{self._done}/{self._total}" if self._total else f"{self._done}"
        print(
            f"{self._description}: {count} {self._unit} ({rate:.3g}/s{left})",
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def progress(
    total: int, description: str, unit: str = "images", *, interval: float = 10.0, initial: int = 0
) -> Iterator[Progress]:
    """Yields an object with `update(n)`.

    `total` is 0 if unknown; `initial` is what an earlier run did; `interval` is the seconds between plain lines.
    """
    if sys.stderr.isatty():
        with tqdm.tqdm(total=total or None, desc=description, unit=unit, initial=initial, dynamic_ncols=True) as bar:
            yield bar
    else:
        lines = _Lines(total, description, unit, interval, initial)
        yield lines
        lines.print()
