"""Nearest neighbours against all distances in float64."""

import numpy as np
import pytest

from tfcxr.privacy import nearest


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    # Far from the origin, where distances of a matrix product lose digits.
    return (100 + rng.normal(size=(40, 6))).astype(np.float32), (100 + rng.normal(size=(90, 6))).astype(np.float32)


def brute(queries, references):
    return np.linalg.norm(queries[:, None].astype(np.float64) - references[None], axis=2)


def test_blocks_find_what_all_distances_say(vectors, monkeypatch):
    monkeypatch.setattr(nearest, "_BLOCK_ROWS", 17)
    queries, references = vectors
    references = np.concatenate([references, queries[3:4]])
    found = nearest.find_nearest(queries, references, 5)
    distances = brute(queries, references)
    order = np.argsort(distances, axis=1, kind="stable")[:, :5]
    assert np.array_equal(found.indices, order)
    assert found.distances == pytest.approx(np.take_along_axis(distances, order, axis=1), rel=1e-5)
    assert found.distances[3, 0] == 0
    assert found.indices[3, 0] == 90


def test_equally_near_ones_keep_their_order_and_few_leave_gaps(vectors, monkeypatch):
    monkeypatch.setattr(nearest, "_BLOCK_ROWS", 2)
    queries, references = vectors
    found = nearest.find_nearest(queries[:2], np.repeat(references[:1], 3, axis=0), 4)
    assert found.indices.tolist() == [[0, 1, 2, -1]] * 2
    assert np.isinf(found.distances[:, 3]).all()
    with pytest.raises(ValueError, match="count=0"):
        nearest.Nearest(queries, 0)


def test_the_nearest_of_other_groups(vectors):
    _, references = vectors
    groups = np.arange(90) // 3
    found = nearest.find_nearest_of_others(references, groups, 4)
    distances = brute(references, references)
    distances[groups[:, None] == groups] = np.inf
    assert np.array_equal(found.indices, np.argsort(distances, axis=1)[:, :4])
