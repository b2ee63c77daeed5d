"""P(emotion | attribute), the numbers that alpha comes from, and constants that stand in for them in comparisons."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from .arguments import DataArguments
from .dataset import EmotionDataset, EmotionStream
from .prepared import Prepared
from .rows import NO_LABEL, Targets, Vocabulary

CONSTANTS = {"one": 1.0, "zero": 0.0}
ALPHAS = ("retrieved", "mean", *CONSTANTS)


@dataclass(frozen=True)
class AttributeSums:
    """What is averaged over the pictures that show an attribute: one-hot labels, or a classifier's probabilities.

    `emotions` (8) over all pictures, `scenes` (S, 8) and `objects` (O, 8) over those that show each; float64. The
    pictures that show each are `scene_pictures` (S,) and `object_pictures` (O,).
    """

    emotions: Tensor
    scenes: Tensor
    objects: Tensor
    scene_pictures: Tensor
    object_pictures: Tensor

    @classmethod
    def empty(cls, vocabulary: Vocabulary) -> "AttributeSums":
        """Nothing yet."""
        scenes, objects = len(vocabulary.scenes), len(vocabulary.objects)
        shapes = ((len(EMOTIONS),), (scenes, len(EMOTIONS)), (objects, len(EMOTIONS)), (scenes,), (objects,))
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    @classmethod
    def count(cls, rows: Iterable[Targets], vocabulary: Vocabulary) -> "AttributeSums":
        """Over labels."""
        sums = cls.empty(vocabulary)
        one_hot = torch.eye(len(EMOTIONS), dtype=torch.float64)
        for row in rows:
            sums.add(one_hot[row.label], row.scene, row.objects)
        return sums

    def add(self, emotions: Tensor, scene: int, objects: Iterable[int]) -> None:
        """One picture with its (8,) emotions."""
        objects = list(objects)
        self.emotions.add_(emotions)
        if scene != NO_LABEL:
            self.scenes[scene] += emotions
            self.scene_pictures[scene] += 1
        self.objects[objects] += emotions
        self.object_pictures[objects] += 1

    def probabilities(self, smoothing: float) -> tuple[Tensor, Tensor]:
        """(S, 8) and (O, 8), rows sum to 1: (sum + smoothing * P(emotion)) / (pictures + smoothing).

        An attribute that was never seen falls back to P(emotion), the mean over all pictures.
        """
        prior = self.emotions / self.emotions.sum()

        def smoothed(sums: Tensor, pictures: Tensor) -> Tensor:
            weight = torch.where(pictures == 0, 1.0, smoothing)[:, None]
            return ((sums + weight * prior) / (pictures[:, None] + weight)).float()

        return smoothed(self.scenes, self.scene_pictures), smoothed(self.objects, self.object_pictures)

    def means(self, scenes: Tensor, objects: Tensor) -> tuple[float, float]:
        """Mean P(emotion of a picture | its scene) over the pictures, P(emotion | object) over all (picture, object).

        Args:
            scenes, objects: P(emotion | scene) (S, 8) and P(emotion | object) (O, 8).
        """
        scene_mean = (self.scenes * scenes).sum() / self.scene_pictures.sum()
        object_mean = (self.objects * objects).sum() / self.object_pictures.sum()
        return scene_mean.item(), object_mean.item()


def attribute_statistics(
    arguments: DataArguments, dataset: EmotionDataset | EmotionStream, smoothing: float = 1.0
) -> tuple[Tensor, Tensor]:
    """P(emotion | scene) (S, 8) and P(emotion | object) (O, 8), rows sum to 1.

    Args:
        arguments: where training.prepare has written them, they are taken from there, with its smoothing; of fewer
            labels they are counted all the same.
        dataset: the training split; they are counted from its rows otherwise.
        smoothing: pictures' worth of P(emotion) that each attribute starts with. The released tables hold a
            classifier's mean probabilities; counts need no classifier.

    Raises:
        ValueError: what was prepared belongs to another vocabulary, or a stream that was not prepared.
    """
    if arguments.prepared is not None and arguments.subset is None and arguments.half is None:
        prepared = Prepared(Path(arguments.prepared))
        if prepared.vocabulary != dataset.vocabulary:
            raise ValueError(
                f"{prepared.folder}: expected statistics of this data set's {_size(dataset.vocabulary)}, found "
                f"others, of {_size(prepared.vocabulary)}; run training.prepare on this data set."
            )
        return prepared.statistics()
    if isinstance(dataset, EmotionStream):
        raise ValueError(
            "Attribute statistics take a pass over the whole data set, and a stream would be read twice: run "
            "python -m training.prepare first and give its folder as --prepared."
        )
    return AttributeSums.count(dataset.rows, dataset.vocabulary).probabilities(smoothing)


def coefficient_tables(
    alpha: str, arguments: DataArguments, dataset: EmotionDataset | EmotionStream, smoothing: float = 1.0
) -> tuple[Tensor, Tensor]:
    """What an adapter looks alpha up in, of scenes (S, 8) and of objects (O, 8), in [0, 1].

    Args:
        alpha: "retrieved" for `attribute_statistics`, as published. The others are rivals to compare with
            and constants: "mean" is what the statistics give on average to the attributes that
            the data set names at a picture of their emotion, "one" suppresses nothing, and with "zero" the emotion
            feature alone makes the condition, one feature as in EmoGen.
        arguments, dataset, smoothing: as `attribute_statistics` takes them; the constants one and zero need none.

    Raises:
        ValueError: as `attribute_statistics`, or the mean of a stream.
    """
    if alpha == "retrieved":
        return attribute_statistics(arguments, dataset, smoothing)
    if alpha == "mean":
        if isinstance(dataset, EmotionStream):
            raise ValueError("--alpha mean counts over all rows and cannot go with --streaming; leave one out.")
        counted = AttributeSums.count(dataset.rows, dataset.vocabulary)
        constants = counted.means(*attribute_statistics(arguments, dataset, smoothing))
    else:
        constants = CONSTANTS[alpha], CONSTANTS[alpha]
    sizes = len(dataset.vocabulary.scenes), len(dataset.vocabulary.objects)
    scenes, objects = (torch.full((n, len(EMOTIONS)), c) for n, c in zip(sizes, constants, strict=True))
    return scenes, objects


def _size(vocabulary: Vocabulary) -> str:
    return f"{len(vocabulary.scenes)} scenes and {len(vocabulary.objects)} objects"
