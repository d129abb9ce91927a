"""What a training shows: one line and one row per tick, TensorBoard, and grids of samples beside real images."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from tfcxr.gan import image_grids, latent_sampling
from tfcxr.gan.networks import network_config
from tfcxr.gan.training import collapse
from tfcxr.gan.training.state import GanState
from tfcxr.training import runs
from tfrecords_builder.images import pixel_ranges

# Label combinations in a grid, images of each, and real images of each with which their variety is compared.
ROWS, COLUMNS, REALS = 8, 8, 32

# Measures of a tick's line; all are in ticks.json and TensorBoard.
_LINE = ("loss/G", "loss/D", "scores/real", "scores/fake", "penalty/gradient_norm", "fid/", "kid/", "speed/")


@dataclasses.dataclass(frozen=True)
class Options:
    """What is shown and kept on request; nothing here changes a result.

    Attributes:
        cache_dir: folder of the real images' statistics, which runs on the same records can share; None: the run's own.
        histograms: of all weights, at every tick.
        profile: first and last step of a window of the profiler; None: none.
    """

    cache_dir: str | None = None
    histograms: bool = False
    profile: tuple[int, int] | None = None

    def limit(self, step: int, count: int) -> int:
        """As many of the next `count` steps as lie on one side of the window's ends."""
        ends = [] if self.profile is None else [end - step for end in (self.profile[0], self.profile[1] + 1)]
        return min([count, *(left for left in ends if left > 0)])

    @contextlib.contextmanager
    def profiled(self, step: int, folder: pathlib.Path) -> Iterator[None]:
        """Runs the profiler if `step` is in the window."""
        if self.profile is None or not self.profile[0] <= step <= self.profile[1]:
            yield
            return
        with tf.profiler.experimental.Profile(str(folder)):
            yield


@dataclasses.dataclass(frozen=True)
class SampleRow:
    """A row of the grids.

    Attributes:
        name: of the label combination.
        count: training images that have it.
        vector: float32 [L].
        reals: some of them, uint8 [N, R, R, 1].
    """

    name: str
    count: int
    vector: np.ndarray
    reals: np.ndarray


class Report:
    """Writes the reports of a run."""

    def __init__(
        self,
        run: runs.RunFolder,
        rows: Sequence[SampleRow],
        writer: tf.summary.SummaryWriter,
        *,
        network: network_config.NetworkConfig,
        seed: int,
    ):
        """Takes the run's folder, the rows of its grids and TensorBoard's writer."""
        self.rows = list(rows)
        self._run, self._writer = run, writer
        self._labels = np.repeat([row.vector for row in self.rows], COLUMNS, axis=0)
        self._latents = latent_sampling.numbered_latents(
            seed, np.arange(len(self._labels)), network.latent_size, stream=latent_sampling.SAMPLE_GRIDS
        )

    def begin(self, config: Mapping[str, Any]) -> None:
        """Of a run that begins: the grid of real images, and the settings for TensorBoard's HParams page."""
        grid = image_grids.titled_grid([(row.name, row.reals[:COLUMNS]) for row in self.rows], COLUMNS)
        image_grids.write_png(self._run.samples / "reals.png", grid)
        flat = {key: value for key, value in config.items() if isinstance(value, (bool, int, float, str))}
        flat |= {key: ",".join(map(str, value)) for key, value in config.items() if isinstance(value, (list, tuple))}
        with self._writer.as_default(step=0):
            tf.summary.image("reals", grid[None])
            hparams.hparams(flat, trial_id=self._run.path.resolve().name)

    def samples(self, generate: Callable, step: int, kimg: float) -> list[float | None]:
        """Writes the grid of fixed latents; returns the variety of each row (see `watching.diversity`)."""
        images = generate(self._latents, self._labels)
        shape = [len(self.rows), COLUMNS, *images.shape[1:]]
        shown = pixel_ranges.signed_to_uint8(tf.constant(images)).numpy().reshape(shape)
        grid = image_grids.titled_grid([(row.name, part) for row, part in zip(self.rows, shown, strict=True)], COLUMNS)
        image_grids.write_png(self._run.samples / f"fakes-{kimg:09.1f}.png", grid)
        with self._writer.as_default(step=step):
            tf.summary.image("fakes", grid[None])
        reals = [pixel_ranges.uint8_to_signed(tf.constant(row.reals)).numpy() for row in self.rows]
        return collapse.diversity(images.reshape(shape), reals)

    def tick(self, row: Mapping[str, float], state: GanState | None, complaints: Mapping[str, str]) -> None:
        """Writes the scalars of a row of ticks.json, histograms of `state`, and prints a line."""
        with self._writer.as_default(step=int(row["step"])):
            for name, value in row.items():
                if name != "step":
                    tf.summary.scalar(name, value)
            for kind, text in complaints.items():
                tf.summary.text(f"warnings/{kind}", text)
            for part in ("generator", "discriminator") if state else ():
                for variable in getattr(state, part).trainable_variables:
                    tf.summary.histogram(f"{part}/{variable.name.removesuffix(':0')}", variable)
        self._writer.flush()
        chosen = [(name, value) for name, value in row.items() if name.startswith(_LINE)]
        print(" · ".join([f"kimg {row['kimg']:.1f}", *(f"{name} {value:.4g}" for name, value in chosen)]), flush=True)
