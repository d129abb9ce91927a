"""The recogniser of patients learns, and its test tells one that knows patients from one that does not."""

import numpy as np
import pytest

from tfcxr.privacy import reidentification


def draw(patients, seed):
    """Two noisy views of a pattern for each patient."""
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(patients, 1, 4, 4, 1)).repeat(4, axis=2).repeat(4, axis=3)
    images = patterns + 0.7 * rng.normal(size=(patients, 2, 16, 16, 1))
    return np.clip(images / 3, -1, 1).reshape(-1, 16, 16, 1).astype(np.float32), np.arange(2 * patients) // 2


def test_recognises_patients_that_it_has_not_seen():
    recogniser = reidentification.Recogniser(16, seed=0)
    recogniser.train(*draw(100, 0), steps=40)
    images, patients = draw(80, 1)
    embeddings = recogniser(images)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=1e-5)
    found = reidentification.measure(embeddings, patients)
    assert found.auc > 0.9
    assert found.recognises
    assert found.num_patients == found.num_pairs == 80


def test_chance_is_told():
    embeddings = np.random.default_rng(0).normal(size=(200, 8))
    found = reidentification.measure(embeddings, np.arange(200) // 2)
    assert found.interval[0] < 0.5 < found.interval[1]
    assert not found.recognises
    alone = reidentification.measure(embeddings, np.arange(200))
    assert alone.auc is None
    assert not alone.recognises
