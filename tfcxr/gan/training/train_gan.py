"""Trains a GAN in a run folder: schedule, ticks, samples, fidelity, checkpoints, resume, early stop.

training.controller drives it; `steps` has the steps. The schedule counts kimg, thousands of real images shown (Karras
2018).
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfcxr import data
from tfcxr.gan import loading
from tfcxr.gan.networks import network_config
from tfcxr.gan.training import collapse, fidelity_measurement, schedule, steps, tick_reports, warm_start
from tfcxr.training import checkpoints, controller, devices, early_stop, runs, strategies
from tfrecords_builder import files
from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.labels import combinations

# Kimg per tick, in all, and before which no run stops early, by resolution: Karras 2018's ticks, the benchmark's totals
# and earliest stops (16 px as 32 px; 256 and 512 px ours).
TICK_KIMG = {4: 160, 8: 140, 16: 120, 32: 100, 64: 80, 128: 60, 256: 40, 512: 20}
TOTAL_KIMG = {8: 12000, 16: 12000, 32: 12000, 64: 14000, 128: 16000, 256: 16000, 512: 16000}
MIN_KIMG = {8: 7000, 16: 7000, 32: 7000, 64: 7000, 128: 9000, 256: 9000, 512: 9000}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of a run; together with the records they determine its result.

    Attributes:
        network: shapes and initial values.
        step: loss, optimizer, batch.
        total_kimg: length of the run.
        tick_kimg: a report with samples so often.
        checkpoint_kimg: a checkpoint so often: what a killed run loses at most.
        features, features_weights: in which fidelity is measured, see `fidelity.features.make_extractor`.
        fid_images: real and generated images of a measurement; all training images where there are fewer.
        fid_ticks: a measurement so often, and at the end.
        patience: measurements without improvement after which the run stops; 0: it never stops early.
        min_kimg: it does not stop before.
        train_kimg, fade_kimg: prog-GAN: of each resolution's training and fade; None: see `schedule.growing`.
        batch_sizes, learning_rates: prog-GAN: by resolution, instead of the schedule's own.
    """

    network: network_config.NetworkConfig
    step: steps.StepConfig
    total_kimg: float
    tick_kimg: float
    checkpoint_kimg: float
    features: str = "pixels_pca64"
    features_weights: str | None = None
    fid_images: int = 10_000
    fid_ticks: int = 4
    patience: int = 2
    min_kimg: float = 0.0
    train_kimg: float | None = None
    fade_kimg: float | None = None
    batch_sizes: dict[int, int] = dataclasses.field(default_factory=dict)
    learning_rates: dict[int, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name in ("total_kimg", "tick_kimg", "checkpoint_kimg", "fid_ticks"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be positive")
        for name in ("patience", "min_kimg"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        growing = {name: getattr(self, name) for name in ("train_kimg", "fade_kimg", "batch_sizes", "learning_rates")}
        given = [name for name, value in growing.items() if value not in (None, {})]
        if given and self.network.arch != "prog":
            raise ValueError(f"{given[0]}={growing[given[0]]}: is for arch prog")
        if self.network.arch == "prog" and self.step.d_steps > 1:
            raise ValueError(f"d_steps={self.step.d_steps}: must be 1 with arch prog")
        if self.network.arch == "prog" and self.step.lr_decay_kimg is not None:
            raise ValueError(f"lr_decay_kimg={self.step.lr_decay_kimg}: is for arch cpd; give learning_rates")
        for phase in self.phases():
            steps.check_passes(phase.batch_size, self.step.passes)

    def to_dict(self) -> dict[str, Any]:
        """Flat JSON values; both networks are rebuilt from them."""
        parts = dataclasses.asdict(self.network) | dataclasses.asdict(self.step)
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[2:]}
        return {**parts, **own}

    def phases(self) -> list[schedule.Phase]:
        """The schedule: one phase for cpD-GAN, growth for prog-GAN."""
        total = round(self.total_kimg * 1000)
        if self.network.arch == "prog":
            return schedule.growing(
                self.network.resolution,
                total,
                self.train_kimg,
                self.fade_kimg,
                self.batch_sizes,
                self.learning_rates,
            )
        shown = self.step.batch_size * self.step.d_steps
        return schedule.constant(self.network.stages, total, shown, self.step.learning_rate)


def train(
    config: TrainConfig,
    record_set: data.RecordSet,
    run: runs.RunFolder,
    *,
    start: warm_start.WarmStart | None = None,
    strategy: tf.distribute.Strategy | None = None,
    options: tick_reports.Options | None = None,
) -> dict[str, Any]:
    """Trains from the run's last checkpoint (or from the start) to the end, and finishes the run.

    Args:
        config: settings; the network's resolution must be the records'.
        record_set: trains on its train split; rows without a label that the network sees are left out and counted.
        run: an open run folder of kind 'gan'.
        start: weights to begin with instead of random ones, if the run has no checkpoint yet.
        strategy: shares each batch among its devices; None: one device.
        options: what TensorBoard shows beside the usual.

    Returns:
        The content of result.json.

    Raises:
        InputError: no image to train on, a batch that the devices cannot share, or features that cannot be used.
        RunError: losses that are not numbers, damaged records, or a checkpoint that cannot be written or read.
        Interrupted: SIGINT or SIGTERM; the state is saved.
    """
    strategy = strategy or tf.distribute.get_strategy()
    with strategies.naming_lost_workers(strategy):
        return _Training(config, record_set, run, start, strategy, options).run()


class _Training:
    """A run in memory: what the controller drives, see controller.Task; its positions are images shown."""

    def __init__(
        self,
        config: TrainConfig,
        record_set: data.RecordSet,
        run: runs.RunFolder,
        start: warm_start.WarmStart | None,
        strategy: tf.distribute.Strategy,
        options: tick_reports.Options | None,
    ):
        self._config, self._records, self._run, self._start, self._strategy = config, record_set, run, start, strategy
        self._chief = strategies.is_chief(strategy)
        self._phases = config.phases()
        shares = strategy.num_replicas_in_sync
        for phase in self._phases:
            size = self._batch_size(phase)
            if shares > 1 and size % (4 * shares * config.step.passes):
                raise InputError(
                    f"--strategy: {shares} devices in {config.step.passes} passes cannot share batches of {size} "
                    f"images; the batch size must be divisible by {4 * shares * config.step.passes}"
                )
        self._filter = config.network.seen_labels
        vectors = record_set.labels("train")["vector"]
        self._kept = vectors[data.has_any(vectors, self._filter)]
        if not len(self._kept):
            raise InputError(
                f"--records={record_set.path}: no training image has a label that the GAN is conditioned on"
            )
        self._num_skipped = len(vectors) - len(self._kept)
        with strategy.scope():
            self._state = steps.make_state(config.network, config.step)
        with strategies.together(strategy):
            devices.check_batch(
                self._batch_size(self._phases[-1]),
                num_images=len(self._kept),
                pixels=config.network.resolution**2,
                graphs=lambda number: [
                    devices.trace(network, number) for network in (self._state.generator, self._state.discriminator)
                ],
                passes=config.step.passes,
                strategy=strategy,
            )
        self._early_stop = early_stop.EarlyStop("fidelity", config.patience, maximize=False, not_before=config.min_kimg)
        best = tf.train.Checkpoint(**{part: getattr(self._state, part) for part in loading.BEST_PARTS})
        with strategies.together(strategy):
            self._best = checkpoints.Writer(best, run.best, keep=None) if self._chief else None
        self._controller = controller.Controller(
            run, self._state, self._state.step, strategy=strategy, best=self._best, writes=self._chief
        )
        self._restore()
        self._window, self._before = _Window(), 0
        self._fidelity: fidelity_measurement.Fidelity | None = None
        self._options = options or tick_reports.Options()
        with strategies.together(strategy), data.naming_damage(record_set.path):
            self._begin_writing()

    def _begin_writing(self) -> None:
        """What only the first worker has: files and measurements."""
        config, record_set, run = self._config, self._records, self._run
        if self._chief:
            if (run.path / loading.TICKS).exists():  # perhaps of steps that will be done again
                self._write_ticks()
            self._write_combinations()
            self._fidelity = fidelity_measurement.make(
                record_set,
                features_name=config.features,
                features_weights=config.features_weights,
                num_images=config.fid_images,
                labels=self._filter,
                latent_size=config.network.latent_size,
                seed=config.step.seed,
                cache_dir=self._options.cache_dir or run.path / "statistics",
            )
            self._report = tick_reports.Report(
                run, self._sample_rows(), self._controller.writer, network=config.network, seed=config.step.seed
            )
            if not self._controller.restored:
                self._report.begin(config.to_dict())

    def _batch_size(self, phase: schedule.Phase) -> int:
        """Images per batch; a step has as many of them as the discriminator has steps."""
        return phase.batch_size // self._config.step.d_steps

    def run(self) -> dict[str, Any]:
        """Trains to the end and finishes the run; returns the content of result.json, {} if another worker writes."""
        began = time.monotonic()
        self._window.clear()
        self._window.restore(self._state.history.values.get("window", {}))
        self._controller.train(
            self,
            total=self._total,
            description=f"GAN {self._config.network.resolution} px",
            unit="images",
            evaluate_first=True,
        )
        return self._finish(time.monotonic() - began)

    @property
    def position(self) -> int:
        """Real images shown."""
        return int(self._state.images_shown.numpy())

    @property
    def _total(self) -> int:
        return self._phases[-1].first_image + self._phases[-1].num_images

    def next_stretch(self) -> controller.Stretch:
        """The phase of the next step."""
        shown = self.position
        config, state = self._config, self._state
        _, phase = schedule.at(self._phases, shown)
        self._enter(phase, shown)
        runner = steps.StepRunner(
            state,
            config.step,
            self._kept,
            network=config.network,
            phase=phase if config.network.arch == "prog" else None,
            strategy=self._strategy,
        )
        batches = iter(self._stream(self._batch_size(phase), shown))
        self._window.measures = runner.measures

        def run(most: int) -> int:
            step = int(state.step.numpy())
            count = self._options.limit(step, most)
            # Profilers of several workers on one machine would write the same file.
            profiled = self._options.profiled(step, self._run.tensorboard) if self._chief else contextlib.nullcontext()
            self._before = self.position
            with profiled, data.naming_damage(self._records.path):
                self._window.add(runner.run(batches, tf.constant(count)), count, runner.images_per_step)
            # A checkpoint may be amid a tick.
            self._state.history.values["window"] = self._window.state()
            self.check()
            return count

        return controller.Stretch(
            run=run,
            end=phase.first_image + phase.num_images,
            per_step=runner.images_per_step,
            evaluations=controller.Every(self._tick_images),
            checkpoints=controller.Every(round(config.checkpoint_kimg * 1000)),
            saves_evaluations=False,
            reports_end=phase is self._phases[-1],
        )

    @property
    def _tick_images(self) -> int:
        return round(self._config.tick_kimg * 1000)

    def check(self) -> None:
        """Raises RunError if a loss is not a number."""
        bad = [name for name, value in self._window.means().items() if not np.isfinite(value)]
        if bad:
            raise RunError(
                f"{bad[0]} is not a number after {self.position / 1000:.1f} kimg; the last checkpoint is intact. Try a "
                "smaller --learning_rate, --init=calm, or --loss=logistic_r1"
            )

    def evaluate(self) -> None:
        """A tick: its samples, at some of them fidelity, and its row."""
        shown = self.position
        measurements = controller.Every(self._tick_images * self._config.fid_ticks)
        due = not shown or shown >= self._total or measurements.within(self._before, shown)
        self._tick(fidelity=due)
        self._window.clear()
        self._state.history.values["window"] = self._window.state()

    def out_of_patience(self) -> bool:
        """Whether fidelity no longer improves."""
        return self._early_stop.is_due(self.position / 1000)

    def _enter(self, phase: schedule.Phase, shown: int) -> None:
        """Sets what a phase begins with."""
        self._state.set_learning_rates(*self._config.step.rates(phase.learning_rate))
        if phase.new_optimizer and shown == phase.first_image:
            self._state.forget_moments()

    def _stream(self, batch_size: int, shown: int):
        def make(context):
            return data.training_stream(
                self._records,
                "train",
                batch_size=batch_size,
                seed=self._config.step.seed,
                start=shown,
                filter_labels=self._filter,
                shares=context.num_replicas_in_sync,
                own=strategies.own_shares(context),
            )

        return strategies.distribute(self._strategy, make)

    def _restore(self) -> None:
        """Takes what the restored checkpoint remembers, or begins."""
        if self._controller.restored:
            remembered = self._state.history.values["patience"]
            self._early_stop.best, self._early_stop.best_at = remembered["best"], remembered["best_kimg"]
            self._early_stop.stale = remembered["stale"]
            self._check_best()
        elif self._start:
            self._start.apply(self._state)
            if self._chief:
                print(f"started from the weights of {self._start.run} at {self._start.kimg:.1f} kimg", flush=True)

    def _check_best(self) -> None:
        """Raises RunError if the best snapshot so far is gone or damaged: what is best at the end would be another."""
        at = self._early_stop.best_at
        if at is None or not self._chief:
            return
        ticks = self._state.history.values["ticks"]
        try:
            checkpoints.check(self._run.best, next(tick["step"] for tick in ticks if tick["kimg"] == at))
        except InputError as error:
            raise RunError(
                f"{error}; it is the best snapshot so far: put back a copy of it, or start again with --overwrite"
            ) from error

    def _write_ticks(self) -> None:
        files.write_json(self._run.path / loading.TICKS, self._state.history.values["ticks"])

    def _write_combinations(self) -> None:
        """The label combinations of the training fold, from which synthetic sets are drawn."""
        labels = self._records.info.labels
        table = combinations.to_table(combinations.count(combinations.encode(self._kept), len(labels)), labels)
        files.write_json(self._run.path / loading.COMBINATIONS_FILE, table)

    def _sample_rows(self) -> list[tick_reports.SampleRow]:
        """The combinations that the network can tell apart, most frequent first, each with real images."""
        mask = np.zeros(self._kept.shape[1], np.float32)
        mask[self._filter] = 1
        labels = self._records.info.labels
        occurring = combinations.count(combinations.encode(self._kept * mask), len(labels))
        codes = combinations.rank(occurring)[: tick_reports.ROWS]
        vectors, counts = combinations.decode(codes, len(labels)), occurring[codes]
        wanted: dict[tuple, list] = {tuple(vector): [] for vector in vectors}
        stream = data.evaluation_batches(self._records, "train", 64)
        for batch in stream.as_numpy_iterator():
            for vector, image in zip(batch["vector"] * mask, batch["image"], strict=True):
                there = wanted.get(tuple(vector))
                if there is not None and len(there) < tick_reports.REALS:
                    there.append(image)
            if all(
                len(there) >= min(tick_reports.REALS, count)
                for there, count in zip(wanted.values(), counts, strict=True)
            ):
                break
        return [
            tick_reports.SampleRow(combinations.format_code(code, labels), int(count), vector, np.stack(images))
            for code, vector, count, images in zip(codes, vectors, counts, wanted.values(), strict=True)
        ]

    def _generate(self, latents: tf.Tensor, labels: np.ndarray) -> np.ndarray:
        parts = [self._averaged(latents[i : i + 64], labels[i : i + 64]) for i in range(0, len(labels), 64)]
        return np.concatenate([part.numpy() for part in parts])

    @tf.function(reduce_retracing=True, autograph=False)
    def _averaged(self, latents, labels):
        return self._state.ema([latents, labels], training=False)

    def _tick(self, *, fidelity: bool) -> None:
        """One report; and of a new best, a snapshot."""
        if not self._chief:
            return
        state, config, window = self._state, self._config, self._window
        shown, means = int(state.images_shown.numpy()), window.means()
        kimg = shown / 1000
        _, phase = schedule.at(self._phases, max(shown - 1, 0))
        row: dict[str, Any] = dict(means)
        ratios = self._report.samples(self._generate, int(state.step.numpy()), kimg)
        known = [ratio for ratio in ratios if ratio is not None]
        if known:
            row["diversity/min"], row["diversity/mean"] = min(known), float(np.mean(known))
        if fidelity and self._fidelity:
            row |= self._fidelity(self._generate)
            if self._early_stop.look(row[self._fidelity.main], kimg) and self._best:
                self._best.save(int(state.step.numpy()))
        # Of training alone, whatever measuring takes.
        history = state.history.values
        for name, value in (("seconds", window.seconds), ("cpu_seconds", window.cpu_seconds)):
            row[f"time/{name}"] = history[name] = history.get(name, 0.0) + value
        if window.images:
            row["speed/images_per_s"] = window.images / window.seconds
        row["learning_rate/G"], row["learning_rate/D"] = state.learning_rates()
        if config.step.augment:
            row["augment_probability"] = float(state.augment_probability.numpy())
        if config.network.arch == "prog":
            row["lod"] = schedule.lod(phase, config.network.stages, min(shown, phase.first_image + phase.num_images))
        names = [row.name for row in self._report.rows]
        new = collapse.complaints(means, ratios, names, loss=config.step.loss) if shown else {}
        for kind, text in new.items():
            if kind not in history["warnings"]:
                logging.warning("%.1f kimg: %s", kimg, text)
            history["warnings"].setdefault(kind, {"kimg": kimg, "text": text})
        row = {"step": int(state.step.numpy()), "kimg": kimg, **{name: float(value) for name, value in row.items()}}
        history["ticks"].append(row)
        history["patience"] = {
            "best": self._early_stop.best,
            "best_kimg": self._early_stop.best_at,
            "stale": self._early_stop.stale,
        }
        self._report.tick(row, state if self._options.histograms else None, new)
        self._write_ticks()

    def _finish(self, seconds: float) -> dict[str, Any]:
        if not self._chief:
            return {}
        history = self._state.history.values
        last = history["ticks"][-1]
        measured = self._fidelity
        result = {
            "kimg": last["kimg"],
            "steps": last["step"],
            "stopped_early": last["kimg"] * 1000 < self._total,
            "seconds_of_last_call": round(seconds, 1),
            "num_images": len(self._kept),
            "num_skipped_without_label": self._num_skipped,
            "fidelity": {
                "name": measured.main,
                "num_images": measured.num_images,
                "value": last.get(measured.main),
                "best": self._early_stop.best,
                "best_kimg": self._early_stop.best_at,
            }
            if measured
            else None,
            "warnings": history["warnings"],
            "grid_rows": [{"labels": row.name, "count": row.count} for row in self._report.rows],
            "ticks": history["ticks"],
        }
        if self._start:
            result["warm_start"] = self._start.description()
        self._run.finish(result)
        return result


class _Window:
    """Sums of the measures since the last tick."""

    def __init__(self):
        self.measures: tuple[str, ...] = steps.MEASURES
        self.clear()

    def clear(self) -> None:
        self.steps, self.images, self.penalties, self.seconds, self.cpu_seconds = 0, 0, 0, 0.0, 0.0
        self._sums: dict[str, float] = {}
        self._penalty_sums = np.zeros(len(steps.PENALTY_MEASURES))
        self._since, self._cpu_since = time.monotonic(), time.process_time()

    def state(self) -> dict[str, Any]:
        """What `restore` takes, JSON values."""
        return {
            "counts": [self.steps, self.images, self.penalties],
            "seconds": [self.seconds, self.cpu_seconds],
            "sums": dict(self._sums),
            "penalty_sums": self._penalty_sums.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with what an earlier call had summed since its last tick; {}: nothing."""
        if state:
            self.steps, self.images, self.penalties = state["counts"]
            self.seconds, self.cpu_seconds = state["seconds"]
            self._sums, self._penalty_sums = dict(state["sums"]), np.array(state["penalty_sums"])

    def add(self, sums, count: int, images_per_step: int) -> None:
        # .numpy() waits for the steps, so the clock is read after it.
        measures, penalties, number = (part.numpy() for part in sums)
        now, cpu = time.monotonic(), time.process_time()
        self.seconds += now - self._since
        self.cpu_seconds += cpu - self._cpu_since
        self._since, self._cpu_since = now, cpu
        self.steps += count
        self.images += count * images_per_step
        self.penalties += int(number)
        for name, value in zip(self.measures, measures, strict=True):
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._penalty_sums += penalties

    def means(self) -> dict[str, float]:
        result = {name: value / self.steps for name, value in self._sums.items()} if self.steps else {}
        if self.penalties:
            result.update(zip(steps.PENALTY_MEASURES, self._penalty_sums / self.penalties, strict=True))
        return result
