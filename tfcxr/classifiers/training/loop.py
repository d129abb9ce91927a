"""The training that all of classifiers and encoders share: phases, their steps, a history row at each evaluation."""

import contextlib
import dataclasses
import functools
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcxr import data, metrics
from tfcxr.classifiers import choices, inference, loading
from tfcxr.classifiers.networks import models
from tfcxr.classifiers.training import best_weights
from tfcxr.training import checkpoints, controller, digests, early_stop, runs, strategies
from tfrecords_builder import files
from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.images import pictures

_REMEDY = "put back a copy of it, or start again with --overwrite"
_REDUCTION = 0.1  # of the learning rate, where the criterion has become no better for a while


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
        prepare: does a part of what is needed before the first step in this process, and says whether there is more to
            do; the same number of parts in all workers.
        layers: trained besides the classifier's own; they belong to the checkpoint, not to the best weights.
    """

    name: str
    steps: int
    eval_every: int
    stream: Callable[[int, tf.distribute.InputContext], tf.data.Dataset]
    step: Callable[[Mapping[str, tf.Tensor]], Mapping[str, tf.Tensor]]
    log_names: Sequence[str]
    optimizer: tf.Module
    prepare: Callable[[], bool] | None = None
    layers: Sequence[tf.keras.layers.Layer] = ()


def has_checkpoint(run_dir: str) -> bool:
    """Whether a run folder has a checkpoint to resume from."""
    return bool(checkpoints.available(pathlib.Path(run_dir) / "checkpoints"))


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
    """Runs phases in a run folder, driven by training.controller.

    After each evaluation a row goes to history.json and TensorBoard (there also the share of the steps' time that was
    spent waiting for data), and the weights are kept as best if the row's criterion is the highest so far. A checkpoint
    holds weights, optimizers, step and running means; it is written after each evaluation, every `checkpoint_steps`
    steps, and when a signal asks to stop.

    Made in the scope of a strategy, as the classifier and the optimizers must be too, it gives each device its share of
    every batch; means and gradients are those over all devices. Of several workers each does all of this in a run
    folder of its own, see `open_run`: evaluations and checkpoints read statistics of BatchNorm, which are means over
    all of them.

    Attributes:
        run, classifier, phases: as given, without phases of no step.
        history: rows of history.json.
    """

    def __init__(
        self,
        run: runs.RunFolder,
        classifier: models.Encoder,
        phases: Sequence[Phase],
        *,
        evaluate: Callable[[], dict[str, float | None]],
        select: str,
        checkpoint_steps: int,
        records: str,
        patience: int = 0,
        plateau_patience: int = 0,
        describe: Callable[[dict[str, Any]], str] = str,
    ):
        """Restores the newest checkpoint that can be read, if the run has one.

        Args:
            run: open run folder.
            classifier: with its first weights; or an encoder alone.
            phases: in order.
            evaluate: returns numbers by name; those called `select/<criterion>` choose weights, higher is better.
            select: the criterion that chooses.
            checkpoint_steps: steps between checkpoints, besides those at evaluations; 0 for none.
            records: the record sets that are read, for the message about damaged ones.
            patience: evaluations of the last phase without a better one before it stops; 0 for never.
            plateau_patience: evaluations of the last phase without a better one before its learning rate is multiplied
                by 0.1, and again after as many more; 0 for never. Its optimizer must have a `scale`.
            describe: history row -> line to print.

        Raises:
            RunError: no checkpoint can be read, the history or the best weights are damaged, or the workers see
                different checkpoints.
        """
        self._strategy = tf.distribute.get_strategy()
        self.run, self.classifier, self.phases = run, classifier, [phase for phase in phases if phase.steps]
        self._measure, self._select, self._describe = evaluate, f"select/{select}", describe
        self._checkpoint_steps, self._records = checkpoint_steps, records
        self._patience, self._plateau_patience = patience, plateau_patience
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._means = [{name: _Mean() for name in phase.log_names} for phase in self.phases]
        checkpoint = tf.train.Checkpoint(
            classifier=classifier,
            step=self._step,
            optimizers=[phase.optimizer for phase in self.phases],
            layers=[list(phase.layers) for phase in self.phases],
            means=[list(means.values()) for means in self._means],
        )
        self._weights = best_weights.BestWeights(run, classifier)
        self._controller = controller.Controller(
            run, checkpoint, self._step, strategy=self._strategy, best=self._weights
        )
        self._restore_history()
        self._clear_clock()

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
            RunError: a loss is not finite (the last checkpoint is from before), or the machine cannot go on.
            Interrupted: a signal asked to stop; the state has been saved.
        """
        total = sum(phase.steps for phase in self.phases)
        with strategies.naming_lost_workers(self._strategy):
            self._controller.train(self, total=total, description="train", unit="steps")

    def finish(self, result: Mapping[str, Any]) -> None:
        """Finishes the run; `result` is what result.json shall hold."""
        self.run.finish(result)
        self._weights.settle()

    # What the controller asks, see controller.Task.

    @property
    def position(self) -> int:
        """Steps done."""
        return self.step

    def next_stretch(self) -> controller.Stretch:
        """The phase of the next step."""
        return self._make_stretch(*self._place(self.step))

    def check(self) -> None:
        """Raises RunError if a loss or a weight is not finite."""
        number, _ = self._place(self.step - 1)
        bad = [name for name, mean in self._means[number].items() if not math.isfinite(mean.value())]
        # The last update may have spoilt them after the losses were taken.
        if not bad and not all(bool(tf.reduce_all(tf.math.is_finite(w))) for w in self.classifier.weights):
            bad = ["a weight"]
        self._refuse(bad)

    def evaluate(self) -> None:
        """Makes a row, keeps the weights if it is the best, and writes the history."""
        number, _ = self._place(self.step - 1)
        phase, means = self.phases[number], self._means[number]
        row: dict[str, Any] = {"step": self.step, "phase": phase.name}
        row |= {f"train/{name}": mean.value() for name, mean in means.items()}
        row["learning_rate"] = float(phase.optimizer.rate)
        seconds, waiting = time.monotonic() - self._began, self._waited / self._busy
        row |= self._measure()
        # Finite weights may still give features that overflow.
        self._refuse([name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)])
        for name, value in row.items():
            if isinstance(value, float):
                tf.summary.scalar(name, value, step=self.step)
        # Not of the history, which is the same however fast the machine is.
        tf.summary.scalar("speed/waiting_for_data", waiting, step=self.step)
        tf.summary.flush()
        self.history.append(row)
        better = self._look(row)
        # Machines may round differently; writing weights takes all workers.
        if strategies.any_of(self._strategy, better):
            self._weights.save(self.step)
        if strategies.any_of(self._strategy, self._reduces):
            phase.optimizer.scale.assign(phase.optimizer.scale * _REDUCTION)
        files.write_json(self.run.path / loading.HISTORY, self.history)
        for mean in means.values():
            mean.reset()
        print(f"{self._describe(row)} ({seconds:.0f} s; waiting for data {waiting:.1%})", flush=True)
        self._clear_clock()

    def out_of_patience(self) -> bool:
        """Whether the last phase has gone on too long without a better row."""
        return self._phase_looked_at == self.phases[-1].name and self._early_stop.is_due(self.step)

    def _restore_history(self) -> None:
        """Reads it up to the restored checkpoint: later rows are of steps that will be done again.

        Raises RunError if a row, or the weights that were the best so far, are gone or damaged: what is best at the end
        would be another.
        """
        path = self.run.path / loading.HISTORY
        try:
            there = files.read_json(path) if path.exists() else []
            self.history = [row for row in there if row["step"] <= self.step]
            known = {row["step"] for row in self.history if isinstance(row.get(self._select), int | float | None)}
        except (InputError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"{path}: is damaged; {_REMEDY}") from error
        if missing := sorted(self._evaluated_steps() - known):
            raise RunError(f"{path}: lacks {len(missing)} evaluations, such as that of step {missing[0]}; {_REMEDY}")
        self._check_best()
        if len(self.history) < len(there):
            files.write_json(path, self.history)
        self._early_stop = early_stop.EarlyStop(self._select, self._patience, maximize=True)
        self._plateau = early_stop.EarlyStop(self._select, self._plateau_patience, maximize=True)
        self._phase_looked_at: str | None = None
        self._reduces = False
        for row in self.history:
            self._look(row)

    def _evaluated_steps(self) -> set[int]:
        """The steps, up to the present one, at which there was an evaluation."""
        found, first = set(), 0
        for phase in self.phases:
            end = first + phase.steps
            found |= {*range(first + phase.eval_every, end, phase.eval_every), end}
            first = end
        return {step for step in found if step <= self.step}

    def _check_best(self) -> None:
        if not self.best:
            return
        step = self.best["step"]
        weights = loading.weights_by_step(self.run.path)
        kept = weights.get(step, weights.get(0))  # earlier versions named none by step
        if kept is None:
            path = loading.weights_of_step(self.run.path, step)
            raise RunError(f"{path}: is gone, the best weights so far; {_REMEDY}")
        try:
            digests.check_hdf5(kept)
        except InputError as error:
            raise RunError(f"{kept}: is damaged, the best weights so far; {_REMEDY}") from error

    def _look(self, row: Mapping[str, Any]) -> bool:
        """Takes a row for early stopping and for reductions of the learning rate; whether it is the best so far."""
        if row["phase"] != self._phase_looked_at:
            # Patience counts rows of one phase, though the best may be of an earlier one.
            self._phase_looked_at, self._early_stop.stale, self._plateau.stale = row["phase"], 0, 0
        self._plateau.look(row.get(self._select), row["step"])
        self._reduces = self._plateau.is_due(row["step"]) and row["phase"] == self.phases[-1].name
        if self._reduces:
            self._plateau.stale = 0
        return self._early_stop.look(row.get(self._select), row["step"])

    def _place(self, step: int) -> tuple[int, int]:
        """The number of the phase of the step after `step` ones, and the steps before that phase."""
        ends = np.cumsum([phase.steps for phase in self.phases])
        number = int(np.searchsorted(ends, step, side="right"))
        return number, int(ends[number]) - self.phases[number].steps

    def _make_stretch(self, number: int, first: int) -> controller.Stretch:
        phase, means = self.phases[number], self._means[number]
        done = self.step - first

        @tf.autograph.experimental.do_not_convert  # or a second or two before the first step go into reading sources
        def step(batch):
            logs = phase.step(batch)
            return tf.stack([logs[name] for name in means])

        def clock() -> tf.Tensor:
            # With --deterministic TensorFlow refuses tf.timestamp.
            return tf.ensure_shape(tf.numpy_function(time.monotonic, [], tf.float64), [])

        @tf.function
        def run_steps(iterator, count):
            waited = tf.constant(0.0, tf.float64)
            for _ in tf.range(count):
                start = clock()
                with tf.control_dependencies([start]):
                    batch = next(iterator)
                with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                    waited += clock() - start
                logs = self._strategy.reduce("MEAN", self._strategy.run(step, (batch,)), axis=None)
                for mean, value in zip(means.values(), tf.unstack(logs), strict=True):
                    mean.add(value)
            return waited

        @functools.cache
        def batches():
            return iter(strategies.distribute(self._strategy, lambda context: phase.stream(done, context)))

        prepare = phase.prepare

        def run(most: int) -> int:
            nonlocal prepare
            if prepare:
                with data.naming_damage(self._records):
                    prepare = prepare if prepare() else None
                return 0  # signals are looked at between two parts
            before = time.monotonic()
            with data.naming_damage(self._records):
                self._waited += float(run_steps(batches(), tf.constant(most)))
            self._busy += time.monotonic() - before
            self._step.assign_add(most)
            return most

        self._clear_clock()
        return controller.Stretch(
            run=run,
            end=first + phase.steps,
            per_step=1,
            evaluations=controller.Every(phase.eval_every, first),
            checkpoints=controller.Every(self._checkpoint_steps, first),
            saves_evaluations=True,
            reports_end=True,
        )

    def _clear_clock(self) -> None:
        """Time since the last evaluation begins anew."""
        self._began, self._busy, self._waited = time.monotonic(), 0.0, 0.0

    def _refuse(self, bad: Sequence[str]) -> None:
        """Ends the training if any value, of which these are the names, is not finite."""
        if not bad:
            return
        there = checkpoints.available(self.run.checkpoints)
        kept = "the last good checkpoint is kept" if there else "there is no checkpoint yet"
        raise RunError(
            f"training diverged: {', '.join(bad)} {'is' if len(bad) == 1 else 'are'} not finite before step "
            f"{self.step}; {kept}; try a smaller --learning_rate"
        )


