"""EmoSet as it is downloaded, and MiniEmoSet.

info.json                       label maps; the order of its scenes and objects is the order of the vocabularies
train.json, val.json, test.json rows [emotion, image, annotation] or [emotion, id, image, annotation]
image/<emotion>/*.jpg           pictures of any size
annotation/<emotion>/*.json     optional "scene" (a string) and "object" (a string or a list of strings), and, which is
                                ours, "probabilities" of a generated picture (one for each emotion)
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from .pictures import FilePicture
from .rows import Entry, Labels, Vocabulary

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class EmoSetLayout:
    """A folder in this layout."""

    root: Path

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder has at least one of the files at its top."""
        return any(Path(root, f"{name}.json").is_file() for name in ("info", *SPLITS))

    def splits(self) -> list[str]:
        """The names of all split files, the usual ones first."""
        found = {path.stem for path in self.root.glob("*.json") if _is_split(path)}
        return [name for name in SPLITS if name in found] + sorted(found.difference(SPLITS))

    def vocabulary(self) -> Vocabulary:
        """The names in `info.json`; without that file there are no attributes."""
        info = self.root / "info.json"
        return Vocabulary.read(info) if info.is_file() else Vocabulary()

    def entries(self, split: str) -> list[Entry]:
        """What `<split>.json` lists.

        Raises:
            FileNotFoundError: the folder has no such split file.
            ValueError: a damaged file, or a row or an annotation of another form.
        """
        path = self.root / f"{split}.json"
        if not path.is_file():
            found = ", ".join(sorted(entry.name for entry in self.root.iterdir()))
            raise FileNotFoundError(f"Expected EmoSet's layout with {path}; found in {self.root}: {found}.")
        rows = _read(path)
        if not isinstance(rows, list):
            raise ValueError(f"{path}: expected a list of rows, found {type(rows).__name__}.")
        return [self._entry(row, f"{path}, row {number}") for number, row in enumerate(rows)]

    def _entry(self, row: Any, place: str) -> Entry:
        if not isinstance(row, list) or len(row) not in (3, 4):
            raise ValueError(f"{place}: expected [emotion, (id,) image, annotation], found {row}.")
        emotion, (image, annotation) = row[0], row[-2:]
        if not isinstance(image, str) or not isinstance(annotation, str | None):
            raise ValueError(f"{place}: expected paths of an image and its annotation, found {image}, {annotation}.")
        return Entry(
            Path(image).as_posix(), self._labels(str(emotion), annotation), FilePicture(str(self.root / image))
        )

    def _labels(self, emotion: str, annotation: str | None) -> Labels:
        if not annotation:
            return Labels(emotion)
        path = self.root / annotation
        if not path.is_file():
            return Labels(emotion, missing=annotation)
        content = _read(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path}: expected an object, found {type(content).__name__}.")
        scene, things = content.get("scene"), content.get("object") or []
        things = [things] if isinstance(things, str) else things
        if not isinstance(scene, str | None) or not isinstance(things, list) or not all(map(_is_text, things)):
            raise ValueError(f"{path}: expected names of a scene and of objects, found {scene!r} and {things!r}.")
        return Labels(emotion, scene, tuple(things), probabilities=_probabilities(content, path))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, found a damaged or another file ({error}).") from None


def _probabilities(annotation: dict[str, Any], path: Path) -> tuple[float, ...] | None:
    found = annotation.get("probabilities")
    if found is None:
        return None
    numbers = isinstance(found, list) and all(isinstance(one, float | int) and one >= 0 for one in found)
    if not numbers or len(found) != len(EMOTIONS) or abs(sum(found) - 1) > 1e-3:
        raise ValueError(f"{path}: expected {len(EMOTIONS)} probabilities that sum to 1, found {found}.")
    return tuple(map(float, found))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_split(path: Path) -> bool:
    """Any other JSON file that lies beside them is an object and not a list."""
    with path.open(encoding="utf-8") as file:
        return file.read(1) == "["
