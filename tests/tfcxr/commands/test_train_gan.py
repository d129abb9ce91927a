"""train-gan through its flags: what it writes, that a broken run ends as an unbroken one, and errors."""

import hashlib
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from absl import flags as absl_flags

import tfcxr
from flags import app
from tests import fakes, stopping
from tests.tfcxr.training.test_event_files import shown
from tfcxr import data
from tfcxr.commands import train_gan
from tfcxr.gan import loading
from tfcxr.gan.training import fidelity_measurement, state
from tfcxr.gan.training import train_gan as train_gan_lib
from tfcxr.training import checkpoints, controller
from tfrecords_builder import files, labels
from tfrecords_builder.errors import InputError

SMALL = ["--fmap_base=64", "--fmap_max=8", "--batch_size=8", "--tick_kimg=0.1", "--mirror", "--ema_rampup=0.5"]
DECAY = "--lr_decay_kimg=0.1"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return fakes.make_records(tmp_path_factory.mktemp("gan_records"), label_version="multilabel", per_class=4)


@pytest.fixture(scope="module")
def unbroken(records, tmp_path_factory):
    """A finished run of 25 steps."""
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    assert call(records, folder, "--total_kimg=0.2", DECAY) == 0
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
        for name in ("step", "kimg", "fid/pixels_pca64", "diversity/min", "augment_probability", "learning_rate/G"):
            assert one.get(name) == other.get(name), name
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def events(folder):
    """All values in TensorBoard's files."""
    paths = [path for path in (folder / "tensorboard").iterdir() if path.is_file()]
    found = [event.summary.value for path in paths for event in tf.compat.v1.train.summary_iterator(str(path))]
    return [value for values in found for value in values]


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
    rates = [0.005, 0.005 / 2.04, 0.005 / 3]
    for network in "GD":
        assert [tick[f"learning_rate/{network}"] for tick in result["ticks"]] == pytest.approx(rates)
    names = {path.name for path in unbroken.iterdir()}
    assert {"flags.txt", "config.json", "ticks.json", "label_combinations.json", "samples", "tensorboard"} <= names
    assert len(list((unbroken / "samples").glob("fakes-*.png"))) == 3
    assert (unbroken / "samples/reals.png").exists()
    tags = {value.tag for value in events(unbroken)}
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
    with monkeypatch.context() as patch:
        stopping.stop_after(patch, 2)
        assert call(records, broken, "--total_kimg=0.1", DECAY) == 143
    steps = variables(broken)["step/.ATTRIBUTES/VARIABLE_VALUE"]
    assert 0 < steps < 12
    assert not (broken / "result.json").exists()
    # Amid a tick, whose means are of all of its steps.
    assert steps not in [tick["step"] for tick in history(unbroken)["ticks"]]
    assert call(records, broken, "--total_kimg=0.2", DECAY) == 0
    assert_same_state(unbroken, broken)
    kept = [json.loads((run / "ticks.json").read_text()) for run in (unbroken, broken)]
    timed = [[{k: v for k, v in tick.items() if not k.startswith(("time/", "speed/"))} for tick in run] for run in kept]
    assert timed[0] == timed[1]


@pytest.mark.large
def test_a_stopped_run_with_ada_passes_and_discriminator_steps_ends_as_an_unbroken_one(records, tmp_path, monkeypatch):
    settings = ["--total_kimg=0.192", "--batch_size=8", "--passes=2", "--d_steps=2", "--loss=logistic_r1"]
    settings += ["--augment=ada", "--ada_target=0", "--ada_kimg=0.2", "--reg_interval=3", "--fid_ticks=1"]
    assert call(records, tmp_path / "unbroken", *settings) == 0
    with monkeypatch.context() as patch:
        stopping.stop_after(patch, 3)
        assert call(records, tmp_path / "broken", *settings) == 143
    # Amid the four steps after which the probability moves.
    assert variables(tmp_path / "broken")["step/.ATTRIBUTES/VARIABLE_VALUE"] % 4 != 0
    assert call(records, tmp_path / "broken", *settings) == 0
    assert_same_state(tmp_path / "unbroken", tmp_path / "broken")
    assert json.loads((tmp_path / "broken/result.json").read_text())["steps"] == 12
    ticks = history(tmp_path / "broken")["ticks"]
    assert [tick["step"] for tick in ticks] == [0, 7, 12]
    # Each move is 4 · 16 images of 200.
    moves = [round(tick["augment_probability"] / 0.32, 3) for tick in ticks]
    assert moves[0] == 0
    assert all(move == int(move) or move == round(1 / 0.32, 3) for move in moves)


