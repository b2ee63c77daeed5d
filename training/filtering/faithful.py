"""Does an image evoke its target emotion? Calibrated probabilities, and the least that can be trusted (ours)."""

import numpy as np
from torch import Tensor

LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.05, 20.0
LEAST_TRUSTED = 20
"""Images above a threshold below which their precision says nothing."""


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that calibrates best (Guo et al. 2017): logits / temperature have the least NLL.

    The NLL is convex in 1 / temperature, and its slope there is the mean expected logit less the mean true one, so
    that halving an interval finds the minimum; it ends at 0.05 or 20 where that lies outside.

    Args:
        logits: (N, C), of images that the model was not trained on.
        labels: (N,) long.

    Raises:
        ValueError: no image, or as many labels as there are not images.
    """
    if not len(logits) or len(logits) != len(labels):
        raise ValueError(f"Expected images with a label each, found {len(logits)} and {len(labels)}.")
    logits = logits.double()
    true = logits.gather(1, labels[:, None]).mean()
    low, high = 1 / MOST_TEMPERATURE, 1 / LEAST_TEMPERATURE
    for _ in range(60):
        middle = (low * high) ** 0.5
        slope = ((middle * logits).softmax(-1) * logits).sum(-1).mean() - true
        low, high = (low, middle) if slope > 0 else (middle, high)
    return (low * high) ** -0.5


def calibrated(logits: Tensor, temperature: float) -> np.ndarray:
    """Probabilities (N, C), rows sum to 1."""
    return (logits.double() / temperature).softmax(-1).numpy()


def least_probability(probabilities: np.ndarray, labels: np.ndarray, precision: float) -> float:
    """The least top probability from which on that share of the predictions is right.

    Args:
        probabilities: (N, C), calibrated, of real images.
        labels: (N,), the truth.
        precision: 0..1 among all images whose top probability is at least the threshold.

    Raises:
        ValueError: fewer than 20 images, or no threshold with as many above it reaches that.
    """
    if len(labels) < LEAST_TRUSTED:
        raise ValueError(f"Expected at least {LEAST_TRUSTED} calibration images, found {len(labels)}; add some.")
    top, hits = probabilities.max(1), probabilities.argmax(1) == labels
    order = np.argsort(-top, kind="stable")
    found = np.cumsum(hits[order]) / np.arange(1, len(order) + 1)
    ends = np.append(top[order][1:] < top[order][:-1], True)  # equal probabilities stand or fall together
    ends[: LEAST_TRUSTED - 1] = False
    fitting = np.flatnonzero(ends & (found >= precision))
    if not len(fitting):
        best = found[ends].max()
        raise ValueError(
            f"Expected a probability from which on {precision:.1%} of {len(labels)} calibration images are told "
            f"rightly, found {best:.1%} at the best; lower --precision or train a better model."
        )
    return float(top[order][fitting[-1]])


def margins(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The labels' probabilities less the runner-up's, (N,) in -1..1; negative where another emotion is likelier."""
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -np.inf
    return probabilities[rows, labels] - others.max(1)
