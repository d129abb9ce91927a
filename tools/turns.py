"""Worker processes that take a step when told to, so that of several being compared only one computes at a time.

Standard library only: the Python of a worker may have none of the packages that tfcxr needs.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tfrecords_builder.errors import RunError

_ROOT = pathlib.Path(__file__).parents[1]


def serve(make: Callable[[], Callable[[], Mapping[str, float]]]) -> None:
    """The worker's side: takes a step for every line of standard input, until that ends.

    Args:
        make: prepares the work and returns what does one step and returns its losses.
    """
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not a reply
    step = make()
    replies.write("{}\n")
    for _ in sys.stdin:
        start, cpu_start = time.perf_counter(), time.process_time()
        losses = {name: float(value) for name, value in step().items()}
        reply = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu_start}
        replies.write(json.dumps({**reply, "peak_mib": _peak_mib(), "losses": losses}) + "\n")


class Worker:
    """A process that has called `serve`; usable in a with statement, which ends it."""

    def __init__(self, python: str, code: str):
        """Starts it and waits until it is ready.

        Args:
            python: executable.
            code: Python that calls `serve`; it runs in the root of the repository.

        Raises:
            RunError: it ended; the message is the end of what it wrote to standard error.
        """
        self._process: Any = subprocess.Popen(
            [python, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )
        self._answer()

    def step(self) -> dict[str, Any]:
        """Takes a step: {"seconds", "cpu_seconds" (of all threads), "peak_mib" (so far), "losses"}."""
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return self._answer()

    def __enter__(self) -> "Worker":
        """Itself."""
        return self

    def __exit__(self, *_) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            raise RunError(errors.strip()[-2000:] or "a worker ended without a word")
        return json.loads(line)


def _peak_mib() -> float:
    """Peak resident memory of this process; that of getrusage may be its parent's."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) / 1024
