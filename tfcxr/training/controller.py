"""Drives a training from where its run folder stands to its end.

The task says what a step, an evaluation and a checkpoint are; the controller says when: how many steps at once,
evaluations, checkpoints and the best weights they need, TensorBoard, early stopping, signals, and that several workers
agree on all of these. (The division of labour is that of Orbit, github.com/tensorflow/models.)
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

import tensorflow as tf

from tfcxr.training import checkpoints, event_files, runs, strategies
from tfrecords_builder import progress
from tfrecords_builder.errors import InputError, RunError

# A stop by a signal waits for the steps under way: about so many seconds, however long a step takes.
_SECONDS_PER_CALL = 2.0
# Several workers, each with its own clock, must make the same steps between two looks at the signals.
_STEPS_PER_CALL_OF_WORKERS = 16


@dataclasses.dataclass(frozen=True)
class Every:
    """Positions at which something is due.

    Attributes:
        interval: between them; 0: never.
        origin: the position from which they are counted.
    """

    interval: int
    origin: int = 0

    def after(self, position: int) -> float:
        """The first one after `position`; infinity if there is none."""
        if not self.interval:
            return math.inf
        return self.origin + ((position - self.origin) // self.interval + 1) * self.interval

    def within(self, before: int, position: int) -> bool:
        """Whether one lies after `before`, up to and including `position`."""
        return self.after(before) <= position


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A part of a training that is done with one function, ready to run.

    Attributes:
        run: the most steps to do -> how many were done, the same in all workers; moves the task's position on.
        end: the position at which it ends, if a step ends there, else after it.
        per_step: how far a step moves the position.
        evaluations, checkpoints: when due.
        saves_evaluations: whether a checkpoint follows each evaluation.
        reports_end: whether its end has an evaluation and a checkpoint, whether due or not.
    """

    run: Callable[[int], int]
    end: int
    per_step: int
    evaluations: Every
    checkpoints: Every
    saves_evaluations: bool
    reports_end: bool


class Task(Protocol):
    """A training, as the controller sees it."""

    @property
    def position(self) -> int:
        """How far it has come, in the unit of its schedule: steps, or images shown."""

    def next_stretch(self) -> Stretch:
        """What is to do at the position, which is not the end."""

    def check(self) -> None:
        """Raises RunError if it has diverged: asked before each evaluation and each checkpoint."""

    def evaluate(self) -> None:
        """Measures, tells, keeps the weights if they are the best, and then writes the history that says so."""

    def out_of_patience(self) -> bool:
        """Whether to stop early; what one worker says holds for all."""


class BestWeights(Protocol):
    """Weights kept as best, by the step of their evaluation."""

    def steps(self) -> list[int]:
        """Those that there are."""

    def remove(self, step: int) -> None:
        """Deletes those of one step."""


