"""utility through its flags: gaps against evaluate's own comparison and scikit-learn, groups, and what it refuses."""

import json
import pathlib
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from tests import classifier_runs, fakes
from tfcxr import cli, data
from tfcxr.evaluation import predictions
from tfcxr.evaluation.predictions import Predictions

MULTILABEL = ["No Finding", "Cardiomegaly", "Pneumonia"]


def call(*arguments):
    return cli.main(["utility", "--resamples=200", *arguments])


def evaluate(model, records, folder, *arguments):
    where = [f"--model={model}", f"--records={records}", f"--output_dir={folder}"]
    assert cli.main(["evaluate", "--resamples=200", *where, *arguments]) == 0
    return folder


def read(folder, name="result.json"):
    return json.loads((pathlib.Path(folder) / name).read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Real and synthetic records, two classifiers of each, and their evaluations."""
    root = tmp_path_factory.mktemp("utility")
    real = classifier_runs.make_records(root / "real_set", per_class=24, sexes=("F", "M"))
    synthetic = classifier_runs.make_records(root / "synthetic_set", per_class=10, source="synthetic:fake", seed=5)
    for seed, (name, records) in enumerate({"real0": real, "synthetic0": synthetic, "synthetic1": synthetic}.items()):
        classifier_runs.make_classifier_run(root / name, records, seed=seed)
    evaluate(root / "real0", real, root / "e_real0")
    for name in ("synthetic0", "synthetic1"):
        evaluate(root / name, real, root / f"e_{name}", f"--compare_with={root / 'e_real0'}")
    evaluate(root / "real0", synthetic, root / "e_reverse")
    return root


def test_one_pair_is_what_evaluate_says_of_it(made, tmp_path, capsys):
    out = tmp_path / "utility"
    arguments = [f"--real={made / 'e_real0'}", f"--synthetic={made / 'e_synthetic0'}"]
    assert call(f"--records={made / 'real_set'}", *arguments, f"--output_dir={out}") == 0
    printed = capsys.readouterr().out
    result, compared = read(out), read(made / "e_synthetic0")["comparison"]
    (gap,) = result["gaps"]
    assert (gap["arm"], gap["reference"]) == ("synthetic", "real")
    assert gap["value"] == pytest.approx(compared["balanced_accuracy"]["difference"]["value"])
    assert gap["ci95"] == pytest.approx(compared["balanced_accuracy"]["difference"]["ci95"])
    assert gap["p_value"] == pytest.approx(compared["balanced_accuracy"]["p_value"])
    for label, part in gap["parts"].items():
        assert part["value"] == pytest.approx(compared["recall"][label]["difference"]["value"])
        assert part["ci95"] == pytest.approx(compared["recall"][label]["difference"]["ci95"])
    assert f"synthetic − real: {100 * gap['value']:+.1f} points" in printed
    assert "one training each of --real, --synthetic" in printed
    assert any(text.startswith("synthetic0: ") for text in result["warnings"])
    for name in ("report.html", "report.md", "utility.csv", "gaps.png", "subgroups.png", "flags.txt"):
        assert (out / name).is_file()


def test_means_over_trainings_groups_and_the_reverse(made, tmp_path):
    out = tmp_path / "utility"
    arguments = [f"--real={made / 'e_real0'}", f"--synthetic={made / 'e_synthetic0'},{made / 'e_synthetic1'}"]
    arguments += [f"--on_synthetic={made / 'e_reverse'}", f"--records={made / 'real_set'}", f"--output_dir={out}"]
    assert call(*arguments) == 0
    result = read(out)
    values = [read(made / f"e_synthetic{i}")["balanced_accuracy"]["value"] for i in range(2)]
    arm, reverse = result["arms"]["synthetic"], result["arms"]["on_synthetic"]
    assert arm["value"] == pytest.approx(np.mean(values))
    assert arm["classifiers"] == ["synthetic0", "synthetic1"]
    assert arm["trained_on"] == [data.RecordSet(made / "synthetic_set").info.digest]
    assert reverse["value"] == pytest.approx(read(made / "e_reverse")["balanced_accuracy"]["value"])
    assert reverse["tested_on"] == [data.RecordSet(made / "synthetic_set").info.digest]
    gaps = {gap["arm"]: gap for gap in result["gaps"]}
    assert gaps["on_synthetic"]["value"] == pytest.approx(reverse["value"] - result["arms"]["real"]["value"])
    # Groups: the same figures of half of the images each.
    one, _ = predictions.read(made / "e_synthetic0/predictions.csv")
    rows = {row["group"]: row for row in result["subgroups"]}
    assert set(rows) == {"female", "male", "PA"}
    images = predictions.read_images(data.RecordSet(made / "real_set"), "test").set_index("id").loc[list(one.ids)]
    for sex, name in (("F", "female"), ("M", "male")):
        member = (images["sex"] == sex).to_numpy()
        assert rows[name]["num_images"] == member.sum() == 24
        expected = sklearn_metrics.balanced_accuracy_score(one.labels[member], one.predicted[member])
        other, _ = predictions.read(made / "e_synthetic1/predictions.csv")
        expected += sklearn_metrics.balanced_accuracy_score(other.labels[member], other.predicted[member])
        assert rows[name]["arms"]["synthetic"]["value"] == pytest.approx(expected / 2)
        low, high = rows[name]["gaps"][0]["ci95"]
        assert low <= rows[name]["gaps"][0]["value"] <= high
    assert rows["PA"]["gaps"][0]["ci95"] == pytest.approx(gaps["synthetic"]["ci95"])
    table = pd.read_csv(out / "utility.csv", keep_default_na=False)
    of_women = table[(table.group == "female") & (table.reference == "real") & (table.label == "")]
    assert float(of_women["value"].iloc[0]) == pytest.approx(rows["female"]["gaps"][0]["value"], abs=1e-5)


def make_multilabel(made, folder, *, noise, seed, records, model):
    """An evaluation of several labels, whose classifier sees the truth under noise."""
    random = np.random.default_rng(seed)
    images = predictions.read_images(data.RecordSet(records), "test")
    truth = images[MULTILABEL].to_numpy(bool)
    scores = np.clip(0.5 + 0.2 * truth + noise * random.normal(size=truth.shape), 0, 1)
    folder.mkdir()
    one = Predictions(list(images["id"]), list(images["patient"]), truth, scores)
    predictions.write(folder / predictions.FILE, one, MULTILABEL, "test")
    result = read(made / "e_real0") | {
        "model": str(made / model),
        "model_digest": read(made / f"e_{model}")["model_digest"],
        "records": {"path": str(records), "source": "fake", "digest": data.RecordSet(records).info.digest},
        "warnings": [],
    }
    (folder / "result.json").write_text(json.dumps(result))
    return truth, scores


def test_labels_that_do_not_exclude_each_other(made, tmp_path):
    records = fakes.make_records(
        tmp_path / "set", resolution=16, label_version="multilabel", per_class=20, sexes=("F", "M")
    )
    setting = {"records": records}
    truth, real = make_multilabel(made, tmp_path / "real", noise=0.1, seed=0, model="real0", **setting)
    _, synthetic = make_multilabel(made, tmp_path / "synthetic", noise=0.6, seed=1, model="synthetic0", **setting)
    _, mixed = make_multilabel(made, tmp_path / "mixed", noise=0.1, seed=2, model="real0", **setting)
    make_multilabel(made, tmp_path / "control", noise=0.1, seed=0, model="real0", **setting)
    out = tmp_path / "utility"
    arguments = [f"--{name}={tmp_path / name}" for name in ("real", "synthetic", "mixed", "control")]
    assert call(f"--records={records}", *arguments, f"--output_dir={out}") == 0
    result = read(out)
    assert result["measure"] == "mean ROC-AUC"
    assert result["labels"] == MULTILABEL
    gaps = {(gap["arm"], gap["reference"]): gap for gap in result["gaps"]}
    assert set(gaps) == {("synthetic", "real"), ("mixed", "real"), ("mixed", "control"), ("control", "real")}

    def auc(scores, k, rows=slice(None)):
        return sklearn_metrics.roc_auc_score(truth[rows, k], scores[rows, k])

    for k, label in enumerate(MULTILABEL):
        expected = auc(synthetic, k) - auc(real, k)
        assert gaps["synthetic", "real"]["parts"][label]["value"] == pytest.approx(expected, abs=1e-6)
        assert gaps["mixed", "control"]["parts"][label]["value"] == pytest.approx(
            auc(mixed, k) - auc(real, k), abs=1e-6
        )
    low, high = gaps["synthetic", "real"]["ci95"]
    assert low < high < -0.05  # noise of 0.6 is much worse than one of 0.1
    assert gaps["control", "real"]["ci95"] == [0, 0]  # the same predictions
    women = next(row for row in result["subgroups"] if row["group"] == "female")
    images = predictions.read_images(data.RecordSet(records), "test")
    member = np.flatnonzero(images["sex"] == "F")
    expected = np.mean([auc(synthetic, k, member) for k in range(3)])
    assert women["arms"]["synthetic"]["value"] == pytest.approx(expected, abs=1e-6)
    # A part of the labels.
    only = tmp_path / "only"
    assert call(f"--records={records}", *arguments, "--mean_labels=Pneumonia", f"--output_dir={only}") == 0
    of_one = read(only)["gaps"][0]
    assert of_one["value"] == of_one["parts"]["Pneumonia"]["value"] == pytest.approx(auc(synthetic, 2) - auc(real, 2))


def test_bad_input_is_one_line(made, tmp_path, capsys):
    real, synthetic, reverse = (f"{made / name}" for name in ("e_real0", "e_synthetic0", "e_reverse"))
    records = f"--records={made / 'real_set'}"
    changed = tmp_path / "changed"
    shutil.copytree(made / "e_synthetic0", changed)
    (changed / "result.json").write_text(json.dumps(read(changed) | {"model_digest": "0" * 64}))
    cut = tmp_path / "cut"
    shutil.copytree(made / "e_synthetic0", cut)
    lines = (cut / "predictions.csv").read_text().splitlines(keepends=True)
    (cut / "predictions.csv").write_text("".join(lines[:-1]))
    (tmp_path / "empty").mkdir()
    copy = shutil.copytree(made / "e_real0", tmp_path / "copy")
    cases = {
        (f"--real={real}",): "--synthetic, --mixed, --control and --on_synthetic",
        (f"--synthetic={synthetic}",): "--real and at least one",
        (f"--real={real}", f"--synthetic={copy}"): "learned from the real records",
        (f"--real={real}", f"--synthetic={real}"): f"--synthetic: {real} is given in --real, too",
        (f"--real={real}", f"--synthetic={reverse}"): "must be of the test fold",
        (f"--real={real}", f"--on_synthetic={synthetic}"): "images that are not synthetic",
        (f"--real={real}", f"--synthetic={changed}"): "have changed since; evaluate it again",
        (f"--real={real}", f"--synthetic={cut}"): "was evaluated on other images",
        (f"--real={real}", f"--synthetic={tmp_path / 'empty'}"): "result.json",
        (f"--real={real}", f"--synthetic={tmp_path / 'none'}"): "none",
        (f"--real={real}", f"--synthetic={synthetic}", "--mean_labels=Pneumonia"): "exclude each other",
        (f"--real={real},{real}/", f"--synthetic={synthetic}"): f"--real: {real}/ is given twice",
        (f"--real={real},", f"--synthetic={synthetic}"): "an entry between its commas is empty",
    }
    for arguments, words in cases.items():
        capsys.readouterr()
        assert call(records, *arguments, f"--output_dir={tmp_path / 'out'}") == 2, arguments
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert words in error
        assert not (tmp_path / "out").exists()
    capsys.readouterr()
    arguments = [f"--real={real}", f"--synthetic={synthetic}", f"--output_dir={made}", "--overwrite"]
    assert call(records, *arguments) == 2
    assert "choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    [{"records": 3}, {"records": {"digest": 1, "source": "x"}}, {"split": None}, {"warnings": {}}, {"model": []}],
)
def test_a_damaged_result_is_one_line(made, tmp_path, capsys, damage):
    folder = shutil.copytree(made / "e_synthetic0", tmp_path / "damaged")
    (folder / "result.json").write_text(json.dumps(read(folder) | damage))
    flags = [f"--records={made / 'real_set'}", f"--real={made / 'e_real0'}", f"--synthetic={folder}"]
    capsys.readouterr()
    assert call(*flags, f"--output_dir={tmp_path / 'out'}") == 2
    said = f"error: --synthetic={folder}: is no output of this version of evaluate, or is damaged; run it again\n"
    assert capsys.readouterr().err == said
