"""Metrics against numbers worked out by hand."""

import numpy as np
import pytest

from tfcxr import metrics

LABELS = np.array([0, 0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 0, 2])


def test_recalls_and_balanced_accuracy():
    np.testing.assert_allclose(metrics.recalls(LABELS, PREDICTED, 3), [0.75, 0.5, 1.0])
    assert metrics.balanced_accuracy(LABELS, PREDICTED, 3) == pytest.approx(0.75)
    np.testing.assert_array_equal(metrics.confusion_matrix(LABELS, PREDICTED, 3), [[3, 1, 0], [1, 1, 0], [0, 0, 1]])


def test_a_class_without_an_image_has_no_number():
    assert np.isnan(metrics.recalls(LABELS, PREDICTED, 4)[3])
    assert np.isnan(metrics.balanced_accuracy(LABELS, PREDICTED, 4))
    assert metrics.bootstrap(LABELS, PREDICTED, [""] * 7, 4) is None


def test_roc_auc_of_a_hand_made_ranking():
    labels = np.array([0, 0, 1, 1])
    positive = np.array([0.1, 0.4, 0.35, 0.8])
    auc = metrics.roc_auc(labels, np.stack([1 - positive, positive], axis=1))
    np.testing.assert_allclose(auc, [0.75, 0.75])
    assert np.isnan(metrics.roc_auc(np.zeros(4, int), np.ones([4, 2]))).all()


def test_bootstrap_resamples_patients_not_images():
    # 20 patients of 50 identical images: the interval has the width of 20 draws, not of 1,000.
    random = np.random.default_rng(0)
    correct = np.repeat(np.tile([1, 1, 1, 0], 5), 50)
    labels = np.repeat(np.arange(20) >= 10, 50).astype(int)
    predicted = np.where(correct == 1, labels, 1 - labels)
    patients = [str(i // 50) for i in range(1000)]
    by_patient = metrics.bootstrap(labels, predicted, patients, 2, seed=1)
    by_image = metrics.bootstrap(labels, predicted, [""] * 1000, 2, seed=1)
    width = np.diff(by_patient.balanced_accuracy)[0]
    assert 0.25 < width < 0.5
    assert np.diff(by_image.balanced_accuracy)[0] < 0.08
    # Against a plain loop over the same definition.
    values = []
    while len(values) < 2000:
        rows = (random.integers(0, 20, 20)[:, None] * 50 + np.arange(50)).ravel()
        if len(set(labels[rows])) == 2:
            values.append(np.mean([correct[rows][labels[rows] == k].mean() for k in (0, 1)]))
    np.testing.assert_allclose(by_patient.balanced_accuracy, np.percentile(values, [2.5, 97.5]), atol=0.03)


def test_bootstrap_is_seeded_and_counts_redrawn_resamples():
    labels = np.array([0] * 9 + [1])
    first = metrics.bootstrap(labels, labels, [""] * 10, 2, seed=3)
    again = metrics.bootstrap(labels, labels, [""] * 10, 2, seed=3)
    assert first.redrawn == again.redrawn
    # A resample misses the one image of class 1 with probability 0.9^10 = 0.35: 2,000 kept need about 1,070 more.
    assert 850 < first.redrawn < 1300
    assert first.resamples == 2000
    np.testing.assert_array_equal(first.balanced_accuracy, [1, 1])


def test_calibration_error_by_hand():
    # Two bins: confidence 0.95 right once in two (gap 0.45), confidence 0.65 right always (gap 0.35).
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.35, 0.65]])
    labels = np.array([0, 1, 0, 1])
    assert metrics.expected_calibration_error(labels, probabilities) == pytest.approx((2 * 0.45 + 2 * 0.35) / 4)
