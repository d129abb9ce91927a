"""train-dcan through its flags: files, criteria, exact resume, bad input."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from flags import app
from tests import fakes
from tfcxr import train_dcan

FLAGS = [
    "--backbone=resnet_tiny",
    "--image_size=16",
    "--batch_size=4",
    "--eval_every=4",
    "--steps=8",
    "--learning_rate=1e-3",
]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Source, target (of another length) and a run to start from, whose head is trained on nothing."""
    folder = tmp_path_factory.mktemp("sets")
    source = fakes.make_records(folder / "source", resolution=16, per_class=10)
    target = fakes.make_records(folder / "target", resolution=16, per_class=7, seed=3)
    return source, target, make_baseline_run(folder / "baseline")


def make_baseline_run(path):
    import dataclasses

    from tfcxr import runs
    from tfcxr.classifiers import loading, models

    config = models.ModelConfig(("No Finding", "Pneumothorax"), "v1_0s", 16, 16, "resnet_tiny")
    with runs.RunFolder.open(path, kind="baseline", config=dataclasses.asdict(config), records_digests={}):
        models.save_weights(models.Classifier(config, seed=5), path / loading.WEIGHTS)
    return path


def arguments(sets, run_dir, *flags):
    source, target, baseline = sets
    named = [
        f"--source_records={source}",
        f"--target_records={target}",
        f"--run_dir={run_dir}",
        f"--init_from={baseline}",
    ]
    return ["train-dcan", *named, *FLAGS, *flags]


def train(sets, run_dir, *flags):
    return app.run(train_dcan.main, train_dcan.define_flags, arguments(sets, run_dir, *flags))


@pytest.fixture(scope="module")
def run_dir(sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    assert train(sets, folder) == 0
    return folder


def weights_of(run_dir):
    import tensorflow as tf

    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(run_dir / "checkpoints")))
    names = [n for n in reader.get_variable_to_shape_map() if "VARIABLE_VALUE" in n and "save_counter" not in n]
    return {name: reader.get_tensor(name) for name in names}


def assert_same_end(first, second):
    a, b = weights_of(first), weights_of(second)
    assert a.keys() == b.keys()
    assert any("optimizers/0/_variables" in name for name in a)
    for name, value in a.items():
        np.testing.assert_array_equal(b[name], value, err_msg=name)
    assert (first / "history.json").read_text() == (second / "history.json").read_text()


def test_a_run_reports_all_criteria_and_losses(run_dir):
    result = json.loads((run_dir / "result.json").read_text())
    assert [row["step"] for row in result["evaluations"]] == [4, 8]
    assert all(row.keys() == {"step", "source", "entropy", "target"} for row in result["evaluations"])
    assert result["best_by"].keys() == {"source", "entropy", "target"}
    assert result["select"] == "source"
    assert not result["selected_on_target_labels"]
    last = result["last"]
    for name in ("total", "cls", "mmd_features", "mmd_probabilities", "reg", "entropy"):
        assert np.isfinite(last[f"train/{name}"])
    for name in (
        "mmd/before_correction",
        "mmd/after_correction",
        "feature_norm/target",
        "target/predicted/Pneumothorax",
    ):
        assert name in last
    expected = last["train/cls"] + 0.1 * last["train/entropy"]
    expected += 1.5 * (last["train/mmd_features"] + last["train/mmd_probabilities"] + last["train/reg"])
    assert last["train/total"] == pytest.approx(expected, rel=1e-4)
    assert last["learning_rate"] == pytest.approx(1e-3 * (1 + 7 / 8) ** -0.75, rel=1e-5)  # of the last of 8 steps


def test_both_paths_load(run_dir):
    from tfcxr.classifiers import loading

    images = np.random.default_rng(0).random((3, 16, 16, 1), np.float32)
    target = loading.load_classifier(run_dir)(images).numpy()
    source = loading.load_classifier(run_dir, which="source")(images).numpy()
    np.testing.assert_allclose(target.sum(axis=1), 1, rtol=1e-5)
    assert np.abs(target - source).max() > 1e-6
    assert loading.load_classifier_config(run_dir)["kind"] == "dcan"


def test_a_stopped_run_ends_like_an_unbroken_one(sets, run_dir, tmp_path, monkeypatch):
    from tfcxr.classifiers import loop

    guarded, calls = loop._guarded, []

    def stopping(function, *values):
        result = guarded(function, *values)
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_guarded", stopping)
        assert train(sets, tmp_path / "run") == 143
    assert train(sets, tmp_path / "run") == 0
    assert_same_end(run_dir, tmp_path / "run")


def test_selection_on_target_labels_is_marked_and_none_is_a_plain_network(sets, tmp_path):
    from tfcxr.classifiers import loading

    assert train(sets, tmp_path / "run", "--alignment=none", "--select=target", "--steps=4") == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["selected_on_target_labels"]
    network = loading.load_network(tmp_path / "run")
    assert not network.config.attention
    assert network.feature_correction is None


@pytest.mark.parametrize("flags, message", [
    (["--init_from=", "--weights=none"], "--train_batch_norm"),
    (["--batch_size=1"], "batch_size"),
    (["--backbone=densenet121", "--image_size=32"], "channel attention needs a residual network"),
    (["--backbone=resnet50", "--image_size=32"], "its backbone is resnet_tiny, not resnet50"),
    (["--alignment=mmd"], "alignment"),
])  # fmt: skip
def test_bad_input_is_one_line(sets, tmp_path, capsys, flags, message):
    assert train(sets, tmp_path / "run", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_domains_of_different_label_versions_are_refused(sets, tmp_path, capsys):
    other = fakes.make_records(tmp_path / "other", resolution=16, label_version="v2", per_class=2)
    assert train((sets[0], other, sets[2]), tmp_path / "run") == 2
    assert "is of label version v2" in capsys.readouterr().err


@pytest.mark.large
def test_a_killed_run_ends_like_an_unbroken_one(sets, run_dir, tmp_path):
    command = [sys.executable, "-m", "tfcxr.train_dcan", *arguments(sets, tmp_path / "run", "--checkpoint_steps=1")[1:]]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "run").glob("checkpoints/ckpt-[1-6].index")) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "run/result.json").exists()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    unbroken = tmp_path / "unbroken"
    assert train(sets, unbroken, "--checkpoint_steps=1") == 0
    assert_same_end(unbroken, tmp_path / "run")
