"""Criteria against numbers written out, and what each would have chosen."""

import numpy as np
import pytest

from tfcxr.classifiers import inference
from tfcxr.classifiers.adaptation import selection


def outputs(labels, logits):
    return inference.Outputs(np.array(labels), np.zeros([len(labels), 2], np.float32), np.array(logits, np.float32))


def test_density_by_hand():
    # Cosine similarities 0 and 1: neighbours of the first two are each other (weight 1 to exp(-20) for the third).
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    far = np.exp(-20) / (1 + np.exp(-20))
    of_pair = -far * np.log(far) - (1 - far) * np.log(1 - far)
    expected = (2 * of_pair + np.log(2)) / 3
    assert selection.soft_neighbourhood_density(probabilities) == pytest.approx(expected, rel=1e-9)


def test_density_of_many_rows_is_that_of_all_pairs(monkeypatch):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 50)
    unit = probabilities / np.sqrt((probabilities**2).sum(1, keepdims=True))
    total = 0.0
    for i in range(50):
        weights = np.exp([unit[i] @ unit[j] / 0.05 for j in range(50) if j != i])
        weights /= weights.sum()
        total -= (weights * np.log(weights)).sum()
    assert selection.soft_neighbourhood_density(probabilities) == pytest.approx(total / 50)
    monkeypatch.setattr(selection, "_ROWS_AT_ONCE", 7)
    assert selection.soft_neighbourhood_density(probabilities) == pytest.approx(total / 50)


def test_a_single_image_has_no_density():
    row = selection.criteria(outputs([0, 1], [[1, 0], [0, 1]]), outputs([0], [[1, 0]]), np.full(2, 0.5))
    assert row["select/density"] is None


def test_criteria_are_higher_where_better():
    source = outputs([0, 0, 1, 1], [[1, 0], [1, 0], [1, 0], [0, 1]])
    target = outputs([0, 1], [[0, 0], [0, 0]])
    row = selection.criteria(source, target, np.array([0.25, 0.75]))
    assert row["select/source"] == 0.75
    assert row["select/target"] == 0.5
    assert row["select/entropy"] == pytest.approx(-np.log(2))
    assert row["select/density"] == pytest.approx(0)  # one neighbour: certain
    assert row["select/infomax"] == pytest.approx(0)
    assert row["select/bnm"] == pytest.approx(0.5)  # singular values 1 and 0, of at most 2
    imbalance = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)
    assert row["select/balance"] == pytest.approx(-np.log(2) - imbalance)


def test_information_norm_and_balance_by_hand():
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert selection.mutual_information(certain) == pytest.approx(np.log(2))
    assert selection.nuclear_norm(certain) == pytest.approx(1)
    assert selection.entropy_and_imbalance(certain, np.full(2, 0.5)) == pytest.approx(0)
    doubtful = np.array([[0.9, 0.1], [0.3, 0.7]])
    entropies = [-sum(p * np.log(p) for p in row) for row in doubtful]
    overall = -0.6 * np.log(0.6) - 0.4 * np.log(0.4)
    assert selection.mutual_information(doubtful) == pytest.approx(overall - np.mean(entropies))
    # The squared sum of the singular values of a 2 x 2 matrix is its squared norm plus twice its determinant.
    assert selection.nuclear_norm(doubtful) == pytest.approx(np.sqrt(0.81 + 0.01 + 0.09 + 0.49 + 2 * 0.6) / 2)


def test_a_collapsed_classifier_is_the_worst_for_the_criteria_that_see_it():
    """Certain predictions of one class, against good, mediocre and doubtful ones; entropy and density like it best."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 200, p=[0.2, 0.3, 0.5])

    def predicted(wrong, sharpness):
        said = np.where(rng.random(200) < wrong, rng.integers(0, 3, 200), labels)
        return outputs(labels, sharpness * np.eye(3)[said] + rng.normal(0, 0.3, (200, 3)))

    candidates = {
        "good": predicted(0.05, 5),
        "mediocre": predicted(0.4, 3),
        "doubtful": predicted(0.2, 1.5),
        "collapsed": outputs(labels, np.array([0.0, 0.0, 9.0]) + rng.normal(0, 0.3, (200, 3))),
    }
    rows = {name: selection.criteria(o, o, np.array([0.2, 0.3, 0.5])) for name, o in candidates.items()}
    for criterion in ("infomax", "bnm", "balance"):
        ranked = sorted(rows, key=lambda name: rows[name][f"select/{criterion}"])
        assert ranked[0] == "collapsed", (criterion, rows)
        assert ranked[-1] == "good", (criterion, rows)
    for criterion in ("entropy", "density"):
        assert max(rows, key=lambda name: rows[name][f"select/{criterion}"]) == "collapsed"


def test_each_criterion_reports_the_others_beside_it():
    def row(step, source, entropy, density, target):
        names = ("source", "entropy", "density", "infomax", "bnm", "balance", "target")
        values = (source, -entropy, density, step, 1 - step, -abs(step - 3), target)
        return {"step": step, **{f"select/{name}": value for name, value in zip(names, values, strict=True)}}

    history = [row(1, 0.9, 0.5, 1.0, 0.4), row(2, 0.8, 0.1, 1.1, 0.5), row(3, 0.7, 0.6, 1.0, 0.6), row(4, 0, 1, 2, 0)]
    best = selection.best_by_criterion(history)
    assert {name: chosen["step"] for name, chosen in best.items()} == {
        "source": 1, "entropy": 2, "density": 4, "infomax": 4, "bnm": 1, "balance": 3, "target": 3,
    }  # fmt: skip
    assert best["entropy"] == {
        "step": 2, "source": 0.8, "entropy": 0.1, "density": 1.1, "infomax": 2, "bnm": -1, "balance": 1, "target": 0.5,
    }  # fmt: skip


def test_runs_that_began_without_a_criterion_choose_by_the_others():
    row = {"step": 1, **{f"select/{name}": 0.5 for name in ("source", "entropy", "density", "target")}}
    best = selection.best_by_criterion([row])
    assert best["infomax"] is None
    assert best["density"]["balance"] is None
