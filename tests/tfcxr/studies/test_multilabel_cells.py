"""Cells of labels that do not exclude each other: what they share, tables, comparisons by hand, and sentences."""

import csv
import io
import json

import numpy as np
import pytest

from flags import app
from tests.tfcxr.studies.test_planning import plan
from tfcxr.commands import study
from tfcxr.evaluation import multilabel, predictions
from tfcxr.studies import answer, differences, results, study_figures
from tfcxr.studies.definition import Cell
from tfrecords_builder.errors import InputError

LABELS = ["Edema", "Pneumonia", "Fracture"]


def add(workspace, source, labels, *, wrong, seed=0):
    """An evaluation on 300 images of as many patients, one of three having each label; so many pairs ranked wrongly.

    Returns a cell of study.json, and its two jobs.
    """
    truth = np.array([[i % 3 == k for k in range(3)] for i in range(300)])
    scores = np.where(truth, 0.8, 0.2)
    for k, number in enumerate(wrong):
        scores[np.flatnonzero(truth[:, k])[:number], k] = 0.1
    columns = [LABELS.index(name) for name in labels]
    own = predictions.Predictions(*[[str(i) for i in range(300)]] * 2, truth[:, columns], scores[:, columns])
    name = f"{source}-{seed}"
    (workspace / name).mkdir(parents=True)
    predictions.write(workspace / name / predictions.FILE, own, labels, "test")
    result = multilabel.summarise(own, labels, resamples=20) | {"split": "test", "selection_fold": False}
    (workspace / name / "result.json").write_text(json.dumps(result))
    cell = {"label_version": "multilabel", "source": source, "target": "b", "method": "none", "variant": "plain"}
    jobs = [{"id": f"{kind}-{name}", "output": name, "status": "done", "error": ""} for kind in ("train", "evaluate")]
    return {**cell, "seed": seed, "train_job": jobs[0]["id"], "job": jobs[1]["id"]}, jobs


@pytest.fixture
def filled(tmp_path):
    """b -> b knows all labels; a -> b, of two seeds, two of them."""
    made = [
        add(tmp_path, "b", LABELS, wrong=(10, 0, 5)),
        add(tmp_path, "a", LABELS[:2], wrong=(40, 0, 0)),
        add(tmp_path, "a", LABELS[:2], wrong=(30, 10, 0), seed=1),
    ]
    return results.read({"cells": [cell for cell, _ in made], "jobs": [j for _, jobs in made for j in jobs]}, tmp_path)


def test_the_mean_is_over_the_labels_that_all_models_share(filled):
    # 100 images with a label, 200 without it; of each wrong one, all pairs: AUC 1 - wrong / 100.
    assert [each.shared for each in filled] == [["Edema", "Pneumonia"]] * 3
    assert [each.score[0] for each in filled] == pytest.approx([0.95, 0.8, 0.8])
    assert filled[0].score[1] is None  # its own mean is over three
    assert filled[1].score[1] is not None
    assert results.part(filled[0], "Fracture") == pytest.approx(0.95)
    assert results.part(filled[1], "Fracture") is None


def test_tables_have_the_mean_and_each_label(filled):
    rows = list(csv.DictReader(io.StringIO(results.to_csv(filled, None, {}))))
    mean, edema, *_ = [row for row in rows if row["source"] == "b"]
    assert (mean["metric"], mean["class"], float(mean["value"])) == ("roc_auc", "", pytest.approx(0.95))
    assert (edema["class"], float(edema["value"]), edema["num_images"]) == ("Edema", pytest.approx(0.9), "100")
    assert {row["metric"] for row in rows} == {
        "roc_auc", "average_precision", "f1", "expected_calibration_error", "brier",
    }  # fmt: skip
    text = results.to_markdown(filled, None, {})
    assert "| source -> target | method | mean ROC-AUC | 95% interval | seeds | ROC-AUC Edema | ROC-AUC Pneu" in text
    assert "(on b: Edema, Pneumonia)" in text
    assert "| b -> b | none/plain | 95.0 | – | 0 | 90.0 | 100.0 | 95.0 | 300 of 300 patients, test |" in text
    assert "| a -> b | none/plain | 80.0 | – | 80.0, 80.0 | 65.0 | 95.0 | – | 300 of 300 patients, test |" in text
    missing = results.Filled(filled[0].cell, None, "failed", None)
    (row,) = csv.DictReader(io.StringIO(results.to_csv([missing], None, {})))
    assert (row["metric"], row["status"]) == ("roc_auc", "failed")


def test_gaps_of_the_mean_and_of_each_label(filled, tmp_path):
    compared, notes = differences.compare(results.group(filled), tmp_path, resamples=400)
    assert notes == []
    own, other = compared.values()
    assert own.accuracy.value == pytest.approx(0.95)
    assert other.accuracy.value == pytest.approx(0.8)
    assert other.lead.value == pytest.approx(-0.15)
    assert other.lead.shown
    assert {name: gap.value for name, gap in other.lead_by_label.items()} == pytest.approx(
        {"Edema": -0.25, "Pneumonia": -0.05}
    )
    # The wrong ones are a share of 0.25 of the images with the label (mean over two seeds), all the same way.
    low, high = other.lead_by_label["Edema"].ci95
    assert low < -0.25 < high and 0.1 < high - low < 0.25
    said = answer.tell(results.group(filled), compared, {})
    start = "multilabel, tested on b: the classifier trained on "
    assert said[1].startswith(f"{start}the target's own images has a mean ROC-AUC of 95.0% (95% interval ")
    assert said[1].endswith(" over 2 labels, from 90.0% (Edema) to 100.0% (Pneumonia).")
    assert "images of a has a mean ROC-AUC of 80.0%" in said[2]
    assert "; that is 15.0 points less than the one trained on the target's own images" in said[2]
    axes = study_figures.draw_accuracies(results.group(filled), compared, {}).axes[0]
    assert axes.get_xlabel() == "mean ROC-AUC, %"


