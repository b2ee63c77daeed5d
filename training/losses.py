"""Losses of stage 2 that belong neither to the understanding model nor to the diffusion objective."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class ConditionLoss(NamedTuple):
    """The two parts of the emotional condition loss, scalars, unweighted."""

    cross_entropy: Tensor
    triplet: Tensor


def emotional_condition_loss(
    condition: Tensor,
    labels: Tensor,
    image_logits: Tensor,
    last_layer: Callable[[Tensor], Tensor],
    margin: float = 0.5,
) -> ConditionLoss:
    """The condition, read by the emotion head, shall show the true emotion (section 2.2).

    The anchor of the triplet is the logits of the condition, the positive the one-hot true emotion, the negative the
    one-hot hardest wrong emotion: the wrong one that the image's prediction ranks highest. Distances are 1 - cosine.
    Gradients reach the condition only (and the head, unless it is frozen, as the paper has it); the released weights
    of the two parts are 1e-3 and 1e-6.

    Args:
        condition: (B, D), the pseudo-token's embedding; with several text encoders the first one's.
        labels: (B,) long, the true emotions.
        image_logits: (B, 8), the understanding model's prediction for the images.
        last_layer: the emotion head's last layer, from D numbers to 8 logits (`classifier[-1]`).
        margin: by how much the true emotion must be nearer.

    Raises:
        ValueError: a condition of another width than the layer takes.
    """
    width = getattr(last_layer, "in_features", condition.shape[-1])
    if width != condition.shape[-1]:
        raise ValueError(
            f"the condition loss needs a condition as wide as the emotion head's last layer, {width}, but found "
            f"{condition.shape[-1]}: set classifier_hidden of the understanding model to {condition.shape[-1]}"
        )
    logits = last_layer(condition).float()
    true = F.one_hot(labels, logits.shape[-1])
    hardest = image_logits.detach().float().masked_fill(true.bool(), -torch.inf).argmax(-1)
    near = 1 - F.cosine_similarity(logits, true.float(), dim=-1)
    far = 1 - F.cosine_similarity(logits, F.one_hot(hardest, logits.shape[-1]).float(), dim=-1)
    return ConditionLoss(F.cross_entropy(logits, labels), F.relu(near - far + margin).mean())
