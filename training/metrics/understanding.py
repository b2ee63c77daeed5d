"""How well a model names emotions, and whether its probabilities mean what they say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from .classes import check_pairing
from .generation import confusion_of, emotion_accuracy, polarity_accuracy
from .intervals import Estimate, mean_estimate, resampled_interval

BINS = 15
CLASSES = len(EMOTIONS)


@dataclass(frozen=True)
class EmotionScores:
    """Of one emotion, each 0..1."""

    precision: float
    recall: float
    f1: float
    images: int


@dataclass(frozen=True)
class UnderstandingScores:
    """The figures of one model on one split.

    Attributes:
        figures: `accuracy` over eight classes and `polarity_accuracy` over two (Wilson's intervals); `macro_f1` and
            `calibration_error` (bootstrap over images); `brier_score`, 0..2, and `negative_log_likelihood` in nats
            (normal intervals).
        by_emotion: by name, in EmoSet's order.
        confusion: (8, 8) numbers of images, a row an emotion and a column a prediction.
    """

    images: int
    figures: dict[str, Estimate]
    by_emotion: dict[str, EmotionScores]
    confusion: list[list[int]]


def score_understanding(probabilities: Tensor, labels: Tensor) -> UnderstandingScores:
    """All figures of a model.

    Args:
        probabilities: (N, 8), in EmoSet's order.
        labels: (N,) long.

    Raises:
        ValueError: shapes that do not fit, rows that do not sum to 1, or an emotion with fewer than two images.
    """
    check_pairing(probabilities, labels)
    truth = torch.nn.functional.one_hot(labels, CLASSES)
    figures = {
        "accuracy": emotion_accuracy(probabilities, labels),
        "polarity_accuracy": polarity_accuracy(probabilities, labels),
        "macro_f1": _resampled(macro_f1, probabilities, labels),
        "calibration_error": _resampled(calibration_error, probabilities, labels),
        "brier_score": mean_estimate((probabilities.double() - truth).square().sum(dim=1)),
        "negative_log_likelihood": mean_estimate(negative_log_likelihoods(probabilities, labels)),
    }
    by_emotion = _by_emotion(probabilities, labels)
    return UnderstandingScores(len(labels), figures, by_emotion, confusion_of(probabilities, labels))


def macro_f1(probabilities: Tensor, labels: Tensor) -> float:
    """The mean F1 of the eight emotions."""
    return multiclass_f1_score(probabilities, labels, CLASSES, average="macro", validate_args=False).item()


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Expected calibration error (Guo et al. 2017): |accuracy - confidence| over 15 equal-width bins of the largest
    probability, weighted by their images. Small samples raise it."""
    return multiclass_calibration_error(probabilities, labels, CLASSES, BINS, "l1", validate_args=False).item()


def negative_log_likelihoods(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Of the true emotion, (N,) nats; a probability below float32's epsilon counts as that."""
    return -probabilities.double().gather(1, labels[:, None])[:, 0].clamp(min=torch.finfo(torch.float32).eps).log()


def draw_confusion(matrices: Mapping[str, Sequence[Sequence[int]]]) -> Figure:
    """A panel for each titled (8, 8) matrix: shares of the rows, coloured, with the numbers of images in them."""
    figure = Figure(figsize=(5.4 * len(matrices), 5.8), layout="constrained")
    panels = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axis, (title, confusion) in zip(panels, matrices.items(), strict=True):
        _draw_panel(axis, title, torch.tensor(confusion))
    return figure


def _draw_panel(axis: Axes, title: str, confusion: Tensor) -> None:
    shares = confusion / confusion.sum(dim=1, keepdim=True).clamp(min=1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in torch.cartesian_prod(torch.arange(CLASSES), torch.arange(CLASSES)).tolist():
        color = "white" if shares[row, column] > 0.5 else "black"
        text = f"{shares[row, column]:.2f}\n{confusion[row, column]}"
        axis.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    axis.set_xticks(range(CLASSES), EMOTIONS, rotation=45, ha="right")
    axis.set_yticks(range(CLASSES), EMOTIONS)
    axis.set(xlabel="named", ylabel="true or asked for", title=title)


def _resampled(figure: Callable[[Tensor, Tensor], float], probabilities: Tensor, labels: Tensor) -> Estimate:
    interval = resampled_interval(lambda rows: figure(probabilities[rows[0]], labels[rows[0]]), [len(labels)])
    return Estimate(figure(probabilities, labels), interval)


def _by_emotion(probabilities: Tensor, labels: Tensor) -> dict[str, EmotionScores]:
    each = [
        figure(probabilities, labels, CLASSES, average=None).tolist()
        for figure in (multiclass_precision, multiclass_recall, multiclass_f1_score)
    ]
    counts = torch.bincount(labels, minlength=CLASSES).tolist()
    return {name: EmotionScores(*found) for name, *found in zip(EMOTIONS, *each, counts, strict=True)}
