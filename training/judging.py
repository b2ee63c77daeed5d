"""From a judge's readings of images to scores: of the evaluation, and by the world's own probabilities."""

from collections.abc import Sequence
from dataclasses import fields

import torch

from .backbones.reader import Reading
from .evaluating.scoring import Figures, Observed, Scores, score
from .miniemoset.attributes import BRIGHTNESSES, PALETTES, Attributes, posterior
from .miniemoset.objects import OBJECTS
from .miniemoset.scenes import SCENES

JUDGE = "judge"
PARTS = ("scene", "object", "palette")


def judged(readings: Sequence[Reading], reference: Sequence[Reading]) -> Scores:
    """The scores of images by emotion, as many of each, against other, real ones; the judge's space is `JUDGE`.

    Args:
        readings: of the images to score, one reading an emotion, in EmoSet's order.
        reference: of real images, likewise; coverage takes as many of them as there are images to score.

    Raises:
        ValueError: an emotion with too few images.
    """
    found = _observed(readings)
    return score(found, found, _observed(reference))


def figures_of(scores: Scores) -> Figures:
    """Those of the judge's space among the others."""
    return scores.figures | scores.spaces[JUDGE]


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


def _observed(readings: Sequence[Reading]) -> Observed:
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
