"""Measures tfcxr's speed and memory, ours against a yardstick in the same run, and writes one table: `make bench`.

Each part is a program of its own, which can also be run alone. `bench.md` has the table and `bench.json` the same; both
are written after every part, so that those which are done are in them whatever comes later. Run it with nothing else
running; where that cannot be, look at processor time, which hardly depends on what else runs.

Example: python -m tools.bench --only=commands,gan --short
"""

import dataclasses
import datetime
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from flags import app
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tools import bench_classifiers, bench_gan


@dataclasses.dataclass(frozen=True)
class Row:
    """A thing that was measured.

    Attributes:
        what: it is.
        unit: of `ours` and `yardstick`: s, images/s, MiB, %.
        ours: measured, by the clock if it is a time or a speed.
        against: what the yardstick is; empty: there is none.
        yardstick: the same of it.
        cpu_ratio, clock_ratio: how many times as fast ours is, by processor time and by the clock. None: not measured,
            or neither a time nor a speed.
    """

    what: str
    unit: str
    ours: float
    against: str = ""
    yardstick: float | None = None
    cpu_ratio: float | None = None
    clock_ratio: float | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """A program that measures.

    Attributes:
        module: of `tools`.
        rows: the JSON that it writes -> rows.
        short: its flags for a short form, of which the numbers are rough.
        takes_torch: whether it has --torch_python.
    """

    module: str
    rows: Callable[[Any], Iterator[Row]]
    short: tuple[str, ...]
    takes_torch: bool = False


def command_rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """Of bench_commands: starts against what they may take, and speeds."""
    for row in found["starts"]:
        limit, cpu = row["limit"], row["cpu_seconds"]
        ratios = {"cpu_ratio": limit / cpu, "clock_ratio": limit / row["seconds"]}
        yield Row(row["what"], "s", row["seconds"], "at most", limit, **ratios)
    for name, rate in found["images_per_second"].items():
        yield Row(name, "images/s", rate["median"])


def record_rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """Of bench_records: build-records against the plain loop of the same images; processor times with the start."""
    plain = {(row["input"], row["images"]): row for row in found["rows"] if row["program"] == "plain loop"}
    for row in found["rows"]:
        loop = plain[row["input"], row["images"]]
        if row is loop:
            continue
        what = f"{row['program']}: {row['images']} images, {row['input']}"
        speed = row["images_per_second"]
        yield Row(
            what,
            "images/s",
            speed,
            "plain loop",
            loop["images_per_second"],
            cpu_ratio=loop["cpu_seconds"] / row["cpu_seconds"],
            clock_ratio=speed / loop["images_per_second"],
        )
        yield Row(f"{what}, peak memory", "MiB", row["peak_mib"], "plain loop", loop["peak_mib"])


def gan_rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """Of bench_gan: ours against a plain TensorFlow 2 step of the same networks."""
    against = "plain TensorFlow"
    plain = {(row["resolution"], row["part"]): row for row in found["speed"] if row["variant"] == bench_gan.PLAIN}
    for row in found["speed"]:
        if row["variant"] != bench_gan.PLAIN:
            what = f"GAN, {row['part']}, {found['batch_size']} images of {row['resolution']} px, {row['variant']}"
            yardstick = plain[row["resolution"], row["part"]]["seconds"]
            ratios = {"cpu_ratio": row["cpu_ratio"], "clock_ratio": row["ratio"]}
            yield Row(what, "s", row["seconds"], against, yardstick, **ratios)
    peaks = {(row["resolution"], row["allocator"]): row for row in found["memory"] if row["variant"] == bench_gan.PLAIN}
    for row in found["memory"]:
        if row["variant"] != bench_gan.PLAIN:
            what = f"GAN, peak memory of two steps, {row['resolution']} px, {row['variant']}, {row['allocator']}"
            yardstick = peaks[row["resolution"], row["allocator"]]["peak_mib"]
            yield Row(what, "MiB", row["peak_mib"], against, yardstick)


def classifier_rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """Of bench_classifiers: ours against PyTorch's steps of the same networks, where PyTorch is there."""
    torch = {row["step"]: row for row in found["speed"] if row["variant"] == bench_classifiers.PYTORCH}
    for row in found["speed"]:
        if row["variant"] == bench_classifiers.PYTORCH:
            continue
        what = f"{row['step']}, {row['variant'].removeprefix('ours ')}"
        other = torch.get(row["step"])
        if other is None:
            yield Row(what, "s", row["seconds"])
            yield Row(f"{what}, peak memory", "MiB", row["peak_mib"])
        else:
            ratios = {"cpu_ratio": row["ratio"], "clock_ratio": row["clock_ratio"]}
            yield Row(what, "s", row["seconds"], "PyTorch float32", other["seconds"], **ratios)
            yield Row(f"{what}, peak memory", "MiB", row["peak_mib"], "PyTorch float32", other["peak_mib"])
    for row in found["waiting"]:
        yield Row(f"{row['step']}, share of a step that waits for data", "%", 100 * row["waiting_for_data"])
    for row in found["head"]:
        yield Row(row["step"], "s", row["seconds"])


