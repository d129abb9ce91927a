"""Estimates the hours and the storage of a whole job: CheXpert and NIH ChestX-ray14, from records to adaptation.

Arithmetic of each step is counted (`tools.roofline`), not timed, at a small batch; hours are that arithmetic over what
accelerators of known float32 arithmetic do, of which a step is taken to reach a share (--utilisation). Records are
taken to be built at the speed of --record_rate on each worker. Nothing of this has been run at that size.
"""

import dataclasses
import functools
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

from flags import app, common
from tfrecords_builder import files
from tools import bench_classifiers, bench_gan, roofline

CHEXPERT, NIH = 191_027, 112_120  # frontal images
_BATCH = 4  # images whose steps are counted: the group of the minibatch statistics
_EPOCHS = 10  # of the thesis's baseline, all of the network
_ADAPTATION_IMAGES = 20_001 * 2 * 36  # steps, two domains, batch of the thesis
_CLASSIFIER_SIDE = 224
_PRESETS = ("reference", "fast")
_TERA, _GIGA, _HOUR = 1e12, 1e9, 3600.0


@dataclasses.dataclass(frozen=True)
class Job:
    """A part of the whole: `flops` in all, of images of `resolution` px (0: of any)."""

    name: str
    resolution: int
    flops: float


def read_preset(kind: str, resolution: int) -> dict[str, Any]:
    """Feature maps and length (thousands of images) of a GAN preset such as reference/gan_64."""
    from tfcxr.commands import train_gan
    from tfcxr.gan.networks import network_config

    fv = flags.FlagValues()
    train_gan.define_flags(fv)
    text = [f"--flagfile={app.PRESETS / kind / f'gan_{resolution}.flags'}", "--records=.", "--run_dir=."]
    fv(["train-gan", *text])
    network = network_config.NetworkConfig(resolution=resolution)
    return {
        "fmap_base": fv.fmap_base or network.fmap_base,
        "fmap_max": fv.fmap_max or network.fmap_max,
        "total_kimg": fv.total_kimg,
    }


@functools.cache  # presets share networks
def count_gan(resolution: int, fmap_base: int, fmap_max: int) -> float:
    """Arithmetic for each real image shown, of the discriminator's and the generator's step with WGAN-GP."""
    parts = bench_gan.make("float32", bench_gan.Sizes(resolution, fmap_base, fmap_max, _BATCH))
    return sum(_flops(parts[part]) for part in ("D step", "G step")) / _BATCH


def count_classifier(kind: str, folder: pathlib.Path) -> float:
    """Arithmetic for each image of a training step of ResNet-50 at 224 px, of `kind` baseline or dcan."""
    step = bench_classifiers.Step(kind, _CLASSIFIER_SIDE, _BATCH)
    records = bench_classifiers.make_records(folder / kind, 0, _CLASSIFIER_SIDE)
    _, phase, batch = bench_classifiers.make_ours(step, "float32", records)
    return _flops(lambda: phase.step(batch)) / (_BATCH * len(step.domains))


def _flops(step: Callable[[], Any]) -> int:
    return sum(each.flops for each in roofline.count(step).values())


def list_jobs(resolutions: list[int], folder: pathlib.Path) -> Iterator[Job]:
    """The trainings of the whole job."""
    for kind in _PRESETS:
        for resolution in resolutions:
            preset = read_preset(kind, resolution)
            per_image = count_gan(resolution, preset["fmap_base"], preset["fmap_max"])
            yield Job(
                f"train-gan, {kind}, {preset['total_kimg']:g} kimg", resolution, per_image * preset["total_kimg"] * 1e3
            )
    images = CHEXPERT + NIH
    per_image = count_classifier("baseline", folder)
    yield Job(f"train-baseline, {images:,} images, {_EPOCHS} epochs", 0, per_image * images * _EPOCHS)
    yield Job("train-dcan, 20,001 steps", 0, count_classifier("dcan", folder) * _ADAPTATION_IMAGES)


def storage(resolution: int, bytes_per_pixel: float) -> float:
    """Bytes of the records of both data sets."""
    return (CHEXPERT + NIH) * resolution**2 * bytes_per_pixel


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of the estimate."""
    flags.DEFINE_list("resolutions", ["64", "128", "256", "512"], "sides of the GAN's images", flag_values=fv)
    flags.DEFINE_list("accelerators", ["1", "8", "64"], "numbers of accelerators", flag_values=fv)
    flags.DEFINE_float("teraflops", 19.5, "float32 arithmetic of each, 10^12/s (A100: 19.5)", 0.1, flag_values=fv)
    flags.DEFINE_float("utilisation", 0.3, "share of it that a step is taken to reach", 0.01, 1.0, flag_values=fv)
    flags.DEFINE_float("record_rate", 80.0, "images a second that a worker builds records of", 1.0, flag_values=fv)
    flags.DEFINE_float("bytes_per_pixel", 0.6, "of a record's image (PNG)", 0.01, flag_values=fv)
    flags.DEFINE_string("output", None, "JSON file to write; default: print only", flag_values=fv)
    common.define_seed(fv)


def main(fv: flags.FlagValues) -> None:
    """Prints the estimate."""
    resolutions, numbers = ([int(value) for value in values] for values in (fv.resolutions, fv.accelerators))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for job in list_jobs(resolutions, pathlib.Path(name)):
            hours = {n: job.flops / (n * fv.teraflops * _TERA * fv.utilisation) / _HOUR for n in numbers}
            rows.append({**dataclasses.asdict(job), "hours": hours})
            told = "  ".join(f"{n}: {value:9.2f} h" for n, value in hours.items())
            print(
                f"{job.name:45} {f'{job.resolution} px' if job.resolution else '':7} {job.flops:.2e} FLOP  {told}",
                flush=True,
            )
    building = {n: (CHEXPERT + NIH) / fv.record_rate / n / _HOUR for n in numbers}
    print(f"build-records, workers: {'  '.join(f'{n}: {value:.2f} h' for n, value in building.items())}")
    sizes = {resolution: storage(resolution, fv.bytes_per_pixel) / _GIGA for resolution in resolutions}
    print(f"records: {'  '.join(f'{resolution} px: {size:.1f} GB' for resolution, size in sizes.items())}")
    if fv.output:
        assumed = {name: getattr(fv, name) for name in ("teraflops", "utilisation", "record_rate", "bytes_per_pixel")}
        result = {"assumed": assumed, "jobs": rows, "building_hours": building, "records_gigabytes": sizes}
        files.write_json(fv.output, result)


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
