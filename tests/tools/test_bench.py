"""The table of `make bench`: every part's rows from what its program writes, and the parts put together."""

import json
import os
import sys

import pytest

from flags import app
from tests import fakes
from tfrecords_builder.errors import RunError
from tools import bench, bench_commands

FOUND = {
    "commands": {
        "starts": [{"what": "tfcxr --help", "seconds": 0.25, "cpu_seconds": 0.125, "limit": 0.5}],
        "images_per_second": {"phantom": {"median": 94.4, "min": 90.0, "max": 99.0, "cpu": 50.0}},
    },
    "records": {
        "rows": [
            {"input": "PNG", "images": 1000, "program": program, "images_per_second": speed, "cpu_seconds": cpu,
             "peak_mib": peak}
            for program, speed, cpu, peak in (
                ("plain loop", 20.0, 52.0, 655), ("build-records, 2 workers", 160.0, 13.0, 544),
            )
        ]
    },
    "gan": {
        "batch_size": 64,
        "speed": [
            {"variant": "plain", "part": "step", "resolution": 16, "seconds": 0.94},
            {"variant": "float32", "part": "step", "resolution": 16, "seconds": 0.71, "ratio": 1.33, "cpu_ratio": 1.35},
        ],
        "memory": [
            {"variant": variant, "resolution": 16, "allocator": "BFC", "peak_mib": peak}
            for variant, peak in (("plain", 970), ("float32", 1097))
        ],
    },
    "classifiers": {
        "speed": [
            {"step": "dcan", "variant": "ours float32", "seconds": 0.43, "ratio": 1.29, "clock_ratio": 1.2,
             "peak_mib": 1400},
            {"step": "dcan", "variant": "PyTorch float32", "seconds": 0.52, "peak_mib": 1070},
            {"step": "baseline", "variant": "ours float32", "seconds": 0.63, "peak_mib": 1407},
        ],
        "waiting": [{"step": "dcan", "waiting_for_data": 0.015}],
        "head": [],
    },
    "roofline": {
        "steps": [
            {"step": "D step", "arithmetic_seconds": 1.36, "memory_seconds": 1.29, "seconds": 1.87, "share": 0.727,
             "cpu_share": 0.75}
        ]
    },
    "memory": {"sizes": [{"images": 229, "peaks": {"phantom": 85.0}}, {"images": 2387, "peaks": {"phantom": 97.0}}]},
}  # fmt: skip
TABLE = """\
| tfcxr --help | 0.25 s | 0.5 s | at most | 4.00 | 2.00 | commands |
| phantom | 94.4 images/s |  |  |  |  | commands |
| build-records, 2 workers: 1000 images, PNG | 160 images/s | 20 images/s | plain loop | 4.00 | 8.00 | records |
| build-records, 2 workers: 1000 images, PNG, peak memory | 544 MiB | 655 MiB | plain loop |  |  | records |
| GAN, step, 64 images of 16 px, float32 | 0.71 s | 0.94 s | plain TensorFlow | 1.35 | 1.33 | gan |
| GAN, peak memory of two steps, 16 px, float32, BFC | 1,097 MiB | 970 MiB | plain TensorFlow |  |  | gan |
| dcan, float32 | 0.43 s | 0.52 s | PyTorch float32 | 1.29 | 1.20 | classifiers |
| dcan, float32, peak memory | 1,400 MiB | 1,070 MiB | PyTorch float32 |  |  | classifiers |
| baseline, float32 | 0.63 s |  |  |  |  | classifiers |
| baseline, float32, peak memory | 1,407 MiB |  |  |  |  | classifiers |
| dcan, share of a step that waits for data | 1.5 % |  |  |  |  | classifiers |
| D step | 1.87 s | 1.36 s | the machine's limit | 0.75 | 0.73 | roofline |
| phantom, 2,387 images, peak memory | 97 MiB | 85 MiB | 229 images |  |  | memory |
""".splitlines()


def call(*arguments):
    return app.run(bench.main, bench.define_flags, ["bench", *arguments])


@pytest.fixture
def made_up_parts(monkeypatch):
    """Programs that write these numbers at once; the command lines that were run."""
    called = []

    def run(words, output):
        called.append(words)
        return FOUND[next(name for name, part in bench.PARTS.items() if f"tools.{part.module}" in words)]

    monkeypatch.setattr(bench, "run", run)
    return called


