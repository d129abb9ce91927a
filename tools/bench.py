"""Measures the speed of this machine on tfcxr's own work: simulator, records, input pipeline, GAN and classifier steps.

Prints medians over repetitions and writes them as JSON. Run it with nothing else running: `make bench`.
"""

import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from absl import flags

from flags import app, common


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of the benchmark."""
    flags.DEFINE_string("output", None, "JSON file to write; default: print only", flag_values=fv)
    flags.DEFINE_integer("repeats", 5, "timed repetitions of each measurement", lower_bound=1, flag_values=fv)
    common.define_seed(fv)


def rate(work: Callable[[], int], repeats: int) -> dict[str, float]:
    """Median, least and greatest units per second of `work`, which returns how many units it did; warms up once."""
    work()
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        done = work()
        rates.append(done / (time.perf_counter() - start))
    return {"median": statistics.median(rates), "min": min(rates), "max": max(rates)}


def bench_phantom(root: pathlib.Path, repeats: int, seed: int) -> dict[str, float]:
    """Images/s of the simulator at 128 px, files included."""
    from tfcxr.commands import phantom

    def work() -> int:
        folder = root / "phantom"
        arguments = ["phantom", "--hospital=a", "--num_patients=60", "--resolution=128", "--workers=2", "--overwrite"]
        code = app.run(phantom.main, phantom.define_flags, [*arguments, f"--seed={seed}", f"--output_dir={folder}"])
        if code:
            raise SystemExit(code)
        return sum(1 for _ in folder.rglob("*.jpg"))

    return rate(work, repeats)


def bench_records(root: pathlib.Path, repeats: int) -> dict[str, float]:
    """Images/s of build-records from the simulator's 128 px JPEGs to 64 px records."""
    from tfcxr.commands import build_records
    from tfrecords_builder import records

    def work() -> int:
        folder = root / "records"
        arguments = [
            "build",
            "--dataset=chexpert",
            f"--data_dir={root / 'phantom'}",
            "--label_version=v2",
            "--overwrite",
        ]
        code = app.run(
            build_records.main, build_records.define_flags, [*arguments, "--resolution=64", f"--output_dir={folder}"]
        )
        if code:
            raise SystemExit(code)
        return sum(split.num_examples for split in records.load_info(folder).splits.values())

    return rate(work, repeats)


def bench_stream(root: pathlib.Path, repeats: int, seed: int) -> dict[str, float]:
    """Images/s of the training stream at 64 px: read, shuffle, decode, batch."""
    from tfcxr import data

    stream = iter(data.training_stream(data.RecordSet(root / "records"), "train", batch_size=32, seed=seed))

    def work() -> int:
        for _ in range(100):
            next(stream)
        return 3200

    return rate(work, repeats)


def bench_train(command: str, root: pathlib.Path, repeats: int, arguments: list[str], images: int) -> dict[str, float]:
    """Images/s of a short training run, start and checkpoints included."""
    from tfcxr import cli

    def work() -> int:
        code = cli.main([command, *arguments, f"--run_dir={root / command}", "--overwrite"])
        if code:
            raise SystemExit(code)
        return images

    return rate(work, repeats)


def main(fv: flags.FlagValues) -> None:
    """Runs all measurements."""
    from tfrecords_builder import files

    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        results["phantom 128 px, files written"] = bench_phantom(root, fv.repeats, fv.seed)
        results["build-records 128 px JPEG to 64 px"] = bench_records(root, fv.repeats)
        results["training stream 64 px"] = bench_stream(root, fv.repeats, fv.seed)
        gan = [f"--records={root / 'gan-records'}", "--flagfile=demo/train_gan", "--total_kimg=3.2"]
        from tfcxr.commands import build_records

        build_flags = ["build", "--dataset=chexpert", f"--data_dir={root / 'phantom'}", "--label_version=multilabel"]
        app.run(
            build_records.main,
            build_records.define_flags,
            [*build_flags, "--resolution=32", f"--output_dir={root / 'gan-records'}"],
        )
        results["train-gan 32 px (demo preset)"] = bench_train("train-gan", root, min(fv.repeats, 3), gan, 3200)
    for name, value in results.items():
        print(f"{name:42}{value['median']:9.1f} images/s   ({value['min']:.1f} to {value['max']:.1f})")
    if fv.output:
        files.write_json(fv.output, {"cores": os.cpu_count(), "images_per_second": results})


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
