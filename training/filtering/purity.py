"""How many labels are right, where a judge can tell: in the embedded world, whose truth a reader reads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..backbones.reader import Reader, Reading, load_reader, read
from ..data.pictures import Picture
from ..data.rows import NO_LABEL
from ..judging import bayes_posteriors
from ..metrics import wilson_interval
from .candidates import Candidates
from .chunks import digest_of_weights, kept_chunks
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


def read_truth(weights: str, pictures: Sequence[Picture], labels: np.ndarray, features: str) -> Truth:
    """Let the judge read the candidates; computed once."""
    judge = load_reader(weights)
    key = f"truth {digest_of_weights(judge)}"
    parts = list(kept_chunks(pictures, lambda some: _compute(judge, some), key, Path(features), "judging"))
    joined = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    return Truth(
        joined["emotion"].argmax(1) == labels,
        joined["posterior"],
        {kind: joined[kind] for kind in ("scene", "object")},
    )


def seen_by_oracle(candidates: Candidates, truth: Truth) -> Candidates:
    """The candidates as one sees them who knows what is in the images, in the place of the models that filter.

    The probabilities are the world's own, given the attributes that the judge reads, and not those of the judge's
    head: an oracle takes from the judge what is in an image, and no learnt opinion on emotions; on real calibration
    images both are right equally often (.837 and .839 of 4,000); and "the judge sees the target" stays a figure that
    the oracle did not make true. Ours.
    """
    return replace(candidates, probabilities=truth.posterior, read=truth.read)


def _compute(judge: Reader, pictures: Sequence[Picture]) -> dict[str, Tensor]:
    found: Reading = read(judge, np.stack([np.asarray(picture.open()) for picture in pictures]))
    return {
        "emotion": found.emotion,
        "posterior": bayes_posteriors(found),
        "scene": found.scene,
        "object": found.object,
    }


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