class Controller:
    """Drives one training in a run folder.

    Best weights stay until no checkpoint that is kept needs them. So a run that goes on from any of its checkpoints
    finds the weights which were the best there, whatever the killed program has written since.

    Attributes:
        restored: whether a checkpoint was restored.
        writer: TensorBoard's, open; the default one while training.
    """

    def __init__(
        self,
        run: runs.RunFolder,
        checkpoint: tf.train.Checkpoint,
        step: tf.Variable,
        *,
        strategy: tf.distribute.Strategy,
        best: BestWeights | None = None,
        writes: bool = True,
    ):
        """Restores the newest checkpoint that can be read; TensorBoard forgets what came after it.

        Args:
            run: open run folder.
            checkpoint: everything that changes while training.
            step: int64 scalar in `checkpoint`, steps done; numbers checkpoints and best weights.
            strategy: whose workers must have found the same checkpoint.
            best: where the task keeps its best weights.
            writes: whether this worker writes at all.

        Raises:
            RunError: there are checkpoints, but none that can be read, or each worker found another one.
        """
        self._run, self._step, self._strategy, self._best = run, step, strategy, best
        self._chief = strategies.is_chief(strategy)
        _ = checkpoint.save_counter  # a variable, which workers that share theirs must make at the same point
        try:
            self.restored = checkpoints.restore_newest(run.checkpoints, checkpoint, whole=True) is not None
        except InputError as error:
            raise RunError(f"--run_dir={error}; start again with --overwrite") from error
        if run.resumed and not self.restored and self._chief:
            logging.warning("%s: holds no checkpoint; the training begins at step 0", run.checkpoints)
        if not strategies.all_same(strategy, self.step):
            raise RunError(f"--run_dir={run.path}: the workers do not see the same checkpoints there")
        self._checkpoints: checkpoints.Writer | None = None
        self.writer = tf.summary.create_noop_writer()
        with strategies.together(strategy):
            if writes:
                self._checkpoints = checkpoints.Writer(checkpoint, run.checkpoints)
                event_files.forget_after(run.tensorboard, self._last_kept)
                self.writer = tf.summary.create_file_writer(str(run.tensorboard))

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self._step.numpy())

    @property
    def _last_kept(self) -> int:
        """The last step that will not be done again; -1 if even the evaluation before the first will."""
        return self.step if self.restored else -1

    def train(self, task: Task, *, total: int, description: str, unit: str, evaluate_first: bool = False) -> None:
        """Trains to the end, or until patience is at an end.

        Args:
            task: its history on disk already ends where the restored checkpoint stands.
            total: the position at the end.
            description, unit: of the progress bar.
            evaluate_first: whether to evaluate before the first step.

        Raises:
            RunError: the training has diverged, a checkpoint cannot be written, or another worker was stopped.
            Interrupted: a signal asked to stop; the state has been saved.
        """
        if self._best:
            for step in self._best.steps():
                if step > self._last_kept:
                    self._best.remove(step)
        if self.restored and self._chief:
            print(f"resumed at {task.position} of {total} {unit}", flush=True)
        with (
            runs.StopSignals() as stop,
            progress.progress(total, description, unit, initial=task.position) as bar,
            self.writer.as_default(),
        ):
            if evaluate_first and not task.position:
                task.evaluate()
            while task.position < total and not self._is_over(task):
                self._run_stretch(task, task.next_stretch(), stop, bar)
        self.writer.close()
        if task.position < total and self._chief:
            print(
                f"stopped early at {task.position} of {total} {unit}: the last evaluations, as many as --patience "
                "allows, were not better than the best",
                flush=True,
            )

    def _run_stretch(self, task: Task, stretch: Stretch, stop: runs.StopSignals, bar: progress.Progress) -> None:
        several = strategies.num_workers(self._strategy) > 1
        pace = _STEPS_PER_CALL_OF_WORKERS if several else 1
        while (before := task.position) < stretch.end:
            goal = min(stretch.end, stretch.evaluations.after(before), stretch.checkpoints.after(before))
            began = time.monotonic()
            count = stretch.run(min(pace, math.ceil((goal - before) / stretch.per_step)))
            bar.update(count * stretch.per_step)
            if not several:
                pace = _next_pace(pace, count, time.monotonic() - began)
            position = task.position
            ended = stretch.reports_end and position >= stretch.end
            evaluates = ended or stretch.evaluations.within(before, position)
            if evaluates:
                task.check()
                task.evaluate()
            stopping = strategies.any_of(self._strategy, stop.requested)
            over = self._is_over(task)
            saves = stretch.checkpoints.within(before, position) or (evaluates and stretch.saves_evaluations)
            if saves or ended or stopping or over:
                self._save(task)
            if stopping:
                stop.raise_if_requested()
                raise RunError("another worker was stopped; the same commands resume")
            if over:
                return

    def _is_over(self, task: Task) -> bool:
        return strategies.any_of(self._strategy, task.out_of_patience())

    def _save(self, task: Task) -> None:
        task.check()
        if self._checkpoints is None:
            return
        self._checkpoints.save(self.step)
        if self._best:
            there = self._best.steps()
            needed = {max((s for s in there if s <= kept), default=None) for kept in self._checkpoints.steps()}
            for step in set(there) - needed:
                self._best.remove(step)


def _next_pace(pace: int, count: int, seconds: float) -> int:
    """Steps of the next call, after one of `count` steps; grows slowly from 1, because the first call also traces."""
    return int(min(max(count * _SECONDS_PER_CALL / max(seconds, 1e-6), 1), 2 * pace))
