"""Which candidates are left, and at which criterion each other one fell first."""

from dataclasses import dataclass

import numpy as np

from uniemo_pipelines.fusion_uniemo import EMOTIONS


@dataclass(frozen=True)
class Criterion:
    """What is asked of an image.

    Attributes:
        name: in one word.
        meaning: why an image falls at it.
        remedy: which argument lets more pass.
    """

    name: str
    meaning: str
    remedy: str


CRITERIA = (
    Criterion("truth", "of what the judge reads in it, another emotion is likelier", "leave out --oracle"),
    Criterion("probability", "the target emotion is not probable enough", "lower --precision"),
    Criterion("margin", "another emotion is nearly as probable, or more", "lower --margin"),
    Criterion("clarity", "neither scene nor object can be told", "lower --clarity_percentile"),
    Criterion("manifold", "too far from real images", "raise --manifold_percentile"),
    Criterion("real copy", "nearly a real image, or one that is kept already", "lower --duplicate_percentile"),
    Criterion("own copy", "nearly a better image of the corpus", "lower --duplicate_percentile"),
    Criterion("quota", "its cell has a better one, or its attributes have enough", "raise --keep or --skip diverse"),
    Criterion("draw", "not drawn", "raise --keep, or allow what --as_many_as lacks by --allow_empty"),
)
"""In the order in which they are asked. "truth" stands in place of the next two for an oracle, and "draw" in place of
the two before it where diversity is not wanted."""


class Sieve:
    """N candidates, which fall one criterion after another.

    Args:
        labels: (N,) their target emotions.
        allow_empty: go on where an emotion has none left.

    Attributes:
        fell: (N,) the criterion's position in CRITERIA, or -1 for those that are left.
        asked: the criteria so far.

    Raises:
        ValueError: no candidate of an emotion.
    """

    def __init__(self, labels: np.ndarray, allow_empty: bool = False) -> None:
        self.labels, self.allow_empty = labels, allow_empty
        self.fell = np.full(len(labels), -1, np.int8)
        self.asked: list[Criterion] = []
        if lacking := self._emptied():
            raise ValueError(f"Expected generated images of every emotion, found none of {', '.join(lacking)}.")

    @property
    def left(self) -> np.ndarray:
        """Positions of those that are left."""
        return np.flatnonzero(self.fell < 0)

    def ask(self, name: str, passes: np.ndarray) -> None:
        """Let fall those that do not pass.

        Args:
            name: of the criterion.
            passes: (L,) bool, of those that are left, in order.

        Raises:
            ValueError: an emotion has none left, or where that is allowed none of them has.
        """
        position = next(index for index, one in enumerate(CRITERIA) if one.name == name)
        before = self.counts()
        self.asked.append(CRITERIA[position])
        self.fell[self.left[~passes]] = position
        emptied = self._emptied()
        if emptied and not (self.allow_empty and len(self.left)):
            had = ", ".join(f"{emotion} (had {before[EMOTIONS.index(emotion)]})" for emotion in emptied)
            raise ValueError(
                f"Expected images of every emotion after the criterion {name!r} ({CRITERIA[position].meaning}), found "
                f"none of {had}; {CRITERIA[position].remedy}, or generate more. What was read in the images is kept."
            )

    def positions(self) -> list[tuple[Criterion, int]]:
        """The criteria that were asked, with their numbers in `fell`."""
        return [(criterion, CRITERIA.index(criterion)) for criterion in self.asked]

    def counts(self) -> list[int]:
        """How many are left of each emotion."""
        return np.bincount(self.labels[self.left], minlength=len(EMOTIONS)).tolist()

    def fallen(self, criterion: Criterion) -> list[int]:
        """How many of each emotion fell at a criterion first."""
        here = self.fell == CRITERIA.index(criterion)
        return np.bincount(self.labels[here], minlength=len(EMOTIONS)).tolist()

    def _emptied(self) -> list[str]:
        return [emotion for emotion, count in zip(EMOTIONS, self.counts(), strict=True) if not count]
