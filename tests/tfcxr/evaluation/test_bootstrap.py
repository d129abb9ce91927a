"""Intervals and tests over resampled patients, against scikit-learn, plain loops and numbers worked out by hand."""

import time

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tfcxr.evaluation import bootstrap


def make_scores(labels, number, *, decimals=2):
    """Random scores that favour the true class; with two decimals many are equal."""
    scores = np.random.default_rng(0).random((len(labels), number)).round(decimals)
    scores[np.arange(len(labels)), labels] += 0.3
    return scores


def recall_intervals(labels, predicted, patients, **arguments):
    resampling = bootstrap.PatientBootstrap(labels, patients, **arguments)
    probabilities = np.eye(labels.max() + 1)[predicted]
    sampled = resampling.sample(bootstrap.ModelStatistics(resampling, labels, predicted, probabilities))
    return resampling, bootstrap.interval(sampled["balanced_accuracy"], 2)


@pytest.mark.parametrize("number", [2, 4])
def test_weighted_statistics_are_scikit_learns_on_the_repeated_images(number):
    random = np.random.default_rng(1)
    labels = random.integers(0, number, 120)
    patients = [str(i) for i in random.integers(0, 30, 120)]
    probabilities = make_scores(labels, number)
    predicted = probabilities.argmax(axis=1)
    resampling = bootstrap.PatientBootstrap(labels, patients)
    weights = random.integers(0, 4, (resampling.num_patients, 5)).astype(np.float32)
    got = bootstrap.ModelStatistics(resampling, labels, predicted, probabilities)(weights)
    for column in range(5):
        rows = np.repeat(np.arange(120), weights[resampling.patient, column].astype(int))
        true, scores = labels[rows], probabilities[rows]
        recall = sklearn_metrics.recall_score(true, predicted[rows], average=None)
        np.testing.assert_allclose(got["recall"][column], recall, rtol=1e-6)
        assert got["balanced_accuracy"][column] == pytest.approx(recall.mean())
        f1 = sklearn_metrics.f1_score(true, predicted[rows], average=None)
        np.testing.assert_allclose(got["f1"][column], f1, rtol=1e-6)
        for k in range(number):
            auc = sklearn_metrics.roc_auc_score(true == k, scores[:, k])
            assert got["roc_auc"][column, k] == pytest.approx(auc, abs=1e-6)
            precision = sklearn_metrics.average_precision_score(true == k, scores[:, k])
            assert got["average_precision"][column, k] == pytest.approx(precision, abs=1e-6)


def test_patients_are_resampled_not_images():
    # 20 patients of 50 identical images: the interval has the width of 20 draws, not of 1,000.
    random = np.random.default_rng(0)
    correct = np.repeat(np.tile([1, 1, 1, 0], 5), 50)
    labels = np.repeat(np.arange(20) >= 10, 50).astype(int)
    predicted = np.where(correct == 1, labels, 1 - labels)
    patients = [str(i // 50) for i in range(1000)]
    _, by_patient = recall_intervals(labels, predicted, patients, seed=1)
    _, by_image = recall_intervals(labels, predicted, [""] * 1000, seed=1)
    assert 0.25 < by_patient[1] - by_patient[0] < 0.5
    assert by_image[1] - by_image[0] < 0.08
    # Against a plain loop over the same definition.
    values = []
    while len(values) < 2000:
        rows = (random.integers(0, 20, 20)[:, None] * 50 + np.arange(50)).ravel()
        if len(set(labels[rows])) == 2:
            values.append(np.mean([correct[rows][labels[rows] == k].mean() for k in (0, 1)]))
    np.testing.assert_allclose(by_patient, np.percentile(values, [2.5, 97.5]), atol=0.03)


def test_draws_are_seeded_and_those_without_a_class_are_redrawn_and_counted():
    labels = np.array([0] * 9 + [1])
    first, ends = recall_intervals(labels, labels, [""] * 10, seed=3)
    again, _ = recall_intervals(labels, labels, [""] * 10, seed=3)
    other, _ = recall_intervals(labels, labels, [""] * 10, seed=4)
    assert first.redrawn == again.redrawn != other.redrawn
    # A resample misses the one image of class 1 with probability 0.9^10 = 0.35: 2,000 kept need about 1,070 more.
    assert 850 < first.redrawn < 1300
    assert ends == [1, 1]


def test_too_few_patients_have_no_interval():
    labels = np.array([0, 0, 1, 1])
    one = bootstrap.PatientBootstrap(labels, ["p"] * 4)
    assert one.sample(lambda weights: {"n": weights.sum(axis=0)}) is None
    # 14 classes of one patient each are all drawn once in 14!/14^14, 8 in a million: given up, not endless.
    many = bootstrap.PatientBootstrap(np.arange(14), [""] * 14, resamples=50)
    assert many.sample(lambda weights: {"n": weights.sum(axis=0)}) is None
    assert many.redrawn > 5000
    assert bootstrap.interval(np.arange(100.0), holders=1) is None
    assert bootstrap.interval(np.array([np.nan, np.nan, 1.0]), holders=5) is None
    assert bootstrap.interval(np.array([np.nan, *np.arange(101.0)]), holders=5) == [2.5, 97.5]


def test_counts_by_hand():
    resampling = bootstrap.PatientBootstrap(np.array([0, 0, 1, 1]), ["b", "a", "b", ""])
    assert resampling.num_patients == 3
    # The image without a patient comes first, then a, then b; a negative cell counts nowhere.
    np.testing.assert_array_equal(resampling.count(np.array([0, 1, 1, -1]), 2), [[0, 0], [0, 1], [1, 1]])
    np.testing.assert_array_equal(resampling.holders(np.array([0, 1, 1, -1]), 2), [1, 2])


def test_p_value_by_hand():
    # 4 of 99 resamples at or below zero: 2 (4 + 1) / (99 + 1).
    assert bootstrap.p_value(np.array([-1.0] * 3 + [0.0] + [1.0] * 95)) == pytest.approx(0.1)
    assert bootstrap.p_value(np.ones(1999)) == pytest.approx(0.001)
    assert bootstrap.p_value(np.zeros(100)) == 1.0
    # One of 19 below zero: 2 * (1 + 1) / (19 + 1), whatever resamples lack a class.
    assert bootstrap.p_value(np.array([np.nan] * 20 + [-1.0] + [1.0] * 18)) == pytest.approx(0.2)
    assert bootstrap.p_value(np.full(5, np.nan)) == 1.0


def test_ten_thousand_images_take_less_than_five_seconds():
    labels = np.random.default_rng(0).integers(0, 4, 10_000)
    probabilities = make_scores(labels, 4, decimals=6)
    start = time.process_time()
    resampling = bootstrap.PatientBootstrap(labels, [f"p{i}" for i in range(10_000)])
    statistics = bootstrap.ModelStatistics(resampling, labels, probabilities.argmax(axis=1), probabilities)
    sampled = resampling.sample(statistics)
    assert time.process_time() - start < 5
    assert sampled["roc_auc"].shape == (2000, 4)
    auc = sklearn_metrics.roc_auc_score(labels == 2, probabilities[:, 2])
    low, high = bootstrap.interval(sampled["roc_auc"][:, 2], 2)
    assert low < auc < high < low + 0.03
