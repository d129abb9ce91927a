"""Commands whose machine fails them: no space, no right to write, no memory, no file handles, a clock that goes back,
another process in the same folder, and SIGINT or SIGTERM twice.

Each must end with an exit code that says so and one line, without a traceback; and the same command, given again on a
machine that is well, must end as if nothing had been.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tools.torture import programs
from tools.torture.programs import Case
from tools.torture.trials import Row

_CODES = (0, 1, 2, 130, 143)
# TensorFlow's C++ ends the process where it can start no thread or take no memory, with a line of its own; no program
# can catch that. So does the C library where a library cannot be loaded.
_OF_LIBRARIES = (-signal.SIGABRT, -signal.SIGSEGV, 127)
_NOBODY = 65534
_DAY = 86400.0
_MIB = 2**20
# These are not tried on commands that end at once.
_OF_LONG = ("limit_two", "limit_sigint", "limit_sigterm", "limit_clock")
_LONG = ("build-records", "generate", "train-gan", "train-baseline", "train-dcan", "pretrain", "study")


@dataclasses.dataclass(frozen=True)
class Machine:
    """One trial: a command, where it works, and what it leaves when nobody disturbs it.

    Attributes:
        case: the command.
        folder: holds what it reads, and `out`.
        log: gets its output.
        rng: of the moments and sizes.
    """

    case: Case
    folder: pathlib.Path
    log: pathlib.Path
    rng: random.Random

    @functools.cached_property
    def _undisturbed(self) -> dict[str, Any]:
        """Lets the command end undisturbed, once for all limits."""
        noted = self.folder / f"undisturbed-{self.case.name}.json"
        if not noted.exists():
            out = programs.clear(self.folder)
            began = time.monotonic()
            programs.finish(self.case, self.log.with_suffix(".undisturbed"))
            lasts = time.monotonic() - began
            size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
            right = programs.snapshot(out, self.folder / "right.json")
            noted.write_text(json.dumps({"right": right, "lasts": lasts, "size": size}))
            programs.clear(self.folder)
        return json.loads(noted.read_text())

    @property
    def right(self) -> dict[str, str]:
        """What the command leaves (programs.snapshot)."""
        return self._undisturbed["right"]

    @property
    def lasts(self) -> float:
        """How long it takes, in seconds by the clock."""
        return self._undisturbed["lasts"]

    @property
    def size(self) -> int:
        """Of what it leaves, in bytes."""
        return self._undisturbed["size"]

    def run(self, before: Callable[[], object] = lambda: None) -> int | None:
        """Runs the command; returns its exit code."""
        return programs.wait(programs.start(self.case.kind, self.case.arguments, self.log, before))


def full_disk(on: Machine) -> list[int | None]:
    """The output's disk is too small for it, and larger when the command is given again."""
    size = max(4096, int(on.size * on.rng.uniform(0.05, 0.9)))
    shutil.rmtree(on.folder / "out")
    with _disk(on.folder / "out", f"size={size}"):
        code = on.run()
        _mount("-o", "remount,size=1g", str(on.folder / "out"))
        _check_again(on, code)
    return [code]


def read_only(on: Machine) -> list[int | None]:
    """The output's disk takes no writing."""
    shutil.rmtree(on.folder / "out")
    with _disk(on.folder / "out", "ro"):
        code = on.run()
        _mount("-o", "remount,rw", str(on.folder / "out"))
        _check_again(on, code)
    return [code]


def no_permission(on: Machine) -> list[int | None]:
    """The user may not write there."""
    out = programs.clear(on.folder)
    out.chmod(0o555)

    def become_nobody() -> None:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)

    code = on.run(become_nobody)
    out.chmod(0o755)
    _check_again(on, code)
    return [code]


def few_files(on: Machine) -> list[int | None]:
    """Few files may be open at a time."""
    programs.clear(on.folder)
    few = sum(1 for _ in pathlib.Path("/proc/self/fd").iterdir()) + on.rng.choice((2, 6, 12, 24))
    code = on.run(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (few, few)))
    _check_again(on, code)
    return [code]


def little_memory(on: Machine) -> list[int | None]:
    """Little memory may be taken beyond what the imported program has."""
    programs.clear(on.folder)
    more = on.rng.choice((8, 64, 256, 512)) * _MIB

    def take() -> None:
        # OpenBLAS waits for ever for its first buffer where there is no memory for it.
        np.linalg.inv(np.eye(128))
        size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + more, size + more))

    code = on.run(take)
    _check_again(on, code)
    return [code]


def clock(on: Machine) -> list[int | None]:
    """The clock goes back a day in the middle."""
    after = on.rng.uniform(0, on.lasts)
    programs.clear(on.folder)
    began, now = time.monotonic(), time.time

    def set_clock() -> None:
        time.time = lambda: now() - (_DAY if time.monotonic() - began > after else 0)

    code = on.run(set_clock)
    if code != 0:
        raise RuntimeError(f"ended with {code}")
    _check_again(on, code)
    return [code]


