"""Features of a frozen network: those of evaluation's framing, computed once, the same in whichever order."""

import numpy as np
import pytest
import tensorflow as tf

from tests import fakes
from tfcxr import data
from tfcxr.classifiers import inference
from tfcxr.classifiers.networks import models
from tfcxr.classifiers.training import frozen_features


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """10 + 6 images of 16 px."""
    folder = tmp_path_factory.mktemp("sets")
    return [
        data.RecordSet(fakes.make_records(folder / str(number), resolution=16, per_class=number, seed=number))
        for number in (5, 3)
    ]


@pytest.fixture(scope="module")
def classifier():
    return models.Classifier(models.ModelConfig(("a", "b"), "v1_0s", 16, 16, "resnet_tiny"), seed=2)


ROWS = np.array([0, 15, 3, 0, 9, 10, 15, 3, 0])
FLIPPED = np.array([0, 0, 1, 1, 0, 0, 0, 0, 0], bool)
LABELS = {"class": np.arange(9), "vector": np.arange(18.0).reshape(9, 2)}


def take(features, draws):
    (batch,) = features.batches(np.array([draws]), LABELS).as_numpy_iterator()
    np.testing.assert_array_equal(batch["class"], draws)
    np.testing.assert_array_equal(batch["vector"], LABELS["vector"][draws])
    return batch["features"]


@pytest.mark.parametrize("part", [3, 64])
def test_features_are_those_of_the_centre_flipped_or_not(sets, classifier, monkeypatch, part):
    monkeypatch.setattr(frozen_features, "_PART", part)
    images = np.concatenate(
        [[r["image"] for r in record_set.dataset("train").as_numpy_iterator()] for record_set in sets]
    )
    chosen = images[ROWS]
    chosen[FLIPPED] = chosen[FLIPPED][:, :, ::-1]
    expected = inference.compute_features(classifier, tf.constant(chosen, tf.float32) / 255, path="source").numpy()
    features = frozen_features.FrozenFeatures(classifier, sets, ROWS, FLIPPED)
    # Seven of the nine draws differ in image or side.
    assert [features.compute_part() for _ in range(-(-7 // part))] == [True] * (7 // part) + [False]
    np.testing.assert_allclose(take(features, np.arange(9)), expected, atol=1e-5 * np.abs(expected).max())
    assert np.abs(expected[0] - expected[3]).max() > 1e-3 * np.abs(expected).max()


def test_each_image_is_computed_once_whoever_asks(sets, classifier, monkeypatch):
    monkeypatch.setattr(frozen_features, "_PART", 2)
    features = frozen_features.FrozenFeatures(classifier, sets, ROWS, FLIPPED)
    computed, original = [], features._compute

    def compute(rows, flipped):
        computed.extend(zip(rows, flipped, strict=True))
        return original(rows, flipped)

    features._compute = compute
    while features.compute_part():
        pass
    assert not features.compute_part()
    backwards = take(features, np.arange(9)[::-1])
    np.testing.assert_array_equal(take(features, np.arange(9)), backwards[::-1])
    assert computed == [(0, 0), (0, 1), (3, 0), (3, 1), (9, 0), (10, 0), (15, 0)]
