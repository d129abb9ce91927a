"""train-baseline through its flags: files, learning, exact resume, bad input."""

import dataclasses
import json
import pathlib

import h5py
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

import tfcxr
from flags import app
from tests import fakes, stopping
from tfcxr import data
from tfcxr.classifiers import loading
from tfcxr.classifiers.networks import models
from tfcxr.commands import evaluate, export_model, predict, train_baseline
from tfrecords_builder.images import image_ops

SMALL = ["--backbone=resnet_tiny", "--weights=none", "--image_size=16", "--batch_size=8", "--learning_rate=0.003"]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    return fakes.make_records(folder, resolution=16, per_class=20, aspect="pad", contrast="percentile")


def train(records, run_dir, *flags):
    argv = ["train-baseline", f"--records={records}", f"--run_dir={run_dir}", *SMALL, *flags]
    return app.run(train_baseline.main, train_baseline.define_flags, argv)


def weights_of(run_dir):
    """All weights of the last checkpoint, by name."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(run_dir / "checkpoints")))
    names = [n for n in reader.get_variable_to_shape_map() if "VARIABLE_VALUE" in n and "save_counter" not in n]
    return {name: reader.get_tensor(name) for name in names}


@pytest.fixture(scope="module")
def run_dir(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    assert train(records, folder, "--stage2_epochs=8", "--balanced", "--class_weights") == 0
    return folder


def test_a_run_learns_and_leaves_its_files(run_dir):
    result = json.loads((run_dir / "result.json").read_text())
    assert result["steps"] == 40
    assert result["best"]["validation/balanced_accuracy"] > 0.9
    assert result["best"]["validation/recall/Pneumothorax"] is not None
    assert not result["selected_on_target_labels"]
    assert (run_dir / "curves.png").stat().st_size > 1000
    assert "--variant=layer_lr_sched" in (run_dir / "flags.txt").read_text()
    assert list((run_dir / "tensorboard").glob("events*"))
    rows = json.loads((run_dir / "history.json").read_text())
    assert [row["step"] for row in rows] == list(range(5, 41, 5))
    assert rows[-1]["learning_rate"] < rows[0]["learning_rate"] < 0.003


def test_the_loaded_classifier_takes_any_size(run_dir):

    model = loading.load_classifier(run_dir)
    small = np.full([3, 16, 16, 1], 0.5, np.float32)
    probabilities = model(small).numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(model(np.full([3, 40, 24, 1], 0.5, np.float32)), probabilities, rtol=1e-4)
    config = loading.load_classifier_config(run_dir)
    assert config["kind"] == "baseline"
    assert config["classes"] == ["No Finding", "Pneumothorax"]
    assert (config["label_version"], config["resolution"], config["image_size"]) == ("v1_0s", 16, 16)
    assert (config["aspect"], config["contrast"]) == ("pad", "percentile")
    assert len(config["labels"]) == 14
    with pytest.raises(ValueError, match="divide 8-bit values by 255"):
        model(small * 255)


def test_a_stopped_run_ends_like_an_unbroken_one(records, run_dir, tmp_path, monkeypatch):
    flags = ("--stage2_epochs=8", "--balanced", "--class_weights")
    with monkeypatch.context() as patch:
        stopping.stop_after(patch, 2)
        assert train(records, tmp_path / "run", *flags) == 143
    assert weights_of(tmp_path / "run")["step/.ATTRIBUTES/VARIABLE_VALUE"] == 2  # an epoch has 5 steps
    assert not (tmp_path / "run" / "result.json").exists()
    assert train(records, tmp_path / "run", *flags) == 0
    first, second = weights_of(run_dir), weights_of(tmp_path / "run")
    assert first.keys() == second.keys()
    assert any("optimizers/0/_variables" in name for name in first)
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)
    assert (tmp_path / "run" / "history.json").read_text() == (run_dir / "history.json").read_text()
    with (
        h5py.File(tmp_path / "run/checkpoints/best.weights.h5") as a,
        h5py.File(run_dir / "checkpoints/best.weights.h5") as b,
    ):
        a.visititems(
            lambda name, item: isinstance(item, h5py.Group) or np.testing.assert_array_equal(item[()], b[name][()])
        )


def test_a_backbone_comes_from_a_run_or_its_weights_file(run_dir):
    from tfcxr.classifiers.networks import models
    from tfrecords_builder.errors import InputError

    trained = loading.load_network(run_dir)
    for path in (run_dir, run_dir / "checkpoints/best.weights.h5"):
        fresh = models.Classifier(trained.config, seed=8)
        assert loading.initialise(fresh, weights=str(path)) == ["backbone"]
        for a, b in zip(trained.base.get_weights(), fresh.base.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    fresh.config = dataclasses.replace(fresh.config, image_size=32, backbone="resnet50")
    with pytest.raises(InputError, match=rf"--weights={run_dir}: its backbone is resnet_tiny, not resnet50"):
        loading.initialise(fresh, weights=str(run_dir))


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """10 + 10 images of the same classes."""
    return fakes.make_records(tmp_path_factory.mktemp("synthetic"), resolution=16, per_class=10, seed=1)


@pytest.mark.parametrize("control", [False, True])
def test_a_run_starts_from_another_with_few_labels_and_other_images(
    records, run_dir, synthetic, tmp_path, capsys, control
):
    flags = [f"--init_from={run_dir}", "--stage1_epochs=1", "--stage2_epochs=1", "--variant=plain"]
    flags += ["--labelled_per_class=8", f"--extra_records={synthetic}", "--extra_ratio=1.5", "--class_weights"]
    flags += ["--duplicate_control"] if control else ["--dtype=mixed_bfloat16"]
    assert train(records, tmp_path / "run", *flags) == 0
    said = capsys.readouterr().out
    assert "backbone, head loaded" in said
    assert f"an epoch: 16 images of --records and 24 {'repeated' if control else 'extra'} ones" in said
    rows = json.loads((tmp_path / "run/history.json").read_text())
    assert [(row["phase"], row["step"]) for row in rows] == [("head", 5), ("network", 10)]
    assert rows[0]["learning_rate"] == pytest.approx(0.01)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["images_per_epoch"] == {"records": 16, "extra": 24}
    digests = json.loads((tmp_path / "run/config.json").read_text())["records"]
    expected = {"records": records, "extra_records": synthetic}
    assert digests == {
        flag: json.loads((folder / "tfcxr_info.json").read_text())["digest"] for flag, folder in expected.items()
    }


HEAD = ["--stage1_epochs=3", "--stage2_epochs=1", "--flip", "--variant=plain"]


@pytest.fixture(scope="module")
def head_run(records, run_dir, tmp_path_factory):
    """A run whose head was trained alone for three epochs of five steps."""
    folder = tmp_path_factory.mktemp("head") / "unbroken"
    assert train(records, folder, f"--init_from={run_dir}", *HEAD) == 0
    return folder


@pytest.mark.parametrize("calls", [1, 9])
def test_a_run_stopped_while_its_head_is_trained_ends_like_an_unbroken_one(
    records, run_dir, head_run, tmp_path, monkeypatch, calls
):
    """Also before its first step, while features are computed."""
    with monkeypatch.context() as patch:
        stopping.stop_after(patch, calls)
        assert train(records, tmp_path / "run", f"--init_from={run_dir}", *HEAD) == 143
    assert train(records, tmp_path / "run", f"--init_from={run_dir}", *HEAD) == 0
    first, second = weights_of(head_run), weights_of(tmp_path / "run")
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)
    assert (tmp_path / "run" / "history.json").read_text() == (head_run / "history.json").read_text()


def test_random_crops_of_stage_1_are_others_each_time(records, run_dir, head_run, tmp_path):
    assert train(records, tmp_path / "run", f"--init_from={run_dir}", *HEAD, "--stage1_crops=random") == 0
    rows, others = (json.loads((path / "history.json").read_text()) for path in (head_run, tmp_path / "run"))
    assert [row["phase"] for row in rows] == [row["phase"] for row in others] == ["head"] * 3 + ["network"]
    assert all(a["train/loss"] != b["train/loss"] for a, b in zip(rows, others, strict=True))
    # Both see the same images, of which validation looks at the centre.
    assert rows[0]["validation/loss"] == pytest.approx(others[0]["validation/loss"], abs=0.2)


PROBE = ["--stage1_solver=logistic", "--stage2_epochs=0", "--flip"]


def test_a_linear_probe_changes_the_head_alone_and_resumes(records, run_dir, synthetic, tmp_path, monkeypatch, capsys):
    flags = [f"--init_from={run_dir}", *PROBE, f"--extra_records={synthetic}"]
    assert train(records, tmp_path / "whole", *flags) == 0
    # 40 images and as many extra ones, each also mirrored.
    assert "head: logistic regression of 160 feature vectors, C " in capsys.readouterr().out
    rows = json.loads((tmp_path / "whole/history.json").read_text())
    assert [(row["phase"], row["step"]) for row in rows] == [("head", 1)]
    assert rows[0]["train/accuracy"] >= 0.5
    before, after = (loading.load_network(path) for path in (run_dir, tmp_path / "whole"))
    for a, b in zip(before.base.get_weights(), after.base.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(before.head.get_weights()[0], after.head.get_weights()[0])
    with monkeypatch.context() as patch:
        stopping.stop_after(patch, 1)
        assert train(records, tmp_path / "stopped", *flags) == 143
    assert train(records, tmp_path / "stopped", *flags) == 0
    whole = weights_of(tmp_path / "whole")
    for name, value in weights_of(tmp_path / "stopped").items():
        np.testing.assert_array_equal(whole[name], value, err_msg=name)


def test_a_probe_of_random_weights_is_the_control_of_a_linear_probe(records, tmp_path, capsys):
    assert train(records, tmp_path / "run", "--weights=none", *PROBE) == 0
    assert "start: random weights" in (out := capsys.readouterr().out)
    assert "head: logistic regression of 80 feature vectors, C " in out
    (row,) = json.loads((tmp_path / "run/history.json").read_text())
    assert (row["phase"], row["step"]) == ("head", 1)
    random = models.Classifier(loading.load_network(tmp_path / "run").config, seed=0)
    for a, b in zip(random.base.get_weights(), loading.load_network(tmp_path / "run").base.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_linear_probe_of_labels(records, run_dir, tmp_path, capsys):
    flags = [f"--init_from={run_dir}", *PROBE, "--multilabel", "--class_weights", "--framing=whole"]
    assert train(records, tmp_path / "run", *flags) == 0
    assert (
        "head: logistic regression of 80 feature vectors, C No Finding 1e-05, Pneumothorax " in capsys.readouterr().out
    )
    (row,) = json.loads((tmp_path / "run/history.json").read_text())
    assert row["validation/roc_auc"] == pytest.approx(1)
    model, images = tfcxr.load_classifier(tmp_path / "run"), np.random.default_rng(0).random((2, 16, 16, 1), np.float32)
    network = model.classifier
    assert network.config.framing == "whole"
    expected = tf.sigmoid(network(tf.constant(images), path="target", training=False))
    np.testing.assert_allclose(model(images), expected, atol=1e-5)


def test_the_whole_image_in_training_evaluation_exports_and_prediction(tmp_path):
    records = fakes.make_records(tmp_path / "records", resolution=16, per_class=4, aspect="stretch", contrast="none")
    run, export, images = tmp_path / "run", tmp_path / "export", tmp_path / "images"
    assert train(records, run, "--framing=whole", "--stage2_epochs=1", "--image_size=14") == 0

    def call(command, *arguments):
        return app.run(command.main, command.define_flags, [command.__name__, *arguments])

    arguments = [f"--records={records}", f"--output_dir={tmp_path / 'evaluation'}", "--resamples=20"]
    assert call(evaluate, f"--model={run}", *arguments) == 0
    record_set = data.RecordSet(records)
    columns = [f"probability {name}" for name in record_set.info.classes]
    evaluated = pd.read_csv(tmp_path / "evaluation/predictions.csv")[columns]

    tested = np.stack([record["image"] for record in record_set.dataset("test").as_numpy_iterator()])
    images.mkdir()
    for number, image in enumerate(tested):
        Image.fromarray(image[..., 0]).save(images / f"{number:03d}.png")
    assert call(export_model, f"--run_dir={run}", f"--output_dir={export}") == 0
    assert call(predict, f"--model={export}", f"--images={images}", f"--output={tmp_path / 'predicted.csv'}") == 0
    np.testing.assert_allclose(pd.read_csv(tmp_path / "predicted.csv")[columns], evaluated, atol=1e-5)

    # By hand: resized, not cropped.
    network = loading.load_network(run)
    framed = image_ops.resize(tf.constant(tested / np.float32(255)), 14, 14)
    np.testing.assert_allclose(network.probabilities(network(framed)), evaluated, atol=1e-5)


def test_damage_met_while_the_head_is_trained_is_one_line(records, run_dir, tmp_path, capsys):
    folder = fakes.make_records(tmp_path / "set", resolution=16, per_class=20)
    for path in folder.glob("*train*tfrecord-*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    assert train(folder, tmp_path / "run", f"--init_from={run_dir}", *HEAD) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and "damaged records" in error and error.endswith("see verify-records")
    assert "Traceback" not in error


def test_a_run_on_a_fraction_of_the_patients(records, tmp_path, capsys):
    """10 patients of each class, two images each."""
    assert train(records, tmp_path / "run", "--labelled_fraction=0.2", "--stage2_epochs=1") == 0
    assert "labelled: 4 of No Finding, 4 of Pneumothorax" in capsys.readouterr().out
    assert json.loads((tmp_path / "run/result.json").read_text())["images_per_epoch"] == {"records": 8, "extra": 0}


def test_what_cannot_be_mixed_is_one_line(records, tmp_path, capsys):
    other_version = fakes.make_records(tmp_path / "v2", resolution=16, label_version="v2", per_class=2)
    other_size = fakes.make_records(tmp_path / "small", resolution=8, per_class=2)
    cropped = fakes.make_records(tmp_path / "cropped", resolution=16, per_class=2, aspect="crop")
    for flags, message in [
        (["--labelled_per_class=21"], "has 20 of No Finding, 20 of Pneumothorax"),
        (["--labelled_fraction=0.01"], "--labelled_fraction=0.01: leaves 0 of No Finding, 0 of Pneumothorax"),
        (["--labelled_fraction=0.5", "--labelled_per_class=2"], "--labelled_fraction: chooses the images in another"),
        ([f"--extra_records={other_version}"], "its label version is v2, not v1_0s as that of --records"),
        ([f"--extra_records={other_size}"], "its resolution is 8, not 16"),
        (
            [f"--extra_records={cropped}"],
            f"--extra_records={cropped}: was built with --aspect=crop, --records={records} with --aspect=pad",
        ),
        ([f"--extra_records={records}", "--extra_ratio=0.001"], "is less than one image for 40 of --records"),
        (["--duplicate_control"], "--duplicate_control: repeats as many images as --extra_records"),
        ([f"--extra_records={tmp_path}"], "expected a record set"),
    ]:
        assert train(records, tmp_path / "run", *flags) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags, message", [
    (["--weights=imagenet"], "--weights=imagenet: there are none for resnet_tiny"),
    (["--weights=imagenet", "--backbone=resnet50", "--image_size=32"], "resnet50_weights_tf_dim_ordering_tf_kernels"),
    (["--weights=nowhere.h5"], "nothing is there"),
    (["--backbone=densenet121"], "--image_size=16: densenet121 needs at least 32 px"),
    (["--init_from=nowhere"], "is not a run folder"),
    (["--variant=best"], "variant"),
    (["--stage2_epochs=0", "--stage1_epochs=0"], "--stage2_epochs=0: trains the head alone, which needs"),
    (["--stage1_solver=logistic", "--stage1_crops=random"], "--stage1_solver=logistic: is for features that are"),
    (["--logistic_c=1"], "--logistic_c: is the penalty of a logistic regression; give --stage1_solver=logistic too"),
])  # fmt: skip
def test_bad_input_is_one_line(records, tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    assert train(records, tmp_path / "run", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_weights_of_another_architecture_are_refused(records, tmp_path, capsys):
    path = tmp_path / "other.h5"
    tf.keras.Sequential([tf.keras.Input([3]), tf.keras.layers.Dense(2)]).save_weights(path)
    assert train(records, tmp_path / "run", f"--weights={path}") == 2
    assert "is not of resnet_tiny: it lacks 26 of 26 layers, such as conv1_conv" in capsys.readouterr().err


def test_an_empty_class_is_named(records, tmp_path, capsys, monkeypatch):
    labels = {"vector": np.zeros([4, 14], np.float32), "class": np.zeros([4], np.int64)}
    monkeypatch.setattr(data.RecordSet, "labels", lambda self, split: labels)
    assert train(records, tmp_path / "run") == 2
    assert "the train split has no image of class Pneumothorax" in capsys.readouterr().err


def test_a_finished_run_is_kept(records, run_dir, capsys):
    assert train(records, run_dir, "--stage2_epochs=8", "--balanced", "--class_weights") == 2
    assert "finished" in capsys.readouterr().err


def test_a_diverging_loss_stops_the_run(records, tmp_path, capsys):
    assert train(records, tmp_path / "run", "--learning_rate=1e30", "--stage2_epochs=1") == 1
    assert "loss is not finite" in capsys.readouterr().err


def test_help_does_not_need_tensorflow(capsys):
    assert app.run(train_baseline.main, train_baseline.define_flags, ["train-baseline", "--help"]) == 0
    assert "--stage1_epochs" in capsys.readouterr().out


def test_presets_are_flags_of_the_program():
    for preset in sorted((pathlib.Path(app.PRESETS) / "thesis").glob("baseline_*.flags")):
        lines = [line for line in preset.read_text().splitlines() if line and not line.startswith("#")]
        assert f"--variant={preset.stem.removeprefix('baseline_')}" in lines
