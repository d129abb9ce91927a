"""Two models on the same images: differences and tests by hand, and predictions that cannot be compared."""

import dataclasses

import numpy as np
import pytest

from tfcxr.evaluation import paired_test, predictions
from tfrecords_builder.errors import InputError

CLASSES = ["No Finding", "Finding"]


def make(labels, predicted, patients=None):
    probabilities = np.where(np.eye(2)[np.asarray(predicted)] == 1, 0.8, 0.2)
    ids = [str(i) for i in range(len(labels))]
    return predictions.Predictions(ids, patients or ids, np.asarray(labels), probabilities)


def test_differences_and_mcnemar_by_hand():
    labels = np.repeat([0, 1], 40)
    good, bad = labels.copy(), labels.copy()
    good[:4] = 1  # 36 of 40, 40 of 40
    bad[4:20] = 1  # 24 of 40, 38 of 40
    bad[40:42] = 0
    result = paired_test.compare(make(labels, good), make(labels, bad), CLASSES)
    assert result["recall"]["No Finding"]["this"] == pytest.approx(0.9)
    assert result["recall"]["No Finding"]["other"] == pytest.approx(0.6)
    assert result["recall"]["No Finding"]["difference"]["value"] == pytest.approx(0.3)
    assert result["balanced_accuracy"]["difference"]["value"] == pytest.approx((0.3 + 0.05) / 2)
    low, high = result["balanced_accuracy"]["difference"]["ci95"]
    assert 0.05 < low < 0.175 < high < 0.3
    assert result["balanced_accuracy"]["p_value"] < 0.005
    # Two images more: none in e^-2 of the resamples, so p is about 2 x 0.13.
    assert 0.2 < result["recall"]["Finding"]["p_value"] < 0.35
    # 18 images are right in the first only, 4 in the second only: binomial, two-sided, 2 P(X <= 4 | 22, 1/2).
    assert result["mcnemar"]["only_this_right"] == 18
    assert result["mcnemar"]["only_other_right"] == 4
    assert result["mcnemar"]["p_value"] == pytest.approx(2 * (1 + 22 + 231 + 1540 + 7315) / 2**22)


def test_the_order_of_the_models_turns_the_sign_only():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    one, two = (make(labels, np.where(random.random(60) < 0.7, labels, 1 - labels)) for _ in range(2))
    there, back = paired_test.compare(one, two, CLASSES, seed=5), paired_test.compare(two, one, CLASSES, seed=5)
    for name in ("balanced_accuracy", "roc_auc"):
        low, high = back[name]["difference"]["ci95"]
        assert there[name]["difference"]["ci95"] == pytest.approx([-high, -low])
        assert there[name]["p_value"] == back[name]["p_value"]


def test_a_model_does_not_differ_from_itself():
    made = make([0, 0, 1, 1], [0, 1, 1, 0])
    result = paired_test.compare(made, made, CLASSES, resamples=100)
    assert result["balanced_accuracy"]["difference"] == {"value": 0.0, "ci95": [0.0, 0.0]}
    assert result["balanced_accuracy"]["p_value"] == result["mcnemar"]["p_value"] == 1.0


def test_pairing_sees_what_unpaired_intervals_hide():
    # Both models fail on the same patients, but for three images that the second alone gets wrong.
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 50)
    first = np.where(random.random(100) < 0.6, labels, 1 - labels)
    second = first.copy()
    right = np.flatnonzero(first == labels)[:6]
    second[right] = 1 - labels[right]
    result = paired_test.compare(make(labels, first), make(labels, second), CLASSES)
    low, high = result["balanced_accuracy"]["difference"]["ci95"]
    assert 0 < low < 0.06 < high < 0.12


def test_a_class_without_an_image_has_no_difference():
    made = make([0] * 4, [0, 1, 0, 1])
    result = paired_test.compare(made, made, CLASSES, resamples=50)
    for row in (result["balanced_accuracy"], result["roc_auc"], result["recall"]["Finding"]):
        assert row == {"this": None, "other": None, "difference": {"value": None, "ci95": None}, "p_value": None}
    assert result["recall"]["No Finding"]["this"] == 0.5


def test_predictions_are_put_in_order_or_refused():
    made = make([0, 0, 1], [0, 1, 1], ["p", "q", "r"])
    turned = predictions.Predictions(made.ids[::-1], made.patients[::-1], made.labels[::-1], made.probabilities[::-1])
    aligned = paired_test.align(turned, made.ids, made.labels, "x")
    assert (aligned.ids, aligned.patients) == (made.ids, made.patients)
    np.testing.assert_array_equal(aligned.probabilities, made.probabilities)
    for ids, labels, other, words in [
        (["0", "1", "7"], made.labels, made, r"x: was evaluated on other images \(3 here, 3 there, 2 in both\)"),
        (["0", "1"], made.labels[:2], made, r"\(2 here, 3 there, 2 in both\)"),
        (made.ids, np.array([0, 1, 1]), made, "x: has other labels"),
        (made.ids, made.labels, dataclasses.replace(made, ids=["0", "0", "1"]), "x: an image occurs twice"),
    ]:
        with pytest.raises(InputError, match=words):
            paired_test.align(other, ids, labels, "x")


def test_groups_of_models_are_sampled_together_and_averaged():
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1], 50)
    models = [make(labels, np.where(random.random(100) < share, labels, 1 - labels)) for share in (0.6, 0.8, 0.9)]
    sampled = paired_test.sample_accuracies({"two": models[:2], "one": models[2:]}, 2, resamples=500, seed=4)
    accuracies = [np.mean([(m.predicted == labels)[labels == k].mean() for k in (0, 1)]) for m in models]
    assert sampled["two"].value == pytest.approx(np.mean(accuracies[:2]))
    assert sampled["one"].value == pytest.approx(accuracies[2])
    assert sampled["two"].sampled.shape == (500,)
    # The same draws of patients as those of the test of two models.
    alone = paired_test.sample_accuracies({"first": models[:1]}, 2, resamples=500, seed=4)["first"].sampled
    difference = np.percentile(alone - sampled["one"].sampled, [2.5, 97.5])
    compared = paired_test.compare(models[0], models[2], CLASSES, resamples=500, seed=4)
    assert compared["balanced_accuracy"]["difference"]["ci95"] == pytest.approx(list(difference), abs=1e-6)


def test_one_patient_of_a_class_says_nothing_of_others():
    made = make([0, 0, 1, 1], [0, 1, 1, 0], patients=["a", "b", "c", "c"])
    assert paired_test.sample_accuracies({"one": [made]}, 2) is None
