"""A labelled picture, first in the data set's own words, then in numbers of a vocabulary."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from uniemo_pipelines.attributes import normalise, read_names
from uniemo_pipelines.fusion_uniemo import EMOTIONS

from .pictures import Picture

NO_LABEL = -100


@dataclass(frozen=True)
class Vocabulary:
    """Normalised attribute names; a name's position is its label. Either list is empty where a data set has none."""

    scenes: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()

    @classmethod
    def of(cls, scenes: Iterable[str], objects: Iterable[str]) -> "Vocabulary":
        """From names in any of EmoSet's spellings."""
        return cls(tuple(map(normalise, scenes)), tuple(map(normalise, objects)))

    @classmethod
    def read(cls, info: str | Path) -> "Vocabulary":
        """From EmoSet's `info.json`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: another file.
        """
        return cls.of(*read_names(Path(info)))


@dataclass(frozen=True, slots=True)
class Labels:
    """What a data set says about a picture, as it spells it.

    `scene` is None and `objects` empty for nothing; `missing` names an annotation that is listed and not there.
    `probabilities` (8) stand beside the emotion of a generated picture, whose label is no more than a classifier's.
    """

    emotion: str
    scene: str | None = None
    objects: tuple[str, ...] = ()
    missing: str | None = None
    probabilities: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture and what its data set says about it.

    `name` is the same wherever the data set lies: the picture's path in it, or "row 17".
    """

    name: str
    labels: Labels
    picture: Picture


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """Labels as numbers: the emotion in EmoSet's order, scene and objects in the vocabulary's.

    `scene` is NO_LABEL and `objects` empty where the data set names none; `probabilities` (8) make a soft label.
    """

    label: int
    scene: int = NO_LABEL
    objects: tuple[int, ...] = ()
    probabilities: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Row(Targets):
    """One labelled picture.

    `index` is its position among the rows that are used; in a stream, which has no positions, 63 bits of a digest of
    the picture. It decides, with seed and epoch, everything random about the sample. `generated` pictures are never
    more than a share of an epoch.
    """

    index: int
    picture: Picture
    generated: bool = False


@dataclass(frozen=True, slots=True)
class UnknownName:
    """A name that leads nowhere, and the picture that it was found at.

    `kind` is "emotion", "scene" or "object" for a name that is not in the vocabulary, or "annotation" for a file that
    is not there.
    """

    kind: str
    name: str
    picture: str


Report = Callable[[UnknownName], None]


def refuse(unknown: UnknownName) -> None:
    """The report of a reader that takes no unknown names.

    Raises:
        ValueError: always.
    """
    if unknown.kind == "emotion":
        known = ", ".join(EMOTIONS)
        raise ValueError(f"{unknown.picture}: unknown emotion {unknown.name!r}; expected one of {known}.")
    prepare = "run python -m training.prepare and give its folder as --prepared, which leaves such {} out."
    if unknown.kind == "annotation":
        raise ValueError(
            f"{unknown.picture}: expected its annotation {unknown.name}, found no such file; mend the data, or "
            f"{prepare.format('annotations')}"
        )
    raise ValueError(
        f"{unknown.picture}: {unknown.kind} {unknown.name!r} is not in the vocabulary; add it to info.json, or "
        f"{prepare.format('names')}"
    )


def overlook(unknown: UnknownName) -> None:
    """The report of a reader that leaves out what is unknown, because training.prepare has listed it."""


class Labeller:
    """Turns names into numbers.

    Args:
        vocabulary: a kind with no names at all is no kind of this data set, and is never unknown.
        report: hears of each unknown name; if it returns, the name is left out, and with an unknown emotion the row.
    """

    def __init__(self, vocabulary: Vocabulary, report: Report = refuse) -> None:
        self.report = report
        self.positions = {
            "emotion": {name: label for label, name in enumerate(EMOTIONS)},
            "scene": {name: label for label, name in enumerate(vocabulary.scenes)},
            "object": {name: label for label, name in enumerate(vocabulary.objects)},
        }

    def targets(self, labels: Labels, picture: str) -> Targets | None:
        """The numbers of some labels; None for an unknown emotion. `picture` is for the report."""
        emotion = self._look_up("emotion", [labels.emotion], picture)
        if labels.missing is not None:
            self.report(UnknownName("annotation", labels.missing, picture))
        scene = self._look_up("scene", [labels.scene] if labels.scene else [], picture)
        objects = self._look_up("object", labels.objects, picture)
        if not emotion:
            return None
        return Targets(
            label=emotion[0],
            scene=scene[0] if scene else NO_LABEL,
            objects=objects,
            probabilities=labels.probabilities,
        )

    def row(self, index: int, entry: Entry) -> Row | None:
        """The row of an entry; None for an unknown emotion."""
        found = self.targets(entry.labels, entry.picture.name)
        return None if found is None else Row(index=index, picture=entry.picture, **asdict(found))

    def _look_up(self, kind: str, names: Iterable[str], picture: str) -> tuple[int, ...]:
        positions = self.positions[kind]
        if not positions:
            return ()
        found = []
        for name in names:
            position = positions.get(normalise(name))
            if position is None:
                self.report(UnknownName(kind, name, picture))
            else:
                found.append(position)
        return tuple(dict.fromkeys(found))
