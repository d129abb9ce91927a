"""Measures how soon the fast settings reach the quality of the reference's: CPU minutes until a distance is passed.

Trains the same network on the same records twice: with the reference's settings for --cpu_minutes, whose least distance
is the mark, and with the fast settings until they pass it. Fréchet distances are those of train-gan's default features,
which need no network. Processor time, of all cores together, hardly depends on what else runs.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import flags

from flags import app, common

METRIC = "fid/pixels_pca64"
# Looked at so often; a run is stopped at the next look after its time.
_POLL_SECONDS = 2.0


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of the benchmark."""
    common.define_records(fv)
    flags.DEFINE_string("output", None, "JSON file to write; default: print only", flag_values=fv)
    flags.DEFINE_float(
        "cpu_minutes", 30.0, "of training with the reference's settings", lower_bound=0.01, flag_values=fv
    )
    flags.DEFINE_integer("fmap_base", 512, "feature maps of both networks", lower_bound=1, flag_values=fv)
    flags.DEFINE_integer("fmap_max", 48, "most feature maps", lower_bound=1, flag_values=fv)
    flags.DEFINE_integer("batch_size", 32, "of both", lower_bound=1, flag_values=fv)
    flags.DEFINE_float("tick_kimg", 0.5, "distances are taken so often", lower_bound=0.001, flag_values=fv)
    common.define_seed(fv)


def train(
    arguments: list[str], run_dir: pathlib.Path, *, cpu_minutes: float, mark: float | None
) -> list[dict[str, Any]]:
    """Trains until the time is over or the mark is passed; returns the ticks."""
    command = [sys.executable, "-m", "tfcxr.commands.train_gan", *arguments, f"--run_dir={run_dir}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    ticks: list[dict[str, Any]] = []  # after the start
    while process.poll() is None:
        time.sleep(_POLL_SECONDS)
        path = run_dir / "ticks.json"
        ticks = json.loads(path.read_text())[1:] if path.exists() else []
        passed = mark is not None and any(tick.get(METRIC, mark + 1) <= mark for tick in ticks)
        if passed or (ticks and ticks[-1]["time/cpu_seconds"] >= 60 * cpu_minutes):
            process.send_signal(signal.SIGTERM)
            break
    code = process.wait()
    if code not in (0, 143):
        raise SystemExit(code)
    return ticks


def main(fv: flags.FlagValues) -> None:
    """Trains twice and compares."""
    from tfcxr import data
    from tfrecords_builder import files
    from tfrecords_builder.errors import RunError

    resolution = data.RecordSet(fv.records).info.resolution
    same = [
        f"--{name}={fv[name].value}" for name in ("records", "fmap_base", "fmap_max", "batch_size", "tick_kimg", "seed")
    ]
    same += ["--total_kimg=1000000", "--checkpoint_kimg=1000000", "--fid_ticks=1", "--fid_images=2000", "--patience=0"]
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        slow = train(
            [f"--flagfile=reference/gan_{resolution}", *same], root / "reference", cpu_minutes=fv.cpu_minutes, mark=None
        )
        slow = [tick for tick in slow if tick["time/cpu_seconds"] <= 60 * fv.cpu_minutes]
        if not slow:
            raise RunError(
                f"--cpu_minutes={fv.cpu_minutes:g}: no tick in this time; give more, or a smaller --tick_kimg"
            )
        mark = min(tick[METRIC] for tick in slow)
        fast_flags = [f"--flagfile=fast/gan_{resolution}", *same]
        fast = train(fast_flags, root / "fast", cpu_minutes=fv.cpu_minutes, mark=mark)
    reached = next((tick for tick in fast if tick[METRIC] <= mark), None)
    result: dict[str, Any] = {
        "cores": os.cpu_count(),
        "resolution": resolution,
        "network": {"fmap_base": fv.fmap_base, "fmap_max": fv.fmap_max},
        "batch_size": fv.batch_size,
        "metric": METRIC,
        "mark": mark,
        "reference": _curve(slow),
        "fast": _curve(fast),
        "sooner": None,
    }
    spent = slow[-1]["time/cpu_seconds"] / 60
    print(f"reference: {METRIC} {mark:.1f} after {spent:.1f} CPU minutes, {slow[-1]['kimg']:.1f} kimg")
    if reached is None:
        print(f"fast: did not reach it in {fv.cpu_minutes:g} CPU minutes")
    else:
        minutes = reached["time/cpu_seconds"] / 60
        result["sooner"] = {"cpu_minutes": spent / minutes, "kimg": slow[-1]["kimg"] / reached["kimg"]}
        print(
            f"fast: {reached[METRIC]:.1f} after {minutes:.2f} CPU minutes, {reached['kimg']:.1f} kimg: "
            f"{result['sooner']['cpu_minutes']:.1f} times sooner ({result['sooner']['kimg']:.1f} in images shown)"
        )
    if fv.output:
        files.write_json(fv.output, result)


def _curve(ticks: list[dict[str, Any]]) -> list[dict[str, float]]:
    names = {"kimg": "kimg", "minutes": "time/seconds", "cpu_minutes": "time/cpu_seconds", METRIC: METRIC}
    scale = {"minutes": 60, "cpu_minutes": 60}
    # A point a minute or so, and the last.
    step = max(1, len(ticks) // 40)
    chosen = [*ticks[:-1:step], ticks[-1]]
    return [{name: round(tick[key] / scale.get(name, 1), 3) for name, key in names.items()} for tick in chosen]


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
