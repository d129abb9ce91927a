"""Nearest neighbours, exact, in bounded memory: of some vectors among others that come in blocks.

The search is scikit-learn's brute force, which never holds all distances. Its distances come from a matrix product and
are off by rounding where two vectors are nearly equal, so those that are kept are computed again from differences.
"""

import numpy as np
from sklearn import metrics, neighbors

_BLOCK_ROWS = 8192
_EXACT_BYTES = 64 * 2**20


class Nearest:
    """The nearest of all vectors added so far to each query.

    Attributes:
        distances: Euclidean, float32 [N, k], rising along each row; infinite where fewer than k vectors were added.
        indices: which vectors they are, by the order in which they were added, int64 [N, k]; -1 where there is none.
    """

    def __init__(self, queries: np.ndarray, count: int):
        """No neighbour yet.

        Args:
            queries: float [N, D], finite.
            count: k, at least 1.
        """
        if count < 1:
            raise ValueError(f"count={count}: must be at least 1")
        self._queries = np.asarray(queries, np.float32)
        self._added = 0
        self.distances = np.full([len(queries), count], np.inf, np.float32)
        self.indices = np.full([len(queries), count], -1, np.int64)

    def add(self, references: np.ndarray) -> None:
        """Takes more vectors, float [M, D]. Memory: a few blocks of 64 MiB, and N times k numbers."""
        count = self.distances.shape[1]
        references = np.asarray(references, np.float32)
        for start in range(0, len(references), _BLOCK_ROWS):
            block = references[start : start + _BLOCK_ROWS]
            search = neighbors.NearestNeighbors(algorithm="brute").fit(block)
            found = search.kneighbors(self._queries, min(count, len(block)), return_distance=False)
            distances = np.concatenate([self.distances, _distances(self._queries, block, found)], axis=1)
            indices = np.concatenate([self.indices, found + self._added], axis=1)
            # Stable: of equally near ones the first stays.
            order = np.argsort(distances, axis=1, kind="stable")[:, :count]
            self.distances = np.take_along_axis(distances, order, axis=1)
            self.indices = np.take_along_axis(indices, order, axis=1)
            self._added += len(block)


def find_nearest(queries: np.ndarray, references: np.ndarray, count: int = 1) -> Nearest:
    """The `count` nearest of `references` [M, D] to each of `queries` [N, D]."""
    nearest = Nearest(queries, count)
    nearest.add(references)
    return nearest


def find_nearest_of_others(vectors: np.ndarray, groups: np.ndarray, count: int) -> Nearest:
    """The nearest vectors of other groups to each vector, such as images of other patients.

    Args:
        vectors: float [N, D].
        groups: int [N].
        count: how many; fewer are found where those of one's own group crowd them out of the search.
    """
    largest = int(np.bincount(groups).max())
    found = find_nearest(vectors, vectors, min(len(vectors), count + min(largest, count)))
    foreign = (found.indices >= 0) & (groups[found.indices] != groups[:, None])
    order = np.argsort(~foreign, axis=1, kind="stable")[:, :count]
    kept = np.take_along_axis(foreign, order, axis=1)
    found.distances = np.where(kept, np.take_along_axis(found.distances, order, axis=1), np.inf)
    found.indices = np.where(kept, np.take_along_axis(found.indices, order, axis=1), -1)
    return found


def pairwise(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """All distances of few vectors: of [N, D] to [M, D], float32 [N, M], right to the digits of a matrix product."""
    if not len(second):
        return np.zeros([len(first), 0], np.float32)
    return metrics.pairwise_distances(first, second).astype(np.float32)


def _distances(queries: np.ndarray, references: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Euclidean distances of each query to the references at `indices` [N, k], from differences: float32 [N, k]."""
    distances = np.empty(indices.shape, np.float32)
    rows = max(1, _EXACT_BYTES // (4 * queries.shape[1] * indices.shape[1]))
    for start in range(0, len(queries), rows):
        part = slice(start, start + rows)
        difference = references[indices[part]]
        difference -= queries[part, None]
        distances[part] = np.sqrt(np.einsum("nkd,nkd->nk", difference, difference))
    return distances