@pytest.mark.large
def test_a_growing_run_stopped_in_a_fade_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    records = fakes.make_records(tmp_path / "records", label_version="multilabel", per_class=4, resolution=16)
    settings = [f"--records={records}", "--arch=prog", "--fmap_base=64", "--fmap_max=8", "--tick_kimg=0.05"]
    settings += ["--train_kimg=0.032", "--fade_kimg=0.048", "--batch_sizes=8:16,16:8", "--total_kimg=0.128"]
    forget, resets = state.GanState.forget_moments, []

    def note_and_forget(self):
        resets.append(int(self.images_shown))
        forget(self)
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            assert int(optimizer.iterations) == 0
            assert not any(np.any(variable) for variable in optimizer.variables())

    monkeypatch.setattr(state.GanState, "forget_moments", note_and_forget)

    def train(name):
        argv = ["train-gan", f"--run_dir={tmp_path / name}", *settings]
        return app.run(train_gan.main, train_gan.define_flags, argv)

    assert train("unbroken") == 0
    # A layer starts its fade after 2 steps of 16 images and has ended it after 6 of 8; then 6 more.
    assert resets == [32, 80]
    result = json.loads((tmp_path / "unbroken/result.json").read_text())
    assert (result["steps"], result["kimg"]) == (14, 0.128)
    assert [(tick["step"], round(tick["lod"], 4)) for tick in result["ticks"]] == [
        (0, 1.0),
        (5, round(1 - 24 / 48, 4)),
        (11, 0.0),
        (14, 0.0),
    ]
    assert {"loss/labels_real", "loss/labels_fake", "loss/labels_G"} <= result["ticks"][1].keys()
    with monkeypatch.context() as patch:
        stopping.stop_after(patch, 3)
        assert train("broken") == 143
    found = variables(tmp_path / "broken")
    shown = int(found["images_shown/.ATTRIBUTES/VARIABLE_VALUE"])
    assert 32 < shown < 80
    lods = [value for name, value in found.items() if name.endswith("lod/.ATTRIBUTES/VARIABLE_VALUE")]
    assert len(lods) == 3
    # That of the last step, set before it.
    np.testing.assert_allclose(lods, 1 - (shown - 8 - 32) / 48, rtol=1e-6)
    resets.clear()
    assert train("broken") == 0
    assert resets == [80]
    assert_same_state(tmp_path / "unbroken", tmp_path / "broken")


def test_a_run_stops_when_fidelity_no_longer_improves(records, unbroken, tmp_path, monkeypatch, capsys):
    values, seen = [5.0, 3.0, 4.0, 3.5], []
    latents, labels = tf.ones([2, 8]), np.eye(14, dtype=np.float32)[:2]

    def measure(self, generate):
        seen.append(generate(latents, labels))
        return {self.main: values[len(seen) - 1]}

    monkeypatch.setattr(fidelity_measurement.Fidelity, "__call__", measure)
    # The real images' statistics are those that another run on the same records has computed.
    monkeypatch.delattr(fidelity_measurement.feature_statistics, "of_records")
    folder = tmp_path / "run"
    settings = ["--tick_kimg=0.016", "--fid_ticks=1", "--patience=2", "--min_kimg=0.04", "--total_kimg=9"]
    settings.append(f"--cache_dir={unbroken / 'statistics'}")
    assert call(records, folder, *settings) == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["stopped_early"]
    assert (result["steps"], result["kimg"]) == (6, 0.048)
    assert (result["fidelity"]["best"], result["fidelity"]["best_kimg"]) == (3.0, 0.016)
    assert result["fidelity"]["value"] == 3.5
    best, latest = loading.load(folder), loading.load(folder, "latest")
    assert (best.kimg, latest.kimg) == (0.016, 0.048)
    np.testing.assert_allclose(best.model([latents, labels]), seen[1], atol=1e-6)
    np.testing.assert_allclose(latest.model([latents, labels]), seen[3], atol=1e-6)
    assert np.abs(seen[1] - seen[3]).max() > 1e-4
    assert not (folder / "statistics").exists()
    # It is finished, though shorter than it might have been.
    assert call(records, folder, *settings) == 2
    refuse_without_the_best(records, folder, settings, capsys)


