"""What a loader reads: rows through a sample function, with randomness that depends on no order."""

import copy
import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from .hub import EntryStream
from .pictures import BrokenPictureError, OpenedPicture, Picture
from .rows import Labeller, Row, Vocabulary
from .transforms import SampleFunction

SHUFFLE_BUFFER = 1000
HINT = "Run python -m training.prepare and give its folder as --prepared, which leaves such pictures out."


def random_source(seed: int, epoch: int, index: int) -> random.Random:
    """The randomness of one sample in one epoch."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{index}".encode(), digest_size=7).digest()
    return random.Random(int.from_bytes(digest, "little"))


def _sampled(sample: SampleFunction, row: Row, picture: Picture, source: random.Random) -> dict[str, Any]:
    try:
        return sample(row, picture, source)
    except BrokenPictureError as error:
        raise BrokenPictureError(f"{error} {HINT}") from None


class EmotionDataset(Dataset):
    """Labelled pictures seen through a sample function: an item is `sample(row, picture, random source)`.

    Args:
        rows: `rows[i].index` is i.
        vocabulary: of the rows' scenes and objects.
        sample: makes an item.
        seed: with the epoch and the row's index it decides everything random about an item, so that neither the order,
            nor the workers, nor a distribution over processes matters.
        keep_images: keep every decoded picture in memory, in each process; for sets that fit there.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        vocabulary: Vocabulary,
        sample: SampleFunction,
        seed: int = 0,
        keep_images: bool = False,
    ) -> None:
        self.rows = rows
        self.vocabulary = vocabulary
        self.sample = sample
        self.seed = seed
        self._kept: dict[int, Picture] | None = {} if keep_images else None
        self._epoch = torch.tensor(0).share_memory_()  # so that it reaches workers that live on

    @property
    def labels(self) -> list[int]:
        """The emotion of each row."""
        return [row.label for row in self.rows]

    def set_epoch(self, epoch: int) -> None:
        """Augmentation differs from epoch to epoch, and is the same each time an epoch is run."""
        self._epoch.fill_(epoch)

    def with_rows(self, rows: Sequence[Row]) -> "EmotionDataset":
        """Other rows seen through the same sample function."""
        return EmotionDataset(rows, self.vocabulary, self.sample, self.seed, self._kept is not None)

    def with_sample(self, sample: SampleFunction) -> "EmotionDataset":
        """The same rows (and kept pictures) seen through another sample function, with an epoch of its own."""
        other = copy.copy(self)
        other.sample = sample
        other._epoch = self._epoch.clone().share_memory_()
        return other

    def random_source(self, index: int) -> random.Random:
        """The randomness of one item in the current epoch."""
        return random_source(self.seed, int(self._epoch), self.rows[index].index)

    def picture(self, index: int) -> Picture:
        """The handle of a picture; of one that stays in memory if pictures are kept."""
        if self._kept is None:
            return self.rows[index].picture
        if index not in self._kept:
            self._kept[index] = OpenedPicture(self.name(index), self.rows[index].picture.open())
        return self._kept[index]

    def image(self, index: int) -> Image.Image:
        """The picture as RGB."""
        return self.picture(index).open()

    def name(self, index: int) -> str:
        """What messages call the picture: a path, or "row 17"."""
        return self.rows[index].picture.name

    def stamp(self, index: int) -> str:
        """What changes when the picture does."""
        return self.rows[index].picture.stamp

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            picture = self.picture(index)
        except BrokenPictureError as error:
            raise BrokenPictureError(f"{error} {HINT}") from None
        return _sampled(self.sample, self.rows[index], picture, self.random_source(index))


class EmotionStream(IterableDataset):
    """A streamed split seen through a sample function.

    Over all processes and all workers of their loaders each sample comes once an epoch. An epoch's order is the same
    each time it is run with the same number of both, so that skipping what was seen resumes it. Processes may get
    unequal numbers of samples.

    Args:
        entries: one process's share.
        labeller: turns names into numbers.
        vocabulary: its vocabulary.
        sample: makes an item.
        seed: as in `EmotionDataset`; a row's index is a digest of its picture.
        left_out: names of entries that are passed over.
    """

    def __init__(
        self,
        entries: EntryStream,
        labeller: Labeller,
        vocabulary: Vocabulary,
        sample: SampleFunction,
        seed: int = 0,
        left_out: frozenset[str] = frozenset(),
    ) -> None:
        self.entries = entries
        self.labeller = labeller
        self.vocabulary = vocabulary
        self.sample = sample
        self.seed = seed
        self.left_out = left_out

    def set_epoch(self, epoch: int) -> None:
        """Order and augmentation differ from epoch to epoch, and are the same each time an epoch is run."""
        self.entries.set_epoch(epoch)

    def name(self, index: int) -> str:
        """What messages call a picture: the end of its entry's name."""
        return f"picture {index:016x}"

    def with_sample(self, sample: SampleFunction) -> "EmotionStream":
        """The same rows seen through another sample function; both are in the same epoch."""
        other = copy.copy(self)
        other.sample = sample
        return other

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for entry in self.entries:
            row = None if entry.name in self.left_out else self.labeller.row(entry.picture.digest, entry)
            if row is not None:
                source = random_source(self.seed, self.entries.epoch, row.index)
                yield _sampled(self.sample, row, row.picture, source)
