"""Membership inference against scikit-learn and plain counts."""

import numpy as np
import pytest
from sklearn import metrics

from tfcxr.privacy import copying, membership


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    patients = np.arange(3000) // 2
    is_train = patients < 500
    scores = np.round(rng.normal(size=3000) + 0.5 * is_train, 2)  # with ties
    return scores, is_train, patients, copying.exchange_roles(is_train, patients, 50, 0)


def test_auc_and_true_positive_rates(world):
    scores, _, _, members = world
    found = membership.attack(np.stack([scores, -scores]), members)
    for p in (0, 9):
        assert found[0, p, 0] == pytest.approx(metrics.roc_auc_score(members[p], scores))
        assert found[1, p, 0] == pytest.approx(1 - metrics.roc_auc_score(members[p], scores))
        for column, allowed in ((1, 20), (2, 2)):
            wrong = np.sort(scores[~members[p]])[::-1]
            low, high = ((scores[members[p]] > wrong[allowed]).mean(), (scores[members[p]] >= wrong[allowed]).mean())
            assert low <= found[0, p, column] <= high
    assert copying.p_values(found[0, :, 0], greater=True) == 1 / 51
    assert copying.p_values(found[1, :, 0], greater=True) == 1


def test_a_score_without_information_and_one_that_tells_all(world):
    _, is_train, _, members = world
    constant, telling = np.zeros(3000), is_train.astype(float)
    found = membership.attack(np.stack([constant, telling]), members)[:, 0]
    assert found[0, 0] == 0.5
    assert found[0, 1] < 0.03  # ties give no positives for free
    assert found[1].tolist() == [1, 1, 1]


def test_intervals_hold_the_value(world):
    scores, is_train, patients, members = world
    value = membership.attack(scores[None], members)[0, 0]
    intervals = membership.intervals(scores, is_train, patients)
    for name, figure in zip(membership.NAMES, value, strict=True):
        low, high = intervals[name]
        assert low <= figure <= high, name
    assert 0.02 < intervals["membership_auc"][1] - intervals["membership_auc"][0] < 0.08
