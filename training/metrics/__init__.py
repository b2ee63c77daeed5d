"""Figures of understanding and of generated images, as functions of arrays.

What needs the extra `metrics` is imported from its own module: `metrics.understanding`, `metrics.seeds`.
"""

from .classes import POSITIVE, check_classes
from .distances import frechet_distance, kernel_distance, kernel_estimate, principal_space
from .generation import (
    confusion_of,
    diversity_by_cosine,
    diversity_by_mse,
    emotion_accuracy,
    emotion_score,
    polarity_accuracy,
    semantic_clarity,
    total_variation,
)
from .intervals import Estimate, mean_estimate, mean_interval, resampled_interval, share_estimate, wilson_interval
from .neighbours import neighbourhoods

__all__ = [
    "POSITIVE",
    "Estimate",
    "check_classes",
    "confusion_of",
    "diversity_by_cosine",
    "diversity_by_mse",
    "emotion_accuracy",
    "emotion_score",
    "frechet_distance",
    "kernel_distance",
    "kernel_estimate",
    "mean_estimate",
    "mean_interval",
    "neighbourhoods",
    "polarity_accuracy",
    "principal_space",
    "resampled_interval",
    "semantic_clarity",
    "share_estimate",
    "total_variation",
    "wilson_interval",
]
