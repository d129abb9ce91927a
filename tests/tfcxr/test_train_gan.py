"""train-gan through its flags: what it writes, that a broken run ends as an unbroken one, and errors."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from absl import flags as absl_flags

import tfcxr
from flags import app
from tests import fakes
from tfcxr import data, train_gan
from tfcxr.gan import loading, training

SMALL = ["--fmap_base=64", "--fmap_max=8", "--batch_size=8", "--tick_kimg=0.1", "--mirror", "--ema_rampup=0.5"]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return fakes.make_records(tmp_path_factory.mktemp("gan_records"), label_version="multilabel", per_class=4)


@pytest.fixture(scope="module")
def unbroken(records, tmp_path_factory):
    """A finished run of 25 steps."""
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    assert call(records, folder, "--total_kimg=0.2") == 0
    return folder


def call(records, folder, *arguments):
    return app.run(train_gan.main, train_gan.define_flags, ["train-gan", *flags(records, folder, *arguments)])


def flags(records, folder, *arguments):
    return [f"--records={records}", f"--run_dir={folder}", *SMALL, *arguments]


def variables(folder):
    """Everything in the newest checkpoint but the history: networks, average, optimizers, counters."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder / "checkpoints")))
    names = [
        name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name and "save_counter" not in name
    ]
    names = [name for name in names if not name.startswith("history/")]
    return {name: np.asarray(reader.get_tensor(name)) for name in names}


def assert_same_state(a, b):
    first, second = variables(a), variables(b)
    assert first.keys() == second.keys()
    assert any("generator_optimizer" in name for name in first)
    assert {f"{name}/.ATTRIBUTES/VARIABLE_VALUE" for name in ("step", "images_shown", "sign_sum")} <= first.keys()
    histories = [history(folder) for folder in (a, b)]
    assert histories[0]["patience"] == histories[1]["patience"]
    for one, other in zip(*(value["ticks"] for value in histories), strict=True):
        for name in ("step", "kimg", "fid/pixels_pca64", "diversity/min", "augment_probability"):
            assert one.get(name) == other.get(name), name
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def history(folder):
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder / "checkpoints")))
    return json.loads(reader.get_tensor("history/.ATTRIBUTES/py_state"))


def test_a_run_leaves_checkpoints_samples_events_and_results(records, unbroken):
    result = json.loads((unbroken / "result.json").read_text())
    assert result["kimg"] == 0.2
    assert result["steps"] == 25
    assert result["num_images"] == data.RecordSet(records).num_examples("train")
    assert result["fidelity"]["name"] == "fid/pixels_pca64"
    assert result["fidelity"]["num_images"] == result["num_images"]
    assert result["fidelity"]["best"] == min(tick.get("fid/pixels_pca64", np.inf) for tick in result["ticks"])
    assert not result["stopped_early"]
    assert [tick["step"] for tick in result["ticks"]] == [0, 13, 25]
    names = {path.name for path in unbroken.iterdir()}
    assert {"flags.txt", "config.json", "ticks.json", "label_combinations.json", "samples", "tensorboard"} <= names
    assert len(list((unbroken / "samples").glob("fakes-*.png"))) == 3
    assert (unbroken / "samples/reals.png").exists()
    tags = set()
    for path in (unbroken / "tensorboard").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags |= {value.tag for value in event.summary.value}
    assert {"loss/G", "loss/D", "scores/real", "scores/fake", "norm/G", "norm/D", "penalty/gradient_norm"} <= tags
    assert {"kimg", "learning_rate/G", "learning_rate/D", "speed/images_per_s", "fakes", "reals"} <= tags
    measures = ("fid", "kid", "precision", "recall", "density", "coverage")
    assert {f"{measure}/pixels_pca64" for measure in measures} <= tags
    assert {"diversity/min", "diversity/mean", "_hparams_/session_start_info"} <= tags


def test_the_run_loads_as_averaged_generator(unbroken):
    model = tfcxr.load_generator(unbroken, "latest")
    images = model([np.zeros([2, 8], np.float32), np.eye(14, dtype=np.float32)[:2]])
    assert images.shape == [2, 8, 8, 1]
    kernel = next(
        value for name, value in variables(unbroken).items() if name.startswith("ema/layer_with_weights-0/weight")
    )
    np.testing.assert_array_equal(model.trainable_variables[0], kernel)
    # The least distance was that of another tick than the last.
    values = {
        tick["kimg"]: tick["fid/pixels_pca64"] for tick in history(unbroken)["ticks"] if "fid/pixels_pca64" in tick
    }
    best = loading.load(unbroken)
    assert best.kimg == min(values, key=values.get) < 0.2
    assert not np.array_equal(best.model.trainable_variables[0], kernel)


