"""The emotional condition loss against hand-computed cases."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from training.losses import emotional_condition_loss


def test_both_parts_of_a_hand_computed_case():
    # the head is the identity: logits 3 for the true emotion, 4 for the hardest wrong one, length 5
    condition = torch.zeros(1, 8)
    condition[0, 1], condition[0, 6] = 3.0, 4.0
    image_logits = torch.tensor([[0.0, 9.0, 1.0, 0.0, 0.0, 0.0, 2.0, 0.0]])
    loss = emotional_condition_loss(condition, torch.tensor([1]), image_logits, nn.Identity())
    assert loss.cross_entropy.item() == pytest.approx(math.log(6 + math.e**3 + math.e**4) - 3, rel=1e-6)
    assert loss.triplet.item() == pytest.approx((1 - 3 / 5) - (1 - 4 / 5) + 0.5, rel=1e-6)


def test_the_negative_is_the_wrong_emotion_that_the_image_prediction_ranks_highest():
    condition = torch.zeros(2, 8)
    condition[:, 1], condition[:, 6] = 3.0, 4.0
    # first: the prediction is wrong already; second: the condition's own rival is not the image's
    image_logits = torch.zeros(2, 8)
    image_logits[0, 6], image_logits[1, 3] = 5.0, 5.0
    labels = torch.tensor([1, 1])
    both = emotional_condition_loss(condition, labels, image_logits, nn.Identity()).triplet
    assert both.item() == pytest.approx((0.7 + 0.0) / 2, abs=1e-6)  # 0.4 - 0.2 + 0.5 and max(0, 0.4 - 1 + 0.5)


def test_a_condition_that_shows_its_emotion_has_no_triplet_loss():
    loss = emotional_condition_loss(10 * torch.eye(8), torch.arange(8), torch.zeros(8, 8), nn.Identity())
    assert loss.triplet.item() == 0
    assert loss.cross_entropy.item() == pytest.approx(math.log(1 + 7 * math.exp(-10)), rel=1e-2)


def test_gradients_reach_the_condition_and_not_the_images_prediction():
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(6, 8).requires_grad_(False)
    condition = torch.randn(4, 6, generator=generator).requires_grad_()
    image_logits = torch.randn(4, 8, generator=generator).requires_grad_()
    for part in range(2):
        condition.grad = None
        emotional_condition_loss(condition, torch.arange(4), image_logits, head)[part].backward()
        assert condition.grad.abs().sum() > 0
    assert image_logits.grad is None and head.weight.grad is None


def test_any_callable_serves_as_the_last_layer():
    head = nn.Linear(6, 8)
    condition, labels = torch.ones(2, 6), torch.tensor([0, 5])
    direct = emotional_condition_loss(condition, labels, torch.zeros(2, 8), head)
    wrapped = emotional_condition_loss(
        condition, labels, torch.zeros(2, 8), lambda c: F.linear(c, head.weight, head.bias)
    )
    assert direct == wrapped


def test_a_condition_of_another_width_is_refused_with_both_widths():
    with pytest.raises(ValueError, match="768, but found 1024"):
        emotional_condition_loss(torch.zeros(1, 1024), torch.tensor([0]), torch.zeros(1, 8), nn.Linear(768, 8))
