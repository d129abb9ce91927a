"""Temperatures: found again where they are known, the least likelihood by a plain search, kept in a file."""

import numpy as np
import pytest
from scipy import special

from tfcxr.classifiers import calibration
from tfrecords_builder.errors import InputError


def draw_labels(temperatures, *, images=40_000):
    """Labels whose probabilities are sigmoid(logits / temperature), and the logits."""
    random = np.random.default_rng(0)
    logits = random.normal(-1, 3, (images, len(temperatures)))
    return random.random(logits.shape) < special.expit(logits / temperatures), logits


def test_the_temperature_of_each_label_is_found_again():
    labels, logits = draw_labels(np.array([0.5, 2.0, 4.0]))
    np.testing.assert_allclose(calibration.fit(labels, logits, per_label=True), [0.5, 2, 4], rtol=0.05)
    shared = calibration.fit(labels, logits)
    assert shared.shape == (1,)
    tried = np.geomspace(0.2, 8, 200)
    best = min(tried, key=lambda value: calibration.negative_log_likelihood(labels, logits / value))
    assert shared[0] == pytest.approx(best, rel=0.02)


def test_the_temperature_of_classes_is_found_again():
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (40_000, 3))
    probabilities = special.softmax(logits / 1.7, axis=1)
    classes = (random.random((len(logits), 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    np.testing.assert_allclose(calibration.fit(classes, logits), [1.7], rtol=0.03)
    with pytest.raises(ValueError, match="one temperature"):
        calibration.fit(classes, logits, per_label=True)


def test_likelihood_by_hand():
    half = calibration.negative_log_likelihood(np.array([[True, False]]), np.log([[3.0, 3.0]]))
    assert half == pytest.approx(-(np.log(0.75) + np.log(0.25)) / 2)
    classes = calibration.negative_log_likelihood(np.array([1]), np.log([[0.2, 0.3, 0.5]]))
    assert classes == pytest.approx(-np.log(0.3))


def test_a_label_with_one_value_stays_and_separable_ones_end_at_the_bound():
    labels = np.array([[False, False], [False, True]])
    found = calibration.fit(labels, np.array([[2.0, -1.0], [1.0, 1.0]]), per_label=True)
    assert found[0] == 1
    assert found[1] == pytest.approx(0.1, rel=1e-3)


def test_the_file_is_read_again_and_damage_is_named(tmp_path):
    assert calibration.read(tmp_path) is None
    kept = calibration.Calibration([1.5, 2.0], {"Edema": {"F1": None}}, {"split": "validation", "num_images": 3})
    kept.write(tmp_path)
    assert calibration.read(tmp_path) == kept
    for text, words in (
        ('{"temperatures": []}', "was not written by this version"),
        ('{"temperatures": [0], "thresholds": {}, "fitted_on": {}}', "temperatures must be above 0"),
    ):
        (tmp_path / calibration.FILE).write_text(text)
        with pytest.raises(InputError, match=words):
            calibration.read(tmp_path)
