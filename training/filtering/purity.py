"""How many labels are right, where a judge can tell: in the embedded world, whose truth a reader reads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..backbones.reader import Reader, load_reader, read
from ..data.pictures import Picture
from ..data.rows import NO_LABEL
from ..judging import JUDGE, bayes_posteriors
from ..metrics import wilson_interval
from ..miniemoset.render import IMAGE_SIZE
from ..observing import Observer, Square
from .candidates import Candidates
from .sieve import Sieve


@dataclass(frozen=True)
class Purity:
    """Of the images that were left at a stage.

    Attributes:
        images: how many.
        judged, interval: share whose target is the emotion that the judge sees, with its 95 % interval.
        posterior: mean probability of the target by the world's own probabilities, given the attributes read.
        attributes: by kind, the share of annotations that name what the judge reads; None without an annotation.
    """

    images: int
    judged: float
    interval: tuple[float, float]
    posterior: float
    attributes: dict[str, float | None]


@dataclass(frozen=True)
class Truth:
    """What the judge found in N candidates.

    Attributes:
        hits: (N,) whether the target is the emotion that its own head sees.
        posterior: (N, 8) the world's own probabilities of each emotion, given the attributes that it reads.
        read: by kind, the attribute read, (N,).
    """

    hits: np.ndarray
    posterior: np.ndarray
    read: dict[str, np.ndarray]


class TruthReader(nn.Module):
    """What the world's judge sees in images (B, 3, 128, 128) uint8."""

    def __init__(self, judge: Reader) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = read(self.judge, images.permute(0, 2, 3, 1).numpy())
        return {
            "emotion": found.emotion,
            "posterior": bayes_posteriors(found),
            "scene": found.scene,
            "object": found.object,
        }


def read_truth(weights: str, pictures: Sequence[Picture], labels: np.ndarray, features: str) -> Truth:
    """Let the judge read the candidates; computed once."""
    networks = {JUDGE: TruthReader(load_reader(weights))}
    observer = Observer(Path(features), device=torch.device("cpu"))
    said = observer.observe(pictures, Square(IMAGE_SIZE), networks, "judging")[JUDGE]
    return Truth(
        said["emotion"].argmax(dim=1).numpy() == labels,
        said["posterior"].numpy(),
        {kind: said[kind].numpy() for kind in ("scene", "object")},
    )


def seen_by_oracle(candidates: Candidates, truth: Truth) -> Candidates:
    """The candidates as one sees them who knows what is in the images, in the place of the models that filter.

    The probabilities are the world's own, given the attributes that the judge reads, and not those of the judge's
    head: an oracle takes from the judge what is in an image, and no learnt opinion on emotions; on real calibration
    images both are right equally often (.837 and .839 of 4,000); and "the judge sees the target" stays a figure that
    the oracle did not make true. Ours.
    """
    return replace(candidates, probabilities=truth.posterior, read=truth.read)


def purity_by_stage(truth: Truth, candidates: Candidates, sieve: Sieve) -> dict[str, Purity]:
    """Purity of all candidates, and of those left after each criterion."""
    fell = np.where(sieve.fell < 0, np.iinfo(np.int8).max, sieve.fell)
    stages = {"generated": np.ones(len(fell), bool)}
    for criterion, position in sieve.positions():
        stages[f"after {criterion.name}"] = fell > position
    return {name: _purity(truth, candidates, stage) for name, stage in stages.items()}


def _purity(truth: Truth, candidates: Candidates, stage: np.ndarray) -> Purity:
    hits, count = int(truth.hits[stage].sum()), int(stage.sum())
    shares = {}
    for kind, agreed in candidates.agreed.items():
        named = stage & (agreed != NO_LABEL)
        shares[kind] = float((agreed == truth.read[kind])[named].mean()) if named.any() else None
    posterior = truth.posterior[np.arange(len(stage)), candidates.labels]
    return Purity(count, hits / count, wilson_interval(hits, count), float(posterior[stage].mean()), shares)
