"""Which folder each job writes, and whether it is done: a stamp beside each output says which job made it.

An output that is there is never replaced by one of other flags: the new one lies beside it, and its name ends in the
first digits of its key. So two studies, or two definitions of one study, can share a workspace.
"""

import dataclasses
import enum
import pathlib
from collections.abc import Mapping, Sequence

from tfcxr.studies.planning import Graph, Job, Resolve
from tfrecords_builder import files
from tfrecords_builder.errors import InputError

_KEY_DIGITS = 6
# How keys are made: 1, of flags and paths, later of contents; 2, of contents and the flags that are not their default.
SCHEME = 2


class State(enum.Enum):
    """Of a job's output, before the job runs."""

    DONE = "done"
    CHANGED = "changed"  # altered since the job made it: runs again
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
        numerics: version of the numbers that the command makes, see `numerics`; None in stamps of before there was one.
        scheme: how the key was made, see SCHEME; older keys are of another scheme, and are not compared.
    """

    study: str
    key: str
    started: float
    seconds: float | None
    result_digest: str | None
    numerics: int | None = None
    scheme: int = 1


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
        stamp = Stamp(self._study, job.key, started, seconds, digest, job.numerics, SCHEME)
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

    def survey(self, graph: Graph, resolve: Resolve) -> tuple[Graph, dict[str, State]]:
        """Chooses the folder of each job's output, and looks what is done.

        A finished output without a stamp counts as done if the job's own command made it, in a script or by hand: that
        is so if its flags.txt has the job's flags, and its result.json is newer than what the job reads. What has a key
        of an earlier scheme is taken over in the same way, where the numbers of its kind have not changed since. One
        with the job's flags that is older than what the job reads counts as changed.

        Args:
            graph: of `planning.plan`.
            resolve: as of `planning.plan`.

        Returns:
            The graph, in which each `output` is a folder in the workspace; and the states of its jobs.

        Raises:
            InputError: neither of an output's names is free.
        """
        placed: dict[str, Job] = {}
        states: dict[str, State] = {}
        for job in graph.jobs.values():
            base = f"{placed[job.inside].output}/" if job.inside else ""
            names = [job.output, f"{job.output}-{job.key[:_KEY_DIGITS]}"]
            names += [job.former_output] if job.former_output else []
            choice = [dataclasses.replace(job, output=f"{base}{name}", inside=None) for name in names]
            needs = [placed[need] for need in job.inputs.values()]
            ready = all(states[need.id] == State.DONE for need in needs)
            outputs = {need.id: self._path_of(need) for need in needs}
            placed[job.id], states[job.id] = self._place(choice, needs if ready else None, outputs, resolve)
        return Graph(placed, graph.cells), states

    def _place(
        self, choice: Sequence[Job], needs: Sequence[Job] | None, outputs: Mapping[str, str], resolve: Resolve
    ) -> tuple[Job, State]:
        """The one of several jobs, differing in `output`, to use; `needs`: those whose output it reads, if done."""
        for job in choice:
            stamp = self.read(job)
            if stamp and stamp.key == job.key and self._output(job).exists():
                state = self.state(job)
                altered = state != State.DONE and needs is not None and self._was_made(job, needs, outputs, resolve)
                return job, State.DONE if altered else state
        for job in choice:
            if needs is not None and self._was_made(job, needs, outputs, resolve):
                return job, State.DONE
        for job in choice:
            # Of the job's own command and flags, but older than what it reads.
            if self.read(job) is None and self.has_result(job) and self._has_flags(job, outputs, resolve):
                return job, State.CHANGED
        for job in choice[:2]:
            if self._is_free(job, outputs, resolve):
                return job, State.MISSING
        raise InputError(
            f"{self._output(choice[0])} and {self._output(choice[1])}: were made by other flags than those of "
            f"{choice[0].id}; choose another --workspace"
        )

    def adopt(self, job: Job) -> None:
        """Stamps an output that `survey` found done and that has no stamp of this key yet."""
        if self.state(job) != State.DONE:
            stamp = self.read(job)
            seconds = stamp.seconds if stamp and stamp.scheme < SCHEME else None
            self.write(job, started=self._result(job).stat().st_mtime, seconds=seconds, finished=True)

    def _was_made(self, job: Job, needs: Sequence[Job], outputs: Mapping[str, str], resolve: Resolve) -> bool:
        """Whether the job's own command has finished its output, though no stamp with its key says so."""
        if not self.has_result(job):
            return False
        stamp, made = self.read(job), self._result(job).stat().st_mtime
        if stamp and stamp.scheme < SCHEME:
            if not _same_numbers(job, stamp) or self._result_digest(job) != stamp.result_digest:
                return False
        elif stamp and (made < stamp.started or self._result_digest(job) == stamp.result_digest):
            return False
        if job.newest > made or any(self._result(need).stat().st_mtime > made for need in needs):
            return False
        return self._has_flags(job, outputs, resolve)

    def _has_flags(self, job: Job, outputs: Mapping[str, str], resolve: Resolve) -> bool:
        """Whether the flags.txt in the job's output has the flags of the job."""
        own = job.arguments({**outputs, job.id: self._path_of(job)})
        try:
            found = resolve(job.kind, [f"--flagfile={self._output(job) / 'flags.txt'}"])
            return found.settings() == resolve(job.kind, own).settings()
        except InputError:
            return False

    def _is_free(self, job: Job, outputs: Mapping[str, str], resolve: Resolve) -> bool:
        """Whether the job may write its output there: nothing is there, or a training that its own command began."""
        output = self._output(job)
        if not output.exists() or (output.is_dir() and not any(output.iterdir())):
            return True
        stamp = self.read(job)
        known = stamp is None or (stamp.scheme < SCHEME and _same_numbers(job, stamp))
        return known and job.trains and not self.has_result(job) and self._has_flags(job, outputs, resolve)

    def is_beside(self, job: Job) -> bool:
        """Whether the job's output has the digits of its key in its name, since the plain name was taken."""
        return job.output.endswith(f"-{job.key[:_KEY_DIGITS]}")

    def must_overwrite(self, job: Job) -> bool:
        """Whether the job's command needs --overwrite to run again, instead of refusing or resuming."""
        stamp = self.read(job)
        if stamp is None:
            return self.has_result(job)  # `survey` chose it as changed: its own command made it
        if stamp.key != job.key or not self._output(job).exists():
            return False
        return not job.trains or self.has_result(job)

    def _output(self, job: Job) -> pathlib.Path:
        return self._workspace / job.output

    def _path_of(self, job: Job) -> str:
        return str(self._output(job))

    def _result(self, job: Job) -> pathlib.Path:
        return self._output(job) / "result.json"

    def _path(self, job: Job) -> pathlib.Path:
        output = self._output(job)
        return output.with_name(f".{output.name}.job.json")

    def _result_digest(self, job: Job) -> str:
        return files.sha256(self._result(job))


def _same_numbers(job: Job, stamp: Stamp) -> bool:
    """Whether a job's command makes the numbers that it made when an output was stamped."""
    return job.numerics == (stamp.numerics or 1)