def check_first_weights(settings: Any, run_dir: str, *, overwrite: bool) -> None:
    """Raises InputError if weights from which a new run is to start are not there.

    Args:
        settings: `backbone`, `weights` and `init_from`, see loading.initialise.
        run_dir: a run that goes on there has its own weights.
        overwrite: whether an earlier run there is replaced.
    """
    if not settings.init_from and is_fresh(run_dir, overwrite=overwrite):
        choices.find_weights(settings.backbone, settings.weights)


def is_fresh(run_dir: str, *, overwrite: bool) -> bool:
    """Whether a call with this run folder begins with the first weights."""
    return overwrite or not has_checkpoint(run_dir)


@contextlib.contextmanager
def started(
    strategy: tf.distribute.Strategy,
    make: Callable[[bool], Any],
    run_dir: str,
    *,
    overwrite: bool,
    **described: Any,
) -> Iterator[tuple[Any, runs.RunFolder]]:
    """Makes a training under a strategy and opens its run.

    Args:
        strategy: devices and workers that share it.
        make: the training, with a `run_config`; told whether to load first weights.
        run_dir: its folder.
        overwrite: whether an earlier run there is replaced.
        **described: kind and records_digests, as of runs.RunFolder.open.
    """
    with strategies.naming_lost_workers(strategy), strategy.scope():
        training = make(is_fresh(run_dir, overwrite=overwrite))
        with open_run(strategy, run_dir, config=training.run_config(), overwrite=overwrite, **described) as run:
            yield training, run


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


