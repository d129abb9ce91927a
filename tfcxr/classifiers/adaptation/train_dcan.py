"""Unsupervised domain adaptation: labelled source and unlabelled target images, one loop for all methods.

A method (see `methods`) adds its terms to the classification loss of the source images.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import tensorflow as tf

from tfcxr import data, metrics
from tfcxr.classifiers import choices, inference, loading
from tfcxr.classifiers.adaptation import (
    class_shares,
    curves,
    domain_gap,
    embeddings,
    methods,
    selection,
    strong_views,
    target_prior,
)
from tfcxr.classifiers.adaptation.methods.method import Batch, Setting
from tfcxr.classifiers.networks import models, preprocessing
from tfcxr.classifiers.training import frozen_features, loop, losses, optimizers, train_baseline
from tfcxr.training import runs, strategies
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import pixel_ranges
from tfrecords_builder.labels import label_sets

_MOMENTUM = 0.9
_WEIGHT_DECAY = 5e-4
_DECAY = 2.0
_HEAD_RATE = 10.0
_METHOD_RATE = 10.0
_CORRECTION_RATE = 0.01
_EVALUATION_BATCH = 64
_ATTENTION_IMAGES = 64  # of each domain
# Keeps the order of the target images apart from that of the source images, whose streams use seed ... seed + K.
_TARGET_SEED = 1009
_STRONG_SEED = 2003  # of strong views
# Of an averaged classifier; French et al. 2018 (arXiv 1706.05208) have 0.99 for short trainings.
_AVERAGE_DECAY = 0.99


@dataclasses.dataclass(frozen=True)
class AdaptationConfig:
    """Settings of an adaptation run, besides the records.

    Attributes:
        alignment: the method, a name in methods.METHODS.
        select: criterion whose best weights are kept, one of choices.CRITERIA; target uses target labels.
        alpha: weight of the alignment; None for the method's own.
        beta: weight of the target entropy (dcan, dcan_noreg).
        reg: form of dcan's regulariser, one of choices.REGULARISERS.
        mmd: estimate of the discrepancy (dan, dcan, dcan_noreg), one of choices.MMDS; None for the method's own.
        threshold: probability from which on a prediction is certain (fixmatch, mean_teacher).
        target_prior: class shares of the target: source (taken to be those of the source), estimate (see
            target_prior.estimate), or a JSON file of them. Source images are drawn in these shares, and weighed in the
            classification loss so that classes count as they would without.
        backbone, stem, image_size, framing, reduction, dtype: see models.ModelConfig.
        weights, init_from: see loading.initialise.
        train_batch_norm: let BatchNorm learn; otherwise it runs on its stored statistics and is not trained.
        batch_size: source images per step, and as many target images.
        steps: training steps; a method that only moves the head takes one.
        eval_every: steps between evaluations.
        ten_crop: evaluate on ten crops of each image, see preprocessing.ten_crops.
        learning_rate: of the backbone at step 0.
        balanced: draw each source class equally often.
        flip: flip half of the training images left-right.
        patience: evaluations without a better one before training stops; 0 for never.
        checkpoint_steps: steps between checkpoints besides those at evaluations; 0 for none.
        seed: of weights, order, augmentation and what a method draws.
    """

    alignment: str = "dcan"
    select: str = "source"
    alpha: float | None = None
    beta: float = 0.1
    reg: str = "paper"
    mmd: str | None = None
    threshold: float = 0.95
    target_prior: str = target_prior.SOURCE
    backbone: str = "resnet50"
    stem: str = "imagenet"
    image_size: int = 224
    framing: str = "crop"
    reduction: int = 16
    dtype: str = "float32"
    weights: str = "imagenet"
    init_from: str | None = None
    train_batch_norm: bool = False
    batch_size: int = 36
    steps: int = 20001
    eval_every: int = 500
    ten_crop: bool = False
    learning_rate: float = 1e-4
    balanced: bool = False
    flip: bool = True
    patience: int = 0
    checkpoint_steps: int = 500
    seed: int = 0


def check_settings(config: AdaptationConfig) -> None:
    """Raises InputError for settings without use, whatever the records."""
    known = ((methods.METHODS, "alignment"), (choices.CRITERIA, "select"), (choices.REGULARISERS, "reg"))
    for values, name in known:
        if getattr(config, name) not in values:
            raise InputError(f"--{name}={getattr(config, name)}: must be one of {', '.join(values)}")
    choices.check_backbone(config.backbone, config.image_size, attention=methods.is_corrected(config.alignment))
    if config.target_prior == target_prior.ESTIMATE and not config.init_from:
        raise InputError(
            "--target_prior=estimate: the shares are estimated from what a classifier of the source says of the "
            "target; give one with --init_from"
        )
    if not methods.trains(config.alignment) and not config.init_from:
        raise InputError(f"--alignment={config.alignment}: trains nothing; give a trained classifier with --init_from")
    if config.weights == "none" and not config.init_from and not config.train_batch_norm:
        raise InputError(
            "--weights=none: BatchNorm would run on the stored statistics of a random network; start from a "
            "source-trained run (--init_from=RUN of train-baseline), or give --train_batch_norm"
        )


class Adaptation:
    """An adaptation run: checks and makes everything when constructed, trains when told to.

    Made and trained in the scope of a MirroredStrategy, it shares batches among devices. Losses that are means over
    images are those of the whole batch; discrepancies, confusion and CDAN+E's weights are taken within each share, and
    averaged.

    Attributes:
        config: AdaptationConfig.
        classifier: the network.
        method: methods.method.Method.
    """

    def __init__(
        self, config: AdaptationConfig, source: data.RecordSet, target: data.RecordSet, *, load_weights: bool = True
    ):
        """Checks the input and makes the network.

        Args:
            config: settings.
            source: labelled images: train and validation.
            target: images to adapt to: train (its labels are not used) and validation (labels for reporting).
            load_weights: whether to load the first weights; a resumed run has its own.

        Raises:
            InputError: records or weights that cannot be used, or do not fit each other.
        """
        strategies.check_shares(tf.distribute.get_strategy(), config.batch_size)
        self.config, self.source, self.target = config, source, target
        counts = _check(config, source, target)
        self._source_shares = counts / counts.sum()
        self._prior = target_prior.Prior(config.target_prior, source.info.classes)
        # Of the source's draws, and in the loss; None for those of the records. See `_use_shares`.
        self._expected_shares = self._source_shares
        self.class_counts: np.ndarray | None = None
        self.class_weights: tf.Tensor | None = None
        corrected = methods.is_corrected(config.alignment)
        self.classifier = loading.make_classifier(
            config,
            source,
            pictures=[target, source],
            load_weights=load_weights,
            reduction=config.reduction,
            attention=corrected,
            correction=corrected,
        )
        self.model_config = self.classifier.config
        self.method = methods.make(
            config.alignment,
            Setting(
                num_classes=len(self.model_config.classes),
                feature_width=int(self.classifier.base.output_shape[-1]),
                alpha=config.alpha,
                beta=config.beta,
                reg=config.reg,
                mmd=config.mmd,
                threshold=config.threshold,
                seed=config.seed,
            ),
        )
        if self.method.moves_head:
            assert config.init_from  # check_settings
            theirs = tuple(loading.load_classifier_config(config.init_from)["classes"])
            if theirs != self.model_config.classes:
                raise InputError(
                    f"--init_from={config.init_from}: its classes are {', '.join(theirs)}, those of the records "
                    f"{', '.join(self.model_config.classes)}; --alignment={config.alignment} needs the same"
                )
        # What is trained; what is evaluated and kept, the classifier, may be a mean of its weights.
        self.network = self._make_trained() if self.method.averages else self.classifier
        if not config.train_batch_norm and self.method.trains:
            for layer in (*self.network.base.layers, *self.classifier.base.layers):
                if isinstance(layer, tf.keras.layers.BatchNormalization):
                    layer.trainable = False

    def run_config(self) -> dict[str, Any]:
        """What decides the result, for config.json."""
        settings = {**dataclasses.asdict(self.config), "alpha": self.method.alpha}
        # A setting without use is left out, as runs do that began before there was one.
        del settings["mmd"], settings["threshold"], settings["target_prior"]
        if self.method.uses_mmd:
            settings["mmd"] = self.method.mmd
        if self.method.sees_strong_views:
            settings["threshold"] = self.config.threshold
        if not self._prior.is_source:
            settings["target_prior"] = self._prior.setting
        settings |= label_sets.to_settings(self.source.info.label_set)
        return {**settings, **dataclasses.asdict(self.model_config)}

    def train(self, run: runs.RunFolder, *, embeddings_every: int = 0) -> dict[str, Any]:
        """Trains in an open run folder, to the end; writes curves.png, samples/ and result.json.

        Args:
            run: open run folder.
            embeddings_every: evaluations between pictures of the features, the end included; 0 for none.

        Returns:
            What result.json holds.
        """
        self._use_shares(run.path)
        validate = {
            path: inference.SplitRunner(
                self.classifier,
                records,
                "validation",
                path=path,
                batch_size=_EVALUATION_BATCH,
                ten_crop=self.config.ten_crop,
            )
            for path, records in (("source", self.source), ("target", self.target))
        }

        def evaluate() -> dict[str, float | None]:
            source, target = validate["source"](), validate["target"]()
            done, step = trainer.step == self._steps, trainer.step
            if embeddings_every and (done or step // self.config.eval_every % embeddings_every == 0):
                self._show_features(source, target, run, step)
            return self._row(source, target)

        trainer = loop.Trainer(
            run,
            self.classifier,
            [self._phase()],
            evaluate=evaluate,
            select=self.config.select,
            checkpoint_steps=self.config.checkpoint_steps,
            records=f"{self.source.path} or {self.target.path}",
            patience=self.config.patience,
            describe=self._describe,
        )
        trainer.fit()
        best_by = selection.best_by_criterion(trainer.history)
        classes = self.model_config.classes
        expected = class_shares.describe(self._expected_shares, classes)
        curves.plot(trainer.history, best_by, expected, run.path / "curves.png")
        result = {
            "kind": "dcan",
            "alignment": self.config.alignment,
            "steps": trainer.step,
            "select": self.config.select,
            "selected_on_target_labels": self.config.select == "target",
            "best": trainer.best,
            "last": trainer.history[-1],
            "evaluations": [selection.values(row) for row in trainer.history],
            "best_by": best_by,
            "expected_target_shares": expected,
            "classes": list(classes),
        }
        trainer.finish(result)
        return result

    def losses_of(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """All losses of one step.

        Args:
            batch: source: float32 [n, S, S, 1] in [0, 1]; class: int64 [n], of the source images; target: as source;
                number: int64 scalar, the step.

        Returns:
            Scalars: total, cls, the terms of the method (unweighted), and accuracy on the source batch.
        """
        n = tf.shape(batch["source"])[0]
        images, path = [batch["source"]], "source"
        if self.method.uses_target:
            images, path = [*images, batch["target"]], "both"
        if self.method.sees_strong_views:
            seed = self.config.seed + _STRONG_SEED
            images, path = [*images, strong_views.draw(batch["target"], seed, batch["number"])], "target"
        training = self.config.train_batch_norm and self.method.trains
        features = self.network.features(tf.concat(images, axis=0), path, training)
        logits = self.network.head(features[:n])
        values = {"cls": losses.cross_entropy(logits, batch["class"], self.class_weights)}
        if self.method.uses_target:
            target_features = features[n : 2 * n]
            if self.method.corrected:
                target_features, target_logits = self.network.correct(target_features)
            else:
                target_logits = self.network.head(target_features)
            strong_logits = teacher_logits = None
            if self.method.sees_strong_views:
                strong_logits = self.network.head(features[2 * n :])
                teacher_logits = target_logits
                if self.method.averages:
                    # Its statistics of BatchNorm are those of the target alone: they come of these batches.
                    teacher_logits = self.classifier(batch["target"], training=training)
                teacher_logits = tf.stop_gradient(teacher_logits)
            values |= self.method.losses(
                Batch(
                    labels=batch["class"],
                    source_features=features[:n],
                    source_logits=logits,
                    target_features=target_features,
                    target_logits=target_logits,
                    correct=self.network.correct,
                    number=batch["number"],
                    progress=tf.cast(batch["number"], tf.float32) / float(self.config.steps),
                    strong_logits=strong_logits,
                    teacher_logits=teacher_logits,
                )
            )
        total = values["cls"] + sum(weight * values[name] for name, weight in self.method.weights.items())
        hits = tf.equal(tf.argmax(logits, axis=1), batch["class"])
        return {"total": total, **values, "accuracy": tf.reduce_mean(tf.cast(hits, tf.float32))}

    def _phase(self) -> loop.Phase:
        groups = [
            optimizers.Group([self.network.backbone], 1.0, _DECAY),
            optimizers.Group([self.network.head], _HEAD_RATE, _DECAY),
            optimizers.Group(self.method.layers, _METHOD_RATE, _DECAY),
        ]
        if self.method.corrected:
            corrections = [self.network.feature_correction, self.network.logit_correction]
            groups.append(optimizers.Group(corrections, _CORRECTION_RATE, _DECAY))
        optimizer = optimizers.GroupedSGD(
            groups,
            learning_rate=self.config.learning_rate,
            steps=self.config.steps,
            schedule="inverse",
            momentum=_MOMENTUM,
            nesterov=True,
            weight_decay=_WEIGHT_DECAY,
        )

        def step(batch: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
            if not self.method.trains:
                self.network.features(batch["target"], training=True)
                return self.losses_of(batch)
            with tf.GradientTape() as tape:
                values = self.losses_of(batch)
            optimizer.apply(tape.gradient(values["total"], optimizer.variables_to_train))
            if self.method.averages:
                self._average(batch["number"])
            return values

        phase = loop.Phase(
            name=self.config.alignment,
            steps=self._steps,
            eval_every=self.config.eval_every,
            stream=self._stream,
            step=step,
            log_names=["total", "cls", *self.method.weights, "accuracy"],
            optimizer=optimizer,
            layers=[*self.method.layers, *([self.network] if self.method.averages else [])],
        )
        return self._as_moved_head(phase) if self.method.moves_head else phase

    @property
    def _steps(self) -> int:
        return 1 if self.method.moves_head else self.config.steps

    def _as_moved_head(self, phase: loop.Phase) -> loop.Phase:
        """One step, whose preparation moves the head; what it logs is of one batch."""

        @functools.cache
        def make() -> list[frozen_features.FrozenFeatures]:
            rows = [np.arange(records.num_examples("train")) for records in (self.source, self.target)]
            return [
                frozen_features.FrozenFeatures(self.classifier, [records], each, np.zeros(len(each), bool))
                for records, each in zip((self.source, self.target), rows, strict=True)
            ]

        def prepare() -> bool:
            source, target = make()
            if source.compute_part() or target.compute_part():
                return True
            # Not the classifier's own: a run that was stopped after this, before its step, has that moved already.
            assert self.config.init_from  # check_settings
            kernel, bias = cast(models.Classifier, loading.load_network(self.config.init_from)).head.get_weights()
            variables = self.classifier.head.trainable_variables
            moved = self.method.move_head(kernel, bias, source.all(), target.all(), self._source_weights())
            for variable, value in zip(variables, moved, strict=True):
                variable.assign(value)
            return False

        return dataclasses.replace(phase, step=self.losses_of, prepare=prepare, eval_every=1)

    def _source_weights(self) -> np.ndarray:
        """How much each training image of the source counts, so that classes do as in the draws: float [N]."""
        classes = self.source.labels("train")["class"]
        counts = np.bincount(classes, minlength=self.source.num_classes)
        shares = counts if self.class_counts is None else self.class_counts
        if self.config.balanced and self.class_counts is None:
            shares = np.ones(len(counts))
        return (shares / counts)[classes]

    def _make_trained(self) -> models.Classifier:
        """A copy of the classifier, whose weights become a mean of this one's."""
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise InputError(f"--strategy: {self.config.alignment} averages weights on one device only")
        network = models.Classifier(self.model_config, self.config.seed)
        network.set_weights(self.classifier.get_weights())
        return network

    def _average(self, number: tf.Tensor) -> None:
        """Moves the classifier's weights towards those of the trained network."""
        done = tf.cast(number, tf.float32)
        keep = tf.minimum(_AVERAGE_DECAY, (1.0 + done) / (10.0 + done))  # the first weights are forgotten soon
        for mean, trained in zip(self.classifier.trainable_weights, self.network.trainable_weights, strict=True):
            mean.assign(keep * mean + (1.0 - keep) * trained)

    def _use_shares(self, folder: pathlib.Path) -> None:
        """Has the source's classes drawn in the target's shares, unless these are taken to be its own."""
        shares = self._prior.find(folder, self._estimate_shares)
        if shares is None:
            return
        self._expected_shares = shares
        self.class_counts = class_shares.to_counts(shares)
        drawn = self.class_counts / self.class_counts.sum()
        meant = np.full(len(drawn), 1 / len(drawn)) if self.config.balanced else self._source_shares
        self.class_weights = tf.constant(meant / drawn, tf.float32)

    def _estimate_shares(self) -> dict[str, np.ndarray]:
        """By the classifier of --init_from, from its errors on source validation and its predictions for the target."""
        assert self.config.init_from  # check_settings
        return target_prior.estimate(
            self.config.init_from, self.source, self.target, self._source_shares, batch_size=_EVALUATION_BATCH
        )

    def _stream(self, first: int, context: tf.distribute.InputContext = strategies.ALONE) -> tf.data.Dataset:
        """Source and target, each shuffled on its own, whatever their lengths; of the target only the images."""

        def batches(
            record_set: data.RecordSet, balanced: bool, seed: int, class_counts: np.ndarray | None = None
        ) -> tf.data.Dataset:
            return train_baseline.training_batches(
                record_set,
                batch_size=self.config.batch_size,
                image_size=self.config.image_size,
                framing=self.config.framing,
                balanced=balanced,
                class_counts=class_counts,
                flip=self.config.flip,
                seed=seed,
                start_step=first,
                context=context,
            )

        balanced = self.config.balanced and self.class_counts is None
        source = batches(self.source, balanced, self.config.seed, self.class_counts)
        target = batches(self.target, False, self.config.seed + _TARGET_SEED)
        shares = len(strategies.own_shares(context))
        numbers = tf.data.Dataset.range(first * shares, tf.int64.max).map(lambda number: number // shares)
        return tf.data.Dataset.zip((source, target, numbers)).map(
            lambda s, t, number: {"source": s["image"], "class": s["class"], "target": t["image"], "number": number}
        )

    def _row(self, source: inference.Outputs, target: inference.Outputs) -> dict[str, float | None]:
        """What an evaluation adds to the history: accuracies, criteria, and whether the domains come together."""
        classes = self.model_config.classes
        domain_gap.warn_of_collapse(target, classes)
        row: dict[str, float | None] = {
            "source/loss": metrics.finite(source.cross_entropy()),
            "source/balanced_accuracy": source.balanced_accuracy(),
            "target/balanced_accuracy": metrics.finite(target.balanced_accuracy()),
            **loop.recalls_by_name(source, classes, "source"),
            **loop.recalls_by_name(target, classes, "target"),
            **domain_gap.predicted_shares(source, classes, "source"),
            **domain_gap.predicted_shares(target, classes, "target"),
            "target/marginal_distance": domain_gap.marginal_distance(target, self._source_shares),
            **domain_gap.measure(self.classifier, source, target),
            **selection.criteria(source, target, self._expected_shares),
        }
        if self.model_config.attention:
            row |= domain_gap.attention_statistics(self.classifier, self._attention_images)
        return row

    @functools.cached_property
    def _attention_images(self) -> dict[str, tf.Tensor]:
        """Some validation images of each domain, always the same, framed."""
        found = {}
        for path, records in (("source", self.source), ("target", self.target)):
            count = min(_ATTENTION_IMAGES, records.num_examples("validation"))
            batch = next(iter(data.training_stream(records, "validation", batch_size=count, seed=self.config.seed)))
            images = pixel_ranges.uint8_to_unit(batch["image"])
            found[path] = preprocessing.frame(images, self.config.image_size, self.config.framing)
        return found

    def _show_features(
        self, source: inference.Outputs, target: inference.Outputs, run: runs.RunFolder, step: int
    ) -> None:
        points = embeddings.make_points(self.classifier, source, target)
        picture = run.samples / f"features_{step:06d}.png"
        embeddings.write_picture(points, picture, f"{self.config.alignment}, step {step}")
        embeddings.write_projector(points, run.tensorboard, step)
        tf.summary.image("features", tf.io.decode_png(picture.read_bytes(), channels=3)[tf.newaxis], step=step)

    def _describe(self, row: dict[str, Any]) -> str:
        terms = " ".join(f"{name[6:]} {value:.3f}" for name, value in row.items() if name.startswith("train/"))
        after = f" -> {row['mmd/after_correction']:.3f}" if "mmd/after_correction" in row else ""
        shares = " ".join(
            f"{name} {row[f'target/predicted/{name}']:.2f} ({share:.2f})"
            for name, share in zip(self.model_config.classes, self._source_shares, strict=True)
        )
        return (
            f"step {row['step']}: {terms}; balanced accuracy source {row['source/balanced_accuracy']:.3f} "
            f"target {_tell(row['target/balanced_accuracy'])}; target predicted (source labelled) {shares}; "
            f"MMD {row['mmd/before_correction']:.3f}{after}"
        )


def _tell(accuracy: float | None) -> str:
    return "not known (no labels)" if accuracy is None else f"{accuracy:.3f}"


def _check(config: AdaptationConfig, source: data.RecordSet, target: data.RecordSet) -> np.ndarray:
    """Images of each class in the source's train split. Raises InputError for records or settings without use."""
    check_settings(config)
    target.refuse_other_labels(source.info.label_set, f"--source_records={source.path}")
    counts = loop.check_classes(source, flag="--source_records", split="train")
    loop.check_classes(source, flag="--source_records", split="validation", every_class=False)
    if (source.info.label_version, source.info.classes) != (target.info.label_version, target.info.classes):
        raise InputError(
            f"--target_records={target.path}: is of label version {target.info.label_version} "
            f"({', '.join(target.info.classes) or 'no classes'}), the source of {source.info.label_version} "
            f"({', '.join(source.info.classes)}); build both with the same --label_version"
        )
    loop.check_pictures(source, target, flags=("--source_records", "--target_records"))
    if target.num_examples("train") == 0:
        raise InputError(f"--target_records={target.path}: the train split has no image to adapt to")
    known = loop.check_classes(target, flag="--target_records", split="validation", every_class=False, unlabelled=True)
    if config.select == "target" and not known.any():
        raise InputError(
            f"--select=target: no validation image of --target_records={target.path} has a label; choose one of "
            f"{', '.join(name for name in choices.CRITERIA if name != 'target')}"
        )
    if config.batch_size < source.num_classes:
        raise InputError(
            f"--batch_size={config.batch_size}: is smaller than the {source.num_classes} classes; "
            f"give at least {source.num_classes}"
        )
    chooses = " and choose the weights (--select=target)" if config.select == "target" else ""
    note = (
        f"note: --target_records: the labels of its {target.num_examples('train')} training images are ignored; "
        f"those of its validation images only report{chooses}"
    )
    if known.any():
        print(note, flush=True)
    for record_set, flag in ((source, "--source_records"), (target, "--target_records")):
        loop.note_resolution(record_set, config.image_size, flag)
    return counts
