"""The baseline ("No Alignment"): a classifier fine-tuned on labelled records in two stages.

Stage 1 trains the head on frozen features, stage 2 the whole network; the four variants differ in the learning rate of
the layers and its schedule. The records may be cut down to a few images of each class, to fine-tune a classifier of
synthetic images, or mixed with others, such as synthetic ones.
"""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib import pyplot as plt

from tfcxr import data, metrics, plotting
from tfcxr.classifiers import choices, inference, loading
from tfcxr.classifiers.networks import preprocessing
from tfcxr.classifiers.training import loop, losses, optimizers
from tfcxr.training import runs, strategies
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import pixel_ranges

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
        backbone, stem, image_size, dtype: see models.ModelConfig.
        weights, init_from: see loading.initialise.
        batch_size: images per step.
        stage1_epochs: of the head alone; skipped if the backbone starts from random weights.
        stage2_epochs: of the whole network.
        learning_rate: of stage 2; None for the variant's.
        class_weights: weigh each image by N / (K n_class) in the loss.
        balanced: draw each class equally often.
        flip: flip half of the training images left-right.
        labelled_per_class: train on so many images of each class, chosen by `seed` (see data.choose_per_class); None
            for all.
        labelled_fraction: train on the images of such a fraction of the patients, chosen by `seed` (see
            data.choose_fraction); None for all.
        extra_ratio: images of the extra set for each image of the records, if there is an extra set.
        duplicate_control: repeat images of the records instead of those of the extra set (see data.Extra).
        patience: epochs of stage 2 without a better one before it stops; 0 for never.
        checkpoint_steps: steps between checkpoints within an epoch; 0 for none.
        seed: of weights, order and augmentation.
    """

    variant: str = "layer_lr_sched"
    backbone: str = "resnet50"
    stem: str = "imagenet"
    image_size: int = 224
    dtype: str = "float32"
    weights: str = "imagenet"
    init_from: str | None = None
    batch_size: int = 32
    stage1_epochs: int = 2
    stage2_epochs: int = 10
    learning_rate: float | None = None
    class_weights: bool = False
    balanced: bool = False
    flip: bool = False
    labelled_per_class: int | None = None
    labelled_fraction: float | None = None
    extra_ratio: float = 1.0
    duplicate_control: bool = False
    patience: int = 0
    checkpoint_steps: int = 500
    seed: int = 0


def check_settings(config: BaselineConfig, extra_records: str | None) -> None:
    """Raises InputError for settings without use, whatever the records; `extra_records`: the flag's value."""
    choices.check_backbone(config.backbone, config.image_size, attention=False)
    if config.labelled_fraction and config.labelled_per_class:
        raise InputError("--labelled_fraction: chooses the images in another way than --labelled_per_class; give one")
    if config.duplicate_control and not extra_records:
        raise InputError("--duplicate_control: repeats as many images as --extra_records would add; give that too")


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
        loop.check_classes(record_set, flag="--records", split="train")
        classes = record_set.labels("train")["class"]
        self._only = _choose(record_set, classes, config)
        self._folders = [str(read.path) for read in (record_set, extra_set) if read]
        self._extra = _make_extra(config, record_set, extra_set, int(self._only.sum()))
        # Images of each class in an epoch.
        self._counts = np.bincount(classes[self._only], minlength=record_set.num_classes)
        if self._extra:
            self._counts = self._counts + _extra_counts(self._extra)
        loop.check_classes(record_set, flag="--records", split="validation", every_class=False)
        loop.note_resolution(record_set, config.image_size, "--records")
        self.classifier = loading.make_classifier(
            config,
            record_set,
            pictures=[record_set, *([extra_set] if extra_set else [])],
            load_weights=load_weights,
        )
        self.model_config = self.classifier.config

    def run_config(self) -> dict[str, Any]:
        """What decides the result, for config.json."""
        return {**dataclasses.asdict(self.config), **dataclasses.asdict(self.model_config)}

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
            evaluate=lambda: self._evaluate(validate()),
            select="source",
            checkpoint_steps=self.config.checkpoint_steps,
            records=" or ".join(self._folders),
            patience=self.config.patience,
            describe=lambda row: _describe(row, self._steps_per_epoch),
        )
        trainer.fit()
        plot_curves(trainer.history, self._steps_per_epoch, run.path / "curves.png")
        result = {
            "kind": "baseline",
            "variant": self.config.variant,
            "steps": trainer.step,
            "images_per_epoch": self._images_per_epoch,
            "select": "source",
            "selected_on_target_labels": False,
            "best": trainer.best,
            "last": trainer.history[-1],
            "classes": list(self.model_config.classes),
        }
        trainer.finish(result)
        return result

    @property
    def _images_per_epoch(self) -> dict[str, int]:
        return {"records": int(self._only.sum()), "extra": self._extra.per_pass if self._extra else 0}

    @property
    def _steps_per_epoch(self) -> int:
        return max(1, round(sum(self._images_per_epoch.values()) / self.config.batch_size))

    @property
    def _skips_stage1(self) -> bool:
        # A head on the features of a random network would learn noise.
        return self.config.weights == "none" and not self.config.init_from

    def _stage1(self) -> loop.Phase:
        steps = 0 if self._skips_stage1 else self.config.stage1_epochs * self._steps_per_epoch
        optimizer = optimizers.GroupedSGD(
            [optimizers.Group([self.classifier.head])],
            learning_rate=_STAGE1_RATE,
            steps=steps,
            momentum=_MOMENTUM,
            weight_decay=_STAGE1_DECAY,
        )
        return self._phase("head", steps, optimizer, train_backbone=False, seed=self.config.seed)

    def _stage2(self) -> loop.Phase:
        variant = choices.VARIANTS[self.config.variant]
        steps = self.config.stage2_epochs * self._steps_per_epoch
        optimizer = optimizers.GroupedSGD(
            [
                optimizers.Group([self.classifier.backbone], 1.0, variant.decay),
                optimizers.Group([self.classifier.head], variant.head_rate, variant.decay),
            ],
            learning_rate=self.config.learning_rate or variant.learning_rate,
            steps=steps,
            schedule=variant.schedule,
            momentum=_MOMENTUM,
            nesterov=variant.nesterov,
            weight_decay=variant.weight_decay,
        )
        return self._phase("network", steps, optimizer, train_backbone=True, seed=self.config.seed + 1)

    def _phase(
        self, name: str, steps: int, optimizer: optimizers.GroupedSGD, *, train_backbone: bool, seed: int
    ) -> loop.Phase:
        weights = None
        if self.config.class_weights:
            weights = tf.constant(self._counts.sum() / (len(self._counts) * self._counts), tf.float32)

        def step(batch):
            with tf.GradientTape() as tape:
                features = self.classifier.features(batch["image"], "source", training=train_backbone)
                logits = self.classifier.classify(features, "source")
                loss = losses.cross_entropy(logits, batch["class"], weights)
            optimizer.apply(tape.gradient(loss, optimizer.variables_to_train))
            hits = tf.equal(tf.argmax(logits, axis=1), batch["class"])
            return {"loss": loss, "accuracy": tf.reduce_mean(tf.cast(hits, tf.float32))}

        def stream(first: int, context: tf.distribute.InputContext) -> tf.data.Dataset:
            return training_batches(
                self.record_set,
                batch_size=self.config.batch_size,
                image_size=self.config.image_size,
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

    def _evaluate(self, outputs: inference.Outputs) -> dict[str, float | None]:
        accuracy = outputs.balanced_accuracy()
        return {
            "validation/loss": outputs.cross_entropy(),
            "validation/accuracy": float(np.mean(outputs.predictions == outputs.labels)),
            "validation/balanced_accuracy": accuracy,
            **loop.recalls_by_name(outputs, self.model_config.classes, "validation"),
            "select/source": metrics.finite(accuracy),
        }


def training_batches(
    record_set: data.RecordSet,
    *,
    batch_size: int,
    image_size: int,
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
        Dataset of {"image": float32 [B, S, S, 1] in [0, 1], "class": int64 [B]}; with several devices, of the shares of
        those that are here, in turn.
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

    def convert(batch):
        images = pixel_ranges.uint8_to_unit(batch["image"])
        framed = preprocessing.augment(images, batch["index"], image_size=image_size, seed=seed, flip=flip)
        return {"image": framed, "class": batch["class"]}

    return stream.map(convert, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)


def _choose(record_set: data.RecordSet, classes: np.ndarray, config: BaselineConfig) -> np.ndarray:
    """Which training images to use: bool [N]."""
    if config.labelled_fraction:
        return _choose_fraction(record_set, classes, config.labelled_fraction, config.seed)
    number = config.labelled_per_class
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


def plot_curves(history: list[dict[str, Any]], steps_per_epoch: int, path) -> None:
    """Loss and accuracy over the epochs, training and validation (as the thesis's Figure 5.1)."""
    epochs = [row["step"] / steps_per_epoch for row in history]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    lines = (
        ("loss", (("train/loss", "training"), ("validation/loss", "validation"))),
        (
            "accuracy",
            (
                ("train/accuracy", "training"),
                ("validation/accuracy", "validation"),
                ("validation/balanced_accuracy", "validation, balanced"),
            ),
        ),
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


def _describe(row: dict[str, Any], steps_per_epoch: int) -> str:
    recalls = " ".join(
        f"{name.rsplit('/', 1)[1]} {value:.2f}"
        for name, value in row.items()
        if "/recall/" in name and value is not None
    )
    return (
        f"epoch {row['step'] / steps_per_epoch:g} ({row['phase']}): "
        f"train loss {row['train/loss']:.4f} accuracy {row['train/accuracy']:.3f}; "
        f"validation loss {row['validation/loss']:.4f} "
        f"balanced accuracy {row['validation/balanced_accuracy']:.3f}; recall {recalls}"
    )
