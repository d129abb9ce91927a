"""Self-supervised pretraining: an encoder learns from images without labels that two views of one belong together."""

import dataclasses
import pathlib
from typing import Any

import tensorflow as tf
from matplotlib import pyplot as plt

from tfcxr import addons, data, plotting
from tfcxr.classifiers import choices, loading
from tfcxr.classifiers.pretraining import augmentations, methods
from tfcxr.classifiers.pretraining.probe import LinearProbe
from tfcxr.classifiers.training import loop, optimizers
from tfcxr.training import runs, strategies
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import pixel_ranges
from tfrecords_builder.labels.canonical import SPLITS

_MOMENTUM = 0.9
_COLLAPSED = 0.1  # of methods.spread
_PAIRS_SHOWN = 8
# Vectors, such as biases and those of BatchNorm, have neither weight decay nor a step by their length.
_VECTORS = (r"/bias", r"/gamma", r"/beta")


@dataclasses.dataclass(frozen=True)
class PretrainingConfig:
    """Settings of a pretraining run, besides the records.

    Attributes:
        method: one of choices.PRETRAINING_METHODS.
        splits: whose images are trained on.
        positives: image: both views are of one image; patient: of two images of one patient, where there are two.
        backbone, stem, image_size, framing, dtype: see models.ModelConfig.
        weights, init_from: see loading.initialise.
        projection: length of the vectors that the loss compares; None for the method's.
        temperature: of NT-Xent.
        crop_area, rotation, jitter, blur, cutout, flip: see augmentations.Augmentation.
        batch_size: images per step, of each of which there are two views.
        steps: training steps.
        optimizer: one of choices.PRETRAINING_OPTIMIZERS; None for the method's.
        learning_rate: its peak; None for the optimizer's, which depends on the batch size.
        weight_decay: None for the optimizer's.
        warmup_steps: over which the learning rate rises from 0, before it falls along a cosine; None for a tenth.
        eval_every: steps between evaluations.
        probe_images: of the train and the validation split each, at most, for the linear probe; 0 for no probe.
        select: the weights kept: last, or those best by the probe, which uses labels.
        patience: evaluations without a better probe before training stops; 0 for never.
        checkpoint_steps: steps between checkpoints besides those at evaluations; 0 for none.
        seed: of weights, order and views.
    """

    method: str = "simclr"
    splits: tuple[str, ...] = ("train",)
    positives: str = "image"
    backbone: str = "resnet50"
    stem: str = "imagenet"
    image_size: int = 224
    framing: str = "crop"
    dtype: str = "float32"
    weights: str = "none"
    init_from: str | None = None
    projection: int | None = None
    temperature: float = 0.1
    crop_area: float = 0.3
    rotation: float = 10.0
    jitter: float = 0.4
    blur: float = 0.5
    cutout: float = 0.5
    flip: bool = False
    batch_size: int = 256
    steps: int = 10000
    optimizer: str | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    warmup_steps: int | None = None
    eval_every: int = 500
    probe_images: int = 2000
    select: str = "last"
    patience: int = 0
    checkpoint_steps: int = 500
    seed: int = 0

    @property
    def augmentation(self) -> augmentations.Augmentation:
        """How strong views are changed."""
        names = [field.name for field in dataclasses.fields(augmentations.Augmentation)]
        return augmentations.Augmentation(**{name: getattr(self, name) for name in names})


def check_settings(config: PretrainingConfig) -> None:
    """Raises InputError for settings without use, whatever the records."""
    choices.check_backbone(config.backbone, config.image_size, attention=False)
    unknown = sorted(set(config.splits) - set(SPLITS))
    if unknown or not config.splits:
        raise InputError(f"--splits={','.join(config.splits)}: must be some of {', '.join(SPLITS)}")
    if (config.warmup_steps or 0) >= config.steps:
        raise InputError(f"--warmup_steps={config.warmup_steps}: must be less than --steps={config.steps}")
    if config.select == "probe" and not config.probe_images:
        raise InputError("--select=probe: needs a probe; give --probe_images")
    if config.patience and config.select != "probe":
        raise InputError("--patience: needs --select=probe; the last weights are always better than those before")


