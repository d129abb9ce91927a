"""Measures GAN training steps against a plain TensorFlow 2 implementation of the same networks (`tools/plain_gan.py`).

Times are taken in one process, all variants in turn in every round, so that what else the machine does meets all of
them; a ratio is that of two times of one round. Processor time, of all threads, is given too: it hardly depends on what
else runs. A step is one of the discriminator, one of the generator and the moving
average, with the WGAN-GP loss. Peak memory is that of a fresh process which makes two steps, start of TensorFlow
included. Images and labels are random. Run it with nothing else running: `make bench`.
"""

import dataclasses
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

from flags import app, common
from tfrecords_builder import files
from tfrecords_builder import labels as labels_lib
from tfrecords_builder.errors import RunError

PLAIN = "plain"
PARTS = ("step", "D step", "G step", "generation")
_SLOW = 3
_ALLOCATORS = {"malloc": "false", "BFC": "true"}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is measured: networks of cpD-GAN for images of `resolution`, and the batch."""

    resolution: int
    fmap_base: int = 2048
    fmap_max: int = 128
    batch_size: int = 64

    def networks(self) -> dict[str, int]:
        """The settings of the networks."""
        return {"resolution": self.resolution, "fmap_base": self.fmap_base, "fmap_max": self.fmap_max}


def make(variant: str, sizes: Sizes, seed: int = 0) -> dict[str, Callable[[], Any]]:
    """What to time, by part; each call does its part once, for one batch.

    Args:
        variant: `PLAIN`, or the precision of ours, a Keras policy.
        sizes: networks and batch.
        seed: of images and labels.
    """
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(seed)
    count, side = sizes.batch_size, sizes.resolution
    labels = (rng.random([count, len(labels_lib.DEFAULT)]) < 0.2).astype(np.float32)
    labels[:, 0] = 1
    images = tf.constant(rng.integers(0, 256, [count, side, side, 1]), tf.uint8)
    random = {
        "latents": tf.constant(rng.normal(size=[count, min(sizes.fmap_base, sizes.fmap_max)]), tf.float32),
        "mix": tf.constant(rng.random([count, 1, 1, 1]), tf.float32),
    }
    return (_plain if variant == PLAIN else _ours)(variant, sizes, images, tf.constant(labels), **random)


def _plain(variant, sizes, images, labels, latents, mix):
    import tensorflow as tf

    from tfrecords_builder.images import pixel_ranges
    from tools import plain_gan

    gan = plain_gan.PlainGan(plain_gan.PlainConfig(**sizes.networks()))
    reals = pixel_ranges.uint8_to_signed(images)

    @tf.function
    def discriminator_step():
        return gan.discriminator_step(reals, labels, latents, mix)

    @tf.function
    def generator_step():
        return gan.generator_step(latents, labels)

    @tf.function
    def generation():
        return pixel_ranges.signed_to_uint8(plain_gan.generator(gan.ema, gan.config, latents, labels))

    parts = (lambda: gan.step(images, labels, labels), discriminator_step, generator_step, generation)
    return dict(zip(PARTS, parts, strict=True))


def _ours(variant, sizes, images, labels, latents, mix):
    import tensorflow as tf

    from tfcxr.gan.networks import network_config
    from tfcxr.gan.training import losses, steps
    from tfrecords_builder.images import pixel_ranges

    config = steps.StepConfig(batch_size=sizes.batch_size, precision=variant)
    state = steps.make_state(network_config.NetworkConfig(**sizes.networks()), config)
    runner = steps.StepRunner(state, config, labels)
    batches = iter(tf.data.Dataset.from_tensors({"image": images, "vector": labels}).repeat())
    reals = pixel_ranges.uint8_to_signed(images)

    def score(images):
        return state.discriminator([images, labels], training=True)

    def update(optimizer, tape, loss, model):
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    @tf.function
    def discriminator_step():
        fakes = state.generator([latents, labels], training=True)
        with tf.GradientTape() as tape:
            values = losses.wgan_discriminator(score(reals), score(fakes))
            penalty, _ = losses.gradient_penalty(score, losses.interpolate(reals, fakes, mix))
            loss = tf.reduce_mean(values + penalty)
        return update(state.discriminator_optimizer, tape, loss, state.discriminator)

    @tf.function
    def generator_step():
        with tf.GradientTape() as tape:
            fakes = state.generator([latents, labels], training=True)
            loss = tf.reduce_mean(losses.wgan_generator(score(fakes)))
        return update(state.generator_optimizer, tape, loss, state.generator)

    @tf.function
    def generation():
        return pixel_ranges.signed_to_uint8(state.ema([latents, labels]))

    parts = (lambda: runner.run(batches, tf.constant(1)), discriminator_step, generator_step, generation)
    return dict(zip(PARTS, parts, strict=True))


def measure(sizes: Sizes, variants: list[str], rounds: int, seed: int = 0) -> list[dict[str, Any]]:
    """Times all parts of the variants, in turn in every round; what takes over three times as long as plain, once.

    Returns:
        One dict per variant and part: variant, part, resolution, seconds and cpu_seconds (medians), images_per_second
        (of the median), and of all but `PLAIN` ratio, ratio_min, ratio_max: the plain time over this one, median and
        range over rounds; cpu_ratio: the median for processor times.
    """
    work = {(variant, part): call for variant in variants for part, call in make(variant, sizes, seed).items()}
    for call in work.values():
        call()  # traces
    times: dict[tuple[str, str], list[float]] = {key: [] for key in work}
    cpu: dict[tuple[str, str], list[float]] = {key: [] for key in work}
    for _ in range(rounds):
        for part in PARTS:
            for variant in variants:
                if times[variant, part] and times[variant, part][0] > _SLOW * times[variants[0], part][0]:
                    continue
                start, cpu_start = time.perf_counter(), time.process_time()
                work[variant, part]()
                times[variant, part].append(time.perf_counter() - start)
                cpu[variant, part].append(time.process_time() - cpu_start)
    rows = []
    for (variant, part), seconds in times.items():
        row: dict[str, Any] = {"variant": variant, "part": part, "resolution": sizes.resolution}
        row["seconds"], row["cpu_seconds"] = statistics.median(seconds), statistics.median(cpu[variant, part])
        row["images_per_second"] = sizes.batch_size / row["seconds"]
        if variant != PLAIN and PLAIN in variants:
            ratios = _ratios(times[PLAIN, part], seconds)
            row |= {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
            row["cpu_ratio"] = statistics.median(_ratios(cpu[PLAIN, part], cpu[variant, part]))
        rows.append(row)
    return rows


def _ratios(plain, own):
    return [a / b for a, b in zip(plain, own, strict=False)]  # a slow variant has fewer rounds


def peak_memory(sizes: Sizes, variants: list[str], allocators: list[str]) -> Iterator[dict[str, Any]]:
    """Peak memory of a process that makes two steps, and the second step's seconds, by variant and CPU allocator.

    'malloc' is TensorFlow's default: it gives a large tensor back to the system at once, and takes every page of the
    next one anew. 'BFC' is its own allocator, which keeps them (TF_CPU_ALLOCATOR_USE_BFC).
    """
    for variant in variants:
        for allocator in allocators:
            code = f"from tools import bench_gan; bench_gan.two_steps({variant!r}, bench_gan.{sizes!r})"
            environment = os.environ | {"TF_CPU_ALLOCATOR_USE_BFC": _ALLOCATORS[allocator], "TF_CPP_MIN_LOG_LEVEL": "3"}
            process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
            if process.returncode:
                raise RunError(f"{variant} at {sizes.resolution} px: {process.stderr.strip()}")
            mib, seconds = process.stdout.split()[-2:]
            row = {"variant": variant, "resolution": sizes.resolution, "allocator": allocator}
            yield row | {"peak_mib": round(float(mib)), "second_step_seconds": float(seconds)}


def two_steps(variant: str, sizes: Sizes) -> None:
    """Makes two steps and prints the process's peak memory in MiB and the seconds of the second."""
    step = make(variant, sizes)["step"]
    step()
    start = time.perf_counter()
    step()
    seconds = time.perf_counter() - start
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, seconds)


