"""Trains a GAN in a run folder: ticks, samples, checkpoints, resume.

The outer loop; `steps` is the inner one. The schedule counts kimg, thousands of real images shown (Karras 2018).
"""

import dataclasses
import logging
import time
from typing import Any

import numpy as np
import tensorflow as tf

from tfcxr import data, runs
from tfcxr.gan import frechet, loading, networks, samples, steps, warm_start
from tfrecords_builder import files, progress
from tfrecords_builder import labels as labels_lib
from tfrecords_builder.errors import InputError, RunError

# Kimg per tick and in all, by resolution: Karras 2018's ticks, the benchmark's totals (16 px as 32 px; 256 and 512 px
# ours).
TICK_KIMG = {4: 160, 8: 140, 16: 120, 32: 100, 64: 80, 128: 60, 256: 40, 512: 20}
TOTAL_KIMG = {8: 12000, 16: 12000, 32: 12000, 64: 14000, 128: 16000, 256: 16000, 512: 16000}

_FRECHET_IMAGES = 2000
_GRID_ROWS = 8
_GRID_COLUMNS = 8
_KEEP_CHECKPOINTS = 2
# Seconds between looks at the clock, the signals and the losses.
_CHUNK_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of a run; together with the records they determine its result.

    Attributes:
      network: shapes and initial values.
      step: loss, optimizer, batch.
      total_kimg: length of the run.
      tick_kimg: a report, samples and the progress measure so often.
      checkpoint_kimg: a checkpoint so often: what a killed run loses at most.
    """

    network: networks.NetworkConfig
    step: steps.StepConfig
    total_kimg: float
    tick_kimg: float
    checkpoint_kimg: float

    def __post_init__(self):
        for name in ("total_kimg", "tick_kimg", "checkpoint_kimg"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be positive")

    def to_dict(self) -> dict[str, Any]:
        """Flat JSON values; both networks are rebuilt from them."""
        network, step = dataclasses.asdict(self.network), dataclasses.asdict(self.step)
        own = {key: getattr(self, key) for key in ("total_kimg", "tick_kimg", "checkpoint_kimg")}
        return {"arch": "cpd", **network, **step, **own}

    def steps_of(self, kimg: float) -> int:
        """The number of steps that show about so many thousand images, at least 1."""
        return max(1, round(kimg * 1000 / self.step.batch_size))


def train(
    config: TrainConfig, record_set: data.RecordSet, run: runs.RunFolder, *, start: warm_start.WarmStart | None = None
) -> dict[str, Any]:
    """Trains from the run's last checkpoint (or from the start) to the end, and finishes the run.

    Args:
      config: settings; the network's resolution must be the records'.
      record_set: trains on its train split; rows without a label that the network sees are left out and counted.
      run: an open run folder of kind 'gan'.
      start: weights to begin with instead of random ones, if the run has no checkpoint yet.

    Returns:
      The content of result.json.

    Raises:
      InputError: no image to train on.
      RunError: losses that are not numbers, or damaged records.
      Interrupted: SIGINT or SIGTERM; the state is saved.
    """
    with data.naming_damage(record_set.path):
        return _Training(config, record_set, run, start).run()


class _Training:
    """A run in memory."""

    def __init__(
        self,
        config: TrainConfig,
        record_set: data.RecordSet,
        run: runs.RunFolder,
        start: warm_start.WarmStart | None,
    ):
        self._config, self._records, self._run, self._start = config, record_set, run, start
        seen = config.network.condition_labels or tuple(range(config.network.num_labels))
        self._filter = list(seen)
        vectors = record_set.labels("train")["vector"]
        kept = vectors[(vectors[:, self._filter] > 0).any(axis=1)]
        if not len(kept):
            raise InputError(
                f"--records={record_set.path}: no training image has a label that the GAN is conditioned on"
            )
        self._num_images, self._num_skipped = len(kept), len(vectors) - len(kept)
        self._state = steps.GanState(config.network, config.step)
        self._runner = steps.StepRunner(self._state, config.step, kept)
        self._manager = tf.train.CheckpointManager(self._state, str(run.checkpoints), _KEEP_CHECKPOINTS)
        self._ticks: list[dict[str, Any]] = []
        self._restore()
        self._write_combinations(kept)
        self._writer = tf.summary.create_file_writer(str(run.tensorboard))
        self._prepare_samples(kept)

    def run(self) -> dict[str, Any]:
        config = self._config
        total, tick = config.steps_of(config.total_kimg), config.steps_of(config.tick_kimg)
        checkpoint = config.steps_of(config.checkpoint_kimg)
        step, began = int(self._state.step), time.monotonic()
        batches = iter(self._stream(step))
        window = _Window()
        description = f"GAN {config.network.resolution} px"
        with (
            runs.StopSignals() as stop,
            progress.progress(
                total * config.step.batch_size, description, initial=step * config.step.batch_size
            ) as bar,
        ):
            if step == 0:
                self._tick(0, window)
            while step < total:
                left = min(total, _next(step, tick), _next(step, checkpoint)) - step
                count = min(left, window.steps_in(_CHUNK_SECONDS))
                window.add(self._runner.run(batches, tf.constant(count)), count)
                step += count
                self._check(window, step)
                bar.update(count * config.step.batch_size)
                if step % tick == 0 or step == total:
                    self._tick(step, window)
                    window.clear()
                if stop.requested or step % checkpoint == 0 or step == total:
                    self._manager.save(step)
                stop.raise_if_requested()
        return self._finish(time.monotonic() - began)

    def _stream(self, step: int) -> tf.data.Dataset:
        return data.training_stream(
            self._records,
            "train",
            batch_size=self._config.step.batch_size,
            seed=self._config.step.seed,
            start_step=step,
            filter_labels=self._filter,
        )

    def _kimg(self, step: int) -> float:
        return step * self._config.step.batch_size / 1000

    def _restore(self) -> None:
        """Loads the newest checkpoint that can be read."""
        for path in reversed(self._manager.checkpoints):
            try:
                self._state.restore(path).assert_consumed()
            except loading.CHECKPOINT_ERRORS as error:
                logging.warning(
                    "%s cannot be read (%s); trying the one before",
                    path,
                    next(iter(str(error).splitlines()), type(error).__name__),
                )
                continue
            path = self._run.path / "ticks.json"
            ticks = files.read_json(path) if path.exists() else []
            self._ticks = [tick for tick in ticks if tick["step"] <= int(self._state.step)]
            print(f"resumed at {self._kimg(int(self._state.step)):.1f} kimg", flush=True)
            return
        if self._manager.checkpoints:
            raise RunError(f"--run_dir={self._run.path}: no checkpoint can be read; start again with --overwrite")
        if self._start:
            self._start.apply(self._state)
            print(f"started from the weights of {self._start.run} at {self._start.kimg:.1f} kimg", flush=True)

    def _write_combinations(self, vectors: np.ndarray) -> None:
        """The label combinations of the training fold, from which synthetic sets are drawn."""
        rows, counts = samples.common_combinations(vectors, len(vectors))
        names = [samples.describe(row, labels_lib.LABELS) for row in rows]
        table = [{"labels": name, "count": int(count)} for name, count in zip(names, counts, strict=True)]
        files.write_json(self._run.path / loading.COMBINATIONS_FILE, table)

    def _prepare_samples(self, vectors: np.ndarray) -> None:
        """Fixed latents and labels for the grid and for the progress measure, and the latter's reals."""
        config = self._config
        seed, size = config.step.seed, config.network.latent_size
        # The combinations that the network can tell apart, most frequent first.
        mask = np.zeros(vectors.shape[1], np.float32)
        mask[self._filter] = 1
        rows, counts = samples.common_combinations(vectors * mask, _GRID_ROWS)
        self._grid_rows = [
            (samples.describe(row, labels_lib.LABELS), int(n)) for row, n in zip(rows, counts, strict=True)
        ]
        self._grid_labels = np.repeat(rows, _GRID_COLUMNS, axis=0)
        self._grid_latents = tf.random.stateless_normal([len(self._grid_labels), size], [seed, 101])
        number = min(_FRECHET_IMAGES, self._num_images)
        stream = data.training_stream(
            self._records, "train", batch_size=number, seed=seed + 1, filter_labels=self._filter
        )
        batch = next(iter(stream.take(1)))
        self._frechet = frechet.PixelFrechet(steps.to_float(batch["image"]).numpy()) if number > 1 else None
        self._frechet_labels = batch["vector"].numpy()
        self._frechet_latents = tf.random.stateless_normal([number, size], [seed, 102])
        if not (self._run.samples / "reals.png").exists():
            grid = samples.image_grid(batch["image"].numpy()[: _GRID_ROWS * _GRID_COLUMNS], _GRID_COLUMNS)
            samples.write_png(self._run.samples / "reals.png", grid)
            with self._writer.as_default(step=0):
                tf.summary.image("reals", grid[None])
                tf.summary.text("grid rows", "\n".join(f"{i + 1}. {row[0]}" for i, row in enumerate(self._grid_rows)))

    def _generate(self, latents: tf.Tensor, labels: np.ndarray) -> np.ndarray:
        size = 64
        parts = [self._averaged(latents[i : i + size], labels[i : i + size]) for i in range(0, len(labels), size)]
        return np.concatenate([part.numpy() for part in parts])

    @tf.function(reduce_retracing=True)
    def _averaged(self, latents, labels):
        return self._state.ema([latents, labels], training=False)

    def _check(self, window: "_Window", step: int) -> None:
        bad = [name for name, value in window.means().items() if not np.isfinite(value)]
        if bad:
            raise RunError(
                f"{bad[0]} is not a number after {self._kimg(step):.1f} kimg; the last checkpoint is intact. Try a "
                "smaller --learning_rate, --init=calm, or --loss=logistic_r1"
            )

    def _tick(self, step: int, window: "_Window") -> None:
        """One line, one row of ticks.json, scalars and a grid."""
        kimg, means = self._kimg(step), window.means()
        images = self._generate(self._grid_latents, self._grid_labels)
        grid = samples.image_grid(steps.to_uint8(tf.constant(images)).numpy(), _GRID_COLUMNS)
        samples.write_png(self._run.samples / f"fakes-{kimg:09.1f}.png", grid)
        if self._frechet is not None:
            fakes = self._generate(self._frechet_latents, self._frechet_labels)
            means[frechet.NAME] = self._frechet(fakes)
        if window.steps:
            means["speed/images_per_s"] = window.steps * self._config.step.batch_size / window.seconds
        with self._writer.as_default(step=step):
            for name, value in means.items():
                tf.summary.scalar(name, value)
            tf.summary.scalar("kimg", kimg)
            tf.summary.scalar("learning_rate", self._config.step.learning_rate)
            tf.summary.image("fakes", grid[None])
        self._writer.flush()
        self._ticks.append({"step": step, "kimg": kimg, **{name: float(value) for name, value in means.items()}})
        files.write_json(self._run.path / "ticks.json", self._ticks)
        parts = [f"kimg {kimg:.1f}", *(f"{name} {value:.4g}" for name, value in means.items())]
        print(" · ".join(parts), flush=True)

    def _finish(self, seconds: float) -> dict[str, Any]:
        last = self._ticks[-1]
        result = {
            "kimg": last["kimg"],
            "steps": last["step"],
            "seconds_of_last_call": round(seconds, 1),
            "num_images": self._num_images,
            "num_skipped_without_label": self._num_skipped,
            "progress_measure": {
                "name": frechet.NAME,
                "num_images": len(self._frechet_labels),
                "value": last.get(frechet.NAME),
            },
            "grid_rows": [{"labels": name, "count": count} for name, count in self._grid_rows],
            "ticks": self._ticks,
        }
        if self._start:
            result["warm_start"] = self._start.description()
        self._run.finish(result)
        return result