def test_models_without_a_common_label_are_not_compared(tmp_path):
    made = [add(tmp_path, "b", LABELS[:1], wrong=(0, 0, 0)), add(tmp_path, "a", LABELS[1:], wrong=(0, 0, 0))]
    filled = results.read({"cells": [c for c, _ in made], "jobs": [j for _, jobs in made for j in jobs]}, tmp_path)
    assert [each.score[0] for each in filled] == [None, None]
    assert differences.compare(results.group(filled), tmp_path, resamples=20) == ({}, [])


def test_adaptation_is_refused_before_anything_runs():
    with pytest.raises(InputError, match="--label_versions=multilabel: has no classes, which dcan_noreg needs"):
        plan("--label_versions=v2,multilabel")
    graph = plan("--label_versions=multilabel", "--cells=synthetic -> b: none", without=["--cells"])
    name = "multilabel-synthetic-none-sched-seed0"
    assert graph.jobs[f"train-baseline-{name}"].inputs == {"records": "generate-synthetic-multilabel"}
    assert [cell for cell, _, _ in graph.cells] == [Cell("multilabel", "synthetic", "b", "none", "sched", 0)]


def test_the_gan_of_a_setting_learns_the_images_of_that_setting():
    learned = ("--cells=a, synthetic -> a: none", "--baseline_flags=--multilabel --variant=sched", "--gans=2")
    graph = plan(
        "--label_versions=classes-2,multilabel", *learned, "--seeds=0,1", without=["--cells", "--baseline_flags"]
    )
    gans = {name: job.inputs["records"] for name, job in graph.jobs.items() if job.kind == "train-gan"}
    assert gans == {
        "train-gan-a-classes-2": "build-records-a-classes-2",
        "train-gan-a-classes-2-gan1": "build-records-a-classes-2",
        "train-gan-a": "build-records-a-multilabel",
        "train-gan-a-gan1": "build-records-a-multilabel",
    }
    made = graph.jobs["generate-synthetic-gan1-classes-2"]
    assert dict(made.inputs) == {"run_dir": "train-gan-a-classes-2-gan1"}
    assert "--label_version=multilabel" in made.flags  # its labels, for the classes are in the table alone
    assert made.output == "records/synthetic-gan1/classes-2/8"
    trained = graph.jobs["train-baseline-classes-2-synthetic-none-sched-seed1"]
    assert dict(trained.inputs) == {"records": "generate-synthetic-gan1-classes-2"}


def test_classes_of_a_setting_are_not_looked_for_in_synthetic_images():
    with pytest.raises(InputError, match="--label_versions=classes-2: has no classes, which dcan_noreg needs"):
        plan("--label_versions=classes-2")
    with pytest.raises(
        InputError, match=r"--label_versions=classes-2: synthetic images such as synthetic .*add --multilabel"
    ):
        plan("--label_versions=classes-2", "--cells=synthetic -> b: none", without=["--cells"])
    assert plan("--label_versions=classes-2", "--cells=a -> b: none", without=["--cells"]).cells


@pytest.fixture
def flags(tmp_path):
    return [
        "study", f"--workspace={tmp_path / 'workspace'}", "--name=several", "--label_versions=multilabel",
        "--resolution=16", "--cells=a, b -> b: none",
        "--phantom=a: --hospital=a --num_patients=200 --resolution=16 --workers=1",
        "--phantom=b: --hospital=b --num_patients=200 --resolution=16 --workers=1",
        "--records=a: --dataset=chexpert", "--records=b: --dataset=chestxray", "--evaluate_flags=--resamples=50",
    ]  # fmt: skip


def test_flags_that_need_classes_are_refused_before_anything_runs(flags, tmp_path, capsys):
    flags = [*flags, "--baseline_flags=--backbone=resnet_tiny --weights=none --image_size=16 --balanced"]
    assert app.run(study.main, study.define_flags, flags) == 2
    assert "--baseline_flags: --balanced needs classes, which label version multilabel has" in capsys.readouterr().err
    assert not (tmp_path / "workspace").exists()


@pytest.mark.large
def test_a_whole_study_of_labels(flags, tmp_path):
    recipe = "--backbone=resnet_tiny --weights=none --image_size=16 --stage2_epochs=1"
    assert app.run(study.main, study.define_flags, [*flags, f"--baseline_flags=benchmark/predictive {recipe}"]) == 0
    folder = tmp_path / "workspace" / "studies" / "several"
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert {row["source"] for row in rows if row["metric"] == "roc_auc" and not row["class"]} == {"a", "b"}
    report = (folder / "report.md").read_text()
    for words in ("mean ROC-AUC", "ROC-AUC above the classifier trained on the target itself", "ROC-AUC Cardiomegaly"):
        assert words in report
