"""The benchmark of the classifiers: turns, ratios, equal losses; its numbers are its own."""

import json
import sys

import numpy as np
import pytest

from flags import app
from tests import fakes
from tfrecords_builder.errors import RunError
from tools import bench_classifiers, turns

STEP = bench_classifiers.Step("dcan", 32, 4, "resnet_tiny")


def test_a_worker_steps_when_told():
    code = "from tools import turns; state = []; "
    code += "turns.serve(lambda: lambda: (state.append(1), print('noise'), {'loss': len(state)})[-1])"
    with turns.Worker(sys.executable, code) as worker:
        replies = [worker.step(), worker.step()]
    assert [reply["losses"] for reply in replies] == [{"loss": 1.0}, {"loss": 2.0}]
    assert all(0 <= reply["seconds"] < 5 and 0 <= reply["cpu_seconds"] < 5 for reply in replies)
    assert all(3 < reply["peak_mib"] < 500 for reply in replies)


def test_what_a_worker_that_ends_said_is_told():
    with pytest.raises(RunError, match="no such weights"):
        turns.Worker(sys.executable, "raise SystemExit('no such weights')")
    code = "from tools import turns; turns.serve(lambda: lambda: 1 / 0)"
    with turns.Worker(sys.executable, code) as worker, pytest.raises(RunError, match="ZeroDivisionError"):
        worker.step()


def reply(seconds, cpu_seconds):
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": 100.4, "losses": {}}


def test_ratios_are_of_times_of_one_round():
    replies = {
        "ours float32": [reply(1.0, 2.0), reply(2.0, 4.0), reply(1.0, 2.0)],
        bench_classifiers.PYTORCH: [reply(3.0, 3.0), reply(8.0, 16.0), reply(1.0, 5.0)],
    }
    row = bench_classifiers._row(STEP, "ours float32", replies, {"cls": 0.5})
    assert (row["seconds"], row["cpu_seconds"], row["peak_mib"]) == (1.0, 2.0, 100)
    assert (row["ratio"], row["ratio_min"], row["ratio_max"]) == (2.5, 1.5, 4.0)
    assert row["clock_ratio"] == 3.0
    assert "2.50 (1.50 to 4.00), by the clock 3.00" in bench_classifiers.format_row(row)
    assert "ratio" not in bench_classifiers._row(STEP, bench_classifiers.PYTORCH, replies, {})


def test_other_losses_are_refused():
    ours = {"cls": 0.7, "entropy": 0.3, "reg": 0.1}
    check = bench_classifiers._check_losses
    check(STEP, {"ours float32": ours, bench_classifiers.PYTORCH: {**ours, "reg": 0.9, "cls": 0.7005}})
    check(STEP, {"ours bfloat16": ours, bench_classifiers.PYTORCH: {**ours, "cls": 0.6}})
    with pytest.raises(RunError, match=r"cls is 0\.700000, of PyTorch 0\.690000"):
        check(STEP, {"ours float32": ours, bench_classifiers.PYTORCH: {**ours, "cls": 0.69}})
    with pytest.raises(RunError, match="has the losses cls, entropy, reg, PyTorch cls"):
        check(STEP, {"ours float32": ours, bench_classifiers.PYTORCH: {"cls": 0.7}})


@pytest.mark.large
def test_measures_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_classifiers, "STEPS", (STEP, bench_classifiers.Step("baseline", 32, 8, "resnet_tiny")))
    output = tmp_path / "bench.json"
    arguments = ["--repeats=2", "--waiting_steps=4", f"--output={output}"]
    code = app.run(bench_classifiers.main, bench_classifiers.define_flags, ["bench_classifiers", *arguments])
    assert code == 0, capsys.readouterr().err
    result = json.loads(output.read_text())
    names = ["dcan, resnet_tiny, 4 + 4 images of 32 px", "baseline, resnet_tiny, 8 images of 32 px"]
    variants = ["ours float32", "ours bfloat16"]
    rows = {(row["step"], row["variant"]): row for row in result["speed"]}
    assert list(rows) == [(name, variant) for name in names for variant in variants]
    for name in names:
        full, half = (rows[name, variant] for variant in variants)
        assert full["losses"].keys() == half["losses"].keys()
        assert half["losses"]["cls"] == pytest.approx(full["losses"]["cls"], abs=0.1)
        assert half["losses"]["cls"] != full["losses"]["cls"]
        assert 100 < full["peak_mib"] < 5000
        assert "ratio" not in full
    assert [row["step"] for row in result["waiting"]] == names
    assert all(0 <= row["waiting_for_data"] < 1 for row in result["waiting"])


@pytest.mark.parametrize(
    ("kind", "backbone"),
    [
        ("baseline", "resnet50"),
        ("dcan", "resnet50"),
        ("baseline", "efficientnet_lite0"),
        ("features", "efficientnet_lite0"),
    ],
)
def test_pytorch_computes_the_same_losses(tmp_path, kind, backbone):
    pytest.importorskip("torch")
    from tools import torch_classifiers

    records = fakes.make_records(tmp_path, resolution=64, per_class=16)
    step = bench_classifiers.Step(kind, 64, 8, backbone)
    classifier, phase, batch = bench_classifiers.make_ours(step, "float32", str(records))
    weights = str(tmp_path / "weights.npz")
    np.savez(weights, **bench_classifiers.arrays_of(classifier, batch, step))
    theirs = torch_classifiers.make_step(kind, backbone, weights, bench_classifiers._LEARNING_RATE)
    ours = [{k: float(v) for k, v in bench_classifiers.losses_of(phase.step(batch)).items()} for _ in range(2)]
    others = [{k: float(v) for k, v in theirs().items()} for _ in range(2)]
    bench_classifiers._check_losses(step, {"ours float32": ours[0], bench_classifiers.PYTORCH: others[0]})
    change, other = (losses[1]["cls"] - losses[0]["cls"] for losses in (ours, others))
    if kind == "baseline":  # the update of dcan has a random term
        assert change < -1e-4
        assert other == pytest.approx(change, rel=0.05)
