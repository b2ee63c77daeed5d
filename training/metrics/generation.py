"""Is the emotion there, is something clear to be seen, and do the images of an emotion differ?

Emotion accuracy alone rewards collapse: one picture that every judge takes for awe scores higher than real images do.
Total variation of what is read in the images stands beside it, and coverage (`metrics.neighbours`).
"""

import torch
from torch import Tensor
from torch.nn import functional

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from .classes import POSITIVE, check_pairing
from .intervals import Estimate, mean_estimate, share_estimate


def emotion_accuracy(probabilities: Tensor, labels: Tensor) -> Estimate:
    """Emo-A over eight classes: the share of images whose likeliest emotion is the target (paper, section IV).

    Args:
        probabilities: (N, 8) of a classifier that took no part in training the generator.
        labels: (N,) the targets.

    Raises:
        ValueError: shapes that do not fit, or an emotion with fewer than two images.
    """
    check_pairing(probabilities, labels)
    return share_estimate(probabilities.argmax(dim=1) == labels)


def polarity_accuracy(probabilities: Tensor, labels: Tensor) -> Estimate:
    """Emo-A over two classes: the share of images whose likeliest emotion has the target's polarity.

    The likeliest of the eight decides and not the larger sum of four, so that an image that is right over eight
    classes is right over two.

    Raises:
        ValueError: as `emotion_accuracy`.
    """
    check_pairing(probabilities, labels)
    return share_estimate((probabilities.argmax(dim=1) < POSITIVE) == (labels < POSITIVE))


def emotion_score(probabilities: Tensor, labels: Tensor) -> Estimate:
    """Emo-score: the mean probability of the target, 0..1.

    Raises:
        ValueError: as `emotion_accuracy`.
    """
    check_pairing(probabilities, labels)
    return mean_estimate(probabilities.gather(1, labels[:, None])[:, 0])


def confusion_of(probabilities: Tensor, labels: Tensor) -> list[list[int]]:
    """(8, 8) numbers of images, a row an emotion and a column the likeliest one.

    Raises:
        ValueError: as `emotion_accuracy`.
    """
    check_pairing(probabilities, labels)
    pairs = labels * len(EMOTIONS) + probabilities.argmax(dim=1)
    return torch.bincount(pairs, minlength=len(EMOTIONS) ** 2).view(len(EMOTIONS), -1).tolist()


def semantic_clarity(scenes: Tensor, objects: Tensor) -> Tensor:
    """What Sem-C is the mean of: the larger of the top scene and the top object probability of each image, (N,).

    Args:
        scenes, objects: (N, S) and (N, O) probabilities.

    Raises:
        ValueError: fewer than two images, or other numbers of them.
    """
    if len(scenes) != len(objects) or len(scenes) < 2:
        raise ValueError(
            f"Expected scenes and objects of the same images, at least two, found {len(scenes)} and {len(objects)}."
        )
    return torch.maximum(scenes.amax(dim=1), objects.amax(dim=1))


def diversity_by_cosine(features: Tensor) -> float:
    """Sem-D of one emotion: the mean cosine distance, 0..2, over all pairs of images.

    Args:
        features: (N, F), of CLIP in the paper.

    Raises:
        ValueError: fewer than two images.
    """
    _check_pairs(features)
    count, unit = len(features), functional.normalize(features.double(), dim=1)
    return 1 - ((unit.sum(dim=0).square().sum().item() - count) / (count * (count - 1)))


def diversity_by_mse(features: Tensor) -> float:
    """The mean squared difference of features as they come, over all pairs of images and all F numbers of a feature.

    What the released code prints as Sem-D is this over ten random pairs, for images that accumulate over the emotions.

    Raises:
        ValueError: fewer than two images.
    """
    _check_pairs(features)
    return 2 * features.double().var(dim=0).mean().item()  # of two independent draws: twice the variance


def total_variation(found: Tensor, reference: Tensor, size: int) -> float:
    """Total variation distance, 0..1, between two samples of categories.

    Args:
        found, reference: (N,) and (M,) integers below `size`.
        size: the number of categories.

    Raises:
        ValueError: fewer than two values in a sample.
    """
    if min(len(found), len(reference)) < 2:
        raise ValueError(f"Expected at least two images a sample, found {len(found)} and {len(reference)}.")
    p = torch.bincount(found, minlength=size) / len(found)
    q = torch.bincount(reference, minlength=size) / len(reference)
    return 0.5 * (p - q).abs().sum().item()


def _check_pairs(features: Tensor) -> None:
    if len(features) < 2:
        raise ValueError(f"Expected at least two images of the emotion, found {len(features)}.")