def two(on: Machine) -> list[int | None]:
    """Another process begins the same."""
    pause = on.rng.uniform(0.1, 0.7) * on.lasts
    programs.clear(on.folder)
    first = programs.start(on.case.kind, on.case.arguments, on.log)
    early = programs.wait(first, pause, kill=False)
    second = on.run()
    code = programs.wait(first) if early is None else early
    if 0 not in (code, second):
        raise RuntimeError(f"neither of two ended well: {code}, {second}")
    _check_again(on, 0)
    return [code, second]


def sigint(on: Machine) -> list[int | None]:
    """Ctrl-C twice."""
    return _signal_twice(on, signal.SIGINT)


def sigterm(on: Machine) -> list[int | None]:
    """The same as a system that shuts down says it."""
    return _signal_twice(on, signal.SIGTERM)


def _signal_twice(on: Machine, number: int) -> list[int | None]:
    pause = on.rng.uniform(0.1, 1.0) * on.lasts
    programs.clear(on.folder)
    process = programs.start(on.case.kind, on.case.arguments, on.log)
    code = programs.wait(process, pause, kill=False)
    if code is None:
        for pause in (on.rng.choice((0.0, 0.2, 1.0)), 0.0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
            time.sleep(pause)
        code = programs.wait(process)
    _check_again(on, code)
    return [code]


_LIMITS = {
    "limit_full_disk": full_disk, "limit_read_only": read_only, "limit_no_permission": no_permission,
    "limit_few_files": few_files, "limit_little_memory": little_memory, "limit_clock": clock, "limit_two": two,
    "limit_sigint": sigint, "limit_sigterm": sigterm,
}  # fmt: skip
SHARES = dict.fromkeys(_LIMITS, 4.0)


def run(
    kind: str,
    scratch: pathlib.Path,
    kept: pathlib.Path,
    *,
    seed: int,
    count: int | None,
    until: float,
    commands: Sequence[str] = (),
) -> Row:
    """Tries one limit with each command; arguments as of kills.run.

    `commands` are the names of some cases. What the cases read, and what they leave undisturbed, is made once for all
    limits that have the same `scratch`.
    """
    row, start = Row(kind), time.monotonic()
    if kind in ("limit_full_disk", "limit_read_only", "limit_no_permission") and os.geteuid():
        row.note = "not tried: only root can mount small disks and be another user"
        return row
    folder = scratch / "limits"
    known = programs.cases(folder)
    names = _LONG if kind in _OF_LONG else tuple(known)
    names = tuple(name for name in names if not commands or name in commands)[:count]
    programs.prepare(folder, [known[name] for name in names])
    for name in names:
        if time.monotonic() > until:
            break
        log = scratch / f"{name}.log"
        log.unlink(missing_ok=True)
        row.trials += 1
        try:
            machine = Machine(known[name], folder, log, random.Random(f"{seed}/{kind}/{name}"))
            row.outcomes[name], wrong = _try(kind, machine)
        except RuntimeError as error:
            row.outcomes[name], wrong = "failed", [str(error)]
        if wrong:
            (kept / log.name).write_bytes(log.read_bytes() if log.exists() else b"")
            command = f"python -m tools.torture --only={kind} --seed={seed} --commands={name}"
            row.failures.append({"what": f"{name}: {'; '.join(wrong)[:500]}", "where": "", "command": command})
    row.seconds = time.monotonic() - start
    return row


def _try(kind: str, machine: Machine) -> tuple[str, list[str]]:
    """Tries a limit with a case: exit codes, and what is wrong."""
    programs.clear(machine.folder)
    codes = _LIMITS[kind](machine)
    said = machine.log.read_text(errors="replace")
    allowed = (*_CODES, *_OF_LIBRARIES) if kind == "limit_little_memory" else _CODES
    wrong = [f"exit code {code}" for code in codes if code not in allowed]
    if "Traceback (most recent call last)" in said:
        wrong.append("a traceback: " + said.rstrip().splitlines()[-1][:200])
    failed = sum(code in (1, 2) for code in codes)
    if len(re.findall(r"^error: ", said, re.MULTILINE)) < failed:
        wrong.append("no line says why")
    return ", ".join(map(str, codes)), wrong


def _check_again(on: Machine, code: int | None) -> None:
    """Gives the command again, if it has not ended well, and compares. Raises RuntimeError.

    One that has left nothing at all begins as if it had never been given; that is what is compared with.
    """
    if code != 0 and not any((on.folder / "out").iterdir()):
        return
    if code != 0:
        programs.finish(on.case, on.log.with_suffix(".again"))
    found = programs.snapshot(on.folder / "out", on.folder / "found.json")
    if wrong := programs.differences(found, on.right):
        raise RuntimeError(f"after {code}: {'; '.join(wrong)}")


@contextlib.contextmanager
def _disk(folder: pathlib.Path, options: str):
    """A disk of its own, in memory."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
