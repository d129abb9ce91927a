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


def test_f1_by_hand():
    # Class 0: 3 right, 1 missed, 1 too many: 6/8; class 1: 1, 1, 1: 2/4; class 3 has no image but a prediction.
    table = np.array([[3, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]])
    np.testing.assert_allclose(metrics.f1_of_tables(table), [0.75, 0.5, 2 / 3, np.nan])
    np.testing.assert_allclose(metrics.f1_of_tables(np.stack([table, table]))[1], [0.75, 0.5, 2 / 3, np.nan])


def test_a_class_without_an_image_has_no_number():
    assert np.isnan(metrics.recalls(LABELS, PREDICTED, 4)[3])
    assert np.isnan(metrics.balanced_accuracy(LABELS, PREDICTED, 4))


def test_roc_auc_and_average_precision_of_a_hand_made_ranking():
    labels = np.array([0, 0, 1, 1])
    positive = np.array([0.1, 0.4, 0.35, 0.8])
    probabilities = np.stack([1 - positive, positive], axis=1)
    np.testing.assert_allclose(metrics.roc_auc(labels, probabilities), [0.75, 0.75])
    # Class 1: ranks 1 and 3, precisions 1 and 2/3; class 0: ranks 1 and 3 as well.
    np.testing.assert_allclose(metrics.average_precision(labels, probabilities), [5 / 6, 5 / 6])
    for metric in (metrics.roc_auc, metrics.average_precision):
        assert np.isnan(metric(np.zeros(4, int), np.ones([4, 2]))).all()


def test_calibration_by_hand():
    # Two bins: confidence 0.95 right once in two (gap 0.45), confidence 0.65 right always (gap 0.35).
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.35, 0.65]])
    labels = np.array([0, 1, 0, 1])
    result = metrics.reliability(labels, probabilities)
    assert result.expected_calibration_error == pytest.approx((2 * 0.45 + 2 * 0.35) / 4)
    np.testing.assert_array_equal(np.flatnonzero(result.counts), [9, 14])
    np.testing.assert_array_equal(result.counts[[9, 14]], [2, 2])
    np.testing.assert_allclose(result.accuracy[[9, 14]], [1.0, 0.5])
    np.testing.assert_allclose(result.confidence[[9, 14]], [0.65, 0.95])
    np.testing.assert_allclose(result.edges[[9, 10, 15]], [0.6, 2 / 3, 1])
    assert np.isnan(result.accuracy[0])
    assert metrics.reliability(labels, np.full([4, 2], 0.5), bins=2).counts.tolist() == [0, 4]