class Pretraining:
    """A pretraining run: checks and makes everything when constructed, trains when told to.

    On several devices, each compares the views of its own share of a batch.
    """

    def __init__(self, config: PretrainingConfig, record_set: data.RecordSet, *, load_weights: bool = True):
        """Checks the input and makes the network.

        Args:
            config: settings.
            record_set: the images; its labels are used by the probe alone.
            load_weights: whether to load the first weights; a resumed run has its own.

        Raises:
            InputError: records or weights that cannot be used.
        """
        check_settings(config)
        strategy = tf.distribute.get_strategy()
        strategies.check_shares(strategy, config.batch_size)
        if config.batch_size < 2 * strategy.num_replicas_in_sync:
            raise InputError(f"--batch_size={config.batch_size}: each device needs two images, to tell them apart")
        self.config, self.record_set = config, record_set
        self._splits = tuple(dict.fromkeys(config.splits))
        self._num_images = sum(record_set.num_examples(split) for split in self._splits)
        if self._num_images < config.batch_size:
            raise InputError(
                f"--batch_size={config.batch_size}: {record_set.path} has {self._num_images} images in "
                f"{', '.join(self._splits)}, and a batch must not hold one twice; give a smaller one"
            )
        if config.positives == "patient":
            self._check_patients()
        loop.note_resolution(record_set, config.image_size, "--records")
        self.encoder = loading.make_encoder(
            config, record_set, num_images=self._num_images, views=2, load_weights=load_weights
        )
        self._probe = self._make_probe()
        known = choices.PRETRAINING_METHODS[config.method]
        self.method = methods.METHODS[config.method](
            self.encoder.width, config.projection or known.projection, config.temperature, config.seed
        )

    def _check_patients(self) -> None:
        paired = data.count_paired(self.record_set, self._splits)
        if not paired:
            raise InputError(
                f"--positives=patient: no patient of {self.record_set.path} has two images in "
                f"{' or in '.join(self._splits)}; give --positives=image"
            )
        alone = self._num_images - paired
        print(
            f"note: --positives=patient: {paired} images have another one of their patient; the other {alone} are "
            "paired with themselves",
            flush=True,
        )

    def _make_probe(self) -> LinearProbe | None:
        """The probe, if it is wanted and the records have labels for it."""
        if not self.config.probe_images:
            return None
        probe = LinearProbe(self.encoder, self.record_set, self.config.probe_images)
        if probe.names:
            return probe
        if self.config.select == "probe":
            raise InputError(
                f"--select=probe: the train and validation splits of {self.record_set.path} have too few labels"
            )
        print("note: no linear probe: the train and validation splits have too few labels", flush=True)
        return None

    def run_config(self) -> dict[str, Any]:
        """What decides the result, for config.json."""
        return {**dataclasses.asdict(self.config), **dataclasses.asdict(self.encoder.config)}

    def train(self, run: runs.RunFolder) -> dict[str, Any]:
        """Trains in an open run folder, to the end; writes curves.png, samples/pairs.png and result.json.

        Returns:
            What result.json holds.
        """
        picture = run.samples / "pairs.png"
        if not picture.exists():
            plot_pairs(next(iter(self._stream(0))), picture)

        if self._probe and not run.resumed:
            print(f"first weights: linear probe AUC {self._probe()['probe/auc']:.3f}", flush=True)

        def evaluate() -> dict[str, float | None]:
            if not trainer.history:
                tf.summary.image("pairs", tf.io.decode_png(picture.read_bytes(), channels=3)[tf.newaxis], trainer.step)
            row: dict[str, float | None] = dict(self._probe()) if self._probe else {}
            # The last row is always the best.
            return {**row, "select/last": float(trainer.step), "select/probe": row.get("probe/auc")}

        trainer = loop.Trainer(
            run,
            self.encoder,
            [self._phase()],
            evaluate=evaluate,
            records=str(self.record_set.path),
            select=self.config.select,
            checkpoint_steps=self.config.checkpoint_steps,
            patience=self.config.patience,
            describe=_describe,
        )
        trainer.fit()
        plot_curves(trainer.history, run.path / "curves.png")
        result = {
            "kind": "pretrain",
            "method": self.config.method,
            "steps": trainer.step,
            "images": self._num_images,
            "select": self.config.select,
            "selected_on_labels": self.config.select == "probe",
            "probed": list(self._probe.names) if self._probe else [],
            "best": trainer.best,
            "last": trainer.history[-1],
        }
        trainer.finish(result)
        return result

    def _phase(self) -> loop.Phase:
        optimizer = self._make_optimizer()

        def step(batch):
            with tf.GradientTape() as tape:
                # One pass for both: BatchNorm sees all views, as the reference implementations do on one device.
                features = self.encoder.features(tf.concat([batch["a"], batch["b"]], axis=0), training=True)
                values = self.method.losses(*tf.split(features, 2))
            optimizer.apply(tape.gradient(values["loss"], optimizer.variables_to_train))
            return {**values, "feature_spread": methods.spread(features)}

        return loop.Phase(
            name=self.config.method,
            steps=self.config.steps,
            eval_every=self.config.eval_every,
            stream=self._stream,
            step=step,
            log_names=[*self.method.log_names, "feature_spread"],
            optimizer=optimizer,
            layers=self.method.layers,
        )

    def _make_optimizer(self) -> optimizers.GroupedOptimizer:
        config = self.config
        name = config.optimizer or choices.PRETRAINING_METHODS[config.method].optimizer
        known = choices.PRETRAINING_OPTIMIZERS[name]
        decay = known.weight_decay if config.weight_decay is None else config.weight_decay
        warmup = config.steps // 10 if config.warmup_steps is None else config.warmup_steps
        peak = config.learning_rate or known.peak(config.batch_size)
        schedule = optimizers.make_schedule("cosine", peak, config.steps, warmup)
        makers = {
            "lars": lambda _: optimizers.Lars(schedule, momentum=_MOMENTUM, coupled_decay=decay),
            "lamb": lambda _: addons.make_lamb(schedule, weight_decay=decay, exclude=_VECTORS),
            "sgd": lambda _: optimizers.CoupledSGD(schedule, momentum=_MOMENTUM, coupled_decay=decay),
        }
        return optimizers.GroupedOptimizer(
            [optimizers.Group([self.encoder.backbone, *self.method.layers])], makers[name]
        )

    def _stream(self, first: int, context: tf.distribute.InputContext = strategies.ALONE) -> tf.data.Dataset:
        """Endless batches {"a", "b": float32 [B, S, S, 1] in [0, 1]}, both views of each draw, from step `first` on."""
        config = self.config
        stream = data.unlabelled_stream(
            self.record_set,
            self._splits,
            batch_size=config.batch_size,
            seed=config.seed,
            start=first * config.batch_size,
            same_patient=config.positives == "patient",
            shares=context.num_replicas_in_sync,
            own=strategies.own_shares(context),
        )

        @tf.autograph.experimental.do_not_convert
        def convert(batch):
            images = pixel_ranges.uint8_to_unit(batch["image"])
            partners = pixel_ranges.uint8_to_unit(batch["partner"]) if "partner" in batch else images
            a, b = augmentations.make_views(
                images,
                partners,
                batch["index"],
                image_size=config.image_size,
                seed=config.seed,
                augmentation=config.augmentation,
            )
            return {"a": a, "b": b}

        return stream.map(convert, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)


