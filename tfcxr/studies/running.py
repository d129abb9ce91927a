"""Runs the jobs of a graph that are not done, each in a process of its own, several at a time."""

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from tfcxr.studies.planning import Job
from tfcxr.studies.stamps import Stamps, State
from tfcxr.training import runs
from tfrecords_builder import files
from tfrecords_builder.errors import InputError, Interrupted

STATUSES = DONE, FAILED, BLOCKED, MISSING = "done", "failed", "blocked", "missing"

_POLL_SECONDS = 0.1
_SHOW_SECONDS = 30.0
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a job stands: `status` is done, failed, blocked (what it needs failed) or missing (not run yet).

    `seconds` are those of all its calls, None if unknown; `error` is one line.
    """

    status: str
    seconds: float | None = None
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class _Running:
    job: Job
    process: subprocess.Popen
    began: float  # of this call, monotonic
    started: float  # of the first call with this key, seconds since the epoch
    before: float  # seconds of earlier calls
    log_start: int  # where this call's lines begin in the log


@contextlib.contextmanager
def lock(folder: pathlib.Path, if_running: str = "refuse") -> Iterator[int]:
    """Holds the study's folder; yields a descriptor for the jobs to inherit, so that they hold it too.

    A study that is killed outright leaves the folder locked until its last job has stopped.

    Args:
        folder: of the study.
        if_running: what to do if it is held: "refuse"; "wait" until it is free; or "stop": ask the processes that hold
            it to stop, and wait.

    Raises:
        InputError: it is held, and is not to be waited for, or by no process of this machine that could be stopped.
    """
    path = folder / files.LOCK_FILE
    asked = False
    with contextlib.ExitStack() as stack:
        while True:
            try:
                handle = stack.enter_context(files.lock(path))
                break
            except files.InUse as error:
                held = files.holders(path)
                named = "; ".join(f"process {number}: {command[:100]}" for number, command in held.items())
                if if_running == "refuse" or (if_running == "stop" and not held and not asked):
                    raise InputError(
                        f"--output_dir={folder}: another call is running this study, or a job of one that was killed "
                        f"is still saving ({named or 'on another machine'}); --if_running=wait waits for it, "
                        "--if_running=stop stops it"
                    ) from error
            if not asked:
                asked = True
                print(
                    f"{'stopping' if if_running == 'stop' else 'waiting for'} {named or 'another machine'}", flush=True
                )
                for number in held if if_running == "stop" else ():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(number, signal.SIGTERM)
            time.sleep(_POLL_SECONDS)
        yield handle


def log_path(folder: pathlib.Path, job: Job) -> pathlib.Path:
    """Where the output of the job's calls is appended."""
    return folder / "logs" / f"{job.id}.log"


