"""Classifiers of labels that do not exclude each other, through the flags of train-baseline and evaluate."""

import dataclasses
import importlib.util
import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image
from sklearn import metrics as sklearn_metrics

import tfcxr
from flags import app
from tests import classifier_runs, fakes, gan_runs, stopping
from tests.tfcxr.commands.test_train_baseline import weights_of
from tfcxr import data
from tfcxr.classifiers import inference, loading
from tfcxr.classifiers.training import train_baseline as training
from tfcxr.commands import evaluate, export_model, predict, train_baseline, train_dcan
from tfrecords_builder.errors import InputError

SMALL = ["--backbone=resnet_tiny", "--weights=none", "--image_size=16", "--batch_size=8", "--variant=plain"]
# The benchmark's recipe, as small as it can be.
RECIPE = ["--flagfile=benchmark/predictive", *SMALL, "--learning_rate=0.01", "--samples_per_epoch=40"]
EPOCHS = [*RECIPE, "--stage2_epochs=8", "--patience=0", "--plateau_patience=1"]
LABELS = ["No Finding", "Cardiomegaly", "Pneumonia", "Pneumothorax", "Pleural Effusion"]


def train(records, run_dir, *flags):
    argv = ["train-baseline", f"--records={records}", f"--run_dir={run_dir}", *flags]
    return app.run(train_baseline.main, train_baseline.define_flags, argv)


def call_evaluate(*flags):
    return app.run(evaluate.main, evaluate.define_flags, ["evaluate", *flags])


def call_export(*flags):
    return app.run(export_model.main, export_model.define_flags, ["export-model", *flags])


def read(folder, name="result.json"):
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return fakes.make_records(
        tmp_path_factory.mktemp("records"), resolution=16, label_version="multilabel", per_class=10
    )


