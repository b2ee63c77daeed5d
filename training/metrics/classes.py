"""What every figure by emotion asks of its images."""

import torch
from torch import Tensor

from uniemo_pipelines.fusion_uniemo import EMOTIONS

POSITIVE = 4
"""The first emotions are positive, the others negative."""


def check_classes(labels: Tensor, least: int = 2, what: str = "images") -> None:
    """Every emotion has images enough.

    Args:
        labels: (N,) long, in EmoSet's order.
        least: of each emotion.
        what: the images are called in the message.

    Raises:
        ValueError: an emotion with fewer; all such are named.
    """
    counts = torch.bincount(labels, minlength=len(EMOTIONS)).tolist()
    few = [f"{count} of {name}" for name, count in zip(EMOTIONS, counts, strict=True) if count < least]
    if few:
        raise ValueError(f"Expected at least {least} {what} of each emotion, found {', '.join(few)}; add some.")


def check_pairing(probabilities: Tensor, labels: Tensor) -> None:
    """Probabilities (N, 8) go with labels (N,), two images of each emotion at least.

    Raises:
        ValueError: other shapes, rows that are no probabilities, or an emotion with fewer images.
    """
    if probabilities.shape != (len(labels), len(EMOTIONS)):
        raise ValueError(
            f"Expected probabilities ({len(labels)}, {len(EMOTIONS)}), a row for each label, found "
            f"{tuple(probabilities.shape)}."
        )
    if not ((probabilities >= 0).all() and ((probabilities.sum(dim=1) - 1).abs() < 1e-3).all()):
        raise ValueError("Expected rows of probabilities that sum to 1, found others; apply softmax to logits first.")
    check_classes(labels)
