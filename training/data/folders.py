"""A folder of pictures for each emotion, with no attributes, for sets like FI.

    root/train/awe/*.jpg    split folders, or
    root/awe/*.jpg          none: a stable hash of a picture's path in `root` decides its split, in EmoSet's shares

Emotions may be spelt "Awe" or "awe"; a folder of another name is refused.
"""

import hashlib
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from uniemo_pipelines.attributes import normalise
from uniemo_pipelines.folder_prediction import find_pictures
from uniemo_pipelines.fusion_uniemo import EMOTIONS

from .pictures import FilePicture
from .rows import Entry, Labels, Vocabulary

SHARES = {"train": 0.80, "val": 0.05, "test": 0.15}
"""EmoSet's."""


@dataclass(frozen=True)
class FolderLayout:
    """A folder in either of the two forms."""

    root: Path

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder of an emotion lies in it, or in a folder in it."""
        return _has_emotion(root) or any(map(_has_emotion, _folders(root)))

    def splits(self) -> list[str]:
        """The split folders, or the three that are drawn."""
        if _has_emotion(self.root):
            return list(SHARES)
        found = {folder.name for folder in _folders(self.root) if _has_emotion(folder)}
        return [name for name in SHARES if name in found] + sorted(found.difference(SHARES))

    def vocabulary(self) -> Vocabulary:
        """There are no attributes."""
        return Vocabulary()

    def entries(self, split: str) -> list[Entry]:
        """The pictures of a split, in the order of their paths.

        Raises:
            FileNotFoundError: there is no such split.
            ValueError: a folder that is none of an emotion.
        """
        if split not in self.splits():
            raise FileNotFoundError(f"{self.root}: expected a split {split!r}, found {', '.join(self.splits())}.")
        if _has_emotion(self.root):
            return [entry for entry in self._below(self.root) if split_of(entry.name) == split]
        return self._below(self.root / split)

    def _below(self, where: Path) -> list[Entry]:
        found = []
        for folder in _folders(where):
            if not _is_emotion(folder):
                raise ValueError(
                    f"{where}: unknown emotion {folder.name!r}; expected folders named {', '.join(EMOTIONS)}."
                )
            for path in (folder / name for name in find_pictures(folder)):
                name = path.relative_to(self.root).as_posix()
                found.append(Entry(name, Labels(folder.name), FilePicture(str(path))))
        return found


def split_of(name: str) -> str:
    """The split that a picture's path in its data set decides."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "little") / 2**64
    bounds = zip(SHARES, accumulate(SHARES.values()), strict=True)
    return next((split for split, bound in bounds if place < bound), "test")


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_emotion(folder: Path) -> bool:
    return normalise(folder.name) in EMOTIONS


def _has_emotion(root: Path) -> bool:
    return any(map(_is_emotion, _folders(root)))
