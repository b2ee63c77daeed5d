"""Features made small, and the nearest among them: PCA and inverted lists of faiss (Douze et al. 2024).

Its searches are the same each time, which those of graphs built by several threads (hnswlib, usearch) are not.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import faiss
import numpy as np

MOST_EXACT = 20_000
"""Points up to which every one is looked at. Beyond that, those in the nearest cells of a clustering."""

LISTS_PER_ROOT, PROBES = 4, 8
"""Cells per square root of the number of points, and how many of them a search looks into."""


class Reduction:
    """PCA fitted on real features, so that distances are measured where real images differ.

    Args:
        features: (N, F) of real images.
        width: numbers that are kept; fewer where there are not as many images or features.

    Attributes:
        explained: share of the variance that is kept, 0..1.
    """

    def __init__(self, features: np.ndarray, width: int) -> None:
        count, self.full_width = features.shape
        self.width = min(width, count, self.full_width)
        self._pca = faiss.PCAMatrix(self.full_width, self.width)
        self._pca.train(_rows(features))
        variances = faiss.vector_to_array(self._pca.eigenvalues)
        self.explained = float(variances[: self.width].sum() / max(variances.sum(), np.finfo(np.float32).tiny))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(M, F) features as (M, width) points.

        Raises:
            ValueError: features of another width.
        """
        if features.shape[1] != self.full_width:
            raise ValueError(
                f"Expected features {self.full_width} wide, as the real images', found {features.shape[1]}; take one "
                "extractor for both."
            )
        return self._pca.apply(_rows(features))

    def all(self, parts: Iterable[np.ndarray]) -> np.ndarray:
        """Features part by part as points, so that only a part's are in memory at once."""
        return np.concatenate([self(part) for part in parts])


@dataclass(frozen=True)
class Found:
    """Euclidean distances (M, k), nearest first, and the positions (M, k) of the points.

    Where fewer were found, infinite distances and -1.
    """

    distances: np.ndarray
    positions: np.ndarray


class Neighbours:
    """Nearest among (N, d) points: exactly, or for more than 20,000 nearly so.

    Args:
        points: any number above 0.
        seed: of the clustering.
    """

    def __init__(self, points: np.ndarray, seed: int = 0) -> None:
        if not len(points):
            raise ValueError("Expected points to search among, found none.")
        points = _rows(points)
        self.count, self.width = points.shape
        self._index = faiss.IndexFlatL2(self.width)
        if self.count > MOST_EXACT:
            lists = round(LISTS_PER_ROOT * self.count**0.5)
            self._quantizer = self._index
            self._index = faiss.IndexIVFFlat(self._quantizer, self.width, lists)
            self._index.cp.niter, self._index.cp.seed = 5, seed
            self._index.cp.max_points_per_centroid = 39  # what faiss itself asks for at the least
            self._index.cp.min_points_per_centroid = 1  # with a few less it warns
            self._index.nprobe = PROBES
            self._index.train(points)
        self._index.add(points)

    def search(self, queries: np.ndarray, count: int) -> Found:
        """The nearest `count` of each of (M, d) queries.

        Raises:
            ValueError: fewer points than that, or queries of another width.
        """
        if count > self.count:
            raise ValueError(f"Expected at least {count} images to find as many neighbours, found {self.count}.")
        if queries.shape[1] != self.width:
            raise ValueError(f"Expected points {self.width} wide, found {queries.shape[1]}.")
        squares, positions = self._index.search(_rows(queries), count)
        distances = np.sqrt(np.where(positions < 0, np.inf, np.maximum(squares, 0)))
        return Found(distances, positions)


def nearest_other(points: np.ndarray, seed: int = 0) -> np.ndarray:
    """The distance of each of (N, d) points to the nearest other one, (N,).

    Raises:
        ValueError: fewer than two points.
    """
    found = Neighbours(points, seed).search(points, 2)
    # among equal points the first found need not be the point itself
    own = found.positions[:, 0] == np.arange(len(points))
    return np.where(own, found.distances[:, 1], found.distances[:, 0])


def cells_of(points: np.ndarray, cells: int, seed: int = 0) -> np.ndarray:
    """The k-means cell (N,) of each of (N, d) points; a cell for each where there are as many cells."""
    if cells >= len(points):
        return np.arange(len(points))
    clustering = faiss.Kmeans(points.shape[1], cells, niter=5, seed=seed, min_points_per_centroid=1)
    clustering.train(_rows(points))
    return clustering.assign(_rows(points))[1]


def _rows(points: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(points, dtype=np.float32)
