"""Heads as logistic regressions: their probabilities are scikit-learn's; the penalty is chosen between patients."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression

from tfcxr.classifiers.training import linear_head

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(120, 5)).astype(np.float32)
PATIENTS = np.repeat(np.arange(40), 3)


@pytest.mark.parametrize(("num_classes", "balanced"), [(2, False), (2, True), (3, True)])
def test_probabilities_are_those_of_scikit_learn(num_classes, balanced):
    classes = np.minimum(
        (FEATURES[:, 0] + RNG.normal(size=120) > 0.5).astype(int) + (FEATURES[:, 1] > 1), num_classes - 1
    )
    kernel, bias, strength = linear_head.fit_classes(
        FEATURES, classes, PATIENTS, num_classes=num_classes, balanced=balanced
    )
    assert strength in linear_head.STRENGTHS
    model = LogisticRegression(C=strength, class_weight="balanced" if balanced else None, max_iter=2000)
    expected = model.fit(FEATURES, classes).predict_proba(FEATURES)
    np.testing.assert_allclose(softmax(FEATURES @ kernel + bias, axis=1), expected, atol=1e-5)


def test_each_label_has_a_regression_of_its_own():
    labels = FEATURES[:, :2] + RNG.normal(size=(120, 2)) > 0.3
    kernel, bias, strengths = linear_head.fit_labels(FEATURES, labels, PATIENTS, balanced=False)
    assert kernel.shape == (5, 2)
    for k, strength in enumerate(strengths):
        model = LogisticRegression(C=strength, max_iter=2000).fit(FEATURES, labels[:, k])
        np.testing.assert_allclose(
            expit(FEATURES @ kernel + bias)[:, k], model.predict_proba(FEATURES)[:, 1], atol=1e-5
        )


def test_a_class_of_one_patient_leaves_the_default():
    classes = (PATIENTS == 7).astype(int)
    assert linear_head.fit_classes(FEATURES, classes, PATIENTS, num_classes=2, balanced=True)[2] == 1e-3


def test_a_given_strength_is_not_chosen():
    labels = FEATURES[:, :2] > 0.3
    _, _, strength = linear_head.fit_classes(
        FEATURES, labels[:, 0].astype(int), PATIENTS, num_classes=2, balanced=False, strength=0.5
    )
    kernel, bias, strengths = linear_head.fit_labels(FEATURES, labels, PATIENTS, balanced=True, strength=0.5)
    assert (strength, strengths) == (0.5, [0.5, 0.5])
    model = LogisticRegression(C=0.5, class_weight="balanced", max_iter=2000).fit(FEATURES, labels[:, 1])
    np.testing.assert_allclose(expit(FEATURES @ kernel + bias)[:, 1], model.predict_proba(FEATURES)[:, 1], atol=1e-5)
