"""Figures of understanding, against cases worked by hand."""

import math

import pytest
import torch

from training.metrics import confusion_of, emotion_accuracy, polarity_accuracy
from training.metrics.understanding import (
    calibration_error,
    draw_confusion,
    macro_f1,
    negative_log_likelihoods,
    score_understanding,
)
from uniemo_pipelines.fusion_uniemo import EMOTIONS


def certain(predictions: list[int], confidence: float = 0.9) -> torch.Tensor:
    """Rows with `confidence` for the prediction, the rest shared."""
    rows = torch.full((len(predictions), 8), (1 - confidence) / 7)
    rows[torch.arange(len(predictions)), torch.tensor(predictions)] = confidence
    return rows


LABELS = torch.arange(8).repeat(2)
PREDICTIONS = [0, 1, 2, 3, 4, 5, 6, 7, 1, 4, 2, 3, 4, 5, 6, 7]  # one amusement as awe, one awe as anger


def test_figures_by_hand() -> None:
    scores = score_understanding(certain(PREDICTIONS), LABELS)
    values = {name: figure.value for name, figure in scores.figures.items()}
    assert values["accuracy"] == 14 / 16 and values["polarity_accuracy"] == 15 / 16  # anger for awe changes sides
    # amusement 1 of 1 and 1 of 2, awe 1 of 2 and 1 of 2, anger 2 of 3 and 2 of 2, all others right
    assert values["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 4 / 5 + 5) / 8)
    assert values["calibration_error"] == pytest.approx(0.9 - 14 / 16, abs=1e-6)  # all are in one bin
    rest = 0.1 / 7
    right, wrong = 0.1**2 + 7 * rest**2, 0.9**2 + (1 - rest) ** 2 + 6 * rest**2
    assert values["brier_score"] == pytest.approx((14 * right + 2 * wrong) / 16)
    nll = -(14 * math.log(0.9) + 2 * math.log(rest)) / 16
    assert values["negative_log_likelihood"] == pytest.approx(nll, rel=1e-6)
    amusement, anger = scores.by_emotion["amusement"], scores.by_emotion["anger"]
    assert (amusement.precision, amusement.recall, amusement.images) == (1, 0.5, 2)
    assert (anger.precision, anger.recall) == (pytest.approx(2 / 3), 1)
    for figure in scores.figures.values():
        assert figure.interval[0] <= figure.value <= figure.interval[1] and figure.interval[0] < figure.interval[1]


def test_calibration_error_has_fifteen_bins_of_equal_width() -> None:
    # .62 and .64 share the bin (.6, .667], .68 is in the next: |.63 - 1/2| of two, |.68 - 0| of one
    probabilities = torch.cat([certain([0], 0.62), certain([0], 0.64), certain([0], 0.68)])
    found = calibration_error(probabilities, torch.tensor([0, 1, 1]))
    assert found == pytest.approx((2 * 0.13 + 0.68) / 3, abs=1e-6)
    perfect = torch.cat([certain([0], 0.75)] * 4)
    assert calibration_error(perfect, torch.tensor([0, 0, 0, 5])) == pytest.approx(0, abs=1e-6)


def test_confusion_has_a_row_an_emotion() -> None:
    found = confusion_of(certain(PREDICTIONS), LABELS)
    assert found[0][:2] == [1, 1] and found[1][1] == found[1][4] == 1 and found[4][4] == 2
    assert sum(map(sum, found)) == 16
    assert score_understanding(certain(PREDICTIONS), LABELS).confusion == found


def test_two_classes_are_the_halves_of_the_eight() -> None:
    swapped_within = certain([(label + 1) % 4 + 4 * (label // 4) for label in LABELS.tolist()])
    assert emotion_accuracy(swapped_within, LABELS).value == 0 and polarity_accuracy(swapped_within, LABELS).value == 1
    swapped_across = certain([(label + 4) % 8 for label in LABELS.tolist()])
    assert polarity_accuracy(swapped_across, LABELS).value == 0


def test_an_impossible_truth_costs_a_finite_number_of_nats() -> None:
    assert negative_log_likelihoods(torch.eye(8)[:1], torch.tensor([1])).item() == pytest.approx(15.94, abs=0.01)


def test_the_interval_of_macro_f1_shrinks_with_the_root_of_the_images() -> None:
    generator = torch.Generator().manual_seed(0)

    def width(count: int) -> float:
        labels = torch.arange(count) % 8
        wrong = torch.rand(count, generator=generator) < 0.3
        predictions = torch.where(wrong, torch.randint(8, (count,), generator=generator), labels)
        probabilities = certain(predictions.tolist())
        low, high = score_understanding(probabilities, labels).figures["macro_f1"].interval
        assert low < macro_f1(probabilities, labels) < high
        return high - low

    assert width(400) / width(3600) == pytest.approx(3, rel=0.25)


def test_bad_input_is_named() -> None:
    rest = torch.arange(16) != 14
    with pytest.raises(ValueError, match="at least 2 images of each emotion, found 1 of fear; add"):
        score_understanding(certain(PREDICTIONS)[rest], LABELS[rest])
    with pytest.raises(ValueError, match="found 0 of amusement, 0 of awe"):
        score_understanding(certain([2] * 12), torch.arange(2, 8).repeat(2))
    with pytest.raises(ValueError, match=r"probabilities \(16, 8\).*found \(16, 7\)"):
        score_understanding(certain(PREDICTIONS)[:, :7], LABELS)
    with pytest.raises(ValueError, match="sum to 1"):
        score_understanding(3 * certain(PREDICTIONS), LABELS)


def test_confusions_are_drawn_side_by_side() -> None:
    matrix = confusion_of(certain(PREDICTIONS), LABELS)
    figure = draw_confusion({"one": matrix, "other": matrix})
    assert [axis.get_title() for axis in figure.axes] == ["one", "other"]
    assert figure.axes[0].texts[1].get_text() == "0.50\n1"
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == list(EMOTIONS)
