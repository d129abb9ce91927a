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
    row = selection.criteria(outputs([0, 1], [[1, 0], [0, 1]]), outputs([0], [[1, 0]]))
    assert row["select/density"] is None


def test_criteria_are_higher_where_better():
    source = outputs([0, 0, 1, 1], [[1, 0], [1, 0], [1, 0], [0, 1]])
    target = outputs([0, 1], [[0, 0], [0, 0]])
    row = selection.criteria(source, target)
    assert row["select/source"] == 0.75
    assert row["select/target"] == 0.5
    assert row["select/entropy"] == pytest.approx(-np.log(2))
    assert row["select/density"] == pytest.approx(0)  # one neighbour: certain


def test_each_criterion_reports_the_others_beside_it():
    def row(step, source, entropy, density, target):
        names = ("source", "entropy", "density", "target")
        values = (source, -entropy, density, target)
        return {"step": step, **{f"select/{name}": value for name, value in zip(names, values, strict=True)}}

    history = [row(1, 0.9, 0.5, 1.0, 0.4), row(2, 0.8, 0.1, 1.1, 0.5), row(3, 0.7, 0.6, 1.0, 0.6), row(4, 0, 1, 2, 0)]
    best = selection.best_by_criterion(history)
    assert {name: chosen["step"] for name, chosen in best.items()} == {
        "source": 1, "entropy": 2, "density": 4, "target": 3,
    }  # fmt: skip
    assert best["entropy"] == {"step": 2, "source": 0.8, "entropy": 0.1, "density": 1.1, "target": 0.5}