def format_row(row: dict[str, Any]) -> str:
    """One line of a table."""
    start = f"{row['resolution']:3} px  {row['variant']:15} "
    if "peak_mib" in row:
        return f"{start}{row['allocator']:10} {row['peak_mib']:6} MiB, second step {row['second_step_seconds']:7.2f} s"
    line = f"{start}{row['part']:10} {row['seconds']:8.3f} s {row['images_per_second']:8.1f} images/s"
    if "ratio" in row:
        line += f"   plain/this {row['ratio']:5.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        line += f", by processor time {row['cpu_ratio']:.2f}"
    return line


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of the benchmark."""
    flags.DEFINE_list("resolutions", ["16", "32"], "sides of the images", flag_values=fv)
    flags.DEFINE_integer("fmap_base", 2048, "feature maps: fmap_base / 2^stage, but", lower_bound=1, flag_values=fv)
    flags.DEFINE_integer("fmap_max", 128, "at most so many", lower_bound=1, flag_values=fv)
    flags.DEFINE_integer("batch_size", 64, "images per step, divisible by 4", lower_bound=4, flag_values=fv)
    flags.DEFINE_integer("repeats", 5, "timed rounds", lower_bound=1, flag_values=fv)
    flags.DEFINE_multi_enum(
        "precision",
        ["float32", "mixed_bfloat16"],
        ["float32", "mixed_bfloat16", "mixed_float16"],
        "of our networks; give the flag several times",
        flag_values=fv,
    )
    flags.DEFINE_multi_enum(
        "allocator",
        list(_ALLOCATORS),
        list(_ALLOCATORS),
        "CPU allocators to measure the peak memory with",
        flag_values=fv,
    )
    flags.DEFINE_string("output", None, "JSON file to write; default: print only", flag_values=fv)
    common.define_seed(fv)


def main(fv: flags.FlagValues) -> None:
    """Runs the benchmark."""
    variants = [PLAIN, *fv.precision]
    speed, memory = [], []
    for resolution in fv.resolutions:
        sizes = Sizes(int(resolution), fv.fmap_base, fv.fmap_max, fv.batch_size)
        # First: this process is small yet, and does not slow the others.
        for row in peak_memory(sizes, variants, fv.allocator):
            print(format_row(row), flush=True)
            memory.append(row)
        rows = measure(sizes, variants, fv.repeats, fv.seed)
        print("\n".join(map(format_row, rows)), flush=True)
        speed += rows
    if fv.output:
        cores = len(os.sched_getaffinity(0))
        files.write_json(fv.output, {"cores": cores, "batch_size": fv.batch_size, "speed": speed, "memory": memory})


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