def roofline_rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """Of roofline: steps against what the machine's arithmetic and memory allow; a ratio of 1 is the limit."""
    for row in found["steps"]:
        limit = max(row["arithmetic_seconds"], row["memory_seconds"])
        ratios = {"cpu_ratio": row["cpu_share"], "clock_ratio": row["share"]}
        yield Row(row["step"], "s", row["seconds"], "the machine's limit", limit, **ratios)


def memory_rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """Of memory: the peak of a command on the most data against that on the least."""
    least, most = found["sizes"][0], found["sizes"][-1]
    against = f"{least['images']:,} images"
    for name, peak in most["peaks"].items():
        yield Row(f"{name}, {most['images']:,} images, peak memory", "MiB", peak, against, least["peaks"][name])


PARTS = {
    "commands": Part("bench_commands", command_rows, ("--repeats=1",)),
    "records": Part("bench_records", record_rows, ("--counts=200",)),
    "gan": Part(
        "bench_gan",
        gan_rows,
        ("--resolutions=16", "--repeats=2", "--precision=float32", "--allocator=BFC"),
    ),
    "classifiers": Part(
        "bench_classifiers",
        classifier_rows,
        ("--only=64 px", "--repeats=2", "--precision=float32", "--waiting_steps=4"),
        takes_torch=True,
    ),
    "roofline": Part("roofline", roofline_rows, ("--only=resnet50, 32 images", "--repeats=2")),
    "memory": Part("memory", memory_rows, ("--sizes=80,160", "--resolution=16")),
}


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of the benchmark."""
    flags.DEFINE_string("output_dir", "bench", "folder of bench.md and bench.json", flag_values=fv)
    flags.DEFINE_list("only", list(PARTS), f"some of {', '.join(PARTS)}", flag_values=fv)
    flags.DEFINE_bool("short", False, "fewer repetitions of fewer things: minutes, and rough numbers", flag_values=fv)
    flags.DEFINE_string("torch_python", None, "a Python with PyTorch, to compare the classifiers with", flag_values=fv)


def command_of(name: str, *, short: bool = False, torch_python: str | None = None) -> list[str]:
    """The words after `python` that run a part by itself, but for its --output."""
    part = PARTS[name]
    torch = [f"--torch_python={torch_python}"] if torch_python and part.takes_torch else []
    return ["-m", f"tools.{part.module}", *(part.short if short else ()), *torch]


def run(words: Sequence[str], output: pathlib.Path) -> Any:
    """Runs a program in a process of its own, whose output is shown; what it wrote. None if it failed."""
    code = subprocess.run([sys.executable, *words, f"--output={output}"], check=False).returncode
    return files.read_json(output) if code == 0 else None


def format_table(parts: Mapping[str, Sequence[Row] | None], commands: Mapping[str, str], machine: str) -> str:
    """bench.md: a row for each thing measured, then the command of each part.

    Args:
        parts: rows by the part's name; None: it failed.
        commands: of the parts.
        machine: on what, and when.
    """
    head = ("what", "ours", "yardstick", "what that is", "ratio, processor time", "ratio, clock", "part")
    table = [head, ("---",) * len(head)]
    for name, rows in parts.items():
        for row in rows or ():
            yardstick = "" if row.yardstick is None else f"{_number(row.yardstick)} {row.unit}"
            ratios = ("" if ratio is None else f"{ratio:.2f}" for ratio in (row.cpu_ratio, row.clock_ratio))
            table.append((row.what, f"{_number(row.ours)} {row.unit}", yardstick, row.against, *ratios, name))
    lines = ["# Speed and memory", "", machine, ""]
    lines += [f"| {' | '.join(line)} |" for line in table]
    lines += ["", "A ratio is how many times as fast ours is as the yardstick, or as it must be; over 1 is faster."]
    lines += ["", *(f"- {name}: `{command}`" for name, command in commands.items() if name in parts)]
    failed = [name for name, rows in parts.items() if rows is None]
    lines += ["", f"**Failed: {', '.join(failed)}.**"] if failed else []
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    """Three figures, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main(fv: flags.FlagValues) -> int:
    """Runs the parts; 1 if one failed."""
    for name in fv.only:
        if name not in PARTS:
            raise InputError(f"--only={name}: must be some of {', '.join(PARTS)}")
    folder = pathlib.Path(fv.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    cores, now = len(os.sched_getaffinity(0)), datetime.datetime.now(datetime.timezone.utc)
    machine = f"{cores} cores, {now:%Y-%m-%d %H:%M} UTC{', short form: rough numbers' if fv.short else ''}."
    parts: dict[str, list[Row] | None] = {}
    commands: dict[str, str] = {}
    for name in fv.only:
        words = command_of(name, short=fv.short, torch_python=fv.torch_python)
        commands[name] = shlex.join(["python", *words])
        print(f"{name}: {commands[name]}", flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            found = run(words, pathlib.Path(temporary) / "part.json")
        parts[name] = None if found is None else list(PARTS[name].rows(found))
        rows = [
            {"part": part, **dataclasses.asdict(row), "command": commands[part]}
            for part, made in parts.items()
            for row in made or ()
        ]
        failed = [part for part, made in parts.items() if made is None]
        files.write_json(folder / "bench.json", {"cores": cores, "short": fv.short, "failed": failed, "rows": rows})
        files.write_text(folder / "bench.md", format_table(parts, commands, machine))
    print((folder / "bench.md").read_text())
    return 1 if None in parts.values() else 0


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
