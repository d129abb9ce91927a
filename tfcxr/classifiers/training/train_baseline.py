"""The baseline ("No Alignment"): a classifier fine-tuned on labelled records in two stages.

Stage 1 trains the head on frozen features, computed once unless random crops are asked for, by SGD or to the optimum of
a logistic regression; stage 2 trains the whole network. The four variants differ in the learning rate of the layers and
its schedule. The records may be cut down to a few images of each class, to fine-tune a classifier of synthetic images,
or mixed with others, such as synthetic ones. Of records without classes (label version multilabel), or where that is
wanted, the network learns which of the labels an image has.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib import pyplot as plt

from tfcxr import data, metrics, plotting
from tfcxr.classifiers import choices, inference, loading
from tfcxr.classifiers.networks import preprocessing
from tfcxr.classifiers.training import frozen_features, loop, objectives, optimizers
from tfcxr.training import runs, strategies
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import pixel_ranges
from tfrecords_builder.labels import label_sets
from tfrecords_builder.splits import policies

_LOGS = ("loss", "accuracy")
_EVALUATION_BATCH = 64
_MOMENTUM = 0.9
_STAGE1_RATE = 0.01
_STAGE1_DECAY = 1e-4


@dataclasses.dataclass(frozen=True)
class BaselineConfig:
    """Settings of a baseline run, besides the records.

    Attributes:
        variant: one of choices.VARIANTS.
        multilabel: learn the labels of records that have classes, too; of multilabel records always.
        labels: of labels the ones to learn; none for all that have both values in the training images.
        loss: of labels, one of choices.LOSSES.
        backbone, stem, image_size, framing, dtype: see models.ModelConfig.
        weights, init_from: see loading.initialise.
        batch_size: images per step.
        stage1_epochs: of the head alone; skipped if the backbone starts from random weights, which stage 2 will change.
        stage1_crops: one of choices.STAGE1_CROPS: what of the images stage 1 sees.
        stage1_solver: one of choices.STAGE1_SOLVERS: logistic takes one step, to the optimum, whatever stage1_epochs.
        logistic_c: inverse strength C of the penalty of that regression; None to choose it by cross-validation.
        stage2_epochs: of the whole network; 0 for a linear probe.
        optimizer: of stage 2, one of choices.OPTIMIZERS. Adam has the variant's rates and schedule, and no decay.
        learning_rate: of stage 2; None for the variant's.
        samples_per_epoch: an epoch has no more images than so many; None for all.
        class_weights: weigh each image by N / (K n_class) in the loss; each value of a label by N / (2 n).
        balanced: draw each class equally often.
        flip: flip half of the training images left-right.
        labelled_per_class: train on so many images of each class, chosen by `seed` (see data.choose_per_class); None
            for all.
        labelled_fraction: train on the images of such a fraction of the patients, chosen by `seed` (see
            data.choose_fraction); None for all.
        extra_ratio: images of the extra set for each image of the records, if there is an extra set.
        duplicate_control: repeat images of the records instead of those of the extra set (see data.Extra).
        patience: epochs of stage 2 without a better one before it stops; 0 for never.
        plateau_patience: epochs of stage 2 without a better one before its learning rate falls to a tenth; 0 for never.
        checkpoint_steps: steps between checkpoints within an epoch; 0 for none.
        seed: of weights, order and augmentation.
    """

    variant: str = "layer_lr_sched"
    multilabel: bool = False
    labels: Sequence[str] = ()
    loss: str = "cross_entropy"
    backbone: str = "resnet50"
    stem: str = "imagenet"
    image_size: int = 224
    framing: str = "crop"
    dtype: str = "float32"
    weights: str = "imagenet"
    init_from: str | None = None
    batch_size: int = 32
    stage1_epochs: int = 2
    stage1_crops: str = "centre"
    stage1_solver: str = "sgd"
    logistic_c: float | None = None
    stage2_epochs: int = 10
    optimizer: str = "sgd"
    learning_rate: float | None = None
    samples_per_epoch: int | None = None
    class_weights: bool = False
    balanced: bool = False
    flip: bool = False
    labelled_per_class: int | None = None
    labelled_fraction: float | None = None
    extra_ratio: float = 1.0
    duplicate_control: bool = False
    patience: int = 0
    plateau_patience: int = 0
    checkpoint_steps: int = 500
    seed: int = 0


def check_settings(config: BaselineConfig, extra_records: str | None) -> None:
    """Raises InputError for settings without use, whatever the records; `extra_records`: the flag's value."""
    choices.check_backbone(config.backbone, config.image_size, attention=False)
    if config.labelled_fraction and config.labelled_per_class:
        raise InputError("--labelled_fraction: chooses the images in another way than --labelled_per_class; give one")
    if config.duplicate_control and not extra_records:
        raise InputError("--duplicate_control: repeats as many images as --extra_records would add; give that too")
    if config.stage2_epochs == 0 and config.stage1_solver == "sgd" and not config.stage1_epochs:
        raise InputError("--stage2_epochs=0: trains the head alone, which needs --stage1_epochs")
    if config.stage1_solver == "logistic" and config.stage1_crops != "centre":
        raise InputError("--stage1_solver=logistic: is for features that are computed once; leave out --stage1_crops")
    if config.stage1_solver != "logistic" and config.logistic_c:
        raise InputError("--logistic_c: is the penalty of a logistic regression; give --stage1_solver=logistic too")