def check_classes(
    record_set: data.RecordSet, *, flag: str, split: str, every_class: bool = True, unlabelled: bool = False
) -> np.ndarray:
    """Images of each class in a split, int64 [K].

    Raises:
        InputError: no classes (multilabel), no such split, no image, (`every_class`) none of some class, or (not
            `unlabelled`) images without a label.
    """
    if record_set.num_classes < 2:
        raise InputError(
            f"{flag}={record_set.path}: label version {record_set.info.label_version} has no classes, but this needs "
            "some; build records of another one, such as v2"
        )
    if record_set.num_examples(split) == 0:
        raise InputError(f"{flag}={record_set.path}: the {split} split has no image")
    classes = record_set.labels(split)["class"]
    known = classes[classes >= 0]
    if not unlabelled:
        refuse_unlabelled(record_set, flag=flag, split=split)
    counts = np.bincount(known, minlength=record_set.num_classes)
    if not len(known):
        print(f"warning: {flag}: no image of the {split} split has a label; what needs them is left out", flush=True)
        return counts
    for name, count in zip(record_set.info.classes, counts, strict=True):
        if count == 0 and every_class:
            raise InputError(f"{flag}={record_set.path}: the {split} split has no image of class {name}")
        if count == 0:
            print(
                f"warning: {flag}: the {split} split has no image of class {name}; its recall is left out", flush=True
            )
    return counts


def refuse_unlabelled(record_set: data.RecordSet, *, flag: str, split: str) -> None:
    """Raises InputError if a set of classes has images without one in a split."""
    classes = record_set.labels(split)["class"]
    count = int((classes < 0).sum()) if record_set.num_classes else 0
    if count:
        raise InputError(
            f"{flag}={record_set.path}: {count} of the {len(classes)} images of the {split} split have no label; build "
            "the records without --unlabelled_images=keep"
        )


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
    """Says so if the network's input has another size than the stored images."""
    stored = record_set.info.resolution
    if stored != image_size:
        what = "enlarged" if stored < image_size else "shrunk"
        print(f"note: {flag}: images of {stored} px are {what} to {image_size} px, see --image_size", flush=True)


def recalls_by_name(outputs: inference.Outputs, classes: Sequence[str], prefix: str) -> dict[str, float | None]:
    """{"<prefix>/recall/<class>": recall, or None for a class without an image}."""
    recalls = metrics.recalls(outputs.labels, outputs.predictions, len(classes))
    return {f"{prefix}/recall/{name}": metrics.finite(recall) for name, recall in zip(classes, recalls, strict=True)}