def plot_pairs(batch: dict[str, tf.Tensor], path: pathlib.Path) -> None:
    """The first pairs of a batch, a column each."""
    count = min(_PAIRS_SHOWN, int(batch["a"].shape[0]))
    figure, axes = plt.subplots(2, count, figsize=(1.3 * count, 2.9), layout="constrained", squeeze=False)
    for row, view in zip(axes, ("a", "b"), strict=True):
        for axis, image in zip(row, batch[view].numpy(), strict=False):
            axis.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1)
            axis.set_axis_off()
    figure.suptitle("pairs that shall have like features, one above the other", fontsize=9)
    plotting.save(figure, path, 120)


def plot_curves(history: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Loss, collapse indicators, and the probe, if there is one, over the steps."""
    steps = [row["step"] for row in history]
    panels: list[tuple[str, list[tuple[str, str]]]] = [
        ("loss", [("train/loss", "training")]),
        ("spread (0: collapsed)", [("train/spread", "projections"), ("train/feature_spread", "features")]),
    ]
    names = [name for name in history[-1] if name.startswith("probe/auc/")]
    if names:
        others = [(name, name.removeprefix("probe/auc/")) for name in names] if len(names) > 1 else []
        panels.append(("AUC of the linear probe", [*others, ("probe/auc", "mean" if others else names[0][10:])]))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * len(panels), 3.6), layout="constrained")
    for axis, (title, curves) in zip(axes, panels, strict=True):
        for key, label in curves:
            colour = "black" if key in ("train/loss", "probe/auc") else None
            axis.plot(steps, [row[key] for row in history], ".-", color=colour, label=label)
        axis.set_xlabel("step")
        axis.set_ylabel(title)
        axis.legend(fontsize=7)
    plotting.save(figure, path, 120)


def _describe(row: dict[str, Any]) -> str:
    parts = " ".join(f"{name[6:]} {value:.3f}" for name, value in row.items() if name.startswith("train/"))
    probe = f"; linear probe AUC {row['probe/auc']:.3f}" if "probe/auc" in row else ""
    collapsed = (
        "; warning: all images look nearly the same to it (spread): try a smaller --learning_rate or a larger batch"
        if row["train/spread"] < _COLLAPSED
        else ""
    )
    return f"step {row['step']}: {parts}{probe}{collapsed}"
