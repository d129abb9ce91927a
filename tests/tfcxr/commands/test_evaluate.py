"""evaluate through its flags: what it writes, two models compared, thresholds of another fold, and what it refuses."""

import csv
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image
from sklearn import metrics as sklearn_metrics
from tensorboard.backend.event_processing import event_accumulator

from flags import app
from tests import classifier_runs, fakes
from tfcxr import cli, data
from tfcxr.classifiers import inference, loading
from tfcxr.commands import evaluate

PICTURES = ("confusion_matrix", "roc", "precision_recall", "reliability", "subgroups")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(root, records, run, another run, evaluation of the first run on the records)."""
    root = tmp_path_factory.mktemp("evaluate")
    records = classifier_runs.make_records(root / "records")
    run = classifier_runs.make_classifier_run(root / "run", records)
    other = classifier_runs.make_classifier_run(root / "other", records, seed=1)
    out = root / "out"
    assert call(f"--model={run}", f"--records={records}", f"--output_dir={out}", "--resamples=200") == 0
    return root, records, run, other, out


def call(*arguments):
    return app.run(evaluate.main, evaluate.define_flags, ["evaluate", *arguments])


def read(folder):
    return json.loads((folder / "result.json").read_text())


def test_writes_what_the_interface_promises(folders):
    _, _, run, _, out = folders
    result = read(out)
    assert result["num_images"] == 12
    assert result["classes"] == ["No Finding", "Finding"]
    assert result["split"] == "test"
    assert result["selection_fold"] is False
    table = pd.read_csv(out / "predictions.csv")
    assert list(table) == [
        "id",
        "patient",
        "split",
        "label",
        "prediction",
        "probability No Finding",
        "probability Finding",
    ]
    assert result["num_patients"] == table["patient"].nunique() == 6
    expected = sklearn_metrics.balanced_accuracy_score(table["label"], table["prediction"])
    assert result["balanced_accuracy"]["value"] == pytest.approx(expected)
    low, high = result["balanced_accuracy"]["ci95"]
    assert 0 <= low <= expected <= high <= 1
    assert result["recall"]["Finding"]["support"] == 6
    auc = sklearn_metrics.roc_auc_score(table["label"] == "Finding", table["probability Finding"])
    assert result["roc_auc"]["per_class"]["Finding"] == pytest.approx(auc, abs=1e-6)
    assert np.sum(result["confusion_matrix"]) == 12
    assert result["comparison"] is None
    assert result["operating_points"]["optimistic"] is True
    assert [row["class"] for row in result["operating_points"]["rows"]] == ["Finding"] * 3
    # The fakes are all PA, of no known sex or age.
    (group,) = result["subgroups"]
    assert (group["attribute"], group["group"], group["num_images"], group["small"]) == ("view", "PA", 12, True)
    assert group["recall"] == result["recall"]
    assert f"--model={run}" in (out / "flags.txt").read_text()


def test_tables_hold_the_numbers_of_the_result(folders):
    _, _, _, _, out = folders
    result = read(out)
    with (out / "metrics.csv").open() as stream:
        rows = {(row["metric"], row["class"]): row for row in csv.DictReader(stream)}
    assert len(rows) == 1 + 2 + 3 * 3 + 1
    accuracy = rows["balanced_accuracy", ""]
    assert [float(accuracy[key]) for key in ("lo", "hi")] == result["balanced_accuracy"]["ci95"]
    assert float(rows["roc_auc", "Finding"]["value"]) == result["roc_auc"]["per_class"]["Finding"]
    assert (rows["roc_auc", "Finding"]["n"], rows["roc_auc", ""]["n"]) == ("6", "12")
    assert rows["expected_calibration_error", ""]["lo"] == ""
    points = pd.read_csv(out / "operating_points.csv")
    thresholds = [None if np.isnan(value) else value for value in points["threshold"]]
    assert thresholds == [row["threshold"] for row in result["operating_points"]["rows"]]
    groups = pd.read_csv(out / "subgroups.csv")
    assert groups[["attribute", "group", "n", "patients", "small"]].iloc[0].tolist() == ["view", "PA", 12, 6, True]
    assert not (out / "comparison.csv").exists()
    text = (out / "result.md").read_text()
    assert f"| balanced accuracy | {100 * result['balanced_accuracy']['value']:.1f} |" in text
    assert "chosen on these images themselves, so that the figures look better than they are" in text
    assert "| view PA * | 12 | 6 |" in text


def test_pictures_are_there_and_in_tensorboard(folders):
    _, _, _, _, out = folders
    for name in PICTURES:
        with Image.open(out / f"{name}.png") as picture:
            assert min(picture.size) > 300
            assert len(set(picture.convert("L").getdata())) > 10
        assert f"({name}.png)" in (out / "result.md").read_text()
    assert not (out / "comparison.png").exists()
    events = event_accumulator.EventAccumulator(str(out / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    assert events.PluginTagToContent("pr_curves").keys() == {"No Finding/pr_curves", "Finding/pr_curves"}
    # Rows: true and false positives, true and false negatives, precision, recall; first column: threshold 0.
    curve = tf.make_ndarray(events.Tensors("Finding/pr_curves")[0].tensor_proto)
    assert curve.shape == (6, 201)
    np.testing.assert_allclose(curve[:, 0], [6, 6, 0, 0, 0.5, 1])
    assert events.PluginTagToContent("images").keys() == set(PICTURES)
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")
    value = tf.make_ndarray(events.Tensors("evaluate/balanced_accuracy")[0].tensor_proto)
    assert value == pytest.approx(read(out)["balanced_accuracy"]["value"])


def test_replayed_flags_give_the_same_result(folders, capsys):
    _, _, _, _, out = folders
    before, files = read(out), sorted(path.name for path in out.iterdir())
    predictions = (out / "predictions.csv").read_bytes()
    capsys.readouterr()
    assert call(f"--flagfile={out / 'flags.txt'}", "--overwrite") == 0
    assert "balanced accuracy" in capsys.readouterr().out
    assert read(out) == before
    assert (out / "predictions.csv").read_bytes() == predictions
    assert sorted(path.name for path in out.iterdir()) == files


def test_two_models_are_compared_by_run_or_by_evaluation(folders, tmp_path, capsys):
    _, records, _, other, out = folders
    run_out, evaluation_out = tmp_path / "run", tmp_path / "evaluation"
    arguments = [f"--model={other}", f"--records={records}", "--resamples=100"]
    assert call(*arguments, f"--compare_with={out.parent / 'run'}", f"--output_dir={run_out}") == 0
    assert call(*arguments, f"--compare_with={out}", f"--output_dir={evaluation_out}") == 0
    assert "McNemar" in capsys.readouterr().out
    by_run, by_evaluation = read(run_out)["comparison"], read(evaluation_out)["comparison"]
    assert by_run.pop("with") == str(out.parent / "run")
    assert by_evaluation.pop("with") == str(out)
    for one, two in zip(_numbers(by_run), _numbers(by_evaluation), strict=True):
        assert one == pytest.approx(two, abs=1e-6)
    this, that = read(evaluation_out), read(out)
    assert this["model_digest"] != that["model_digest"]
    row = by_evaluation["balanced_accuracy"]
    assert row["this"] == pytest.approx(this["balanced_accuracy"]["value"])
    assert row["other"] == pytest.approx(that["balanced_accuracy"]["value"])
    assert row["difference"]["value"] == pytest.approx(row["this"] - row["other"])
    tables = [pd.read_csv(folder / "predictions.csv") for folder in (evaluation_out, out)]
    right = [table["label"] == table["prediction"] for table in tables]
    assert by_evaluation["mcnemar"]["only_this_right"] == (right[0] & ~right[1]).sum()
    written = pd.read_csv(evaluation_out / "comparison.csv")
    assert written["metric"].tolist() == ["balanced_accuracy", "recall", "recall", "roc_auc"]
    assert written["difference"][0] == pytest.approx(row["difference"]["value"])
    assert (evaluation_out / "comparison.png").stat().st_size > 5000


def _numbers(value):
    if isinstance(value, dict):
        return [number for item in value.values() for number in _numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [value]


def test_thresholds_of_the_validation_fold_are_applied(folders, tmp_path):
    _, records, run, _, _ = folders
    validation, test = tmp_path / "validation", tmp_path / "test"
    arguments = [f"--model={run}", f"--records={records}", "--resamples=20"]
    assert call(*arguments, "--split=validation", f"--output_dir={validation}") == 0
    assert call(*arguments, f"--thresholds_from={validation}", f"--output_dir={test}") == 0
    chosen, applied = read(validation)["operating_points"], read(test)["operating_points"]
    assert applied["optimistic"] is False
    assert applied["chosen_on"]["split"] == "validation"
    assert [row["threshold"] for row in applied["rows"]] == [row["threshold"] for row in chosen["rows"]]
    table = pd.read_csv(test / "predictions.csv")
    row = applied["rows"][0]
    called = table["probability Finding"] >= row["threshold"]
    assert row["sensitivity"] == pytest.approx(called[table["label"] == "Finding"].mean())
    assert "chosen on the validation fold" in (test / "result.md").read_text()


def test_without_a_test_fold_the_validation_fold_is_marked(folders, tmp_path):
    _, _, run, _, _ = folders
    records = classifier_runs.make_records(tmp_path / "r", splits=("train", "validation"), with_patients=False)
    assert call(f"--model={run}", f"--records={records}", f"--output_dir={tmp_path / 'out'}", "--resamples=50") == 0
    result = read(tmp_path / "out")
    assert result["split"] == "validation"
    assert result["selection_fold"] is True
    assert result["num_patients"] is None
    assert "by which the weights were chosen" in (tmp_path / "out" / "result.md").read_text()


def test_ten_crops_are_those_of_training(folders, tmp_path, capsys):
    _, records, run, _, out = folders
    arguments = [f"--model={run}", f"--records={records}", "--ten_crop", "--batch_size=25", "--resamples=5"]
    assert call(*arguments, f"--compare_with={out}", f"--output_dir={tmp_path / 'out'}") == 0
    assert "test fold, mean over ten crops of each image" in capsys.readouterr().out
    runner = inference.SplitRunner(
        loading.load_network(run), data.RecordSet(records), "test", path="target", batch_size=64, ten_crop=True
    )
    expected, result = runner(), read(tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    columns = ["probability No Finding", "probability Finding"]
    np.testing.assert_allclose(table[columns], expected.probabilities, atol=1e-5)
    assert result["balanced_accuracy"]["value"] == pytest.approx(expected.balanced_accuracy())
    centre = pd.read_csv(out / "predictions.csv")[columns].to_numpy()
    assert np.abs(centre - expected.probabilities).max() > 1e-3
    assert (result["ten_crop"], read(out)["ten_crop"]) == (True, False)
    warning = f"{out}, compared with, is of the centre of each image, unlike this evaluation"
    assert result["warnings"][-1] == warning
    # Thresholds of the centre's probabilities are not those of the means.
    assert call(*arguments, f"--thresholds_from={out}", f"--output_dir={tmp_path / 'refused'}") == 2
    assert "is of the centre of each image, this of ten crops; give both the same --ten_crop" in capsys.readouterr().err


def test_images_made_in_another_way_are_warned_of(tmp_path):
    ours = classifier_runs.make_records(tmp_path / "ours", per_class=2, aspect="crop", contrast="max")
    theirs = classifier_runs.make_records(tmp_path / "theirs", per_class=2, aspect="pad", contrast="max")
    run = classifier_runs.make_classifier_run(tmp_path / "run", ours)
    arguments = [f"--records={theirs}", f"--output_dir={tmp_path / 'out'}", "--resamples=5"]
    assert call(f"--model={run}", *arguments) == 0
    assert [warning for warning in read(tmp_path / "out")["warnings"] if "--" in warning] == [
        "the images were built with --aspect=pad, those that the model was trained on with --aspect=crop"
    ]


def test_bad_input_is_one_line_and_leaves_nothing(folders, tmp_path, capsys):
    _, records, run, _, out = folders
    version = fakes.make_records(tmp_path / "version", resolution=16, label_version="v1_0s")
    trained = classifier_runs.make_records(tmp_path / "train", splits=("train",), per_class=2)
    fewer = classifier_runs.make_records(tmp_path / "fewer", per_class=4)
    v1_run = classifier_runs.make_classifier_run(tmp_path / "v1_run", version)
    damaged = shutil.copytree(out, tmp_path / "damaged")
    (damaged / "predictions.csv").write_text((out / "predictions.csv").read_text().replace("probability", "share"))
    model, set_ = f"--model={run}", f"--records={records}"
    cases = [
        ([model, f"--records={version}"], "label version is v1_0s, not v2"),
        ([f"--model={records}", set_], "not a run folder"),
        ([model, f"--records={run}"], "expected a record set"),
        ([f"--model={tmp_path / 'none'}", set_], "no such folder"),
        ([model, f"--records={trained}"], "has no image in it; it has train"),
        ([model, f"--records={trained}", "--split=test"], "--split=test"),
        ([model, f"--records={fewer}", f"--compare_with={out}"], "other images (8 here, 12 there, 8 in both)"),
        (
            [model, set_, f"--compare_with={v1_run}"],
            "its classes are No Finding, Pneumothorax, the model's classes are",
        ),
        ([model, set_, f"--compare_with={records}"], "is neither a classifier's run"),
        ([model, set_, f"--compare_with={damaged}"], "holds no predictions"),
        ([model, set_, f"--thresholds_from={records}"], "result.json"),
    ]
    capsys.readouterr()
    for arguments, words in cases:
        assert call(*arguments, f"--output_dir={tmp_path / 'out'}") == 2
        err = capsys.readouterr().err
        assert words in err
        assert err.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_thresholds_are_a_models_own(folders, tmp_path, capsys):
    _, records, _, other, out = folders
    arguments = [f"--model={other}", f"--records={records}", f"--thresholds_from={out}"]
    assert call(*arguments, f"--output_dir={tmp_path / 'out'}") == 2
    assert "an evaluation of another model" in capsys.readouterr().err


def test_nothing_of_others_is_overwritten(folders, tmp_path):
    _, records, run, other, out = folders
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    arguments = [f"--model={run}", f"--records={records}", f"--output_dir={tmp_path / 'mine'}"]
    assert call(*arguments) == 2
    assert call(*arguments, "--overwrite") == 2
    assert (tmp_path / "mine" / "notes.txt").exists()
    # Nor the evaluation that is compared with.
    arguments = [f"--model={other}", f"--records={records}", f"--compare_with={out}", f"--output_dir={out}"]
    assert call(*arguments, "--overwrite") == 2
    assert read(out)["model"] == str(run)


def test_an_output_that_is_not_finite_is_one_line_and_exit_1(folders, tmp_path, capsys):
    from tfcxr.classifiers import loading
    from tfcxr.classifiers.networks import models

    _, records, run, _, _ = folders
    broken = shutil.copytree(run, tmp_path / "broken")
    classifier = loading.load_network(broken)
    kernel, bias = classifier.head.get_weights()
    classifier.head.set_weights([np.full_like(kernel, np.nan), bias])
    models.save_weights(classifier, broken / loading.WEIGHTS)
    capsys.readouterr()
    assert call(f"--model={broken}", f"--records={records}", f"--output_dir={tmp_path / 'out'}") == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert "not finite" in errors[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["evaluate", "train-baseline", "train-gan"])
def test_a_record_whose_image_is_no_png_is_one_line_and_exit_1(folders, tmp_path, monkeypatch, capsys, command):
    _, _, run, _, _ = folders
    # Its CRC is right: only decoding finds the fault.
    monkeypatch.setattr(fakes, "_png", lambda picture: b"no picture")
    records = classifier_runs.make_records(tmp_path / "records")
    arguments = {
        "evaluate": [f"--model={run}", f"--output_dir={tmp_path / 'out'}"],
        "train-baseline": [
            "--backbone=resnet_tiny", "--weights=none", "--image_size=32", f"--run_dir={tmp_path / 'b'}"
        ],
        "train-gan": ["--fmap_base=64", "--fmap_max=8", "--batch_size=4", f"--run_dir={tmp_path / 'g'}"],
    }[command]  # fmt: skip
    capsys.readouterr()
    assert cli.main([command, f"--records={records}", *arguments]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert "damaged records" in errors[0]
    assert not (tmp_path / "out").exists()