def refuse_without_the_best(records, folder, settings, capsys):
    """Of a run whose best snapshot is of step 2: what is damaged or gone is not replaced by another in silence."""
    data_file = folder / "best/ckpt-2.data-00000-of-00001"
    data_file.write_bytes(bytes(data_file.stat().st_size))
    with pytest.raises(InputError, match=r"best/ckpt-2: cannot be read \(.*\)$"):
        loading.load(folder)
    (folder / "result.json").rename(folder / "kept.json")  # as if it had not ended
    capsys.readouterr()
    assert call(records, folder, *settings) == 1
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "best/ckpt-2: is damaged (" in error
    assert error.endswith("it is the best snapshot so far: put back a copy of it, or start again with --overwrite")
    (folder / "best/ckpt-2.index").rename(folder / "index")
    assert call(records, folder, *settings) == 1
    assert "best/ckpt-2: is gone; it is the best snapshot so far" in capsys.readouterr().err
    gone = "best: the snapshot of the best generator is gone; put back a copy of it, or give --snapshot=latest$"
    with pytest.raises(InputError, match=gone):
        loading.load(folder)
    for path in (folder / "best").glob("ckpt-*"):
        other = path.with_name(path.name.replace("ckpt-2", "ckpt-4"))  # one that was not the best
        path.rename(other)
    (folder / "index").rename(folder / "best/ckpt-4.index")
    with pytest.raises(InputError, match=gone):
        loading.load(folder)
    (folder / "kept.json").rename(folder / "result.json")
    with pytest.raises(InputError, match=gone):
        loading.load(folder)
    ticks = (folder / "ticks.json").read_text()
    (folder / "ticks.json").write_text(ticks.replace('"step": 2', '"step": null'))
    with pytest.raises(InputError, match=r"ticks.json or result.json is damaged \(TypeError.*--snapshot=latest$"):
        loading.load(folder)
    (folder / "ticks.json").write_text(ticks)
    assert loading.load(folder, "latest").kimg == 0.048


def test_fidelity_in_the_features_of_a_classifier(records, tmp_path, capsys):
    def classifier(name, *layers):
        model = tf.keras.Sequential(
            [
                tf.keras.Input([8, 8, 1]),
                *layers,
                tf.keras.layers.Conv2D(5, 3),
                tf.keras.layers.GlobalAveragePooling2D(),
                tf.keras.layers.Dense(2, activation="softmax"),
            ]
        )
        model.save(tmp_path / name)
        return f"--features={tmp_path / name}"

    settings = [classifier("good.keras"), "--total_kimg=0.008", "--fid_images=12"]
    assert call(records, tmp_path / "run", *settings) == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    digest = hashlib.sha256((tmp_path / "good.keras").read_bytes()).hexdigest()[:8]
    assert (result["fidelity"]["name"], result["fidelity"]["num_images"]) == (f"fid/keras-{digest}", 12)
    assert result["fidelity"]["value"] == result["ticks"][-1][f"fid/keras-{digest}"]
    assert f"kid/keras-{digest}" in {value.tag for value in events(tmp_path / "run")}
    capsys.readouterr()
    for flags, expected in [
        ([classifier("bytes.keras", tf.keras.layers.Rescaling(1 / 255))], "--features="),
        (["--features=nowhere"], "--features=nowhere"),
        (["--features_weights=x.h5"], "--features_weights=x.h5"),
        (["--fid_images=3"], "--fid_images=3: must be at least"),
    ]:
        assert call(records, tmp_path / "other", "--total_kimg=0.008", *flags, "--overwrite") == 2
        message = capsys.readouterr().err
        assert message.splitlines()[-1].startswith(f"error: {expected}")
        assert "Traceback" not in message


