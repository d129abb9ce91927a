"""Labels that do not exclude each other: measures against scikit-learn, what is left out, and two models compared."""

import json

import numpy as np
import pytest
from sklearn import calibration
from sklearn import metrics as sklearn_metrics

from tests.tfcxr.evaluation.test_metric_tables_and_figures import texts
from tfcxr.evaluation import bootstrap, metric_figures, metric_tables, multilabel, operating_points, predictions
from tfrecords_builder.errors import InputError

LABELS = ["No Finding", "Edema", "Fracture"]


def make(*, seed=0, images=240, patients=60, constant=False):
    """Predictions of three labels, of which the last may have no image; scores favour the truth, some are equal."""
    random = np.random.default_rng(seed)
    truth = np.random.default_rng(0).random((images, 3)) < [0.5, 0.2, 0.1]
    truth[:, 2] &= not constant
    scores = (0.69 * random.random((images, 3)) + 0.3 * truth).round(2) + 0.003  # on no edge of a bin
    names = [str(i % patients) for i in range(images)]
    return predictions.Predictions([str(i) for i in range(images)], names, truth, scores)


def calibration_error(truth, scores, bins=15):
    """By a plain loop over the definition of Guo et al. 2017."""
    total = 0.0
    for low in range(bins):
        inside = np.minimum((scores * bins).astype(int), bins - 1) == low
        if inside.any():
            total += inside.mean() * abs(truth[inside].mean() - scores[inside].mean())
    return total


def test_measures_of_each_label_are_scikit_learns():
    own = make()
    cuts = {name: {operating_points.BEST_F1: cut} for name, cut in zip(LABELS, (0.4, 0.55, None), strict=True)}
    result = multilabel.summarise(own, LABELS, thresholds=cuts, resamples=20)
    for k, name in enumerate(LABELS):
        truth, scores = own.labels[:, k], own.probabilities[:, k]
        called = scores >= (2 if cuts[name]["F1"] is None else cuts[name]["F1"])
        expected = {
            "roc_auc": sklearn_metrics.roc_auc_score(truth, scores),
            "average_precision": sklearn_metrics.average_precision_score(truth, scores),
            "f1": sklearn_metrics.f1_score(truth, called),
            "brier": sklearn_metrics.brier_score_loss(truth, scores),
            "expected_calibration_error": calibration_error(truth, scores),
        }
        for measure, value in expected.items():
            assert result[measure]["per_class"][name] == pytest.approx(value, abs=1e-6), (measure, name)
        assert result["support"][name]["images"] == truth.sum()
        shares, confidence = calibration.calibration_curve(truth, scores, n_bins=15)
        rows = [row for row in result["reliability"][name] if row["count"]]
        np.testing.assert_allclose([row["accuracy"] for row in rows], shares)
        np.testing.assert_allclose([row["confidence"] for row in rows], confidence)
    for measure in multilabel.MEASURES:
        assert result[measure]["macro"] == pytest.approx(np.mean(list(result[measure]["per_class"].values())))
    assert result["f1_thresholds"] == {"No Finding": 0.4, "Edema": 0.55, "Fracture": None}
    assert json.loads(json.dumps(result)) == result


def test_a_label_with_one_value_is_null_warned_of_and_not_in_the_means():
    own = make(constant=True)
    result = multilabel.summarise(own, LABELS, resamples=20)
    for measure in multilabel.MEASURES:
        scores = result[measure]
        assert scores["per_class"]["Fracture"] is scores["per_class_ci95"]["Fracture"] is None
        assert scores["macro"] == pytest.approx((scores["per_class"]["No Finding"] + scores["per_class"]["Edema"]) / 2)
        assert scores["macro_ci95"][0] <= scores["macro"] <= scores["macro_ci95"][1]
    assert result["mean_of"] == ["No Finding", "Edema"]
    assert result["warnings"] == ["no image has Fracture: no numbers of it, and no part in the means"]
    only = multilabel.summarise(own, LABELS, mean_labels=["Edema", "Fracture"], resamples=20)
    assert only["mean_of"] == ["Edema"]
    assert only["roc_auc"]["macro"] == only["roc_auc"]["per_class"]["Edema"]
    with pytest.raises(InputError, match="--mean_labels=Hernia: the model has no such label; it has No Finding, Edema"):
        multilabel.summarise(own, LABELS, mean_labels=["Hernia"])
    nothing = multilabel.summarise(own.of([2]), ["Fracture"], resamples=20)
    assert nothing["roc_auc"]["macro"] is None and nothing["mean_of"] == []


