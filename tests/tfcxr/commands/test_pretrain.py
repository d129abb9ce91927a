"""pretrain through its flags: files, learning, exact resume, bad input, and what takes its result."""

import json

import numpy as np
import pytest

from flags import app
from tests import fakes, stopping
from tests.tfcxr.commands.test_train_baseline import weights_of
from tfcxr.commands import compare_sets, export_model, pretrain, train_baseline, train_dcan

SMALL = ["--backbone=resnet_tiny", "--image_size=16", "--batch_size=8", "--probe_images=40"]
SIMCLR = [*SMALL, "--steps=12", "--eval_every=6", "--optimizer=lamb", "--positives=patient"]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """20 + 20 training images, two of each patient."""
    folder = tmp_path_factory.mktemp("records")
    return fakes.make_records(folder, resolution=16, per_class=20, aspect="pad", contrast="percentile")


def call(command, *flags):
    return app.run(command.main, command.define_flags, ["command", *map(str, flags)])


def train(records, run_dir, *flags):
    return call(pretrain, f"--records={records}", f"--run_dir={run_dir}", *flags)


@pytest.fixture(scope="module")
def run_dir(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "simclr"
    assert train(records, folder, *SIMCLR) == 0
    return folder


def test_a_run_learns_and_leaves_its_files(run_dir):
    result = json.loads((run_dir / "result.json").read_text())
    assert (result["kind"], result["method"], result["steps"], result["images"]) == ("pretrain", "simclr", 12, 40)
    assert (result["select"], result["selected_on_labels"], result["probed"]) == ("last", False, ["Pneumothorax"])
    assert result["best"]["step"] == 12
    rows = json.loads((run_dir / "history.json").read_text())
    assert [row["step"] for row in rows] == [6, 12]
    assert rows[1]["train/loss"] < rows[0]["train/loss"]
    assert 0.1 < rows[1]["train/spread"] < 1.1
    assert rows[1]["probe/auc"] == rows[1]["probe/auc/Pneumothorax"] > 0.5
    # A warm-up of one step, and then a cosine over 11 from 0.008 times the root of 8 / 256; after the step before.
    peak = 0.008 * (8 / 256) ** 0.5
    for row in rows:
        falling = 0.5 * (1 + np.cos(np.pi * (row["step"] - 1) / 11))
        assert row["learning_rate"] == pytest.approx(peak * falling, abs=1e-8)
    for name in ("curves.png", "samples/pairs.png"):
        assert (run_dir / name).stat().st_size > 1000
    assert list((run_dir / "tensorboard").glob("events*"))
    config = json.loads((run_dir / "config.json").read_text())
    assert config["kind"] == "pretrain"
    assert (config["config"]["splits"], config["config"]["classes"]) == (["train"], [])


def test_a_stopped_run_ends_like_an_unbroken_one(records, run_dir, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stopping.stop_after(patch, 3)
        assert train(records, tmp_path / "run", *SIMCLR) == 143
    assert weights_of(tmp_path / "run")["step/.ATTRIBUTES/VARIABLE_VALUE"] == 3
    assert train(records, tmp_path / "run", *SIMCLR) == 0
    first, second = weights_of(run_dir), weights_of(tmp_path / "run")
    assert first.keys() == second.keys()
    assert any("OPTIMIZER_SLOT" in name for name in first) or any("/m/" in name for name in first)
    assert any(name.startswith("layers/0/0/") for name in first)  # the projector
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)
    assert (tmp_path / "run" / "history.json").read_text() == (run_dir / "history.json").read_text()


@pytest.mark.parametrize("optimizer", ["lars", None])
def test_simsiam_on_several_splits(records, tmp_path, optimizer, capsys):
    flags = ["--method=simsiam", "--steps=4", "--eval_every=2", "--splits=train,validation,test", "--projection=16"]
    flags += [f"--optimizer={optimizer}"] if optimizer else ["--dtype=mixed_bfloat16", "--probe_images=0", "--flip"]
    assert train(records, tmp_path / "run", *SMALL, *flags) == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["images"] == 120
    assert -1 <= result["last"]["train/loss"] <= 0.2
    assert ("probe/auc" in result["last"]) == bool(optimizer)
    if not optimizer:
        assert "probe" not in capsys.readouterr().out


def backbone_of(path):
    from tfcxr.classifiers import loading

    return loading.load_encoder_network(path).base.get_weights()


def test_trainings_of_classifiers_start_from_it(records, run_dir, tmp_path, capsys):
    baseline = [f"--records={records}", f"--run_dir={tmp_path / 'baseline'}", *SMALL[:3], f"--init_from={run_dir}"]
    assert call(train_baseline, *baseline, "--labelled_fraction=0.2", "--stage1_epochs=1", "--stage2_epochs=1") == 0
    assert "start: backbone loaded, the rest random" in capsys.readouterr().out
    rows = json.loads((tmp_path / "baseline/history.json").read_text())
    assert [row["phase"] for row in rows] == ["head", "network"]
    target = fakes.make_records(tmp_path / "target", resolution=16, per_class=8, seed=1)
    adapted = [f"--source_records={records}", f"--target_records={target}", f"--run_dir={tmp_path / 'dcan'}"]
    adapted += [*SMALL[:1], "--image_size=24", "--batch_size=4", f"--init_from={run_dir}", "--embeddings_every=0"]
    assert call(train_dcan, *adapted, "--steps=1", "--learning_rate=1e-9", "--alignment=none") == 0
    said = capsys.readouterr().out
    assert "start: backbone loaded, the rest random" in said
    assert f"note: --init_from={run_dir}: was trained with --image_size=16, here it is 24" in said
    for a, b in zip(backbone_of(run_dir), backbone_of(tmp_path / "dcan"), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_it_is_a_feature_space_and_an_encoder(records, run_dir, tmp_path, capsys):
    import tensorflow as tf

    import tfcxr

    encoder = tfcxr.load_encoder(run_dir)
    image = np.random.default_rng(0).uniform(size=[2, 40, 24, 1]).astype(np.float32)
    features = encoder(image).numpy()
    assert features.shape == (2, 256)
    with pytest.raises(ValueError, match="divide 8-bit values by 255"):
        encoder(image * 255)
    assert call(export_model, f"--run_dir={run_dir}", f"--output_dir={tmp_path / 'export'}", "--onnx") == 2
    assert "--onnx: is for classifiers" in capsys.readouterr().err
    assert call(export_model, f"--run_dir={run_dir}", f"--output_dir={tmp_path / 'export'}") == 0
    signatures = tf.saved_model.load(str(tmp_path / "export")).signatures
    served = signatures["image_tensor"](images=tf.constant(image[:, :16, :16]))["features"]
    np.testing.assert_allclose(served, encoder(image[:, :16, :16]), rtol=1e-4, atol=1e-5)
    png = tf.io.encode_png(np.full([20, 20, 1], 128, np.uint8))
    assert signatures["serving_default"](image_bytes=png[tf.newaxis])["features"].shape == (1, 256)
    np.testing.assert_array_equal(tfcxr.load_encoder(tmp_path / "export")(image), features)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"must be in \[0, 1\]; divide 8-bit"):
        signatures["image_tensor"](images=tf.constant(image * 255))
    fakes.make_records(tmp_path / "other", resolution=16, per_class=20, seed=3)
    flags = [f"--real={records}", f"--synthetic={tmp_path / 'other'}", f"--output_dir={tmp_path / 'out'}"]
    assert call(compare_sets, *flags, f"--features={run_dir}") == 0
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert any(name.startswith("fid/resnet_tiny-") for name in json.dumps(result).split('"'))


@pytest.mark.parametrize("flags, message", [
    (["--batch_size=41"], "has 40 images in train, and a batch must not hold one twice; give a smaller one"),
    (["--splits=train,valid"], "--splits=train,valid: must be some of train, validation, test"),
    (["--splits="], "must be some of train"),
    (["--warmup_steps=12"], "--warmup_steps=12: must be less than --steps=12"),
    (["--patience=2"], "--patience: needs --select=probe"),
    (["--select=probe", "--probe_images=0"], "--select=probe: needs a probe"),
    (["--backbone=densenet121"], "--image_size=16: densenet121 needs at least 32 px"),
    (["--weights=imagenet"], "--weights=imagenet: there are none for resnet_tiny"),
    (["--init_from=nowhere"], "--init_from=nowhere: is not a run folder"),
    (["--method=byol"], "method"),
])  # fmt: skip
def test_bad_input_is_one_line(records, tmp_path, capsys, flags, message):
    assert train(records, tmp_path / "run", *SIMCLR, *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_records_that_have_no_pairs_or_labels(tmp_path, capsys):
    alone = fakes.make_records(tmp_path / "alone", resolution=16, per_class=4, with_patients=False)
    assert train(alone, tmp_path / "run", *SIMCLR) == 2
    assert "--positives=patient: no patient of" in capsys.readouterr().err
    assert train(alone, tmp_path / "run", *SMALL, "--select=probe") == 2
    assert "splits of" in capsys.readouterr().err


def test_other_settings_and_runs_of_another_kind_are_refused(records, run_dir, tmp_path, capsys):
    from tests import gan_runs
    from tfcxr.classifiers import loading
    from tfrecords_builder.errors import InputError

    assert train(records, run_dir, *SIMCLR, "--temperature=0.5") == 2
    assert "holds a run with temperature=0.1, not 0.5" in capsys.readouterr().err
    gan_runs.make_gan_run(tmp_path / "gan")
    assert train(records, tmp_path / "run", *SIMCLR, f"--init_from={tmp_path / 'gan'}") == 2
    assert "is a run of kind gan, not baseline or dcan or pretrain" in capsys.readouterr().err
    with pytest.raises(InputError, match="is a run of kind pretrain, not baseline or dcan"):
        loading.load_classifier(run_dir)
    other = [f"--records={records}", f"--run_dir={tmp_path / 'run'}", "--backbone=resnet50", "--image_size=32"]
    assert call(train_baseline, *other, f"--init_from={run_dir}") == 2
    assert "--init_from: its backbone is resnet_tiny, not resnet50" in capsys.readouterr().err