def test_a_stopped_and_extended_run_ends_as_an_unbroken_one(records, unbroken, tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    add, calls = training._Window.add, []

    def stop_at_third(self, *arguments):
        add(self, *arguments)
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(training._Window, "add", stop_at_third)
        patch.setattr(training, "_CHUNK_SECONDS", 0.0)
        assert call(records, broken, "--total_kimg=0.1") == 143
    steps = variables(broken)["step/.ATTRIBUTES/VARIABLE_VALUE"]
    assert 0 < steps < 12
    assert not (broken / "result.json").exists()
    assert call(records, broken, "--total_kimg=0.2") == 0
    assert_same_state(unbroken, broken)


def test_settings_of_a_run_cannot_change(records, unbroken, capsys):
    for arguments, expected in [
        (["--total_kimg=0.2"], "is finished"),
        (["--total_kimg=0.3", "--learning_rate=0.001"], "learning_rate=0.005, not 0.001"),
        (["--total_kimg=0.1"], "total_kimg=0.2, not 0.1"),
    ]:
        assert call(records, unbroken, *arguments) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert expected in message


def test_losses_that_are_not_numbers_stop_the_run(records, tmp_path, capsys):
    assert call(records, tmp_path / "run", "--total_kimg=0.2", "--learning_rate=1e30", "--loss=hinge") == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "is not a number after" in message
    assert "smaller --learning_rate" in message
    assert tf.train.latest_checkpoint(str(tmp_path / "run/checkpoints")) is None


def test_bad_input_exits_2_in_one_line(records, tmp_path, capsys):
    for arguments, expected in [
        (["--resolution=16"], "images are 8 px, not 16"),
        (["--batch_size=6"], "batch_size=6: must be at most 4 or divisible by 4"),
        (["--condition_labels=No Finding,Flu"], "condition_labels"),
        (["--condition_labels=Pleural Other"], "no training image has a label"),
        (["--loss=mse"], "loss"),
        (["--total_kimg=0"], "total_kimg"),
    ]:
        assert call(records, tmp_path / expected[:5].strip(), *arguments) == 2, arguments
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert expected in message
    assert call(tmp_path, tmp_path / "run") == 2


def test_a_gan_of_some_labels_counts_the_images_it_leaves_out(records, tmp_path):
    folder = tmp_path / "run"
    assert call(records, folder, "--condition_labels=No Finding,Pneumothorax", "--total_kimg=0.008") == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["num_skipped_without_label"] > 0
    total = data.RecordSet(records).num_examples("train")
    assert result["num_images"] + result["num_skipped_without_label"] == total


@pytest.mark.parametrize(
    "preset",
    sorted(
        path.relative_to(app.PRESETS).as_posix()
        for path in app.PRESETS.rglob("*.flags")
        if "gan_" in path.name or path.name.startswith(("prog_", "train_gan"))
    ),
)
def test_presets_hold_valid_settings(preset, tmp_path):
    fv = absl_flags.FlagValues()
    train_gan.define_flags(fv)
    fv(["train-gan", f"--flagfile={app.PRESETS / preset}", f"--records={tmp_path}", f"--run_dir={tmp_path}"])
    assert fv.resolution is not None
    config = train_gan._config(fv, fv.resolution)
    reference = preset.startswith("reference/")
    assert (config.step.loss, config.network.init) == (
        ("wgan_gp", "reference") if reference else ("logistic_r1", "calm")
    )


@pytest.mark.large
def test_a_run_killed_three_times_ends_as_an_unbroken_one(records, tmp_path):
    extra = ["--total_kimg=8", "--checkpoint_kimg=0.4", "--loss=logistic_r1", "--reg_interval=4"]
    assert call(records, tmp_path / "unbroken", *extra) == 0
    command = [sys.executable, "-m", "tfcxr.train_gan", *flags(records, tmp_path / "killed", *extra)]
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = tf.train.latest_checkpoint(str(tmp_path / "killed/checkpoints"))
        while process.poll() is None and tf.train.latest_checkpoint(str(tmp_path / "killed/checkpoints")) == before:
            time.sleep(0.02)
        process.kill()
        process.wait()
    assert not (tmp_path / "killed/result.json").exists()
    # A checkpoint that was cut short on disk: the one before is used.
    newest = pathlib.Path(tf.train.latest_checkpoint(str(tmp_path / "killed/checkpoints")) + ".data-00000-of-00001")
    newest.write_bytes(newest.read_bytes()[:1000])
    assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0
    assert_same_state(tmp_path / "unbroken", tmp_path / "killed")