def test_a_network_that_always_says_the_same_is_warned_of():
    own = make()
    flat = predictions.Predictions(own.ids, own.patients, own.labels, np.full((240, 3), [0.5, 0.2, 0.1]))
    result = multilabel.summarise(flat, LABELS, resamples=20)
    assert any("gives the same probability of No Finding, Edema, Fracture" in text for text in result["warnings"])
    assert result["roc_auc"]["macro"] == 0.5


def test_weights_repeat_the_images_of_patients():
    own = make()
    patients = bootstrap.PatientBootstrap(own.labels, own.patients)
    statistics = bootstrap.LabelStatistics(patients, own.labels, own.probabilities, np.array([0.3, 0.5, 0.6]))
    weights = np.random.default_rng(1).integers(0, 4, (patients.num_patients, 4)).astype(np.float32)
    got = statistics(weights)
    for column in range(4):
        rows = np.repeat(np.arange(240), weights[patients.patient, column].astype(int))
        for k, cut in enumerate((0.3, 0.5, 0.6)):
            truth, scores = own.labels[rows, k], own.probabilities[rows, k]
            assert got["roc_auc"][column, k] == pytest.approx(sklearn_metrics.roc_auc_score(truth, scores), abs=1e-6)
            assert got["f1"][column, k] == pytest.approx(sklearn_metrics.f1_score(truth, scores >= cut))
            assert got["brier"][column, k] == pytest.approx(sklearn_metrics.brier_score_loss(truth, scores))
            assert got["expected_calibration_error"][column, k] == pytest.approx(calibration_error(truth, scores))


def test_patients_are_drawn_and_draws_without_a_value_are_drawn_again():
    """One label of two patients, another that all images of a patient share: intervals against a plain loop."""
    truth = np.zeros((200, 2), bool)
    truth[:100, 0] = True
    truth[[3, 103], 1] = True  # of patients 3 and 43
    names = [str(i % 60) for i in range(200)]
    scores = np.random.default_rng(2).random((200, 2)).round(1)
    own = predictions.Predictions([str(i) for i in range(200)], names, truth, scores)
    result = multilabel.summarise(own, ["a", "b"], resamples=1000)
    # Neither of two patients of 60 is drawn with probability (58 / 60)^60 = 0.13.
    assert 90 < result["bootstrap"]["redrawn"] < 220
    random, values = np.random.default_rng(5), []
    for _ in range(1000):
        rows = np.concatenate([np.flatnonzero(np.array(names) == str(p)) for p in random.integers(0, 60, 60)])
        if truth[rows, 1].any():
            values.append(sklearn_metrics.roc_auc_score(truth[rows, 0], scores[rows, 0]))
    np.testing.assert_allclose(result["roc_auc"]["per_class_ci95"]["a"], np.percentile(values, [2.5, 97.5]), atol=0.02)
    assert any("few patients have, or lack, b (2)" in text for text in result["warnings"])


def test_a_label_of_one_patient_costs_only_its_own_interval():
    own = make()
    own.labels[:, 2] = False
    own.labels[5, 2] = True
    result = multilabel.summarise(own, LABELS, resamples=50)
    ends = result["roc_auc"]["per_class_ci95"]
    assert ends["Fracture"] is None
    assert ends["Edema"] is not None and result["roc_auc"]["macro_ci95"] is not None
    assert result["roc_auc"]["per_class"]["Fracture"] is not None


