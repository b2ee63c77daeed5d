"""What a split holds."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from uniemo_pipelines.attributes import normalise
from uniemo_pipelines.fusion_uniemo import EMOTIONS

from ..data.rows import NO_LABEL, Labeller, UnknownName, Vocabulary
from ..data.statistics import AttributeSums
from .checking import Checked


@dataclass(frozen=True)
class SplitCounts:
    """Numbers of pictures.

    `pictures` are listed, of those `broken` are missing or damaged, and `usable` are neither that nor of an unknown
    emotion. Of the usable ones, `without_scene` and `without_objects` name none, and `sums` has all other numbers.
    `unknown` has each unknown name and missing annotation with its number and one of its pictures.
    """

    pictures: int
    broken: int
    usable: int
    without_scene: int
    without_objects: int
    sums: AttributeSums
    unknown: dict[UnknownName, int]

    @property
    def emotions(self) -> dict[str, int]:
        """Usable pictures of each emotion."""
        return dict(zip(EMOTIONS, map(int, self.sums.emotions), strict=True))

    def attributes(self, vocabulary: Vocabulary) -> dict[str, dict[str, int]]:
        """Usable pictures of each scene and of each object."""
        kinds = {"scenes": self.sums.scene_pictures, "objects": self.sums.object_pictures}
        return {
            kind: dict(zip(getattr(vocabulary, kind), map(int, pictures), strict=True))
            for kind, pictures in kinds.items()
        }

    def summary(self, vocabulary: Vocabulary) -> dict[str, Any]:
        """All of it as JSON has it."""
        names = ("pictures", "broken", "usable", "without_scene", "without_objects")
        numbers = {name: getattr(self, name) for name in names}
        return {**numbers, "emotions": self.emotions, **self.attributes(vocabulary)}


def count_split(found: Sequence[Checked], vocabulary: Vocabulary) -> SplitCounts:
    """Count what was found at the pictures of a split."""
    unknown: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], UnknownName] = {}

    def note(name: UnknownName) -> None:
        unknown[name.kind, name.name] += 1
        examples.setdefault((name.kind, name.name), name)

    labeller = Labeller(vocabulary, note)
    good = [labeller.targets(checked.labels, checked.name) for checked in found if checked.reason is None]
    usable = [row for row in good if row is not None]
    return SplitCounts(
        pictures=len(found),
        broken=len(found) - len(good),
        usable=len(usable),
        without_scene=sum(row.scene == NO_LABEL for row in usable),
        without_objects=sum(not row.objects for row in usable),
        sums=AttributeSums.count(usable, vocabulary),
        unknown={examples[key]: number for key, number in unknown.most_common()},
    )


def collect_vocabulary(found: Iterable[Checked]) -> Vocabulary:
    """The names that a split uses, in alphabetical order."""
    labels = [checked.labels for checked in found]
    scenes = {normalise(label.scene) for label in labels if label.scene}
    objects = {normalise(name) for label in labels for name in label.objects}
    return Vocabulary(tuple(sorted(scenes)), tuple(sorted(objects)))