@pytest.fixture(scope="module")
def run_dir(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    assert train(records, folder, *EPOCHS) == 0
    return folder


@pytest.fixture(scope="module")
def evaluated(records, run_dir, tmp_path_factory):
    """(evaluation on the validation fold, on the test fold with its thresholds)."""
    root = tmp_path_factory.mktemp("evaluations")
    common = [f"--model={run_dir}", f"--records={records}", "--resamples=50"]
    assert call_evaluate(*common, "--split=validation", f"--output_dir={root / 'validation'}") == 0
    assert call_evaluate(*common, f"--thresholds_from={root / 'validation'}", f"--output_dir={root / 'test'}") == 0
    return root / "validation", root / "test"


def test_a_run_learns_the_labels_by_the_recipe(run_dir):
    result, config = read(run_dir), read(run_dir, "config.json")["config"]
    assert (result["multilabel"], result["classes"], result["measure"]) == (True, LABELS, "mean ROC-AUC")
    assert result["best"]["validation/roc_auc"] > 0.95
    assert result["best"]["validation/roc_auc/Cardiomegaly"] > 0.9
    assert (config["multilabel"], config["classes"], config["label_version"]) == (True, LABELS, "multilabel")
    rows = read(run_dir, "history.json")
    assert [row["step"] for row in rows] == list(range(5, 41, 5))  # 40 of 50 images
    best, expected, rate = -1, [], 0.01
    for row in rows:
        expected.append(rate)
        rate *= 1 if row["select/source"] > best else 0.1
        best = max(best, row["select/source"])
    assert [row["learning_rate"] for row in rows] == pytest.approx(expected)
    assert rate < 0.001
    assert (run_dir / "curves.png").stat().st_size > 1000


def test_a_stopped_run_ends_like_an_unbroken_one(records, run_dir, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stopping.stop_after(patch, 3)
        assert train(records, tmp_path / "run", *EPOCHS) == 143
    assert train(records, tmp_path / "run", *EPOCHS) == 0
    first, second = weights_of(run_dir), weights_of(tmp_path / "run")
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)
    assert read(tmp_path / "run", "history.json") == read(run_dir, "history.json")


def test_class_weights_are_those_of_the_counts(records):
    config = training.BaselineConfig(
        backbone="resnet_tiny", weights="none", image_size=16, class_weights=True, labels=("Pneumothorax", "Pneumonia")
    )
    objective = training.Baseline(config, data.RecordSet(records))._objective
    assert objective.names == ("Pneumonia", "Pneumothorax")
    # 50 images, 10 with a pneumonia and 20 with a pneumothorax: N / (2 n).
    np.testing.assert_allclose(objective._weights, [[50 / 80, 50 / 60], [50 / 20, 50 / 40]], rtol=1e-6)


def test_labels_of_other_images_count_in_their_shares(records, tmp_path):
    others = data.RecordSet(fakes.make_records(tmp_path / "r", resolution=16, label_version="multilabel", per_class=2))
    vectors = others.labels("train")["vector"].copy()
    vectors[:, 9] = 1  # all have a pneumothorax
    others.labels = lambda split: {"class": np.full(10, -1), "vector": vectors}
    for duplicate, with_it in ((False, 20 + 50), (True, 20 + 20)):
        config = training.BaselineConfig(
            backbone="resnet_tiny", weights="none", image_size=16, class_weights=True, labels=("Pneumothorax",),
            duplicate_control=duplicate,
        )  # fmt: skip
        objective = training.Baseline(config, data.RecordSet(records), others)._objective
        np.testing.assert_allclose(objective._weights[:, 0], [100 / 2 / (100 - with_it), 100 / 2 / with_it], rtol=1e-6)


def test_a_fraction_of_the_patients_keeps_each_label_or_is_refused(records):
    """25 patients of 2 images, 5 in each of five strata."""
    config = training.BaselineConfig(
        backbone="resnet_tiny", weights="none", image_size=16, labelled_fraction=0.4, class_weights=True
    )
    made = training.Baseline(config, data.RecordSet(records))
    assert made._images_per_epoch == {"records": 20, "extra": 0}
    np.testing.assert_allclose(made._objective._weights[1], [20 / 8] * 3 + [20 / 16, 20 / 8])
    config = dataclasses.replace(config, labelled_fraction=0.05)
    with pytest.raises(InputError, match=r"--labelled_fraction=0\.05: leaves one value only of No Finding, "):
        training.Baseline(config, data.RecordSet(records))


def test_own_images_are_repeated_in_place_of_others(records, tmp_path):
    flags = [*RECIPE, "--stage2_epochs=1", f"--extra_records={records}", "--loss=focal", "--duplicate_control"]
    assert train(records, tmp_path / "run", *flags) == 0
    assert read(tmp_path / "run")["images_per_epoch"] == {"records": 50, "extra": 50}


def test_evaluate_gives_each_label_and_their_means(records, run_dir, evaluated):
    validation, test = evaluated
    result, table = read(test), pd.read_csv(test / "predictions.csv")
    assert list(table)[:5] == ["id", "patient", "split", "label No Finding", "label Cardiomegaly"]
    assert len(table) == result["num_images"] == 50
    chosen = {row["class"]: row for row in read(validation)["operating_points"]["rows"] if row["criterion"] == "F1"}
    for name in LABELS:
        truth, scores = table[f"label {name}"], table[f"probability {name}"]
        auc = sklearn_metrics.roc_auc_score(truth, scores)
        assert result["roc_auc"]["per_class"][name] == pytest.approx(auc, abs=1e-6)
        cut = chosen[name]["threshold"]
        assert result["f1_thresholds"][name] == cut
        f1 = sklearn_metrics.f1_score(truth, scores >= cut)
        assert result["f1"]["per_class"][name] == pytest.approx(f1, abs=1e-6)
    assert result["roc_auc"]["macro"] == pytest.approx(np.mean(list(result["roc_auc"]["per_class"].values())))
    text = (test / "result.md").read_text()
    assert f"F1 is at the thresholds of the best F1 on the validation fold, in {validation}." in text
    assert "F1 is that of calling a label at a probability of 0.5." in (validation / "result.md").read_text()
    for name in ("roc_auc", "roc", "precision_recall", "reliability"):
        assert (test / f"{name}.png").stat().st_size > 3000
    assert list((test / "tensorboard").glob("events*"))


def test_an_export_gives_each_label_and_says_which_are_positive(records, run_dir, evaluated, tmp_path):
    export = tmp_path / "export"
    onnx = ["--onnx"] if importlib.util.find_spec("tf2onnx") else []
    arguments = [f"--output_dir={export}", f"--evaluations={evaluated[1]}", *onnx]
    assert call_export(f"--run_dir={run_dir}", *arguments) == 0
    model = tfcxr.load_classifier(export)
    assert model.multilabel and model.classes == tuple(LABELS)
    images = np.stack([fakes.draw(case, 16, seed=i) for i, case in enumerate(fakes.CASES)])[..., None] / np.float32(255)
    expected = model(images).numpy()
    table = pd.read_csv(evaluated[1] / "predictions.csv")
    held = next(iter(data.RecordSet(records).dataset("test")))["image"].numpy()[None] / np.float32(255)
    np.testing.assert_allclose(model(held).numpy()[0], table.filter(like="probability").iloc[0], atol=1e-5)
    served = tf.saved_model.load(str(export)).signatures["image_tensor"](images=tf.constant(images))
    assert served.keys() == {"probabilities", "positive", "label_names"}
    np.testing.assert_allclose(served["probabilities"], expected, atol=1e-5)
    np.testing.assert_array_equal(served["positive"], expected >= 0.5)
    assert [name.decode() for name in served["label_names"].numpy()[3]] == LABELS
    card = (export / "assets" / "model_card.md").read_text()
    assert f"{100 * read(evaluated[1])['roc_auc']['macro']:.1f} (" in card
    if onnx:
        onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
        session = onnxruntime.InferenceSession(str(export / "model.onnx"), providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, atol=1e-4)
        assert session.get_modelmeta().custom_metadata_map["multilabel"] == "True"


def test_a_calibrated_export_gives_better_probabilities_everywhere(records, run_dir, evaluated, tmp_path):
    export = tmp_path / "export"
    onnx = ["--onnx"] if importlib.util.find_spec("tf2onnx") else []
    flags = ["--calibrate=per_label", f"--records={records}", f"--output_dir={export}", *onnx]
    assert call_export(f"--run_dir={run_dir}", *flags) == 0
    told, kept = read(export)["calibration"], read(export, "calibration.json")
    assert list(told["temperatures"].values()) == kept["temperatures"]
    assert told["negative_log_likelihood"]["after"] <= told["negative_log_likelihood"]["before"]
    assert kept["fitted_on"]["num_images"] == 50
    out = tmp_path / "evaluation"
    assert call_evaluate(f"--model={export}", f"--records={records}", "--resamples=20", f"--output_dir={out}") == 0
    result, plain = read(out), read(evaluated[1])
    before = result["calibration"]["before"]
    for measure in ("expected_calibration_error", "brier"):
        assert before[measure] == pytest.approx(plain[measure]["macro"], abs=1e-5)
        assert result[measure]["macro"] != before[measure]
    assert result["roc_auc"]["per_class"] == pytest.approx(plain["roc_auc"]["per_class"], abs=1e-3)
    assert result["model_digest"] != plain["model_digest"]
    # Thresholds come with the export.
    assert result["f1_thresholds"]["Pneumonia"] == kept["thresholds"]["Pneumonia"]["F1"]
    assert result["operating_points"]["chosen_on"]["path"] == str(export / "calibration.json")
    assert result["operating_points"]["optimistic"] is False
    assert "Calibrated on 50 images: calibration error" in (out / "result.md").read_text()
    # Logits divided by the temperatures, in each form of the model.
    images = np.stack([fakes.draw(case, 16, seed=i) for i, case in enumerate(fakes.CASES)])[..., None] / np.float32(255)
    network = loading.load_network(run_dir)
    logits = inference.compute(network, tf.constant(images), path="target")[1].numpy()
    expected = 1 / (1 + np.exp(-logits / kept["temperatures"]))
    np.testing.assert_allclose(tfcxr.load_classifier(export)(images), expected, atol=1e-5)
    served = tf.saved_model.load(str(export)).signatures["image_tensor"](images=tf.constant(images))
    np.testing.assert_allclose(served["probabilities"], expected, atol=1e-5)
    cuts = [kept["thresholds"][name]["F1"] for name in LABELS]
    np.testing.assert_array_equal(served["positive"], served["probabilities"].numpy() >= np.float32(cuts))
    if onnx and importlib.util.find_spec("onnxruntime"):
        assert read(export)["onnx"]["max_difference"] <= 1e-4
    card = (export / "assets" / "model_card.md").read_text()
    assert (
        "they were calibrated:" in card and "fitted by maximum likelihood on 50 images of the validation fold" in card
    )


def test_classes_are_calibrated_by_one_temperature(tmp_path, capsys):
    records = classifier_runs.make_records(tmp_path / "records")
    run = classifier_runs.make_classifier_run(tmp_path / "run", records)
    flags = [f"--run_dir={run}", f"--records={records}", f"--output_dir={tmp_path / 'export'}"]
    assert call_export(*flags, "--calibrate=per_label") == 2
    assert "--calibrate=per_label: the classes of" in capsys.readouterr().err
    assert call_export(*flags) == 2
    assert "--calibrate and --records: give both" in capsys.readouterr().err
    assert call_export(*flags, "--calibrate=temperature") == 0
    out = tmp_path / "out"
    arguments = [f"--records={records}", "--resamples=5"]
    assert call_evaluate(f"--model={tmp_path / 'export'}", *arguments, f"--output_dir={out}") == 0
    assert call_evaluate(f"--model={run}", *arguments, f"--output_dir={tmp_path / 'plain'}") == 0
    result, plain = read(out), read(tmp_path / "plain")
    error = plain["expected_calibration_error"]
    assert result["calibration"]["before"]["expected_calibration_error"] == pytest.approx(error, abs=1e-5)
    assert result["recall"] == plain["recall"] and plain["calibration"] is None
    capsys.readouterr()
    gan = gan_runs.make_gan_run(tmp_path / "gan")
    assert call_export(f"--run_dir={gan}", *flags[1:], "--calibrate=temperature") == 2
    assert "--calibrate: is for classifiers" in capsys.readouterr().err


def test_predict_writes_a_column_and_a_heat_map_for_each_label(run_dir, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, case in enumerate(fakes.CASES):
        Image.fromarray(fakes.draw(case, 16, seed=i)).save(folder / f"{i}.png")
    arguments = [f"--model={run_dir}", f"--images={folder}"]

    def call(*flags):
        return app.run(predict.main, predict.define_flags, ["predict", *arguments, *flags])

    assert call(f"--output={tmp_path / 'a.csv'}", f"--heatmaps={tmp_path / 'a'}") == 0
    table = pd.read_csv(tmp_path / "a.csv", keep_default_na=False)
    assert list(table) == ["image", "positive", *(f"probability {name}" for name in LABELS), "heatmap"]
    for _, row in table.iterrows():
        assert row["positive"] == "|".join(name for name in LABELS if row[f"probability {name}"] >= 0.5)
    names = "--heatmap_labels=Pneumonia,Cardiomegaly,Pneumothorax"
    assert call(f"--output={tmp_path / 'b.csv'}", f"--heatmaps={tmp_path / 'b'}", names) == 0
    widths = {Image.open(tmp_path / "b" / name).size[0] for name in pd.read_csv(tmp_path / "b.csv")["heatmap"]}
    assert widths == {4 * 450}
    assert call(f"--output={tmp_path / 'c.csv'}", "--heatmap_labels=Edema") == 2
    assert "--heatmap_labels=Edema: the model has no such label" in capsys.readouterr().err


def test_models_of_other_labels_and_records_are_compared_on_what_they_share(records, run_dir, evaluated, tmp_path):
    classes = fakes.make_records(tmp_path / "v2", resolution=16, label_version="v3_xs", per_class=8, seed=1)
    other = tmp_path / "other"
    flags = [*SMALL, "--stage2_epochs=1", "--multilabel", "--labels=Pneumothorax,Cardiomegaly", "--balanced"]
    assert train(classes, other, *flags) == 0
    assert read(other)["classes"] == ["Cardiomegaly", "Pneumothorax"]
    arguments = [f"--model={other}", f"--records={records}", "--resamples=20"]
    found = []
    for number, second in enumerate((run_dir, evaluated[1])):
        out = tmp_path / str(number)
        flags = [f"--compare_with={second}", "--mean_labels=Cardiomegaly", f"--output_dir={out}"]
        assert call_evaluate(*arguments, *flags) == 0
        comparison = read(out)["comparison"]
        assert comparison["mean_of"] == ["Cardiomegaly"]
        found.append(comparison["per_class"]["roc_auc"])
        assert found[-1].keys() == {"Cardiomegaly", "Pneumothorax"}
        of_other = read(evaluated[1])["roc_auc"]["per_class"]["Cardiomegaly"]
        assert found[-1]["Cardiomegaly"]["other"] == pytest.approx(of_other, abs=1e-6)
    assert found[0]["Pneumothorax"]["difference"] == pytest.approx(found[1]["Pneumothorax"]["difference"], abs=1e-6)


def test_bad_input_is_one_line(records, run_dir, tmp_path, capsys):
    classes = fakes.make_records(tmp_path / "v1", resolution=16, per_class=4)
    v1_run = classifier_runs.make_classifier_run(tmp_path / "v1_run", classes)
    out = f"--output_dir={tmp_path / 'out'}"

    def adapt(*flags):
        argv = ["train-dcan", *flags, f"--run_dir={tmp_path / 'run'}", "--backbone=resnet_tiny", "--weights=none"]
        return app.run(train_dcan.main, train_dcan.define_flags, [*argv, "--train_batch_norm", "--image_size=16"])

    def train_here(record_set, *flags):
        return train(record_set, tmp_path / "run", *SMALL, *flags)

    cases = [
        (train_here(records, "--balanced"), "--balanced: needs classes, which"),
        (train_here(records, "--labelled_per_class=2"), "--labelled_per_class: needs classes, which"),
        (train_here(records, "--labels=Hernia"), "--labels=Hernia: must be of No Finding"),
        (train_here(records, "--labels=Edema"), "--labels=Edema: no training image has that label"),
        (train_here(classes, "--labels=Pneumothorax"), "--labels: is for labels that do not exclude each other"),
        (train_here(classes, "--loss=focal"), "--loss=focal: is for labels that do not exclude each other"),
        (
            adapt(f"--source_records={records}", f"--target_records={records}"),
            "label version multilabel has no classes",
        ),
        (call_evaluate(f"--model={v1_run}", f"--records={records}", out), "label version is multilabel, not v1_0s"),
        (
            call_evaluate(f"--model={v1_run}", f"--records={classes}", "--mean_labels=Edema", out),
            "exclude each other; it is for labels that do not",
        ),
        (
            call_evaluate(f"--model={run_dir}", f"--records={records}", f"--compare_with={v1_run}", out),
            "its classes are No Finding, Pneumothorax, the model's labels are No Finding, Cardiomegaly",
        ),
        (
            call_evaluate(f"--model={run_dir}", f"--records={records}", "--mean_labels=Edema", out),
            "--mean_labels=Edema: the model has no such label",
        ),
    ]
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    for (code, words), line in zip(cases, errors, strict=True):
        assert code == 2
        assert words in line
    assert not (tmp_path / "run").exists() and not (tmp_path / "out").exists()


def test_a_validation_fold_that_cannot_choose_is_refused(tmp_path, capsys, monkeypatch):
    records = fakes.make_records(tmp_path / "r", resolution=16, label_version="multilabel", per_class=2)
    labels_of = data.RecordSet.labels

    def labels(self, split):
        table = dict(labels_of(self, split))
        return table if split == "train" else {**table, "vector": np.zeros_like(table["vector"])}

    monkeypatch.setattr(data.RecordSet, "labels", labels)
    assert train(records, tmp_path / "run", *SMALL) == 2
    assert "the validation split has one value only of No Finding, Cardiomegaly" in capsys.readouterr().err