class Runner:
    """Runs jobs; make one per call.

    Attributes:
        outcomes: job id -> Outcome, of all jobs, kept up to date.
    """

    def __init__(
        self,
        jobs: Mapping[str, Job],
        stamps: Stamps,
        folder: pathlib.Path,
        *,
        command: Callable[[Job, bool], Sequence[str]],
        on_change: Callable[[], object] = lambda: None,
        say: Callable[[str], None] = print,
    ):
        """Looks at what is done.

        Args:
            jobs: id -> job, each after those it needs.
            stamps: of the workspace.
            folder: of the study; gets the logs.
            command: gives a job's command, and whether with --overwrite.
            on_change: called when the outcome of a job has changed.
            say: prints a line.
        """
        self._jobs, self._stamps, self._folder = jobs, stamps, folder
        self._command, self._on_change, self._say = command, on_change, say
        # Of each job, how many of the longest chain of jobs that wait for it, one for another.
        self._behind = dict.fromkeys(jobs, 0)
        for job in reversed(list(jobs.values())):
            for need in job.inputs.values():
                self._behind[need] = max(self._behind[need], self._behind[job.id] + 1)
        self.outcomes = {job.id: self._found(job) for job in jobs.values()}

    def run(self, parallel: int, lock_handle: int | None = None) -> None:
        """Runs what is not done, at most `parallel` jobs at a time; failures do not stop jobs that can do without.

        SIGINT and SIGTERM are passed on to the running jobs, and Interrupted is raised when these have stopped.
        """
        waiting = [job for job in self._jobs.values() if self.outcomes[job.id].status != DONE]
        running: list[_Running] = []
        self._count = len(waiting)
        self._number = 0
        shown = time.monotonic()
        with runs.StopSignals() as stop:
            try:
                while waiting or running:
                    for each in [each for each in running if each.process.poll() is not None]:
                        running.remove(each)
                        self._finish(each)
                    self._block(waiting)
                    stop.raise_if_requested("stopped by a signal; the same command goes on")
                    while len(running) < parallel and (job := self._next(waiting)):
                        waiting.remove(job)
                        running.append(self._start(job, lock_handle))
                    if time.monotonic() - shown > _SHOW_SECONDS:
                        shown = time.monotonic()
                        self._show(running)
                    time.sleep(_POLL_SECONDS)
            except Interrupted as error:
                self._stop(running, error.exit_code - 128)
                raise
            finally:
                for each in running:
                    if each.process.poll() is None:
                        each.process.kill()

    def _found(self, job: Job) -> Outcome:
        stamp = self._stamps.read(job)
        if stamp and self._stamps.state(job) == State.DONE:
            return Outcome(DONE, stamp.seconds)
        return Outcome(MISSING)

    def _block(self, waiting: list[Job]) -> None:
        """Takes out of `waiting` what cannot run any more."""
        for job in list(waiting):
            broken = [need for need in job.inputs.values() if self.outcomes[need].status in (FAILED, BLOCKED)]
            if broken:
                waiting.remove(job)
                cause = self.outcomes[broken[0]]
                reason = cause.error if cause.status == BLOCKED else f"{broken[0]} failed: {cause.error}"
                self._set(job, Outcome(BLOCKED, error=reason))

    def _next(self, waiting: Sequence[Job]) -> Job | None:
        """Of the jobs whose needs are done, the first with the longest chain behind it: the study ends no sooner."""
        ready = [job for job in waiting if all(self.outcomes[need].status == DONE for need in job.inputs.values())]
        return max(ready, key=lambda job: self._behind[job.id], default=None)

    def _start(self, job: Job, lock_handle: int | None) -> _Running:
        overwrite = self._stamps.must_overwrite(job)
        command = self._command(job, overwrite)
        stamp = self._stamps.read(job)
        same = stamp is not None and stamp.key == job.key and stamp.result_digest is None
        started = stamp.started if stamp and same else time.time()
        before = (stamp.seconds or 0.0) if stamp and same else 0.0
        self._stamps.write(job, started=started, seconds=before, finished=False)
        log = log_path(self._folder, job)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            stream.write(f"$ {shlex.join(command)}\n".encode())
            stream.flush()
            log_start = stream.tell()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C of the terminal reaches the job through us only
                pass_fds=() if lock_handle is None else (lock_handle,),
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self._number += 1
        self._say(
            f"[{self._number}/{self._count}] {job.id}: started{' again' if overwrite or same else ''}; log: {log}"
        )
        return _Running(job, process, time.monotonic(), started, before, log_start)

    def _finish(self, each: _Running) -> None:
        job, code = each.job, each.process.returncode
        call_seconds = time.monotonic() - each.began
        seconds = round(each.before + call_seconds, 1)
        finished = code == 0 and self._stamps.has_result(job)
        self._stamps.write(job, started=each.started, seconds=seconds, finished=finished)
        if finished:
            self._say(f"    {job.id}: done in {call_seconds:.0f} s")
            self._set(job, Outcome(DONE, seconds))
            return
        error = self._last_line(each, errors=True) if code else "it ended without a result.json"
        error = error or f"ended with exit code {code} and no message"
        self._say(f"    {job.id}: FAILED after {call_seconds:.0f} s: {error}")
        self._set(job, Outcome(FAILED, seconds, error))

    def _set(self, job: Job, outcome: Outcome) -> None:
        self.outcomes[job.id] = outcome
        self._on_change()

    def _stop(self, running: Sequence[_Running], number: int) -> None:
        for each in running:
            each.process.send_signal(number)
        if running:
            self._say(f"stopping; waiting for {', '.join(each.job.id for each in running)} to save")
        for each in running:
            code = each.process.wait()
            seconds = round(each.before + time.monotonic() - each.began, 1)
            finished = code == 0 and self._stamps.has_result(each.job)
            self._stamps.write(each.job, started=each.started, seconds=seconds, finished=finished)
            self.outcomes[each.job.id] = Outcome(DONE if finished else MISSING, seconds)
        self._on_change()

    def _show(self, running: Sequence[_Running]) -> None:
        for each in running:
            self._say(f"    {each.job.id}, {time.monotonic() - each.began:.0f} s: {self._last_line(each)}")

    def _last_line(self, each: _Running, *, errors: bool = False) -> str:
        """The last line that this call printed; with `errors` rather the last one that begins with `error:`."""
        with log_path(self._folder, each.job).open("rb") as stream:
            stream.seek(max(each.log_start, os.fstat(stream.fileno()).st_size - 20_000))
            text = stream.read().decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        named = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return (named if errors and named else lines or [""])[-1]


def _die_with_parent() -> None:
    """In the child: if the study is killed outright, its jobs are asked to stop instead of running on unseen."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)
