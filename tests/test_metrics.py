"""Figures for generated images, against closed forms and cases worked by hand."""

import numpy as np
import pytest
import torch

from training.backbones.corpus import label_row
from training.backbones.reader import HEADS, Reading, accuracy
from training.judging import bayes_emotions, figures_of, judged
from training.metrics import (
    kernel_distance,
    mean_interval,
    resampled_interval,
    total_variation,
    wilson_interval,
)
from training.miniemoset.attributes import EMOTIONS, Attributes, posterior, sample_attributes
from training.miniemoset.objects import OBJECTS


def test_wilson_interval_by_hand() -> None:
    low, high = wilson_interval(8, 10)
    assert low == pytest.approx(0.4902, abs=1e-4) and high == pytest.approx(0.9433, abs=1e-4)
    assert wilson_interval(0, 10)[0] == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="positive count"):
        wilson_interval(0, 0)


def test_total_variation_by_hand() -> None:
    a, b = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 1])
    assert total_variation(a, b, 3) == pytest.approx(0.5)
    assert total_variation(a, a, 3) == 0
    assert total_variation(torch.zeros(5, dtype=torch.long), torch.ones(5, dtype=torch.long), 2) == 1
    for few in (0, 1):
        with pytest.raises(ValueError, match=f"at least two images a sample, found {few} and 4"):
            total_variation(a[:few], a, 3)


def test_kernel_distance_is_zero_on_average_within_a_distribution_and_grows_with_the_gap() -> None:
    generator = torch.Generator().manual_seed(0)

    def draws(count: int, shift: float = 0.0) -> torch.Tensor:
        return torch.randn(count, 8, generator=generator) + shift

    same = [kernel_distance(draws(60), draws(20)) for _ in range(200)]
    assert abs(sum(same) / 200) < 3 * torch.tensor(same).std().item() / 200**0.5  # unbiased
    assert 0.1 < kernel_distance(draws(200), draws(50, 0.5)) < kernel_distance(draws(200), draws(50, 1.0))
    with pytest.raises(ValueError, match="two images on each side"):
        kernel_distance(draws(5), draws(1))


def test_kernel_distance_by_hand() -> None:
    real, generated = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]])
    # k(0, 1) = 1, k(0, 2) = 1; across: k(0, 0) = 1, k(0, 2) = 1, k(1, 0) = 1, k(1, 2) = 27
    assert kernel_distance(real, generated) == pytest.approx(1 + 1 - 2 * 30 / 4)


def reading_of(attributes: list, emotion: torch.Tensor) -> Reading:
    rows = torch.tensor([label_row(one) for one in attributes])
    objects = torch.full((len(rows), len(OBJECTS)), -5.0)
    for row, logits in zip(rows, objects, strict=True):
        logits[row[1]] = 6.0
        if row[2] >= 0:
            logits[row[2]] = 5.0
    features = torch.nn.functional.one_hot(rows[:, 0], 16).float() + 0.01 * torch.arange(len(rows))[:, None]
    scene, palette, brightness = (
        9.0 * torch.nn.functional.one_hot(rows[:, column], HEADS[name])
        for column, name in ((0, "scene"), (3, "palette"), (4, "brightness"))
    )
    return Reading(scene, objects, palette, brightness, emotion, features)


def test_a_perfect_judge_of_true_draws_and_of_a_collapsed_generator() -> None:
    def draws(label: int, seed: int, collapse: bool = False) -> Reading:
        rng = np.random.default_rng([seed, label])
        attributes = [sample_attributes(rng, EMOTIONS[label]) for _ in range(200)]
        attributes = attributes[:1] * 200 if collapse else attributes
        return reading_of(attributes, torch.nn.functional.one_hot(torch.full((200,), label), 8).float())

    reference = [draws(label, 1) for label in range(8)]
    scores = [judged([draws(label, 2, collapse) for label in range(8)], reference) for collapse in (False, True)]
    true, collapsed = ({name: figure.value for name, figure in figures_of(one).items()} for one in scores)
    assert true["emotion_accuracy"] == collapsed["emotion_accuracy"] == 1
    assert true["total_variation"] < 0.12 < 0.5 < collapsed["total_variation"]
    assert collapsed["coverage"] < 0.7 < 0.9 < true["coverage"]
    by_part = [true[f"total_variation_{part}"] for part in ("scene", "object", "palette")]
    assert sum(by_part) / 3 == pytest.approx(true["total_variation"]) and scores[0].images == 1600


def test_bayes_emotions_are_the_posteriors_of_what_was_read() -> None:
    rng = np.random.default_rng(0)
    attributes = [sample_attributes(rng) for _ in range(50)]
    found = bayes_emotions(reading_of(attributes, torch.zeros(50, 8)))
    assert found.tolist() == [int(posterior(one).argmax()) for one in attributes]


def test_reading_accuracy_counts_every_object_present() -> None:
    attributes = [Attributes("beach", ("Kite", "Car"), "candy", "dim"), Attributes("beach", ("Kite",), "candy", "dim")]
    labels = np.array([label_row(one) for one in attributes])
    reading = reading_of(attributes, torch.zeros(2, 8))
    assert accuracy(reading, labels) == {"scene": 1, "object": 1, "palette": 1, "brightness": 1}
    reading.object_logits[0, OBJECTS.index("Car")] = -9.0  # one of the three objects is missed
    assert accuracy(reading, labels)["object"] == pytest.approx(2 / 3)


def test_mean_interval_is_the_normal_one() -> None:
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) + 3
    mean, (low, high) = mean_interval(values)
    assert mean == pytest.approx(3, abs=0.02)
    assert (high - mean, mean - low) == pytest.approx((1.96 / 100_000**0.5,) * 2, rel=0.02)
    with pytest.raises(ValueError, match="at least two values, found 1"):
        mean_interval(values[:1])


def test_a_resampled_interval_of_a_mean_is_the_normal_one() -> None:
    generator = torch.Generator().manual_seed(0)
    groups = [torch.randn(200, generator=generator), 5 + 3 * torch.randn(100, generator=generator)]

    def mean(chosen: list[torch.Tensor]) -> float:
        return sum(group[rows].mean().item() for group, rows in zip(groups, chosen, strict=True)) / 2

    low, high = resampled_interval(mean, [200, 100])
    assert (low + high) / 2 == pytest.approx(sum(group.mean().item() for group in groups) / 2)
    half = 1.96 * sum(group.var().item() / len(group) for group in groups) ** 0.5 / 2
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert resampled_interval(mean, [200, 100]) == (low, high)
