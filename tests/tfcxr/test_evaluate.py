"""evaluate through its flags, and its numbers against scikit-learn's on the predictions it wrote."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from flags import app
from tests import classifier_runs, fakes
from tfcxr import cli, evaluate, evaluation


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    records = classifier_runs.make_records(root / "records")
    return root, records, classifier_runs.make_classifier_run(root / "run", records)


def call(*arguments):
    return app.run(evaluate.main, evaluate.define_flags, ["evaluate", *arguments])


def test_writes_what_the_interface_promises(folders, capsys):
    root, records, run = folders
    out = root / "out"
    assert call(f"--model={run}", f"--records={records}", f"--output_dir={out}", "--resamples=200") == 0
    result = json.loads((out / "result.json").read_text())
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
    assert result["num_patients"] == table["patient"].nunique()
    expected = sklearn_metrics.balanced_accuracy_score(table["label"], table["prediction"])
    assert result["balanced_accuracy"]["value"] == pytest.approx(expected)
    low, high = result["balanced_accuracy"]["ci95"]
    assert 0 <= low <= expected <= high <= 1
    assert result["recall"]["Finding"]["support"] == 6
    auc = sklearn_metrics.roc_auc_score(table["label"] == "Finding", table["probability Finding"])
    assert result["roc_auc"]["per_class"]["Finding"] == pytest.approx(auc, abs=1e-6)
    assert np.sum(result["confusion_matrix"]) == 12
    for name in ("confusion_matrix.png", "roc.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert "balanced accuracy" in capsys.readouterr().out
    assert f"--model={run}" in (out / "flags.txt").read_text()
    # Replaying the flags gives the same result.
    assert call(f"--flagfile={out / 'flags.txt'}", "--overwrite") == 0
    assert json.loads((out / "result.json").read_text()) == result


def test_without_a_test_fold_the_validation_fold_is_marked(folders, tmp_path):
    _, _, run = folders
    records = classifier_runs.make_records(tmp_path / "r", splits=("train", "validation"), with_patients=False)
    assert call(f"--model={run}", f"--records={records}", f"--output_dir={tmp_path / 'out'}", "--resamples=50") == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["split"] == "validation"
    assert result["selection_fold"] is True
    assert result["num_patients"] is None
    assert "selection fold" in (tmp_path / "out" / "result.md").read_text()


def test_bad_input_is_one_line_and_leaves_nothing(folders, tmp_path, capsys):
    _, records, run = folders
    other = fakes.make_records(tmp_path / "other", resolution=16, label_version="v1_0s")
    cases = [
        ([f"--model={run}", f"--records={other}"], 2, "label version is v1_0s, not v2"),
        ([f"--model={records}", f"--records={records}"], 2, "not a run folder"),
        ([f"--model={run}", f"--records={run}"], 2, "expected a record set"),
        ([f"--model={tmp_path / 'none'}", f"--records={records}"], 2, "no such folder"),
    ]
    capsys.readouterr()
    for arguments, code, words in cases:
        assert call(*arguments, f"--output_dir={tmp_path / 'out'}") == code
        err = capsys.readouterr().err
        assert words in err
        assert err.count("\n") == 1
        assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    arguments = [f"--model={run}", f"--records={records}", f"--output_dir={tmp_path / 'mine'}"]
    assert call(*arguments) == 2
    assert call(*arguments, "--overwrite") == 2
    assert (tmp_path / "mine" / "notes.txt").exists()


def test_a_class_without_an_image_is_null_and_a_warning():
    predictions = evaluation.Predictions(
        ids=["a", "b"], patients=["p", "q"], labels=np.array([0, 0]), probabilities=np.array([[0.9, 0.1], [0.6, 0.4]])
    )
    result = evaluation.summarise(predictions, ["No Finding", "Finding"])
    assert result["recall"]["No Finding"]["value"] == 1.0
    assert result["recall"]["Finding"] == {"value": None, "ci95": None, "support": 0}
    assert result["balanced_accuracy"] == {"value": None, "ci95": None}
    assert result["warnings"] == ["class Finding has no image", "collapsed: every image is predicted as No Finding"]
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("command", ["evaluate", "train-baseline", "train-gan"])
def test_a_record_whose_image_is_no_png_is_one_line_and_exit_1(folders, tmp_path, monkeypatch, capsys, command):
    _, _, run = folders
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
