"""The training loop that baseline and adaptation share: phases, evaluation, best weights, checkpoints, exact resume."""

import contextlib
import dataclasses
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcxr import data, metrics
from tfcxr.classifiers import inference, loading
from tfcxr.classifiers.networks import models
from tfcxr.training import runs, strategies
from tfrecords_builder import files
from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.images import pictures
from tfrecords_builder.progress import progress

HISTORY = "history.json"

# A stop by a signal waits for the steps under way: so many seconds at most, whatever a step takes.
_SECONDS_PER_CALL = 3.0
_MOST_STEPS_PER_CALL = 100
# Several workers, each with its own clock, must make the same steps between two looks at the signals.
_STEPS_PER_CALL_OF_WORKERS = 16


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training with one optimizer.

    Attributes:
      name: for messages.
      steps: number of steps.
      eval_every: steps between evaluations; the end of a phase is one as well.
      stream: first step of the phase still to do, and the devices -> endless dataset of its batches, see
        strategies.distribute.
      step: batch -> scalar tensors by name (`log_names`); changes the weights.
      log_names: what `step` returns.
      optimizer: its state belongs to the checkpoint.
      layers: trained besides the classifier's own; they belong to the checkpoint, not to the best weights.
    """

    name: str
    steps: int
    eval_every: int
    stream: Callable[[int, tf.distribute.InputContext], tf.data.Dataset]
    step: Callable[[Mapping[str, tf.Tensor]], Mapping[str, tf.Tensor]]
    log_names: Sequence[str]
    optimizer: tf.Module
    layers: Sequence[tf.keras.layers.Layer] = ()


def has_checkpoint(run_dir: str) -> bool:
    """Whether a run folder has a checkpoint to resume from."""
    return tf.train.latest_checkpoint(str(pathlib.Path(run_dir) / "checkpoints")) is not None


class _Mean(tf.Module):
    """A running mean that all devices hold alike, so that reading it takes no exchange between them."""

    def __init__(self) -> None:
        super().__init__()
        self.total = tf.Variable(0.0, trainable=False)
        self.count = tf.Variable(0.0, trainable=False)

    def add(self, value: tf.Tensor) -> None:
        self.total.assign_add(value)
        self.count.assign_add(1.0)

    def value(self) -> float:
        """0 before the first."""
        return float(self.total.numpy() / max(self.count.numpy(), 1.0))

    def reset(self) -> None:
        self.total.assign(0.0)
        self.count.assign(0.0)


class Trainer:
    """Runs phases in a run folder.

    After each evaluation a row goes to history.json and TensorBoard (there also the share of the steps' time that was
    spent waiting for data), and the weights are kept as best if the row's criterion is the highest so far. A checkpoint
    holds weights, optimizers, step and running means; it is written after each evaluation, every `checkpoint_steps`
    steps, and when a signal asks to stop.

    Made in the scope of a strategy, as the classifier and the optimizers must be too, it gives each device its share of
    every batch; means and gradients are those over all devices. Of several workers each does all of this in a run
    folder of its own, see `open_run`: evaluations and checkpoints read statistics of BatchNorm, which are means over
    all of them.
    """

    def __init__(
        self,
        run: runs.RunFolder,
        classifier: models.Classifier,
        phases: Sequence[Phase],
        *,
        evaluate: Callable[[], dict[str, float | None]],
        select: str,
        checkpoint_steps: int,
        patience: int = 0,
        describe: Callable[[dict[str, Any]], str] = str,
    ):
        """Restores the latest checkpoint, if the run has one.

        Args:
          run: open run folder.
          classifier: with its first weights.
          phases: in order.
          evaluate: returns numbers by name; those called `select/<criterion>` choose weights, higher is better.
          select: the criterion that chooses.
          checkpoint_steps: steps between checkpoints, besides those at evaluations; 0 for none.
          patience: evaluations of the last phase without a better one before it stops; 0 for never.
          describe: history row -> line to print.
        """
        self._strategy = tf.distribute.get_strategy()
        self.run, self.classifier, self.phases = run, classifier, [phase for phase in phases if phase.steps]
        self._evaluate, self._select, self._describe = evaluate, f"select/{select}", describe
        self._checkpoint_steps, self._patience = checkpoint_steps, patience
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._means = [{name: _Mean() for name in phase.log_names} for phase in self.phases]
        checkpoint = tf.train.Checkpoint(
            classifier=classifier,
            step=self._step,
            optimizers=[phase.optimizer for phase in self.phases],
            layers=[list(phase.layers) for phase in self.phases],
            means=[list(means.values()) for means in self._means],
        )
        self._manager = tf.train.CheckpointManager(checkpoint, str(run.checkpoints), max_to_keep=2)
        if self._manager.latest_checkpoint:
            checkpoint.restore(self._manager.latest_checkpoint).assert_existing_objects_matched()
        if not strategies.all_same(self._strategy, self.step):
            raise RunError(f"--run_dir={run.path}: the workers do not see the same checkpoints there")
        # Rows beyond the checkpoint are of steps that will be done again.
        self.history = [row for row in _read_history(run.path) if row["step"] <= self.step]

    @property
    def step(self) -> int:
        """Steps done in all phases."""
        return int(self._step.numpy())

    @property
    def best(self) -> dict[str, Any] | None:
        """The history row whose weights are kept; the first of equals."""
        rows = [row for row in self.history if row.get(self._select) is not None]
        return max(rows, key=lambda row: row[self._select]) if rows else None

    def fit(self) -> None:
        """Trains to the end.

        Raises:
          RunError: a loss is not finite; the last checkpoint is from before.
          Interrupted: a signal asked to stop; the state has been saved.
        """
        total = sum(phase.steps for phase in self.phases)
        if self.step:
            print(f"resumed at step {self.step} of {total}", flush=True)
        writer = tf.summary.create_file_writer(str(self.run.tensorboard))
        with (
            runs.StopSignals() as stop,
            progress(total, "train", "steps", initial=self.step) as bar,
            writer.as_default(),
        ):
            first = 0
            for number, phase in enumerate(self.phases):
                if self.step < first + phase.steps and not self._out_of_patience(number):
                    self._run_phase(number, first, stop, bar)
                first += phase.steps
        writer.close()

    def _run_phase(self, number: int, first: int, stop: runs.StopSignals, bar) -> None:
        phase, means = self.phases[number], self._means[number]
        done = self.step - first
        iterator = iter(strategies.distribute(self._strategy, lambda context: phase.stream(done, context)))

        def step(batch):
            logs = phase.step(batch)
            return tf.stack([logs[name] for name in means])

        @tf.function
        def run_steps(iterator, count):
            waited = tf.constant(0.0, tf.float64)
            for _ in tf.range(count):
                start = tf.timestamp()
                with tf.control_dependencies([start]):
                    batch = next(iterator)
                with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                    waited += tf.timestamp() - start
                logs = self._strategy.reduce("MEAN", self._strategy.run(step, (batch,)), axis=None)
                for mean, value in zip(means.values(), tf.unstack(logs), strict=True):
                    mean.add(value)
            return waited

        several = strategies.num_workers(self._strategy) > 1
        per_call, epoch_start, busy, waited = 1, time.monotonic(), 0.0, 0.0
        while (done := self.step - first) < phase.steps:
            stops = [phase.steps, (done // phase.eval_every + 1) * phase.eval_every]
            if self._checkpoint_steps:
                stops.append((done // self._checkpoint_steps + 1) * self._checkpoint_steps)
            count = min(_STEPS_PER_CALL_OF_WORKERS if several else per_call, min(stops) - done)
            before = time.monotonic()
            waited += float(_guarded(run_steps, iterator, tf.constant(count)))
            seconds = time.monotonic() - before
            busy += seconds
            self._step.assign_add(count)
            bar.update(count)
            done += count
            # Grows slowly from 1, because the first call also traces.
            per_call = int(np.clip(count * _SECONDS_PER_CALL / max(seconds, 1e-6), 1, 2 * per_call))
            per_call = min(per_call, _MOST_STEPS_PER_CALL)
            if done % phase.eval_every == 0 or done == phase.steps:
                self._check_finite(means)
                self._log(number, means, time.monotonic() - epoch_start, waited / busy)
                self._save(means)
                epoch_start, busy, waited = time.monotonic(), 0.0, 0.0
                if self._out_of_patience(number):
                    print(f"stopped early: no better {self._select} for {self._patience} evaluations", flush=True)
                    return
            elif self._checkpoint_steps and done % self._checkpoint_steps == 0:
                self._save(means)
            if strategies.any_of(self._strategy, stop.requested):
                self._save(means)
                stop.raise_if_requested()
                raise RunError("another worker was stopped; the same commands resume")

    def _out_of_patience(self, number: int) -> bool:
        """Whether the last phase has gone on too long without a better row."""
        if not self._patience or number != len(self.phases) - 1 or not self.history:
            return False
        rows = [row for row in self.history if row["phase"] == self.phases[number].name]
        best = self.best
        over = best is not None and sum(row["step"] > best["step"] for row in rows) >= self._patience
        return strategies.any_of(self._strategy, over)

    def _check_finite(self, means: Mapping[str, _Mean]) -> None:
        bad = [name for name, mean in means.items() if not math.isfinite(mean.value())]
        # The last update may have spoilt them after the losses were taken.
        if not bad and not all(bool(tf.reduce_all(tf.math.is_finite(w))) for w in self.classifier.weights):
            bad = ["a weight"]
        self._refuse(bad)

    def _refuse(self, bad: Sequence[str]) -> None:
        """Ends the training if any value, of which these are the names, is not finite."""
        if not bad:
            return
        kept = "the last good checkpoint is kept" if self._manager.latest_checkpoint else "there is no checkpoint yet"
        raise RunError(
            f"training diverged: {', '.join(bad)} {'is' if len(bad) == 1 else 'are'} not finite before step "
            f"{self.step}; {kept}; try a smaller --learning_rate"
        )

    def _log(self, number: int, means: Mapping[str, _Mean], seconds: float, waiting: float) -> None:
        row: dict[str, Any] = {"step": self.step, "phase": self.phases[number].name}
        row |= {f"train/{name}": mean.value() for name, mean in means.items()}
        row["learning_rate"] = float(self.phases[number].optimizer.rate)
        row |= self._evaluate()
        # Finite weights may still give features that overflow.
        self._refuse([name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)])
        for name, value in row.items():
            if isinstance(value, float):
                tf.summary.scalar(name, value, step=self.step)
        # Not of the history, which is the same however fast the machine is.
        tf.summary.scalar("speed/waiting_for_data", waiting, step=self.step)
        tf.summary.flush()
        earlier = self.best
        self.history.append(row)
        value = row.get(self._select)
        better = value is not None and (earlier is None or value > earlier[self._select])
        # Machines may round differently; writing weights takes all workers.
        if strategies.any_of(self._strategy, better):
            models.save_weights(self.classifier, self.run.path / loading.WEIGHTS)
        files.write_json(self.run.path / HISTORY, self.history)
        for mean in means.values():
            mean.reset()
        print(f"{self._describe(row)} ({seconds:.0f} s; waiting for data {waiting:.1%})", flush=True)

    def _save(self, means: Mapping[str, _Mean]) -> None:
        self._check_finite(means)
        self._manager.save(checkpoint_number=self.step)


@contextlib.contextmanager
def open_run(
    strategy: tf.distribute.Strategy, path: str | os.PathLike, *, overwrite: bool, **described: Any
) -> Iterator[runs.RunFolder]:
    """Opens a run, as runs.RunFolder.open with these arguments does, in the first worker; in others a copy of it.

    What fails in one worker ends the others.
    """
    with contextlib.ExitStack() as stack:
        chief = strategies.is_chief(strategy)
        with strategies.together(strategy):
            if chief:
                run = stack.enter_context(runs.RunFolder.open(path, overwrite=overwrite, **described))
        # The others look at the folder only when the first has made it, and it goes on when they have looked.
        with strategies.together(strategy):
            if not chief:
                run = stack.enter_context(runs.RunFolder.joined(path, **described).copied())
        yield run
        strategies.any_of(strategy, False)  # waits for the others, who depend on the first


def check_classes(record_set: data.RecordSet, *, flag: str, split: str, every_class: bool = True) -> np.ndarray:
    """Images of each class in a split, int64 [K].

    Raises:
      InputError: no classes (multilabel), no such split, no image, or (`every_class`) none of some class.
    """
    if record_set.num_classes < 2:
        raise InputError(f"{flag}={record_set.path}: label version {record_set.info.label_version} has no classes")
    if record_set.num_examples(split) == 0:
        raise InputError(f"{flag}={record_set.path}: the {split} split has no image")
    counts = np.bincount(record_set.labels(split)["class"], minlength=record_set.num_classes)
    for name, count in zip(record_set.info.classes, counts, strict=True):
        if count == 0 and every_class:
            raise InputError(f"{flag}={record_set.path}: the {split} split has no image of class {name}")
        if count == 0:
            print(
                f"warning: {flag}: the {split} split has no image of class {name}; its recall is left out", flush=True
            )
    return counts


def check_pictures(a: data.RecordSet, b: data.RecordSet, *, flags: tuple[str, str]) -> None:
    """Raises InputError if the images of two sets were made from their files in different ways.

    A network would learn that difference instead of one between patients. Synthetic sets are taken as they are: nobody
    resized their images.
    """
    for name, of_a, of_b in pictures.find_differences(a.info, b.info):
        raise InputError(
            f"{flags[1]}={b.path}: was built with --{name}={of_b}, {flags[0]}={a.path} with --{name}={of_a}; "
            "build both alike"
        )


def note_resolution(record_set: data.RecordSet, image_size: int, flag: str) -> None:
    """Says so if the network's input is larger than the stored images."""
    if record_set.info.resolution < image_size:
        print(f"note: {flag}: images of {record_set.info.resolution} px are enlarged to {image_size} px", flush=True)


def recalls_by_name(outputs: inference.Outputs, classes: Sequence[str], prefix: str) -> dict[str, float | None]:
    """{"<prefix>/recall/<class>": recall, or None for a class without an image}."""
    recalls = metrics.recalls(outputs.labels, outputs.predictions, len(classes))
    return {f"{prefix}/recall/{name}": metrics.finite(recall) for name, recall in zip(classes, recalls, strict=True)}


def _read_history(path: pathlib.Path) -> list[dict[str, Any]]:
    return files.read_json(path / HISTORY) if (path / HISTORY).exists() else []


def _guarded(function: Callable, *arguments):
    """Calls; damaged records met on the way are a RunError."""
    with data.naming_damage("records"):
        return function(*arguments)