def test_collapse_histograms_profile_and_images_without_labels(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fakes, "CASES", (*fakes.CASES, ()))
    records = fakes.make_records(tmp_path / "records", label_version="multilabel", per_class=4)
    constant = lambda self, latents, labels: np.full([len(labels), 8, 8, 1], 0.25, np.float32)  # noqa: E731
    monkeypatch.setattr(train_gan_lib._Training, "_generate", constant)
    monkeypatch.setattr(controller, "_SECONDS_PER_CALL", 0.0)
    folder = tmp_path / "run"
    settings = ["--total_kimg=0.04", "--tick_kimg=0.016", "--histograms", "--profile=2,3"]
    assert call(records, folder, *settings) == 0
    result = json.loads((folder / "result.json").read_text())
    # The last of the six cases has no label: 4 of 24 images.
    assert result["num_skipped_without_label"] == 4
    assert result["num_images"] == data.RecordSet(records).num_examples("train") - 4 == 20
    assert all(row["labels"] != "(none)" for row in result["grid_rows"])
    # Before training nothing is a collapse.
    assert result["warnings"]["collapse"]["kimg"] == 0.016
    assert "mode collapse" in result["warnings"]["collapse"]["text"]
    found = events(folder)
    texts = [value.tensor.string_val[0].decode() for value in found if value.tag == "warnings/collapse"]
    assert texts == [result["warnings"]["collapse"]["text"]] * 3
    kinds = {value.tag: value.metadata.plugin_data.plugin_name for value in found if value.tag.count("/") > 1}
    assert "histograms" in kinds.values()
    assert any(tag.startswith("generator/") for tag in kinds)
    assert any(tag.startswith("discriminator/") for tag in kinds)
    assert list((folder / "tensorboard/plugins/profile").glob("*/*.xplane.pb"))


def test_settings_of_a_run_cannot_change(records, unbroken, capsys):
    for arguments, expected in [
        (["--total_kimg=0.2"], "is finished"),
        (["--total_kimg=0.3", "--learning_rate=0.001"], "learning_rate=0.005, not 0.001"),
        (["--total_kimg=0.1"], "total_kimg=0.2, not 0.1"),
        (["--total_kimg=0.3", "--augment=ada"], "augment=[]"),
    ]:
        assert call(records, unbroken, DECAY, *arguments) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert expected in message


def test_losses_that_are_not_numbers_stop_the_run(records, tmp_path, capsys):
    assert call(records, tmp_path / "run", "--total_kimg=0.2", "--learning_rate=1e30", "--loss=hinge") == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "is not a number after" in message
    assert "smaller --learning_rate" in message
    assert tf.train.latest_checkpoint(str(tmp_path / "run/checkpoints")) is None


def test_a_full_disk_is_one_line(records, tmp_path, monkeypatch, capsys):
    folder, write = tmp_path / "run", files.write_json

    def full(path, value):
        if pathlib.Path(path).name == "ticks.json":
            raise OSError(28, "No space left on device", str(path))
        write(path, value)

    monkeypatch.setattr(files, "write_json", full)
    assert call(records, folder) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"error: --run_dir={folder}: {folder}/ticks.json cannot be read or written (No space")


