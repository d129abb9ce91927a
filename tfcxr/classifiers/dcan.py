"""DCAN, and "ours" (DCAN without its regulariser): a labelled source and an unlabelled target domain.

Li et al., "Domain Conditioned Adaptation Network", AAAI 2020, arXiv 2005.06717:
cls + alpha (MMD_features + MMD_probabilities + L_reg) + beta entropy.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcxr import data, runs
from tfcxr.classifiers import baseline, loading, loop, losses, models, optimizers
from tfrecords_builder.errors import InputError

ALIGNMENTS = ("dcan", "ours", "none")
CRITERIA = ("source", "entropy", "target")

_MOMENTUM = 0.9
_WEIGHT_DECAY = 5e-4
_DECAY = 2.0
_HEAD_RATE = 10.0
_CORRECTION_RATE = 0.01
_KEPT = 0.8  # the regulariser keeps each image with probability 0.8 / K
_EVALUATION_BATCH = 64
_DISCREPANCY_IMAGES = 256  # of each domain: enough for a steady value, and a small kernel matrix
_COLLAPSED = 0.98
# Keeps the order of the target images apart from that of the source images, whose streams use seed ... seed + K.
_TARGET_SEED = 1009


@dataclasses.dataclass(frozen=True)
class DcanConfig:
    """Settings of an adaptation run, besides the records.

    Attributes:
      alignment: dcan: all losses; ours: without the regulariser; none: classification loss on a plain backbone.
      select: criterion whose best weights are kept, one of CRITERIA; target uses target labels.
      reg: form of the regulariser, one of losses.REGULARISERS.
      backbone, stem, image_size, reduction, dtype: see models.ModelConfig.
      weights, init_from: see loading.initialise.
      train_batch_norm: let BatchNorm learn; otherwise it runs on its stored statistics and is not trained.
      batch_size: source images per step, and as many target images.
      steps: training steps.
      eval_every: steps between evaluations.
      learning_rate: of the backbone at step 0.
      alpha: weight of the discrepancies.
      beta: weight of the entropy.
      balanced: draw each source class equally often.
      flip: flip half of the training images left-right.
      patience: evaluations without a better one before training stops; 0 for never.
      checkpoint_steps: steps between checkpoints besides those at evaluations; 0 for none.
      seed: of weights, order, augmentation and the regulariser's subsets.
    """

    alignment: str = "dcan"
    select: str = "source"
    reg: str = "paper"
    backbone: str = "resnet50"
    stem: str = "imagenet"
    image_size: int = 224
    reduction: int = 16
    dtype: str = "float32"
    weights: str = "imagenet"
    init_from: str | None = None
    train_batch_norm: bool = False
    batch_size: int = 36
    steps: int = 20001
    eval_every: int = 500
    learning_rate: float = 1e-4
    alpha: float = 1.5
    beta: float = 0.1
    balanced: bool = False
    flip: bool = True
    patience: int = 0
    checkpoint_steps: int = 500
    seed: int = 0


class Dcan:
    """An adaptation run: checks and makes everything when constructed, trains when told to."""

    def __init__(
        self, config: DcanConfig, source: data.RecordSet, target: data.RecordSet, *, load_weights: bool = True
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
        self.config, self.source, self.target = config, source, target
        _check(config, source, target)
        self.aligned = config.alignment != "none"
        self.model_config = models.ModelConfig(
            classes=tuple(source.info.classes),
            label_version=source.info.label_version,
            resolution=source.info.resolution,
            image_size=config.image_size,
            backbone=config.backbone,
            stem=config.stem,
            attention=self.aligned,
            reduction=config.reduction,
            correction=self.aligned,
            dtype=config.dtype,
        )
        self.classifier = models.Classifier(self.model_config, config.seed)
        if load_weights:
            loaded = loading.initialise(self.classifier, weights=config.weights, init_from=config.init_from)
            print(f"start: {', '.join(loaded) or 'nothing'} loaded, the rest random", flush=True)
        if not config.train_batch_norm:
            for layer in self.classifier.base.layers:
                if isinstance(layer, tf.keras.layers.BatchNormalization):
                    layer.trainable = False

    def run_config(self) -> dict[str, Any]:
        """What decides the result, for config.json."""
        return {**dataclasses.asdict(self.config), **dataclasses.asdict(self.model_config)}

    def train(self, run: runs.RunFolder) -> dict[str, Any]:
        """Trains in an open run folder, to the end; writes result.json.

        Returns:
          What result.json holds.
        """
        validate = {
            path: loop.SplitRunner(self.classifier, records, "validation", path=path, batch_size=_EVALUATION_BATCH)
            for path, records in (("source", self.source), ("target", self.target))
        }
        trainer = loop.Trainer(
            run,
            self.classifier,
            [self._phase()],
            evaluate=lambda: self._evaluate(validate["source"](), validate["target"]()),
            select=self.config.select,
            checkpoint_steps=self.config.checkpoint_steps,
            patience=self.config.patience,
            describe=self._describe,
        )
        trainer.fit()
        result = {
            "kind": "dcan",
            "alignment": self.config.alignment,
            "steps": trainer.step,
            "select": self.config.select,
            "selected_on_target_labels": self.config.select == "target",
            "best": trainer.best,
            "last": trainer.history[-1],
            "evaluations": [_values(row) for row in trainer.history],
            "best_by": best_by_criterion(trainer.history),
            "classes": list(self.model_config.classes),
        }
        run.finish(result)
        return result

    def losses_of(
        self, source: tf.Tensor, labels: tf.Tensor, target: tf.Tensor, number: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """All losses of one step.

        Args:
          source: float32 [n, S, S, 1] in [0, 1].
          labels: int64 [n], of the source images.
          target: float32 [n, S, S, 1] in [0, 1].
          number: int64 scalar that differs between steps, for the regulariser's subsets.

        Returns:
          Scalars: total, cls, and where aligned: mmd_features, mmd_probabilities, entropy, reg (dcan only); accuracy.
        """
        training = self.config.train_batch_norm
        if not self.aligned:
            logits = self.classifier.head(self.classifier.features(source, "source", training))
            cls = losses.cross_entropy(logits, labels)
            return {"total": cls, "cls": cls, "accuracy": _accuracy(logits, labels)}
        size = tf.shape(source)[0]
        features = self.classifier.features(tf.concat([source, target], axis=0), "both", training)
        source_features, target_features = features[:size], features[size:]
        logits = self.classifier.head(source_features)
        corrected, corrected_logits = self.classifier.correct(target_features)
        probabilities = tf.nn.softmax(corrected_logits)
        values = {
            "cls": losses.cross_entropy(logits, labels),
            "mmd_features": losses.linear_mmd(source_features, corrected),
            "mmd_probabilities": losses.linear_mmd(
                tf.nn.softmax(logits),
                probabilities,
                num_kernels=losses.PROBABILITY_KERNELS,
                width=losses.PROBABILITY_WIDTH,
            ),
            "entropy": losses.entropy(probabilities),
        }
        discrepancy = values["mmd_features"] + values["mmd_probabilities"]
        if self.config.alignment == "dcan":
            values["reg"] = self._regulariser(source_features, logits, labels, number)
            discrepancy += values["reg"]
        total = values["cls"] + self.config.alpha * discrepancy + self.config.beta * values["entropy"]
        return {"total": total, **values, "accuracy": _accuracy(logits, labels)}

    def _regulariser(self, features: tf.Tensor, logits: tf.Tensor, labels: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        """Correcting source features should change nothing: they are where the target is to go."""
        num_classes = len(self.model_config.classes)
        corrected, corrected_logits = self.classifier.correct(features)
        seed = tf.stack([tf.constant(self.config.seed, tf.int64), number])
        keep = tf.random.stateless_uniform([num_classes, tf.shape(features)[0]], seed) < _KEPT / num_classes
        keep = tf.ensure_shape(keep, [num_classes, None])
        on_features = losses.regulariser(
            features, corrected, labels, keep, num_kernels=losses.FEATURE_KERNELS, width=None, form=self.config.reg
        )
        on_logits = losses.regulariser(
            logits,
            corrected_logits,
            labels,
            keep,
            num_kernels=losses.PROBABILITY_KERNELS,
            width=losses.PROBABILITY_WIDTH,
            form=self.config.reg,
        )
        return on_features + on_logits

    def _phase(self) -> loop.Phase:
        groups = [
            optimizers.Group([self.classifier.backbone], 1.0, _DECAY),
            optimizers.Group([self.classifier.head], _HEAD_RATE, _DECAY),
        ]
        names = ["total", "cls", "accuracy"]
        if self.aligned:
            corrections = [self.classifier.feature_correction, self.classifier.logit_correction]
            groups.append(optimizers.Group(corrections, _CORRECTION_RATE, _DECAY))
            names += ["mmd_features", "mmd_probabilities", "entropy"]
        if self.config.alignment == "dcan":
            names.append("reg")
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
            with tf.GradientTape() as tape:
                values = self.losses_of(batch["source"], batch["class"], batch["target"], batch["number"])
            optimizer.apply(tape.gradient(values["total"], optimizer.variables_to_train))
            return values

        return loop.Phase(
            name=self.config.alignment,
            steps=self.config.steps,
            eval_every=self.config.eval_every,
            stream=self._stream,
            step=step,
            log_names=names,
            optimizer=optimizer,
        )

    def _stream(self, first: int) -> tf.data.Dataset:
        """Source and target, each shuffled on its own, whatever their lengths; of the target only the images."""

        def batches(record_set: data.RecordSet, balanced: bool, seed: int) -> tf.data.Dataset:
            return baseline.training_batches(
                record_set,
                batch_size=self.config.batch_size,
                image_size=self.config.image_size,
                balanced=balanced,
                flip=self.config.flip,
                seed=seed,
                start_step=first,
            )

        source = batches(self.source, self.config.balanced, self.config.seed)
        target = batches(self.target, False, self.config.seed + _TARGET_SEED)
        numbers = tf.data.Dataset.range(first, tf.int64.max)
        return tf.data.Dataset.zip((source, target, numbers)).map(
            lambda s, t, number: {"source": s["image"], "class": s["class"], "target": t["image"], "number": number}
        )

    def _evaluate(self, source: loop.Outputs, target: loop.Outputs) -> dict[str, float | None]:
        """The history row: accuracies, the three criteria, and what shows whether the domains come together."""
        classes = self.model_config.classes
        entropy = float(losses.entropies(tf.constant(target.probabilities, tf.float32)).numpy().mean())
        row: dict[str, float | None] = {
            "source/loss": loop.finite(source.cross_entropy()),
            "source/balanced_accuracy": source.balanced_accuracy(),
            "target/balanced_accuracy": target.balanced_accuracy(),
            "target/entropy": entropy,
            **loop.recalls_by_name(source, classes, "source"),
            **loop.recalls_by_name(target, classes, "target"),
            **_shares(source, classes, "source"),
            **_shares(target, classes, "target"),
            **self._discrepancies(source, target),
            "select/source": loop.finite(source.balanced_accuracy()),
            "select/entropy": loop.finite(-entropy),
            "select/target": loop.finite(target.balanced_accuracy()),
        }
        self._warn_of_collapse(target)
        return row

    def _discrepancies(self, source: loop.Outputs, target: loop.Outputs) -> dict[str, float]:
        picked = [_spread(outputs.features, _DISCREPANCY_IMAGES) for outputs in (source, target)]
        row = {
            "mmd/before_correction": float(losses.quadratic_mmd(*picked)),
            "feature_norm/source": _mean_norm(source.features),
            "feature_norm/target": _mean_norm(target.features),
        }
        if self.aligned:
            corrected, _ = self.classifier.correct(tf.constant(picked[1]))
            row["mmd/after_correction"] = float(losses.quadratic_mmd(picked[0], corrected))
            row["feature_norm/correction"] = _mean_norm(corrected.numpy() - picked[1])
        return row

    def _warn_of_collapse(self, target: loop.Outputs) -> None:
        shares = np.bincount(target.predictions, minlength=len(self.model_config.classes)) / len(target.predictions)
        if shares.max() >= _COLLAPSED:
            name = self.model_config.classes[int(shares.argmax())]
            print(
                f"warning: {100 * shares.max():.0f}% of the target validation images are predicted as {name}: the "
                "adaptation has collapsed, or not begun; try --init_from a trained baseline, a smaller --beta or "
                "--alpha, --balanced",
                flush=True,
            )

    def _describe(self, row: dict[str, Any]) -> str:
        terms = " ".join(f"{name[6:]} {value:.3f}" for name, value in row.items() if name.startswith("train/"))
        after = f" -> {row['mmd/after_correction']:.3f}" if "mmd/after_correction" in row else ""
        return (
            f"step {row['step']}: {terms}; balanced accuracy source {row['source/balanced_accuracy']:.3f} "
            f"target {row['target/balanced_accuracy']:.3f}; target entropy {row['target/entropy']:.3f}; "
            f"MMD {row['mmd/before_correction']:.3f}{after}"
        )


def best_by_criterion(history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """For each criterion, the values of all criteria at the evaluation that it would choose."""
    chosen = {}
    for criterion in CRITERIA:
        rows = [row for row in history if row.get(f"select/{criterion}") is not None]
        chosen[criterion] = _values(max(rows, key=lambda row: row[f"select/{criterion}"])) if rows else None
    return chosen


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    """Step, balanced accuracy on source and target validation, and entropy (nats; lower is better)."""
    return {
        "step": row["step"],
        "source": row["select/source"],
        "entropy": row["target/entropy"],
        "target": row["select/target"],
    }


def _check(config: DcanConfig, source: data.RecordSet, target: data.RecordSet) -> None:
    """Raises InputError for records or settings that cannot be used."""
    for values, name in ((ALIGNMENTS, "alignment"), (CRITERIA, "select"), (losses.REGULARISERS, "reg")):
        if getattr(config, name) not in values:
            raise InputError(f"--{name}={getattr(config, name)}: must be one of {', '.join(values)}")
    loop.check_classes(source, flag="--source_records", split="train")
    loop.check_classes(source, flag="--source_records", split="validation", every_class=False)
    if (source.info.label_version, source.info.classes) != (target.info.label_version, target.info.classes):
        raise InputError(
            f"--target_records={target.path}: is of label version {target.info.label_version} "
            f"({', '.join(target.info.classes) or 'no classes'}), the source of {source.info.label_version} "
            f"({', '.join(source.info.classes)}); build both with the same --label_version"
        )
    loop.check_classes(target, flag="--target_records", split="train", every_class=False)
    loop.check_classes(target, flag="--target_records", split="validation", every_class=False)
    if config.batch_size < source.num_classes:
        raise InputError(
            f"--batch_size={config.batch_size}: is smaller than the {source.num_classes} classes; "
            f"give at least {source.num_classes}"
        )
    if config.weights == "none" and not config.init_from and not config.train_batch_norm:
        raise InputError(
            "--weights=none: BatchNorm would run on the stored statistics of a random network; start from a "
            "source-trained run (--init_from=RUN of train-baseline), or give --train_batch_norm"
        )
    for record_set, flag in ((source, "--source_records"), (target, "--target_records")):
        loop.note_resolution(record_set, config.image_size, flag)


def _accuracy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, axis=1), labels), tf.float32))


def _shares(outputs: loop.Outputs, classes: Sequence[str], prefix: str) -> dict[str, float]:
    shares = np.bincount(outputs.predictions, minlength=len(classes)) / len(outputs.predictions)
    return {f"{prefix}/predicted/{name}": float(share) for name, share in zip(classes, shares, strict=True)}


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` rows, evenly over the set (records may be ordered by patient or class)."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))]


def _mean_norm(rows: np.ndarray) -> float:
    return float(np.linalg.norm(rows, axis=1).mean())
