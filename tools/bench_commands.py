"""Measures how soon tfcxr's commands start, and how many images a second they do: simulator, records, stream, GAN.

How soon: from the call of the command to its help, or to the end of the first step of a training at 32 px, against what
they may take at most. Prints medians over repetitions and writes them as JSON; `make bench` runs it.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

from absl import flags

from flags import app, common
from tfrecords_builder.errors import RunError

# What a start may take at most, in seconds by the clock.
HELP_SECONDS, FIRST_STEP_SECONDS = 0.5, 12.0

# A training that ends with its first step, and so with nothing written.
_FIRST_STEP = """
import os, sys
from tfcxr import cli
from tfcxr.training import controller

def run_first(self, task, stretch, stop, bar):
    os._exit(0 if stretch.run(1) == 1 else 1)

controller.Controller._run_stretch = run_first
sys.exit(cli.main(sys.argv[1:]) or 1)
"""


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of the benchmark."""
    flags.DEFINE_string("output", None, "JSON file to write; default: print only", flag_values=fv)
    flags.DEFINE_integer("repeats", 5, "timed repetitions of each measurement", lower_bound=1, flag_values=fv)
    common.define_seed(fv)


def rate(work: Callable[[], int], repeats: int) -> dict[str, float]:
    """Median, least and greatest units per second of `work`, which returns how many units it did; warms up once.

    `cpu` is the median of units per second of processor time, that of worker processes which have ended included.
    """
    work()
    rates, cpu_rates = [], []
    for _ in range(repeats):
        start, cpu_start = time.perf_counter(), sum(os.times()[:4])
        done = work()
        rates.append(done / (time.perf_counter() - start))
        cpu_rates.append(done / max(sum(os.times()[:4]) - cpu_start, 0.01))  # which is the clock's resolution
    return {
        "median": statistics.median(rates),
        "min": min(rates),
        "max": max(rates),
        "cpu": statistics.median(cpu_rates),
    }


def time_process(command: Sequence[str], repeats: int, log: pathlib.Path) -> dict[str, float]:
    """Medians of the seconds from the start of a program to its end, by the clock and of the processor.

    Args:
        command: with its arguments.
        repeats: how often it is timed.
        log: file for its output.

    Raises:
        RunError: it failed.
    """
    times = []
    for _ in range(repeats):
        with log.open("wb") as stream:
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
            times.append((time.perf_counter() - start, usage.ru_utime + usage.ru_stime))
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said = log.read_text(errors="replace").strip()[-500:]
            raise RunError(f"{' '.join(command[-8:])} ended with {process.returncode}: {said}")
    seconds, cpu_seconds = (statistics.median(values) for values in zip(*times, strict=True))
    return {"seconds": seconds, "cpu_seconds": cpu_seconds}


def first_steps(records: pathlib.Path, classes: pathlib.Path, root: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """Name and command line of a training of each kind at 32 px, with the networks of the demo (GAN) or the defaults.

    Args:
        records: multilabel record set of 32 px, for the GAN and pretrain.
        classes: record set of classes, for the classifiers.
        root: folder of their runs.
    """
    small = ["--image_size=32", "--batch_size=32"]
    domains = [f"--source_records={classes}", f"--target_records={classes}", "--train_batch_norm"]
    runs = {
        "train-gan": ["--flagfile=demo/train_gan", f"--records={records}"],
        "train-baseline": [*small, "--weights=none", f"--records={classes}"],
        "train-dcan": [*small, "--weights=none", *domains],
        "pretrain": [*small, f"--records={records}"],
    }
    for command, arguments in runs.items():
        yield command, [command, *arguments, f"--run_dir={root / f'first-{command}'}", "--overwrite"]


def bench_starts(records: pathlib.Path, classes: pathlib.Path, root: pathlib.Path, repeats: int) -> list[dict]:
    """Seconds to the help, and to the first step of each training: what, seconds, cpu_seconds, limit; printed as well.

    The libraries are expected to have been read from the disk before. For the arguments see `first_steps`.
    """
    commands = [("tfcxr --help", ["-m", "tfcxr", "--help"], HELP_SECONDS)]
    commands += [
        (f"{command}, 32 px: first step done", ["-c", _FIRST_STEP, *words], FIRST_STEP_SECONDS)
        for command, words in first_steps(records, classes, root)
    ]
    rows = []
    for what, words, limit in commands:
        measured = time_process([sys.executable, *words], repeats, root / "log")
        print(f"{what:42}{measured['seconds']:9.2f} s, {measured['cpu_seconds']:.2f} s of processor time", flush=True)
        rows.append({"what": what, **measured, "limit": limit})
    return rows


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


def build(root: pathlib.Path, version: str) -> pathlib.Path:
    """Records of 32 px of the simulator's images, in a label version."""
    from tfcxr import cli

    output = root / f"{version}-32"
    words = ["build-records", "--dataset=chexpert", f"--data_dir={root / 'phantom'}", f"--label_version={version}"]
    if code := cli.main([*words, "--resolution=32", f"--output_dir={output}"]):
        raise SystemExit(code)
    return output


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
        multilabel, classes = (build(root, version) for version in ("multilabel", "v2"))
        gan = [f"--records={multilabel}", "--flagfile=demo/train_gan", "--total_kimg=3.2"]
        results["train-gan 32 px (demo preset)"] = bench_train("train-gan", root, min(fv.repeats, 3), gan, 3200)
        starts = bench_starts(multilabel, classes, root, fv.repeats)
    for name, value in results.items():
        print(f"{name:42}{value['median']:9.1f} images/s   ({value['min']:.1f} to {value['max']:.1f})")
    if fv.output:
        cores = len(os.sched_getaffinity(0))
        files.write_json(fv.output, {"cores": cores, "images_per_second": results, "starts": starts})


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