class _Window:
    """Sums of the measures since the last tick."""

    def __init__(self):
        self._pace = 0.0
        self.clear()

    def clear(self) -> None:
        self.steps, self.penalties, self.seconds = 0, 0, 0.0
        self._sums, self._penalty_sums = np.zeros(len(steps.MEASURES)), np.zeros(len(steps.PENALTY_MEASURES))
        self._since = time.monotonic()

    def add(self, sums, count: int) -> None:
        # .numpy() waits for the steps, so the clock is read after it.
        measures, penalties, number = (part.numpy() for part in sums)
        now = time.monotonic()
        self._pace = (now - self._since) / count if self.steps or self._pace else 0.0
        self.seconds += now - self._since
        self._since = now
        self.steps += count
        self.penalties += int(number)
        self._sums += measures
        self._penalty_sums += penalties

    def means(self) -> dict[str, float]:
        result: dict[str, float] = {}
        if self.steps:
            result.update(zip(steps.MEASURES, self._sums / self.steps, strict=True))
        if self.penalties:
            result.update(zip(steps.PENALTY_MEASURES, self._penalty_sums / self.penalties, strict=True))
        return result

    def steps_in(self, seconds: float) -> int:
        """How many steps take about so long; few before the pace is known."""
        return max(1, int(seconds / self._pace)) if self._pace else 2


def _next(step: int, interval: int) -> int:
    """The first multiple of `interval` after `step`."""
    return (step // interval + 1) * interval