def test_memory_that_does_not_suffice_is_one_line(records, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise tf.errors.ResourceExhaustedError(
            None, None, "Graph execution error:\n\nOOM when allocating tensor\n more"
        )

    monkeypatch.setattr(fidelity_measurement.Fidelity, "__call__", fail)
    assert call(records, tmp_path / "run") == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(
        "error: the memory does not suffice (OOM when allocating tensor); give a smaller --batch_size"
    )
    assert "--passes" in message


def test_bad_input_exits_2_in_one_line(records, tmp_path, capsys):
    grown = ["--arch=prog", "--batch_size=64"]
    for arguments, expected in [
        (["--resolution=16"], "images are 8 px, not 16"),
        (["--batch_size=6"], "batch_size=6: must be at most 4 or divisible by 4"),
        (["--condition_labels=No Finding,Flu"], "condition_labels"),
        (["--condition_labels=Pleural Other"], "no training image has a label"),
        (["--loss=mse"], "loss"),
        (["--batch_sizes=8:8"], "--batch_sizes={8: 8}: is for arch prog"),
        (["--fade_kimg=1"], "--fade_kimg=1.0: is for arch prog"),
        ([*grown, "--batch_sizes=8:6"], "--batch_sizes=8:6: '8:6': a batch size must be at most 4 or"),
        ([*grown, "--learning_rates=8"], "--learning_rates=8: '8': must be RESOLUTION:VALUE"),
        ([*grown, "--d_steps=2"], "--d_steps=2: must be 1 with arch prog"),
        ([*grown, "--lr_decay_kimg=5"], "--lr_decay_kimg=5.0: is for arch cpd; give learning_rates"),
        (["--arch=prog", "--batch_size=16"], "--batch_size=16: is for --arch=cpd"),
        ([*grown, "--batch_sizes=8:8", "--passes=4"], "--passes=4: batch_size=8: must be divisible by 16"),
        (["--ada_target=0.6"], "--ada_target=0.6: needs augment policies"),
        (["--passes=4"], "--passes=4: batch_size=8: must be divisible by 16 to be shared by 4"),
        (["--profile=5,2"], "--profile=['5', '2']: must be two steps"),
        (["--profile=²,3"], "--profile=['²', '3']: must be two steps"),
        (["--augment=sharpen"], "--augment=sharpen: unknown policy 'sharpen'"),
        (["--fmap_min=16"], "--fmap_min=16: must not exceed fmap_max=8"),
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
    config = train_gan._config(fv, fv.resolution, labels.DEFAULT)
    reference = preset.startswith("reference/")
    assert (config.step.loss, config.network.init) == (
        ("wgan_gp", "reference") if reference else ("logistic_r1", "calm")
    )


@pytest.mark.large
def test_a_run_killed_ten_times_ends_as_an_unbroken_one(records, tmp_path):
    extra = ["--total_kimg=12", "--checkpoint_kimg=0.1", "--tick_kimg=0.8", "--loss=logistic_r1", "--reg_interval=4"]
    extra += ["--augment=ada", "--ada_target=0.1", "--ada_kimg=4", "--init=calm", "--patience=0"]
    assert call(records, tmp_path / "unbroken", *extra) == 0
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "tfcxr.commands.train_gan", *flags(records, folder, *extra)]
    random = np.random.default_rng(0)
    amid_saves = 0
    for kill in range(10):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = checkpoints.available(folder / "checkpoints")[:1]
        while process.poll() is None and checkpoints.available(folder / "checkpoints")[:1] == before:
            time.sleep(0.02)
        # At any moment, or amid a save, which begins with files under another name.
        end = time.monotonic() + random.uniform(0, 0.5)
        while time.monotonic() < end:
            time.sleep(0.01)
        while kill % 2 and process.poll() is None and not list((folder / "checkpoints").glob("ckpt-*temp*")):
            pass
        process.kill()
        process.wait()
        amid_saves += bool(list((folder / "checkpoints").glob("ckpt-*temp*")))
        assert not (folder / "result.json").exists()
    assert amid_saves > 0
    # A checkpoint that was cut short on disk: the one before is used.
    newest = pathlib.Path(checkpoints.available(folder / "checkpoints")[0] + ".data-00000-of-00001")
    newest.write_bytes(newest.read_bytes()[:1000])
    assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0
    assert_same_state(tmp_path / "unbroken", folder)
    probabilities = [tick["augment_probability"] for tick in history(folder)["ticks"]]
    assert len(set(probabilities)) > 5
    # Nothing is left but two checkpoints and the list.
    assert len(list((folder / "checkpoints").iterdir())) == 5
    assert not list(folder.rglob("*.tmp"))


def test_a_killed_run_mixes_no_snapshot_with_other_ticks_and_shows_each_step_once(records, tmp_path, monkeypatch):
    """What is done again may measure otherwise, as machines round differently; then step 4 is no longer the best."""
    folder, values = tmp_path / "run", {0: 9.0, 2: 5.0, 4: 3.0, 6: 4.0}
    settings = ["--tick_kimg=0.016", "--fid_ticks=1", "--checkpoint_kimg=0.016", "--total_kimg=0.048"]

    training, tick = train_gan_lib._Training, train_gan_lib._Training._write_ticks
    begin, begun = training._begin_writing, []

    def note_and_begin(self):
        begun.append(self._state)
        begin(self)

    def killed(self):
        if int(self._state.step) == 4:
            raise stopping.KilledError
        tick(self)

    monkeypatch.setattr(training, "_begin_writing", note_and_begin)
    measure = lambda self, _: {self.main: values[int(begun[-1].step)]}  # noqa: E731
    monkeypatch.setattr(fidelity_measurement.Fidelity, "__call__", measure)
    with monkeypatch.context() as patch:
        patch.setattr(training, "_write_ticks", killed)
        with pytest.raises(stopping.KilledError):
            call(records, folder, *settings)
    assert checkpoints.available(folder / "best")[0].endswith("ckpt-4")
    assert loading.load(folder).kimg == 0.016
    values[4] = 6.0
    assert call(records, folder, *settings) == 0
    assert loading.load(folder).kimg == 0.048
    assert json.loads((folder / "result.json").read_text())["fidelity"]["best_kimg"] == 0.048
    assert shown(folder / "tensorboard", "kimg") == [0, 2, 4, 6]
    assert shown(folder / "tensorboard", "fakes") == [0, 2, 4, 6]
    for tag in ("reals", "_hparams_/session_start_info"):
        assert [value.tag for value in events(folder)].count(tag) == 1
