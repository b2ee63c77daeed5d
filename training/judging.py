"""From a judge's readings of images to scores: emotion, variety of the attributes, coverage."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch

from .backbones.reader import HEADS, Reading
from .evaluating.scoring import Observed
from .metrics import coverage, total_variation, wilson_interval
from .miniemoset.attributes import BRIGHTNESSES, PALETTES, Attributes, posterior
from .miniemoset.objects import OBJECTS
from .miniemoset.scenes import SCENES

JUDGE = "judge"
PARTS = ("scene", "object", "palette")


@dataclass(frozen=True)
class Scores:
    """Scores of a set of images, as many of each emotion.

    Attributes:
        emotion_accuracy: Emo-A, the share of images that the judge takes for their emotion, with `interval` (95 %).
        bayes_emotion_accuracy: the same by the exact posterior of the emotion given the attributes read.
        total_variation: mean over emotions and parts of the distance between the read attributes and those read in
            real images; `total_variation_by_attribute` has the mean over emotions.
        coverage: mean over emotions.
        accuracy_by_emotion: Emo-A of each emotion, in EmoSet's order.
    """

    emotion_accuracy: float
    interval: tuple[float, float]
    bayes_emotion_accuracy: float
    total_variation: float
    total_variation_by_attribute: dict[str, float]
    coverage: float
    accuracy_by_emotion: list[float]
    images: int


def judge_images(readings: Sequence[Reading], reference: Sequence[Reading]) -> Scores:
    """Score images by emotion against readings of other, real images by emotion.

    Args:
        readings: of the images to score, one reading an emotion, in EmoSet's order.
        reference: of real images, likewise; coverage takes as many of them as there are images to score.
    """
    hits = [(reading.emotion.argmax(-1) == label).tolist() for label, reading in enumerate(readings)]
    total, count = sum(map(sum, hits)), sum(map(len, hits))
    by_bayes = [bayes_emotions(reading) == label for label, reading in enumerate(readings)]
    by_part = total_variation_by_part(readings, reference)
    return Scores(
        emotion_accuracy=total / count,
        interval=wilson_interval(total, count),
        bayes_emotion_accuracy=torch.cat(by_bayes).float().mean().item(),
        total_variation=_mean(by_part.values()),
        total_variation_by_attribute=by_part,
        coverage=_mean(
            coverage(b.features[: len(a.features)], a.features) for a, b in zip(readings, reference, strict=True)
        ),
        accuracy_by_emotion=[sum(row) / len(row) for row in hits],
        images=count,
    )


def total_variation_by_part(readings: Sequence[Reading], reference: Sequence[Reading]) -> dict[str, float]:
    """By part, the mean over emotions of the distance between the attributes read and those of the reference."""
    pairs = list(zip(readings, reference, strict=True))
    return {
        part: _mean(total_variation(getattr(a, part), getattr(b, part), _sizes(part)) for a, b in pairs)
        for part in PARTS
    }


def observed(readings: Sequence[Reading]) -> Observed:
    """Readings by emotion, as `evaluating.scoring` takes them; their features are the space `JUDGE`."""
    whole = Reading(
        **{one.name: torch.cat([getattr(reading, one.name) for reading in readings]) for one in fields(Reading)}
    )
    attributes = {
        "scene": whole.scene_logits.softmax(dim=1),
        "object": whole.object_logits.sigmoid(),
        "palette": whole.palette_logits.softmax(dim=1),
    }
    counts = torch.tensor([len(reading.emotion) for reading in readings])
    labels = torch.arange(len(readings)).repeat_interleave(counts)
    return Observed(labels, whole.emotion, attributes, {JUDGE: whole.features})


def select(reading: Reading, chosen: torch.Tensor) -> Reading:
    """The reading of the pictures with these indices (M,), which may repeat."""
    return Reading(**{one.name: getattr(reading, one.name)[chosen] for one in fields(Reading)})


def bayes_emotions(reading: Reading) -> torch.Tensor:
    """The likeliest emotion (N,) of the attributes read, by the world's own probabilities."""
    return bayes_posteriors(reading).argmax(-1)


def bayes_posteriors(reading: Reading) -> torch.Tensor:
    """P(emotion | the attributes read), (N, 8), by the world's own probabilities.

    The clearest object counts, and the second clearest where the judge rather sees it than not.
    """
    ranked = reading.object_logits.sort(dim=-1, descending=True)
    others = zip(reading.scene.tolist(), reading.palette.tolist(), reading.brightness.tolist(), strict=True)
    found = []
    for index, (scene, palette, brightness) in enumerate(others):
        seen = 2 if ranked.values[index, 1] > 0 else 1
        attributes = Attributes(
            scene=SCENES[scene],
            objects=tuple(OBJECTS[i] for i in ranked.indices[index, :seen].tolist()),
            palette=PALETTES[palette],
            brightness=BRIGHTNESSES[brightness],
        )
        found.append(torch.from_numpy(posterior(attributes)))
    return torch.stack(found)


def _sizes(part: str) -> int:
    return HEADS["objects" if part == "object" else part]


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)