def test_two_models_are_compared_on_the_same_patients():
    one, two = make(seed=1), make(seed=2)
    better = predictions.Predictions(one.ids, one.patients, one.labels, 0.5 * one.probabilities + 0.5 * one.labels)
    found = multilabel.compare(better, two, LABELS, resamples=200)
    own, other = (multilabel.summarise(each, LABELS, resamples=5) for each in (better, two))
    for measure in multilabel.COMPARED:
        row = found[measure]
        assert row["this"] == pytest.approx(own[measure]["macro"])
        assert row["other"] == pytest.approx(other[measure]["macro"])
        assert row["difference"]["value"] == pytest.approx(row["this"] - row["other"])
        of_label = found["per_class"][measure]["Edema"]
        assert of_label["this"] == pytest.approx(own[measure]["per_class"]["Edema"])
    assert found["roc_auc"]["difference"]["ci95"][0] > 0.05
    assert found["roc_auc"]["p_value"] == pytest.approx(2 / 201)
    same = multilabel.compare(one, one, LABELS, resamples=20)
    assert same["roc_auc"]["difference"] == {"value": 0.0, "ci95": [0.0, 0.0]}
    assert same["roc_auc"]["p_value"] == 1.0


def test_the_threshold_of_the_best_f1_is_found():
    own = make()
    chosen = operating_points.choose_thresholds(own, LABELS)
    rows = operating_points.apply_thresholds(chosen, own, LABELS)
    assert len(rows) == 12
    for k, name in enumerate(LABELS):
        truth, scores = own.labels[:, k], own.probabilities[:, k]
        best = max(sklearn_metrics.f1_score(truth, scores >= cut) for cut in np.unique(scores))
        assert sklearn_metrics.f1_score(truth, scores >= chosen[name]["F1"]) == pytest.approx(best)


def test_predictions_survive_the_file_and_damage_is_named(tmp_path):
    own, path = make(), tmp_path / "predictions.csv"
    predictions.write(path, own, LABELS, "test")
    again, names = predictions.read(path)
    assert names == LABELS and again.multilabel
    np.testing.assert_array_equal(again.labels, own.labels)
    np.testing.assert_allclose(again.probabilities, own.probabilities, rtol=1e-8)
    path.write_text(path.read_text().replace(",test,1,", ",test,maybe,", 1).replace(",test,0,", ",test,maybe,", 1))
    with pytest.raises(InputError, match=r"is damaged \(a label is neither 0 nor 1\)"):
        predictions.read(path)


@pytest.fixture
def result():
    own = make(constant=True)
    return {
        **multilabel.summarise(own, LABELS, resamples=50),
        "operating_points": {"chosen_on": {"path": None}, "optimistic": True, "rows": []},
        "subgroups": [],
        "comparison": {"with": "other", **multilabel.compare(own, make(seed=3, constant=True), LABELS, resamples=20)},
        "split": "test",
        "selection_fold": False,
        "ten_crop": False,
        "model": "run",
        "records": {"source": "fake"},
    }


def test_tables_and_pictures_hold_each_label(result, tmp_path):
    own = make(constant=True)
    text = metric_tables.to_markdown(result)
    mean = 100 * result["roc_auc"]["macro"]
    assert f"| mean of 2 labels | – | – | {mean:.1f} |" in text
    assert "| Fracture | 0 | 0 | – | – | – | – | – | – |" in text
    assert "Means are over No Finding, Edema. F1 is that of calling a label at a probability of 0.5." in text
    assert "| ROC-AUC (mean) |" in text and "| ROC-AUC Edema |" in text and "| Brier score Edema" not in text
    metric_tables.write_csv(tmp_path, result)
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 5 * 4
    assert f"brier,Edema,{result['brier']['per_class']['Edema']}" in (tmp_path / "metrics.csv").read_text()
    assert len((tmp_path / "comparison.csv").read_text().splitlines()) == 1 + 4 * 4
    drawn = metric_figures.draw_all(tmp_path, result, own)
    assert [path.stem for path in drawn] == ["roc_auc", "roc", "precision_recall", "reliability", "comparison"]
    (axes,) = metric_figures.draw_label_scores(result).axes
    assert [label.get_text() for label in axes.get_yticklabels()][1:3] == [
        f"No Finding  (n = {own.labels[:, 0].sum()})",
        f"Edema  (n = {own.labels[:, 1].sum()})",
    ]
    assert texts(axes) == ["  images are lacking"]
    (axes,) = metric_figures.draw_roc(result, own).axes
    assert len(axes.get_lines()) == 3  # chance, and the two labels with both values
