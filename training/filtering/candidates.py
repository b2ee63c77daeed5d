"""What is known of each generated image, and what real images ask of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from ..data.pictures import Picture
from ..data.rows import NO_LABEL, Row, Vocabulary
from .corpus import Corpus
from .faithful import calibrated, fit_temperature, least_probability
from .manifold import distance_to_real, percentile
from .neighbours import Neighbours, Reduction, nearest_other
from .reading import Extractor, Filter


class LimitArguments(Protocol):
    """Where the limits are set."""

    precision: float
    margin: float
    clarity_percentile: float
    manifold_percentile: float
    duplicate_percentile: float
    neighbours: int
    dimensions: int
    seed: int

    @property
    def faithful(self) -> bool:
        """Whether the models' probabilities are asked for."""


@dataclass(frozen=True)
class RealRows:
    """Real images by what they are for.

    Attributes:
        train: the manifold, and P(attribute | emotion).
        validation: percentiles of clarity and distance.
        calibration: temperature and precision.
        known: by split or folder, all that no kept image may resemble; of these the files alone are looked at.
    """

    train: Sequence[Row]
    validation: Sequence[Row]
    calibration: Sequence[Row]
    known: Mapping[str, Sequence[Row]]


@dataclass(frozen=True)
class Limits:
    """What an image must reach, read off real images.

    Attributes:
        temperature: of the filter.
        probability, margin: least calibrated probability of the target, None where it is not asked, and least lead
            over the runner-up.
        clarity: by kind, the least probability of the top attribute.
        distance: most distance to the k-th nearest training image.
        radius: distance within which two images are near-duplicates.
        explained: share of the features' variance that distances are measured in.
    """

    temperature: float
    probability: float | None
    margin: float
    clarity: dict[str, float]
    distance: float
    radius: float
    explained: float


@dataclass(frozen=True)
class Candidates:
    """N generated images.

    Attributes:
        labels: (N,) target emotions.
        probabilities: (N, 8), calibrated.
        intended, read: by kind ("scene", "object"), the attribute meant and the one read, (N,).
        clarity: by kind, the probability of the one read, (N,).
        points: (N, d) reduced features.
        distance: (N,) to the k-th nearest training image.
        nearest_real: (N,) to the nearest image of any guarded split or folder.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    intended: dict[str, np.ndarray]
    read: dict[str, np.ndarray]
    clarity: dict[str, np.ndarray]
    points: np.ndarray
    distance: np.ndarray
    nearest_real: np.ndarray

    @property
    def quality(self) -> np.ndarray:
        """The calibrated probability of the target, (N,)."""
        return self.probabilities[np.arange(len(self.labels)), self.labels]

    @property
    def agreed(self) -> dict[str, np.ndarray]:
        """By kind, the attribute that is both meant and read, (N,), NO_LABEL where they differ."""
        return {kind: np.where(self.intended[kind] == read, read, NO_LABEL) for kind, read in self.read.items()}


def measure(
    corpus: Corpus, real: RealRows, judges: Filter, extractor: Extractor, arguments: LimitArguments
) -> tuple[Candidates, Limits]:
    """Read all images and set the limits.

    Raises:
        ValueError: too few real images for a limit, or none that gives the precision.
    """
    pictures = [one.picture for one in corpus.pictures]
    found = judges.read(pictures, "generated")
    calibration = judges.read([row.picture for row in real.calibration], "calibration")
    validation = judges.read([row.picture for row in real.validation], "validation")
    labels = torch.tensor([row.label for row in real.calibration])
    temperature = fit_temperature(calibration.logits, labels)
    probability = None
    if arguments.faithful:
        probability = least_probability(
            calibrated(calibration.logits, temperature), labels.numpy(), arguments.precision
        )
    space = Space(real, extractor, arguments)
    points = space.points(pictures, "generated")
    limits = Limits(
        temperature=temperature,
        probability=probability,
        margin=arguments.margin,
        clarity={
            kind: percentile(values, arguments.clarity_percentile, "clarity")
            for kind, values in validation.clarity.items()
        },
        distance=percentile(space.validation_distance, arguments.manifold_percentile, "manifold"),
        radius=percentile(space.spacing, arguments.duplicate_percentile, "near-duplicates"),
        explained=space.reduce.explained,
    )
    candidates = Candidates(
        labels=np.array([one.label for one in corpus.pictures]),
        probabilities=calibrated(found.logits, temperature),
        intended={kind: np.array([getattr(one, kind) for one in corpus.pictures]) for kind in judges.kinds},
        read=found.attributes,
        clarity=found.clarity,
        points=points,
        distance=distance_to_real(space.manifold, points, arguments.neighbours),
        nearest_real=space.known.search(points, 1).distances[:, 0],
    )
    return candidates, limits


class Space:
    """Where distances are measured: the real images in it, and the way into it."""

    def __init__(self, real: RealRows, extractor: Extractor, arguments: LimitArguments) -> None:
        seed, self._extractor = arguments.seed, extractor
        train = np.concatenate(list(extractor.parts([row.picture for row in real.train], "train")))
        self.reduce = Reduction(train, arguments.dimensions)
        self.train = self.reduce(train)
        self.manifold = Neighbours(self.train, seed)
        self.spacing = nearest_other(self.train, seed)
        validation = self.points([row.picture for row in real.validation], "validation")
        self.validation_distance = distance_to_real(self.manifold, validation, arguments.neighbours)
        known = [self.points([row.picture for row in rows], split) for split, rows in real.known.items()]
        self.known = Neighbours(np.concatenate(known), seed)

    def points(self, pictures: Sequence[Picture], description: str) -> np.ndarray:
        """Where pictures lie in it, (N, d)."""
        return self.reduce.all(self._extractor.parts(pictures, description))


def attribute_counts(rows: Sequence[Row], vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """By kind, how many pictures of each emotion name each attribute, (8, A)."""
    scenes = np.zeros((len(EMOTIONS), len(vocabulary.scenes)))
    objects = np.zeros((len(EMOTIONS), len(vocabulary.objects)))
    for row in rows:
        if row.scene != NO_LABEL:
            scenes[row.label, row.scene] += 1
        objects[row.label, list(row.objects)] += 1
    return {"scene": scenes, "object": objects}