class Baseline:
    """A baseline run: checks and makes everything when constructed, trains when told to."""

    def __init__(
        self,
        config: BaselineConfig,
        record_set: data.RecordSet,
        extra_set: data.RecordSet | None = None,
        *,
        load_weights: bool = True,
    ):
        """Checks the input and makes the network.

        Args:
            config: settings.
            record_set: source of train and validation images.
            extra_set: of train images mixed in.
            load_weights: whether to load the first weights; a resumed run has its own.

        Raises:
            InputError: records or weights that cannot be used.
        """
        strategies.check_shares(tf.distribute.get_strategy(), config.batch_size)
        self.config, self.record_set = config, record_set
        multilabel = config.multilabel or record_set.info.multilabel
        if extra_set:
            extra_set.refuse_other_labels(record_set.info.label_set, f"--records={record_set.path}")
        _check_output(config, record_set, multilabel)
        self._only = _choose(record_set, config, multilabel)
        self._folders = [str(read.path) for read in (record_set, extra_set) if read]
        self._extra = _make_extra(config, record_set, extra_set, int(self._only.sum()))
        make = self._make_labels if multilabel else self._make_classes
        self._objective: objectives.Objective = make()
        loop.note_resolution(record_set, config.image_size, "--records")
        self.classifier = loading.make_classifier(
            config,
            record_set,
            pictures=[record_set, *([extra_set] if extra_set else [])],
            load_weights=load_weights,
            labels=self._objective.names if multilabel else None,
        )
        self.model_config = self.classifier.config
        self._validation: inference.Outputs | None = None

    def run_config(self) -> dict[str, Any]:
        """What decides the result, for config.json."""
        return {
            **dataclasses.asdict(self.config),
            **dataclasses.asdict(self.model_config),
            **label_sets.to_settings(self.record_set.info.label_set),
        }

    def train(self, run: runs.RunFolder) -> dict[str, Any]:
        """Trains in an open run folder, to the end; writes curves.png and result.json.

        Returns:
            What result.json holds.
        """
        validate = inference.SplitRunner(
            self.classifier, self.record_set, "validation", path="source", batch_size=_EVALUATION_BATCH
        )
        trainer = loop.Trainer(
            run,
            self.classifier,
            [self._stage1(), self._stage2()],
            evaluate=lambda: self._objective.measure_row(self._validate(validate, trainer.step)),
            select="source",
            checkpoint_steps=self.config.checkpoint_steps,
            records=" or ".join(self._folders),
            patience=self.config.patience,
            plateau_patience=self.config.plateau_patience,
            describe=self._describe,
        )
        trainer.fit()
        plot_curves(trainer.history, self._steps_per_epoch, run.path / "curves.png", self._objective.curves)
        result = {
            "kind": "baseline",
            "variant": self.config.variant,
            "steps": trainer.step,
            "images_per_epoch": self._images_per_epoch,
            "select": "source",
            "measure": self._objective.measure,
            "selected_on_target_labels": False,
            "best": trainer.best,
            "last": trainer.history[-1],
            "classes": list(self.model_config.classes),
            "multilabel": self.model_config.multilabel,
        }
        trainer.finish(result)
        return result

    @property
    def _images_per_epoch(self) -> dict[str, int]:
        return {"records": int(self._only.sum()), "extra": self._extra.per_pass if self._extra else 0}

    @property
    def _steps_per_epoch(self) -> int:
        images = sum(self._images_per_epoch.values())
        return max(1, round(min(images, self.config.samples_per_epoch or images) / self.config.batch_size))

    @property
    def _skips_stage1(self) -> bool:
        # A head on the features of a random network says little, unless it is the control of a linear probe.
        return self.config.weights == "none" and not self.config.init_from and self.config.stage2_epochs > 0

    @property
    def _stage1_steps(self) -> int:
        if self._skips_stage1:
            return 0
        return 1 if self.config.stage1_solver == "logistic" else self.config.stage1_epochs * self._steps_per_epoch

    def _stage1(self) -> loop.Phase:
        steps = self._stage1_steps
        optimizer = optimizers.GroupedSGD(
            [optimizers.Group([self.classifier.head])],
            learning_rate=_STAGE1_RATE,
            steps=steps,
            momentum=_MOMENTUM,
            weight_decay=_STAGE1_DECAY,
        )
        phase = self._phase("head", steps, optimizer, train_backbone=False, seed=self.config.seed)
        if self.config.stage1_solver == "logistic":
            return self._as_logistic_regression(phase)
        return self._on_frozen_features(phase) if self.config.stage1_crops == "centre" else phase

    def _stage2(self) -> loop.Phase:
        variant = choices.VARIANTS[self.config.variant]
        steps = self.config.stage2_epochs * self._steps_per_epoch
        groups = [
            optimizers.Group([self.classifier.backbone], 1.0, variant.decay),
            optimizers.Group([self.classifier.head], variant.head_rate, variant.decay),
        ]
        rates: dict[str, Any] = {
            "learning_rate": self.config.learning_rate or variant.learning_rate,
            "steps": steps,
            "schedule": variant.schedule,
            "scaled": self.config.plateau_patience > 0,
        }
        optimizer: optimizers.GroupedOptimizer
        if self.config.optimizer == "adam":
            optimizer = optimizers.GroupedAdam(groups, **rates)
        else:
            optimizer = optimizers.GroupedSGD(
                groups,
                **rates,
                momentum=_MOMENTUM,
                nesterov=variant.nesterov,
                weight_decay=variant.weight_decay,
            )
        return self._phase("network", steps, optimizer, train_backbone=True, seed=self.config.seed + 1)

    def _phase(
        self, name: str, steps: int, optimizer: optimizers.GroupedOptimizer, *, train_backbone: bool, seed: int
    ) -> loop.Phase:
        def step(batch):
            with tf.GradientTape() as tape:
                if "features" in batch:
                    features = batch["features"]
                else:
                    features = self.classifier.features(batch["image"], "source", training=train_backbone)
                logits = self.classifier.classify(features, "source")
                loss = self._objective.loss(logits, batch)
            optimizer.apply(tape.gradient(loss, optimizer.variables_to_train))
            return {"loss": loss, "accuracy": self._objective.accuracy(logits, batch)}

        def stream(first: int, context: tf.distribute.InputContext) -> tf.data.Dataset:
            return training_batches(
                self.record_set,
                batch_size=self.config.batch_size,
                image_size=self.config.image_size,
                framing=self.config.framing,
                balanced=self.config.balanced,
                flip=self.config.flip,
                seed=seed,
                start_step=first,
                only=self._only,
                extra=self._extra,
                context=context,
            )

        return loop.Phase(
            name=name,
            steps=steps,
            eval_every=self._steps_per_epoch,
            stream=stream,
            step=step,
            log_names=_LOGS,
            optimizer=optimizer,
        )

    def _on_frozen_features(self, phase: loop.Phase) -> loop.Phase:
        """Stage 1 with features that are computed once, before its first step."""
        batch_size = self.config.batch_size

        @functools.cache  # the draws of a stage that is skipped are not looked at
        def make() -> tuple[frozen_features.FrozenFeatures, dict[str, np.ndarray]]:
            rows = self._draw_rows(phase.steps * batch_size, balanced=self.config.balanced)
            flipped = np.random.default_rng(self.config.seed).random(len(rows)) < (0.5 if self.config.flip else 0.0)
            return frozen_features.FrozenFeatures(self.classifier, self._sets, rows, flipped), self._find_labels(rows)

        def stream(first: int, context: tf.distribute.InputContext) -> tf.data.Dataset:
            features, labels = make()
            own = list(strategies.own_shares(context))
            shares = data.share_rows(batch_size, context.num_replicas_in_sync, group=1)[own]
            firsts = np.arange(first, phase.steps) * batch_size
            return features.batches((firsts[:, None, None] + shares).reshape(-1, shares.shape[1]), labels)

        return dataclasses.replace(phase, stream=stream, prepare=lambda: make()[0].compute_part())

    def _as_logistic_regression(self, phase: loop.Phase) -> loop.Phase:
        """Stage 1 as one step, whose preparation sets the head: what it logs is of the images it was fitted to."""

        @functools.cache
        def make() -> tuple[frozen_features.FrozenFeatures, np.ndarray]:
            rows = self._draw_rows(sum(self._images_per_epoch.values()))
            flips = (False, True) if self.config.flip else (False,)
            flipped = np.repeat(flips, len(rows))
            rows = np.tile(rows, len(flips))
            return frozen_features.FrozenFeatures(self.classifier, self._sets, rows, flipped), rows

        def prepare() -> bool:
            features, rows = make()
            if features.compute_part():
                return True
            patients = policies.number_patients(np.concatenate([each.patients("train") for each in self._sets]))
            balanced = self.config.balanced or self.config.class_weights
            kernel, bias, strength = self._objective.fit_head(
                features.all(),
                self._find_labels(rows),
                patients[rows],
                balanced=balanced,
                strength=self.config.logistic_c,
            )
            print(f"head: logistic regression of {len(rows)} feature vectors, C {strength}", flush=True)
            for variable, value in zip(self.classifier.head.trainable_variables, (kernel, bias), strict=True):
                variable.assign(value)
            return False

        def stream(first: int, context: tf.distribute.InputContext) -> tf.data.Dataset:
            del first  # there is one batch
            features, rows = make()
            labels = self._find_labels(rows)
            shares = np.array_split(np.arange(len(rows))[np.newaxis], context.num_replicas_in_sync, axis=1)
            batches = [features.batches(shares[share], labels) for share in strategies.own_shares(context)]
            return functools.reduce(lambda a, b: a.concatenate(b), batches)

        def step(batch):
            logits = self.classifier.classify(batch["features"], "source")
            return {"loss": self._objective.loss(logits, batch), "accuracy": self._objective.accuracy(logits, batch)}

        return dataclasses.replace(phase, stream=stream, step=step, prepare=prepare, eval_every=1)

    @property
    def _sets(self) -> list[data.RecordSet]:
        """Of all training images."""
        return [self.record_set, *([self._extra.record_set] if self._extra else [])]

    def _draw_rows(self, number: int, *, balanced: bool = False) -> np.ndarray:
        """Which training images the first draws are, see data.training_rows."""
        return data.training_rows(
            self.record_set,
            number=number,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            balanced=balanced,
            only=self._only,
            extra=self._extra,
        )

    def _find_labels(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The class and vector of each of the `rows` of `_draw_rows`."""
        return {
            name: np.concatenate([each.labels("train")[name] for each in self._sets])[rows]
            for name in ("class", "vector")
        }

    def _validate(self, run: inference.SplitRunner, step: int) -> inference.Outputs:
        """Outputs for the validation images after a step; in stage 1, of features that are computed once."""
        if step > self._stage1_steps:
            return run()
        if self._validation is None:
            self._validation = run()
        logits = self.classifier.classify(tf.constant(self._validation.features), "source").numpy()
        return dataclasses.replace(self._validation, logits=logits)

    def _make_classes(self) -> objectives.Classes:
        """The classes of the records, weighted by their images in an epoch."""
        counts = loop.check_classes(self.record_set, flag="--records", split="train")
        if not self._only.all():
            counts = np.bincount(self.record_set.labels("train")["class"][self._only], minlength=len(counts))
        if self._extra:
            counts = counts + _extra_counts(self._extra)
        loop.check_classes(self.record_set, flag="--records", split="validation", every_class=False)
        return objectives.Classes(self.record_set.info.classes, counts if self.config.class_weights else None)

    def _make_labels(self) -> objectives.Labels:
        """Those labels to learn that have both values, weighted by their images in an epoch."""
        counts = count_values(self.record_set.labels("train")["vector"][self._only])
        if self._extra:
            others = self.record_set if self._extra.duplicate else self._extra.record_set
            rows = self._only if self._extra.duplicate else np.ones(others.num_examples("train"), bool)
            shares = count_values(others.labels("train")["vector"][rows]) / rows.sum()
            counts = counts + self._extra.per_pass * shares
        names = choose_labels(
            self.config.labels, counts, f"--records={self.record_set.path}", self.record_set.info.labels
        )
        _check_validation(self.record_set, names)
        columns = [self.record_set.info.label_set.index[name] for name in names]
        weights = counts[:, columns] if self.config.class_weights else None
        return objectives.Labels(names, columns, counts=weights, loss=self.config.loss)

    def _describe(self, row: dict[str, Any]) -> str:
        return (
            f"epoch {row['step'] / self._steps_per_epoch:g} ({row['phase']}): "
            f"train loss {row['train/loss']:.4f} accuracy {row['train/accuracy']:.3f}; "
            f"validation loss {row['validation/loss']:.4f} {self._objective.describe(row)}"
        )


def training_batches(
    record_set: data.RecordSet,
    *,
    batch_size: int,
    image_size: int,
    framing: str,
    balanced: bool,
    flip: bool,
    seed: int,
    start_step: int,
    class_counts: np.ndarray | None = None,
    only: np.ndarray | None = None,
    extra: data.Extra | None = None,
    context: tf.distribute.InputContext = strategies.ALONE,
) -> tf.data.Dataset:
    """Endless training batches of the train split, augmented; a function of (records, seed, step).

    `class_counts`, `only` and `extra`: see data.training_stream; `context`: the devices that share a batch, and which
    are here.

    Returns:
        Dataset of {"image": float32 [B, S, S, 1] in [0, 1], "class": int64 [B], "vector": float32 [B, L]}; with
        several devices, of the shares of those that are here, in turn.
    """
    stream = data.training_stream(
        record_set,
        "train",
        batch_size=batch_size,
        seed=seed,
        start=start_step * batch_size,
        balanced=balanced,
        class_counts=class_counts,
        only=only,
        extra=extra,
        shares=context.num_replicas_in_sync,
        own=strategies.own_shares(context),
        group=1,
    )

    @tf.autograph.experimental.do_not_convert
    def convert(batch):
        images = pixel_ranges.uint8_to_unit(batch["image"])
        framed = preprocessing.augment(
            images, batch["index"], image_size=image_size, framing=framing, seed=seed, flip=flip
        )
        return {"image": framed, "class": batch["class"], "vector": batch["vector"]}

    return stream.map(convert, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)


def _check_output(config: BaselineConfig, record_set: data.RecordSet, multilabel: bool) -> None:
    """Raises InputError for settings that do not fit what is learned, or classes that the records do not have."""
    for split in ("train", "validation"):
        if record_set.num_examples(split) == 0:
            raise InputError(f"--records={record_set.path}: the {split} split has no image")
    if not multilabel:
        for flag, given in (("--labels", config.labels), ("--loss=focal", config.loss != "cross_entropy")):
            if given:
                raise InputError(
                    f"{flag}: is for labels that do not exclude each other; {record_set.path} has classes: give "
                    "--multilabel to learn the labels instead"
                )
    elif record_set.info.multilabel:
        given = [name for name in choices.CLASS_FLAGS if getattr(config, name)]
        if given:
            raise InputError(
                f"--{given[0]}: needs classes, which {record_set.path} (label version {record_set.info.label_version}) "
                "does not have; --class_weights weighs rare labels up"
            )


def count_values(vectors: np.ndarray) -> np.ndarray:
    """Images without (row 0) and with (row 1) each label, float64 [2, L], of label vectors [N, L]."""
    positive = (vectors > 0.5).sum(axis=0).astype(np.float64)
    return np.stack([len(vectors) - positive, positive])


def choose_labels(wanted: Sequence[str], counts: np.ndarray, where: str, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels to learn, in their order; tells of those that cannot be learned.

    Args:
        wanted: their names; none for all that can be learned.
        counts: as of `count_values`, of all labels in the training images.
        where: the flag of the records and its value, for messages.
        labels: of the records.

    Raises:
        InputError: a wanted label that there is not, or that all training images have or none; no label that can be
            learned.
    """
    learnable = {name for name, both in zip(labels, (counts > 0).all(axis=0), strict=True) if both}
    for name in wanted:
        if name not in labels:
            raise InputError(f"--labels={name}: must be of {', '.join(labels)}")
        if name not in learnable:
            who = "all training images have" if counts[1, list(labels).index(name)] else "no training image has"
            raise InputError(f"--labels={name}: {who} that label in {where}, so that it cannot be learned")
    if not learnable:
        raise InputError(f"{where}: there is no label that some training images have and others do not")
    left = [name for name in labels if name not in learnable]
    if left and not wanted:
        print(f"note: {where}: not learned, as all training images are alike in them: {', '.join(left)}", flush=True)
    return tuple(name for name in labels if name in (wanted or learnable))


def _check_validation(record_set: data.RecordSet, names: Sequence[str]) -> None:
    """Tells of labels with one value only in the validation split. Raises InputError if all are."""
    vectors = record_set.labels("validation")["vector"][:, [record_set.info.label_set.index[name] for name in names]]
    alone = [name for name, both in zip(names, metrics.have_both(vectors > 0.5), strict=True) if not both]
    if len(alone) == len(names):
        raise InputError(
            f"--records={record_set.path}: the validation split has one value only of {', '.join(alone)}, so that it "
            "cannot choose the weights"
        )
    if alone:
        print(
            f"warning: --records: the validation split has one value only of {', '.join(alone)}, left out of its mean",
            flush=True,
        )


def _choose(record_set: data.RecordSet, config: BaselineConfig, multilabel: bool) -> np.ndarray:
    """Which training images to use: bool [N]."""
    number, classes = config.labelled_per_class, record_set.labels("train")["class"]
    if config.labelled_fraction and multilabel:
        return _choose_fraction_of_labels(record_set, config)
    if config.labelled_fraction:
        return _choose_fraction(record_set, classes, config.labelled_fraction, config.seed)
    if number is None:
        return np.ones(len(classes), bool)
    names = record_set.info.classes
    counts = np.bincount(classes, minlength=len(names))
    if counts.min() < number:
        has = ", ".join(f"{count} of {name}" for name, count in zip(names, counts, strict=True))
        raise InputError(f"--labelled_per_class={number}: the train split of {record_set.path} has {has}")
    return data.choose_per_class(classes, number, len(names), config.seed)


def _choose_fraction(record_set: data.RecordSet, classes: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """The images of a fraction of the patients: bool [N]. Raises InputError if a class is left without an image."""
    patients, num_classes = record_set.patients("train"), record_set.num_classes
    # Rows of no class, which are not trained on, are a stratum of their own.
    chosen = data.choose_fraction(patients, np.eye(num_classes + 1, dtype=bool)[classes], fraction, seed)
    counts = np.bincount(classes[chosen & (classes >= 0)], minlength=num_classes)
    has = ", ".join(f"{count} of {name}" for name, count in zip(record_set.info.classes, counts, strict=True))
    if not counts.all():
        raise InputError(
            f"--labelled_fraction={fraction:g}: leaves {has} in the train split of {record_set.path}; give a larger one"
        )
    print(f"labelled: {has}", flush=True)
    return chosen


def _choose_fraction_of_labels(record_set: data.RecordSet, config: BaselineConfig) -> np.ndarray:
    """The images of a fraction of the patients: bool [N]. Raises InputError if a label can be learned no more."""
    assert config.labelled_fraction is not None
    vectors = record_set.labels("train")["vector"] > 0.5
    strata = np.column_stack([vectors, ~vectors.any(axis=1)])
    chosen = data.choose_fraction(record_set.patients("train"), strata, config.labelled_fraction, config.seed)
    before, after = ((count_values(rows) > 0).all(axis=0) for rows in (vectors, vectors[chosen]))
    labels = record_set.info.labels
    lost = [
        name for name, lacks in zip(labels, before & ~after, strict=True) if lacks and name in (config.labels or labels)
    ]
    if lost:
        raise InputError(
            f"--labelled_fraction={config.labelled_fraction:g}: leaves one value only of {', '.join(lost)} in the "
            f"train split of {record_set.path}; give a larger one, or --labels without "
            f"{'it' if len(lost) == 1 else 'them'}"
        )
    print(f"labelled: {chosen.sum()} of {len(chosen)} images", flush=True)
    return chosen


def _make_extra(
    config: BaselineConfig, record_set: data.RecordSet, extra_set: data.RecordSet | None, num_images: int
) -> data.Extra | None:
    """Checks the extra set, and says how many images are mixed in."""
    if extra_set is None:
        return None
    ours, theirs, flag = record_set.info, extra_set.info, f"--extra_records={extra_set.path}"
    for what, a, b in (
        ("label version", ours.label_version, theirs.label_version),
        ("classes", ", ".join(ours.classes), ", ".join(theirs.classes)),
        ("resolution", ours.resolution, theirs.resolution),
    ):
        if a != b:
            raise InputError(f"{flag}: its {what} is {b}, not {a} as that of --records; build or generate it again")
    loop.check_pictures(record_set, extra_set, flags=("--records", "--extra_records"))
    if config.balanced:
        loop.check_classes(extra_set, flag="--extra_records", split="train")
    elif not extra_set.num_examples("train"):
        raise InputError(f"{flag}: the train split has no image")
    loop.refuse_unlabelled(extra_set, flag="--extra_records", split="train")
    extra = data.Extra(extra_set, round(config.extra_ratio * num_images), config.duplicate_control)
    if not extra.per_pass:
        raise InputError(f"--extra_ratio={config.extra_ratio:g}: is less than one image for {num_images} of --records")
    kind = "repeated" if extra.duplicate else "extra"
    print(f"an epoch: {num_images} images of --records and {extra.per_pass} {kind} ones", flush=True)
    return extra


def _extra_counts(extra: data.Extra) -> np.ndarray:
    """Mean number of extra images of each class in an epoch, float [K]."""
    classes = extra.record_set.labels("train")["class"]
    return extra.per_pass * np.bincount(classes, minlength=extra.record_set.num_classes) / len(classes)


def plot_curves(
    history: list[dict[str, Any]],
    steps_per_epoch: int,
    path: str | os.PathLike,
    measures: objectives.Curves = objectives.Classes.curves,
) -> None:
    """Loss and `measures` over the epochs, training and validation (as the thesis's Figure 5.1)."""
    epochs = [row["step"] / steps_per_epoch for row in history]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    lines = (
        ("loss", (("train/loss", "training"), ("validation/loss", "validation"))),
        ("accuracy" if measures == objectives.Classes.curves else "share", measures),
    )
    heads = [epoch for epoch, row in zip(epochs, history, strict=True) if row["phase"] == "head"]
    for axis, (title, curves) in zip(axes, lines, strict=True):
        for key, label in curves:
            axis.plot(epochs, [np.nan if row[key] is None else row[key] for row in history], marker=".", label=label)
        if heads:
            axis.axvspan(0, max(heads), color="grey", alpha=0.15, label="head only")
        axis.set_xlabel("epoch")
        axis.set_ylabel(title)
        axis.legend(fontsize=8)
    plotting.save(figure, path, 120)
