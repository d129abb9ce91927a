"""Commands that are killed outright at random moments, and begun again until they end.

What they leave must then be what they leave when nobody disturbs them: the same weights, records, events of TensorBoard
and figures, and no other file.
"""

import dataclasses
import os
import pathlib
import random
import re
import shutil
import signal
import time
from collections.abc import Mapping

from tools.torture import programs
from tools.torture.trials import Row, fresh

# Kind of trial -> share of the time.
SHARES = {
    "kill_build-records": 2.0,
    "kill_generate": 3.0,
    "kill_train-gan": 7.0,
    "kill_train-baseline": 7.0,
    "kill_train-dcan": 7.0,
    "kill_pretrain": 7.0,
    "kill_study": 10.0,
}
_TRIALS = {"kill_build-records": 12, "kill_generate": 12, "kill_study": 3}  # of those that take less or more time
_USUAL = 6
_KILLS = 2  # in a trial, at most
_STOPPED = re.compile(r".*/checkpoints/(ckpt-\d+\.index is left|checkpoint differs)")


def run(kind: str, scratch: pathlib.Path, kept: pathlib.Path, *, seed: int, count: int | None, until: float) -> Row:
    """Runs the trials of one kind.

    Args:
        kind: one of SHARES.
        scratch: an empty folder to work in.
        kept: a folder for the logs and outputs of trials that fail, and the undisturbed output.
        seed: of the moments.
        count: trials, at most; None: as many as are meant.
        until: the time.monotonic() after which none begins.
    """
    row, start = Row(kind), time.monotonic()
    folder = fresh(scratch / "w")
    case = programs.cases(folder)[kind.removeprefix("kill_")]
    programs.prepare(folder, [case])
    out = programs.clear(folder)
    began = time.monotonic()
    programs.finish(case, scratch / "undisturbed.log")
    lasts = time.monotonic() - began
    right = programs.snapshot(out, scratch / "right.json")
    shutil.copytree(out, scratch / "undisturbed", symlinks=True)
    kills = 0
    for number in range(_TRIALS.get(kind, _USUAL) if count is None else count):
        if time.monotonic() > until:
            break
        log = scratch / f"trial-{number}.log"
        programs.clear(folder)
        row.trials += 1
        try:
            killed, ended = _disturb(case, log, random.Random(f"{seed}/{kind}/{number}"), lasts)
            kills += killed
            if not ended:
                # A study that was killed alone may have left a job.
                more = ("--if_running=wait",) if case.kind == "study" else ()
                programs.finish(dataclasses.replace(case, arguments=(*case.arguments, *more)), log)
            wrong = _differences(case, programs.snapshot(out, scratch / "found.json"), right)
        except RuntimeError as error:
            wrong = [str(error)]
            if "is not empty; choose another folder" in str(error):  # it was killed when all was done
                wrong = _differences(case, programs.snapshot(out, scratch / "found.json"), right)
        if wrong:
            (kept / log.name).write_bytes(log.read_bytes())
            shutil.copytree(out, kept / f"trial-{number}", symlinks=True)
            shutil.copytree(scratch / "undisturbed", kept / "undisturbed", symlinks=True, dirs_exist_ok=True)
            command = f"python -m tools.torture --only={kind} --seed={seed} --trials={number + 1}"
            row.failures.append({"what": f"trial {number}: {'; '.join(wrong)[:500]}", "where": "", "command": command})
    row.seconds = time.monotonic() - start
    row.note = f"{kills} kills"
    return row


def _differences(case: programs.Case, found: Mapping[str, str], right: Mapping[str, str]) -> list[str]:
    """As programs.differences.

    The jobs of a study that was killed alone are asked to stop: a training then saves where it is, and when it has gone
    on to its end, that is the checkpoint before its last, of which an undisturbed one has none.
    """
    wrong = programs.differences(found, right)
    return [each for each in wrong if case.kind != "study" or not _STOPPED.fullmatch(each)]


def _disturb(case: programs.Case, log: pathlib.Path, rng: random.Random, lasts: float) -> tuple[int, bool]:
    """Begins a command up to _KILLS times and kills it each time; returns the kills, and whether it ended before one.

    `lasts`: seconds that it takes when nobody disturbs it.
    """
    kills = 0
    for _ in range(rng.randint(1, _KILLS)):
        study = case.kind == "study"
        # A study that is killed alone leaves jobs, whose end the next call waits for.
        arguments = (*case.arguments, "--if_running=wait") if study else case.arguments
        process = programs.start(case.kind, arguments, log)
        code = programs.wait(process, rng.uniform(0.05, 1.0) * lasts, kill=False)
        if code is not None:
            if code:
                said = " ".join(log.read_text(errors="replace").split())[-300:]
                raise RuntimeError(f"begun again after {kills} kills, it ended with {code}: {said}")
            return kills, True
        if study and rng.random() < 0.5:
            os.kill(process, signal.SIGKILL)
        else:
            os.killpg(process, signal.SIGKILL)
        kills += programs.wait(process) == -signal.SIGKILL
    return kills, False
