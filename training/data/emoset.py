"""EmoSet as it is downloaded, and MiniEmoSet.

info.json                       label maps; the order of its scenes and objects is the order of the vocabularies
train.json, val.json, test.json rows [emotion, image, annotation] or [emotion, id, image, annotation]
image/<emotion>/*.jpg           pictures of any size
annotation/<emotion>/*.json     optional "scene" (a string) and "object" (a string or a list of strings)
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        """What `<split>.json` lists. A missing annotation means a picture without attributes.

        Raises:
            FileNotFoundError: the folder has no such split file.
            ValueError: a damaged file, or a row of another form.
        """
        path = self.root / f"{split}.json"
        if not path.is_file():
            found = ", ".join(sorted(entry.name for entry in self.root.iterdir()))
            raise FileNotFoundError(f"Expected EmoSet's layout with {path}; found in {self.root}: {found}.")
        return [self._entry(row, f"{path}, row {number}") for number, row in enumerate(_read(path))]

    def _entry(self, row: Any, place: str) -> Entry:
        if not isinstance(row, list) or len(row) not in (3, 4):
            raise ValueError(f"{place}: expected [emotion, (id,) image, annotation], found {row}.")
        emotion, (image, annotation) = row[0], row[-2:]
        labels = Labels(str(emotion), *self._attributes(annotation))
        return Entry(Path(image).as_posix(), labels, FilePicture(str(self.root / image)))

    def _attributes(self, annotation: str | None) -> tuple[str | None, tuple[str, ...]]:
        path = self.root / annotation if annotation else None
        if path is None or not path.is_file():
            return None, ()
        content = _read(path)
        things = content.get("object") or []
        return content.get("scene"), (things,) if isinstance(things, str) else tuple(things)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, found a damaged or another file ({error}).") from None


def _is_split(path: Path) -> bool:
    """Any other JSON file that lies beside them is an object and not a list."""
    with path.open(encoding="utf-8") as file:
        return file.read(1) == "["
