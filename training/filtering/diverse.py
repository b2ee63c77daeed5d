"""Which images to take, so that they differ and have the attributes that real ones have (ours)."""

from collections.abc import Mapping

import numpy as np

from ..data.rows import NO_LABEL
from .neighbours import Found, Neighbours

NEIGHBOURS = 10


def without_duplicates(points: np.ndarray, quality: np.ndarray, radius: float, seed: int = 0) -> np.ndarray:
    """Which of (N, d) points stay, (N,) bool, so that no two that do are within the radius: the best go first.

    Each is compared with its nearest ten. Where all of these are within the radius there may be more: such images, of
    those that stay, are compared with one another again.
    """
    chosen = np.zeros(len(points), bool)
    left = np.argsort(-quality, kind="stable")
    while len(left):
        count = min(NEIGHBOURS + 1, len(left))
        found = Neighbours(points[left], seed).search(points[left], count)
        stays = _best_of_near(found, radius)
        crowded = (found.distances[:, -1] <= radius) & (count == NEIGHBOURS + 1)
        chosen[left[stays & ~crowded]] = True
        left = left[stays & crowded]
    return chosen


def _best_of_near(found: Found, radius: float) -> np.ndarray:
    """Best first, an image stays unless one within the radius, found from either of the two, does already."""
    row, column = np.nonzero((found.distances <= radius) & (found.positions >= 0))
    other = found.positions[row, column]
    worse, better = np.maximum(row, other), np.minimum(row, other)
    order = np.lexsort((better, worse))
    worse, better = worse[order][worse[order] != better[order]], better[order][worse[order] != better[order]]
    stays = np.ones(len(found.positions), bool)
    for start, stop in _runs(worse):
        stays[worse[start]] = not stays[better[start:stop]].any()
    return stays


def _runs(values: np.ndarray) -> zip:
    """Start and end of each run of equal values, in order."""
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    return zip(starts, [*starts[1:], len(values)], strict=False)  # of no values there is no run


def apportion(seats: int, shares: np.ndarray) -> np.ndarray:
    """Whole numbers (A,) that sum to `seats` and follow (A,) shares, by largest remainder; the first of equals wins.

    Raises:
        ValueError: shares that are negative or sum to nothing.
    """
    if (shares < 0).any() or shares.sum() <= 0:
        raise ValueError("Expected shares that sum to more than 0, none of them negative.")
    exact = seats * shares / shares.sum()
    whole = np.floor(exact).astype(int)
    left = seats - whole.sum()
    whole[np.argsort(whole - exact, kind="stable")[:left]] += 1
    return whole


def choose(
    cells: np.ndarray,
    quality: np.ndarray,
    attributes: Mapping[str, np.ndarray],
    quotas: Mapping[str, np.ndarray],
    keep: int,
) -> np.ndarray:
    """Which of N images to take, (N,) bool: the best of each cell, then the second best, ..., within the quotas.

    Args:
        cells: (N,) of a clustering.
        quality: (N,); the higher the better.
        attributes: by kind ("scene", "object"), what each image shows, (N,), NO_LABEL for nothing, which has no quota.
        quotas: by kind, the most images of each attribute.
        keep: the most images in all.
    """
    left = {kind: quota.copy() for kind, quota in quotas.items()}
    chosen = np.zeros(len(cells), bool)
    count = 0
    for index in _in_turns(cells, quality):
        shown = [(kind, attributes[kind][index]) for kind in quotas if attributes[kind][index] != NO_LABEL]
        if count < keep and all(left[kind][value] > 0 for kind, value in shown):
            chosen[index] = True
            count += 1
            for kind, value in shown:
                left[kind][value] -= 1
    return chosen


def _in_turns(cells: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Positions: the best of each cell, by quality, then the second best of each, and so on."""
    order = np.lexsort((-quality, cells))
    starts = np.flatnonzero(np.diff(cells[order], prepend=-1))
    rank = np.empty(len(cells), int)
    rank[order] = np.arange(len(cells)) - np.repeat(starts, np.diff(np.append(starts, len(cells))))
    return np.lexsort((-quality, rank))