def test_one_table_of_all_parts(tmp_path, made_up_parts):
    assert call(f"--output_dir={tmp_path}", "--torch_python=other/python") == 0
    lines = (tmp_path / "bench.md").read_text().splitlines()
    assert lines[4] == "| what | ours | yardstick | what that is | ratio, processor time | ratio, clock | part |"
    assert [line for line in lines if line.startswith("| ")][2:] == TABLE
    assert "- classifiers: `python -m tools.bench_classifiers --torch_python=other/python`" in lines
    assert made_up_parts[2] == ["-m", "tools.bench_gan"]
    result = json.loads((tmp_path / "bench.json").read_text())
    assert len(result["rows"]) == len(TABLE)
    assert result["failed"] == []
    assert result["rows"][0] == {
        "part": "commands", "what": "tfcxr --help", "unit": "s", "ours": 0.25, "against": "at most", "yardstick": 0.5,
        "cpu_ratio": 4.0, "clock_ratio": 2.0, "command": "python -m tools.bench_commands",
    }  # fmt: skip


def test_chosen_parts_in_short(tmp_path, made_up_parts):
    assert call(f"--output_dir={tmp_path}", "--only=roofline,memory", "--short", "--torch_python=other") == 0
    text = (tmp_path / "bench.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("| ")][2:] == TABLE[-2:]
    assert "short form: rough numbers" in text
    assert made_up_parts[1] == ["-m", "tools.memory", "--sizes=80,160", "--resolution=16"]


def test_a_part_that_fails_is_told_and_the_others_stay(tmp_path, monkeypatch):
    """The programs are run as they are; one of them is none."""
    broken = bench.Part("no_such_program", bench.gan_rows, ())
    monkeypatch.setitem(bench.PARTS, "gan", broken)
    measured = bench.run
    found = FOUND["memory"]
    monkeypatch.setattr(
        bench, "run", lambda words, output: found if "tools.memory" in words else measured(words, output)
    )
    assert call(f"--output_dir={tmp_path}", "--only=gan,memory") == 1
    text = (tmp_path / "bench.md").read_text()
    assert "**Failed: gan.**" in text
    assert TABLE[-1] in text
    assert json.loads((tmp_path / "bench.json").read_text())["failed"] == ["gan"]


def test_an_unknown_part(tmp_path, capsys):
    assert call(f"--output_dir={tmp_path}", "--only=gan,speed") == 2
    assert "--only=speed: must be some of commands, records" in capsys.readouterr().err


@pytest.mark.parametrize("name", bench.PARTS)
def test_short_forms_have_flags_that_the_programs_know(name):
    import importlib

    module = importlib.import_module(f"tools.{bench.PARTS[name].module}")
    words = bench.command_of(name, short=True, torch_python="python")[2:]
    app.parse(module.define_flags, [name, *words, "--output=part.json"])


def test_rates_by_the_clock_and_of_the_processor():
    def work():
        end = sum(os.times()[:2]) + 0.1
        while sum(os.times()[:2]) < end:
            pass
        return 10

    rate = bench_commands.rate(work, 3)
    assert rate["min"] <= rate["median"] <= rate["max"] <= 10 / 0.09
    assert 10 / 0.2 < rate["cpu"] <= 10 / 0.09


def test_the_time_of_a_process(tmp_path):
    busy = "import time; end = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    found = bench_commands.time_process([sys.executable, "-c", busy], 1, tmp_path / "log")
    assert 0.2 <= found["cpu_seconds"] < 1
    assert found["seconds"] >= 0.2
    with pytest.raises(RunError, match=r"ended with 3: no such data"):
        bench_commands.time_process(
            [sys.executable, "-c", "import sys; print('no such data'); sys.exit(3)"], 1, tmp_path / "log"
        )


@pytest.mark.large  # starts TensorFlow four times
def test_each_training_ends_with_its_first_step(tmp_path):
    multilabel = fakes.make_records(tmp_path / "multilabel", resolution=32, per_class=32)  # pretrain takes 32 at once
    classes = fakes.make_records(tmp_path / "classes", resolution=32, label_version="v2")
    rows = bench_commands.bench_starts(multilabel, classes, tmp_path, repeats=1)
    assert [row["limit"] for row in rows] == [0.5, 12, 12, 12, 12]
    assert all(0.05 < row["cpu_seconds"] < 60 for row in rows)
    # Nothing was trained on: the one thing kept is the snapshot of the GAN that was measured before its first step.
    assert {path.name.partition(".")[0] for path in tmp_path.rglob("ckpt-*")} == {"ckpt-0"}
