"""Does an image look like a real one? Clarity of its attributes, and distance to real images (ours)."""

from collections.abc import Mapping

import numpy as np

from .neighbours import Neighbours

LEAST_REAL = 20
"""Real images below which their percentiles say nothing."""


def percentile(values: np.ndarray, share: float, what: str) -> float:
    """A percentile, 0..100, of (N,) values of real images.

    Raises:
        ValueError: fewer than 20 of them.
    """
    if len(values) < LEAST_REAL:
        raise ValueError(f"Expected at least {LEAST_REAL} real images for the {what}, found {len(values)}.")
    return float(np.percentile(values, share))


def is_clear(scores: Mapping[str, np.ndarray], least: Mapping[str, float]) -> np.ndarray:
    """Whether the scene or the object can be told, (N,) bool: the larger decides, as in Sem-C.

    Args:
        scores: by kind, the top attribute's probability, (N,); not empty.
        least: by kind, what it must reach.
    """
    return np.any([scores[kind] >= least[kind] for kind in scores], axis=0)


def distance_to_real(real: Neighbours, points: np.ndarray, neighbours: int) -> np.ndarray:
    """Distance to the k-th nearest real image, (M,).

    Raises:
        ValueError: fewer real images than that, or points of another width.
    """
    return real.search(points, neighbours).distances[:, -1]
