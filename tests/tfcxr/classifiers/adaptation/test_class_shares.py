"""Class shares of unlabelled images: estimates against numbers worked out by hand, and on drawn label shift."""

import json

import numpy as np
import pytest
from sklearn import datasets, linear_model

from tfcxr.classifiers.adaptation import class_shares
from tfrecords_builder.errors import InputError


def test_confusion_by_hand():
    # 3 of 4 images of class 0 are predicted right, 1 of 2 of class 1. Of the target 60% are predicted as class 0:
    # q 3/4 + (1 - q) 1/2 = 0.6, so q = 0.4.
    labels, predictions = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 0, 1])
    target = np.array([0, 0, 0, 1, 1])
    shares = class_shares.estimate_by_confusion(labels, predictions, target, 2)
    np.testing.assert_allclose(shares, [0.4, 0.6], rtol=1e-12)


def test_confusion_gives_no_negative_share():
    # q 3/4 + (1 - q) 1/2 = 1 has the solution q = 2.
    labels, predictions = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 0, 1])
    np.testing.assert_allclose(class_shares.estimate_by_confusion(labels, predictions, np.zeros(5, int), 2), [1.0, 0.0])


def test_a_class_without_labelled_images_keeps_its_predicted_share():
    shares = class_shares.estimate_by_confusion(np.array([0, 1]), np.array([0, 1]), np.array([0, 1, 2, 2]), 3)
    np.testing.assert_allclose(shares, [0.25, 0.25, 0.5])


def test_correct_by_hand():
    # Odds 1 : 1 trained at shares 1 : 3, now 3 : 1, become (3/4) / (1/4) : (1/4) / (3/4) = 9 : 1.
    corrected = class_shares.correct(np.array([[0.5, 0.5]]), np.array([0.25, 0.75]), np.array([0.75, 0.25]))
    np.testing.assert_allclose(corrected, [[0.9, 0.1]])
    # A certain prediction for a class that is not there says nothing.
    impossible = class_shares.correct(np.array([[1.0, 0.0]]), np.array([0.5, 0.5]), np.array([0.0, 1.0]))
    np.testing.assert_allclose(impossible, [[0.0, 1.0]])


def test_likelihood_by_hand():
    # Likelihood ratios of 3 : 1 (twice) and 1 : 3 (once): d/dq [2 log(3 q + (1 - q)) + log(q + 3 (1 - q))]
    # = 4 / (1 + 2 q) - 2 / (3 - 2 q) = 0 at q = 10 / 12.
    shares = class_shares.estimate_by_likelihood(np.array([[0.75, 0.25], [0.75, 0.25], [0.25, 0.75]]), np.full(2, 0.5))
    np.testing.assert_allclose(shares, [5 / 6, 1 / 6], atol=1e-4)


def test_both_find_the_shares_of_drawn_classes():
    """Three normal classes a standard deviation and a half apart; the classifier is Bayes' for equal shares."""
    rng = np.random.default_rng(0)
    truth = np.array([0.6, 0.1, 0.3])

    def draw(shares, number):
        labels = rng.choice(3, number, p=shares)
        values = labels * 1.5 + rng.normal(size=number)
        densities = np.exp(-0.5 * (values[:, None] - np.arange(3) * 1.5) ** 2)
        return labels, densities / densities.sum(axis=1, keepdims=True)

    even = np.full(3, 1 / 3)
    labels, probabilities = draw(even, 4000)
    _, target = draw(truth, 4000)
    found = class_shares.estimate_by_confusion(labels, probabilities.argmax(1), target.argmax(1), 3)
    np.testing.assert_allclose(found, truth, atol=0.04)
    np.testing.assert_allclose(class_shares.estimate_by_likelihood(target, even), truth, atol=0.04)
    assert np.abs(np.bincount(target.argmax(1), minlength=3) / 4000 - truth).max() > 0.07  # what is predicted is not


def test_both_find_the_shares_of_digits():
    """Ten classes of real images, a classifier of the other half of them, and a target of quite other shares."""
    digits = datasets.load_digits()
    images, labels = digits.images.reshape(-1, 64) / 16, digits.target
    classifier = linear_model.LogisticRegression(max_iter=500).fit(images[:600], labels[:600])
    truth = np.array([0.3, 0.02, 0.2, 0.02, 0.1, 0.02, 0.1, 0.02, 0.2, 0.02])
    target = np.arange(1000, 1797)
    of_class = [target[labels[target] == k][: round(250 * share)] for k, share in enumerate(truth)]
    target = np.concatenate(of_class)
    known = slice(600, 1000)
    found = class_shares.estimate_by_confusion(
        labels[known], classifier.predict(images[known]), classifier.predict(images[target]), 10
    )
    trained = np.bincount(labels[:600]) / 600
    likelihood = class_shares.estimate_by_likelihood(classifier.predict_proba(images[target]), trained)
    assert np.abs(truth - trained).sum() / 2 > 0.4  # total variation
    assert np.abs(found - truth).sum() / 2 < 0.06
    assert np.abs(likelihood - truth).sum() / 2 < 0.06


def test_counts_keep_every_class():
    # 0.02, 0.27 and 0.73 are together 1.02.
    np.testing.assert_array_equal(class_shares.to_counts(np.array([0.0, 0.27, 0.73])), [20, 265, 716])


@pytest.mark.parametrize("text, message", [
    ("{", "is not valid JSON"),
    ('{"a": 1}', "must name each class once: a, b"),
    ('{"a": 1, "b": -1}', "from 0 on, not all 0; they are [1, -1]"),
    ('{"a": 0, "b": 0}', "not all 0"),
    ('{"a": true, "b": 1}', "must be numbers"),
])  # fmt: skip
def test_files_that_are_refused(tmp_path, text, message):
    path = tmp_path / "shares.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"shares\.json") as error:
        class_shares.read(str(path), ["a", "b"], "--target_prior")
    assert message in str(error.value)


def test_a_file_is_read_in_the_order_of_the_classes(tmp_path):
    path = tmp_path / "shares.json"
    path.write_text(json.dumps({"b": 3, "a": 1}))
    shares = class_shares.read(str(path), ["a", "b"], "--target_prior")
    np.testing.assert_allclose(shares, [0.25, 0.75])
    assert class_shares.describe(shares, ["a", "b"]) == {"a": 0.25, "b": 0.75}
    with pytest.raises(InputError, match="there is no such file"):
        class_shares.read(str(tmp_path / "none.json"), ["a", "b"], "--target_prior")
