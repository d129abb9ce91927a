"""What is done, unfinished or out of date: a stamp beside each output says which job made it, with which key."""

import dataclasses
import enum
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tfcxr.studies.planning import IGNORED, Job, Resolve
from tfrecords_builder import files
from tfrecords_builder.errors import InputError


class State(enum.Enum):
    """Of a job's output, before the job runs."""

    DONE = "done"
    CHANGED = "changed"  # made by an earlier definition of the study, or altered since: runs again
    UNFINISHED = "unfinished"  # the same command goes on
    MISSING = "missing"


@dataclasses.dataclass(frozen=True)
class Stamp:
    """Of one output.

    Attributes:
      study: that made it.
      key: of the job.
      started: when the job with that key first started, in seconds since the epoch.
      seconds: that it ran, over all its calls; None if it was not run by a study.
      result_digest: SHA-256 of its result.json; None while it is unfinished.
    """

    study: str
    key: str
    started: float
    seconds: float | None
    result_digest: str | None


class Stamps:
    """The stamps of a workspace, as one study sees them."""

    def __init__(self, workspace: pathlib.Path, study: str):
        self._workspace = workspace
        self._study = study

    def read(self, job: Job) -> Stamp | None:
        """The stamp of the job's output, whatever key it has. Raises InputError if it cannot be read."""
        path = self._path(job)
        if not path.exists():
            return None
        try:
            return Stamp(**files.read_json(path))
        except TypeError as error:
            raise InputError(
                f"{path}: is no stamp of this version of tfcxr; delete it with the output beside"
            ) from error

    def write(self, job: Job, *, started: float, seconds: float | None, finished: bool) -> None:
        """Stamps the output."""
        digest = self._result_digest(job) if finished else None
        stamp = Stamp(self._study, job.key, started, seconds, digest)
        files.write_json(self._path(job), dataclasses.asdict(stamp))

    def has_result(self, job: Job) -> bool:
        """Whether the output is complete."""
        return self._result(job).is_file()

    def state(self, job: Job) -> State:
        """The state of the job's output; MISSING for one that has no stamp, whatever lies there."""
        stamp = self.read(job)
        if stamp is None or not self._output(job).exists():
            return State.MISSING
        if stamp.key != job.key:
            return State.CHANGED
        if stamp.result_digest is None:
            return State.UNFINISHED
        if not self.has_result(job):
            return State.MISSING
        return State.DONE if self._result_digest(job) == stamp.result_digest else State.CHANGED

    def survey(self, jobs: Mapping[str, Job], outputs: Mapping[str, str], resolve: Resolve) -> dict[str, State]:
        """The states of all jobs (id -> job, each after those it needs); `outputs` has the paths of their outputs.

        A finished output counts as done if the job's own command made it, in a script or by hand: that is so if its
        flags.txt has the job's flags, and its result.json is newer than the stamp and than what the job needs.

        Raises InputError for an output that another study or another command made: to run would destroy its work.
        """
        states: dict[str, State] = {}
        for job in jobs.values():
            states[job.id] = self.state(job)
            if states[job.id] == State.DONE:
                continue
            needs = [jobs[need] for need in job.inputs.values()]
            if all(states[need.id] == State.DONE for need in needs) and self._was_made(job, needs, outputs, resolve):
                states[job.id] = State.DONE
            else:
                self._refuse_others(job)
        return states

    def adopt(self, job: Job) -> None:
        """Stamps an output that `survey` found done and that has no stamp of its own yet."""
        if self.state(job) != State.DONE:
            self.write(job, started=self._result(job).stat().st_mtime, seconds=None, finished=True)

    def _was_made(self, job: Job, needs: Sequence[Job], outputs: Mapping[str, str], resolve: Resolve) -> bool:
        if not self.has_result(job):
            return False
        stamp, made = self.read(job), self._result(job).stat().st_mtime
        if stamp and (made < stamp.started or self._result_digest(job) == stamp.result_digest):
            return False
        if any(self._result(need).stat().st_mtime > made for need in needs):
            return False
        try:
            values = resolve(job.kind, [f"--flagfile={self._output(job) / 'flags.txt'}"])
        except InputError:
            return False
        return _settings(values) == _settings(resolve(job.kind, job.arguments(outputs)))

    def _refuse_others(self, job: Job) -> None:
        stamp, output = self.read(job), self._output(job)
        if stamp is None and self.has_result(job):
            raise InputError(f"{output}: was made by other flags than those of {job.id}; choose another --workspace")
        if stamp and stamp.study != self._study and stamp.key != job.key and output.exists():
            raise InputError(f"{output}: was made by study {stamp.study} with other flags; choose another --workspace")

    def must_overwrite(self, job: Job) -> bool:
        """Whether the job's command needs --overwrite to run again, instead of refusing or resuming."""
        stamp = self.read(job)
        output = self._output(job)
        if stamp is None or not output.exists():
            return False
        if stamp.key != job.key or not job.trains:
            return True
        if stamp.result_digest is not None:
            return self.has_result(job)
        # A training with this key began; if it was killed before it took the folder, an older run still lies there.
        config = output / "config.json"
        return config.exists() and config.stat().st_mtime < stamp.started

    def _output(self, job: Job) -> pathlib.Path:
        return self._workspace / job.output

    def _result(self, job: Job) -> pathlib.Path:
        return self._output(job) / "result.json"

    def _path(self, job: Job) -> pathlib.Path:
        output = self._output(job)
        return output.with_name(f".{output.name}.job.json")

    def _result_digest(self, job: Job) -> str:
        return hashlib.sha256(self._result(job).read_bytes()).hexdigest()


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    return {flag: value for flag, value in values.items() if flag not in IGNORED}
