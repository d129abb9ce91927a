"""A study in its folder: described, emitted as a script, or run; and what it writes of itself."""

import contextlib
import dataclasses
import difflib
import importlib.metadata
import os
import pathlib
import platform
import shlex
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import tfcxr
from tfcxr.studies import job_scripts, planning, results, running
from tfcxr.studies.definition import Definition
from tfcxr.studies.planning import Graph, Job, Resolve
from tfcxr.studies.stamps import Stamps, State
from tfrecords_builder import files
from tfrecords_builder.errors import InputError, RunError

SCHEMA_VERSION = 1

# (command, its flags, those that name what other jobs have yet to make): raises InputError for flags that the command
# would refuse.
Check = Callable[[str, Sequence[str], Collection[str]], None]

_PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn", "pandas")
# What a study that was stopped at once leaves in its folder.
_OWN = ("flags.txt", "logs", files.LOCK_FILE)


class Study:
    """A planned study.

    Attributes:
        graph: its jobs and cells.
    """

    def __init__(
        self,
        definition: Definition,
        graph: Graph,
        flags: Mapping[str, Any],
        workspace: pathlib.Path,
        folder: pathlib.Path,
        resolve: Resolve,
    ):
        """Looks at what is done.

        Args:
            definition: checked.
            graph: of the definition.
            flags: that defined it, for study.json.
            workspace: where the jobs write.
            folder: the study's own.
            resolve: as of `planning.plan`.

        Raises:
            InputError: the folder holds something else.
        """
        self._definition, self._flags = definition, flags
        self._workspace, self._folder = workspace, folder
        self._stamps = Stamps(workspace, definition.name)
        self._runner: running.Runner | None = None
        _refuse_foreign(folder, definition.name)
        self.graph, self._states = self._stamps.survey(graph, resolve)
        self._outputs = {job.id: str(workspace / job.output) for job in self.graph.jobs.values()}

    def check(self, check: Check) -> None:
        """Has the commands check the flags of the jobs that are to run.

        Args:
            check: asks a command.

        Raises:
            InputError: a command would refuse them; the message names the job.
        """
        for job in self.graph.jobs.values():
            if self._states[job.id] != State.DONE:
                self._check_job(job, check)

    def _check_job(self, job: Job, check: Check) -> None:
        pending = [flag for flag, need in job.inputs.items() if self._states[need] != State.DONE]
        places = {**self._outputs, **{job.inputs[flag]: "." for flag in pending}}
        try:
            check(job.kind, [*job.arguments(places), *self._overwrite(job)], pending)
        except InputError as error:
            raise InputError(f"{job.id}: {error}") from error

    def describe(self) -> str:
        """The plan: each job with its state and command, and the time that it will take."""
        lines = []
        for job in self.graph.jobs.values():
            shown = shlex.join([job.kind, *job.arguments(self._outputs), *self._overwrite(job)])
            lines.append(f"{self._states[job.id].value:10} {job.id}\n           tfcxr {shown}")
            if self._states[job.id] == State.MISSING and self._stamps.is_beside(job):
                lines.append(f"           (written to {job.output}, beside what other flags made)")
        counts = {state: list(self._states.values()).count(state) for state in State}
        summary = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)
        lines.append(f"\n{len(self.graph.jobs)} jobs: {summary}; {len(self.graph.cells)} cells. {self._estimate()}")
        return "\n".join(lines)

    def emit(self, backend: str, flags: Sequence[str], options: Mapping[str, str]) -> str:
        """The jobs as a script.

        Args:
            backend: shell or slurm.
            flags: those of `tfcxr study`.
            options: kind of job, or `table` -> options of sbatch.
        """
        folder = str(pathlib.Path.cwd())
        if backend == "slurm":
            jobs = [job for job in self.graph.jobs.values() if self._states[job.id] != State.DONE]
            logs = str(self._folder / "logs")
            return job_scripts.emit_slurm(jobs, self._definition.name, folder, logs, flags, options)

        def line(job: Job) -> list[str]:
            changed = self._states[job.id] == State.CHANGED
            result = "" if changed else f"{self._outputs[job.id]}/result.json"
            return [result, job.kind, *job.arguments(self._outputs), *self._overwrite(job)]

        return job_scripts.emit_shell(self.graph, self._definition.name, folder, line, shlex.join(flags))

    @contextlib.contextmanager
    def opened(self, if_running: str = "refuse") -> Iterator[int]:
        """Makes and locks the study's folder, see `running.lock`; yields what the jobs inherit of the lock."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--output_dir={self._folder}: cannot be made ({error.strerror})") from error
        with files.naming_failures(self._folder, "--output_dir"), running.lock(self._folder, if_running) as handle:
            yield handle

    def run(self, parallel: int, lock_handle: int, *, collect: bool = False) -> None:
        """Runs the jobs that are not done, or with `collect` none; writes the results, and prints the table."""
        start = time.monotonic()
        (self._folder / "result.json").unlink(missing_ok=True)
        self._runner = self._make_runner(self.graph.jobs, self._write)
        done = sum(state == State.DONE for state in self._states.values())
        plan = "Only what is done is collected." if collect else self._estimate()
        print(f"{len(self.graph.jobs)} jobs, {done} done before. {plan}", flush=True)
        try:
            if not collect:
                self._runner.run(parallel, lock_handle)
        finally:
            filled = self._write()
        self._finish(filled, time.monotonic() - start)

    def run_only(self, name: str, check: Check) -> None:
        """Runs one job, whose needs have to be finished; writes its log and its stamp, but nothing of the study.

        Other jobs of the study may run at the same time, on other machines, too.

        Args:
            name: id of the job.
            check: as of `check`.

        Raises:
            InputError: there is no such job, it runs already, or its command would refuse its flags.
            RunError: what it needs is not finished, or it failed.
        """
        job = self.graph.jobs.get(name)
        if job is None:
            near = difflib.get_close_matches(name, self.graph.jobs, 1)
            hint = f"did you mean {near[0]}?" if near else "--dry_run lists the jobs"
            raise InputError(f"--only={name[:100]}: the study has no such job; {hint}")
        if self._states[name] == State.DONE:
            print(f"{name}: done before", flush=True)
            return
        missing = [need for need in dict.fromkeys(job.inputs.values()) if self._states[need] != State.DONE]
        if missing:
            told = ", ".join(f"{need} ({self._states[need].value})" for need in missing)
            raise RunError(f"{name}: needs what is not finished: {told}; run that first")
        self._check_job(job, check)
        with contextlib.ExitStack() as stack:
            log = running.log_path(self._folder, job)
            with files.naming_failures(self._folder, "--output_dir"):
                log.parent.mkdir(parents=True, exist_ok=True)
                try:
                    handle = stack.enter_context(files.lock(log.with_suffix(".lock"), temporary=True))
                except files.InUse as error:
                    raise InputError(f"--only={name}: another call is running this job; wait for it") from error
            needed = {need: self.graph.jobs[need] for need in job.inputs.values()}
            runner = self._make_runner({**needed, name: job}, lambda: None)
            runner.run(1, handle)
        outcome = runner.outcomes[name]
        if outcome.status != running.DONE:
            raise RunError(f"{name}: {outcome.error}; log: {log}")

    def _make_runner(self, jobs: Mapping[str, Job], on_change: Callable[[], object]) -> running.Runner:
        """A runner, for which jobs that were found done have their stamps."""
        for job in jobs.values():
            if self._states[job.id] == State.DONE:
                self._stamps.adopt(job)

        def command(job: Job, overwrite: bool) -> list[str]:
            return planning.command(job, self._outputs, *(["--overwrite"] if overwrite else []))

        return running.Runner(jobs, self._stamps, self._folder, command=command, on_change=on_change)

    def failed(self) -> list[str]:
        """Ids of the jobs that are not done."""
        outcomes = self._runner.outcomes if self._runner else {}
        return [job for job, outcome in outcomes.items() if outcome.status != running.DONE]

    def _overwrite(self, job: Job) -> list[str]:
        needed = self._states[job.id] != State.DONE and self._stamps.must_overwrite(job)
        return ["--overwrite"] if needed else []

    def _estimate(self) -> str:
        """How long the jobs that are not done will take, by the mean of the finished ones of their kind."""
        known: dict[str, list[float]] = {}
        for job in self.graph.jobs.values():
            stamp = self._stamps.read(job)
            if self._states[job.id] == State.DONE and stamp and stamp.seconds is not None:
                known.setdefault(job.kind, []).append(stamp.seconds)
        left = [job.kind for job in self.graph.jobs.values() if self._states[job.id] != State.DONE]
        if not left:
            return "Nothing to run."
        minutes = sum(statistics.mean(known[kind]) for kind in left if kind in known) / 60
        unknown = sorted({kind for kind in left if kind not in known})
        if unknown:
            said = f"at least {minutes:.1f} minutes" if minutes else "unknown"
            return f"Expected time: {said}; no {', '.join(unknown)} of this study has finished yet."
        return (
            f"Expected time: {minutes:.1f} minutes one after another, as long as the finished jobs of each kind took."
        )

    def _write(self) -> list[results.Filled]:
        """study.json, results.csv and results.md as things stand; returns the cells."""
        state = self._describe_state()
        files.write_json(self._folder / "study.json", state)
        filled = results.read(state, self._workspace)
        self._write_results(filled, {})
        return filled

    def _write_results(self, filled: Sequence[results.Filled], intervals: results.Intervals) -> None:
        table = self._definition.table
        files.write_text(self._folder / "results.csv", results.to_csv(filled, table, intervals))
        files.write_text(self._folder / "results.md", results.to_markdown(filled, table, intervals) + "\n")

    def _describe_state(self) -> dict[str, Any]:
        """What study.json holds. A cell's `result` is None until its training and its evaluation are done."""
        assert self._runner is not None
        outcomes = self._runner.outcomes
        cells = []
        for cell, training, evaluation in self.graph.cells:
            done = outcomes[training].status == outcomes[evaluation].status == running.DONE
            cells.append(
                {
                    "table": self._definition.table,
                    **dataclasses.asdict(cell),
                    "train_job": training,
                    "job": evaluation,
                    "result": f"{self.graph.jobs[evaluation].output}/result.json" if done else None,
                }
            )
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self._definition.name,
            "question": self._definition.question,
            "table": self._definition.table,
            "machine": _describe_machine(),
            "versions": {"tfcxr": tfcxr.__version__, "python": platform.python_version(), **_find_versions()},
            "definition": dict(self._flags),
            "jobs": [self._describe_job(job, outcomes[job.id]) for job in self.graph.jobs.values()],
            "cells": cells,
        }

    def _describe_job(self, job: Job, outcome: running.Outcome) -> dict[str, Any]:
        log = running.log_path(self._folder, job)
        return {
            "id": job.id,
            "kind": job.kind,
            "command": ["tfcxr", job.kind, *job.arguments(self._outputs)],
            "depends_on": list(dict.fromkeys(job.inputs.values())),
            "output": job.output,
            "key": job.key,
            **dataclasses.asdict(outcome),
            "log": os.path.relpath(log, self._workspace) if log.exists() else None,
        }

    def _finish(self, filled: Sequence[results.Filled], seconds: float) -> None:
        """Adds what needs all results: intervals, result.json, the report; prints the table."""
        assert self._runner is not None
        # TensorFlow takes seconds to import; the jobs did not need it here.
        from tfcxr.studies import differences, study_report, tensorboard_layout

        compared, notes = differences.compare(results.group(filled), self._workspace)
        intervals = {cell: row.accuracy.ci95 for cell, row in compared.items()}
        self._write_results(filled, intervals)
        print(f"\n{results.to_markdown(filled, self._definition.table, intervals)}\n", flush=True)
        outcomes = self._runner.outcomes
        counts = {status: sum(each.status == status for each in outcomes.values()) for status in running.STATUSES}
        files.write_json(
            self._folder / "result.json",
            {"schema_version": SCHEMA_VERSION, "jobs": counts, "seconds": round(seconds, 1)},
        )
        for job in self.graph.jobs.values():
            if job.kind == "label-stats" and outcomes[job.id].status == running.DONE:
                print(f"Label counts: {self._outputs[job.id]}/report.html")
        if (self._workspace / "runs").is_dir():
            tensorboard_layout.write(self._workspace / "runs")
        page = study_report.write(self._folder, self._workspace, (compared, notes))
        print(f"Results: {self._folder}/results.csv, results.md, study.json ({seconds / 60:.1f} minutes)")
        print(f"Report: {page}, report.md")
        print(f"Curves, samples, HParams: tensorboard --logdir={self._workspace / 'runs'}", flush=True)


def _refuse_foreign(folder: pathlib.Path, name: str) -> None:
    """Raises InputError if the folder is that of another study, or no study's."""
    if (folder / "study.json").is_file():
        other = files.read_json(folder / "study.json").get("name")
        if other != name:
            raise InputError(f"--output_dir={folder}: holds study {other}, not {name}; choose another folder")
    elif folder.exists() and (not folder.is_dir() or any(p.name not in _OWN for p in folder.iterdir())):
        raise InputError(f"--output_dir={folder}: holds something else than a study; choose another folder")


def _describe_machine() -> dict[str, Any]:
    processor = platform.processor()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), processor)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "processor": processor,
        "platform": platform.platform(),
    }


def _find_versions() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in _PACKAGES}
