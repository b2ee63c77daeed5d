"""Data sets of the Hub, by name or as a folder, read by `datasets`: as a whole or as a stream."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets.distributed import split_dataset_by_node
from torch.utils.data import IterableDataset

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from .arguments import SourceArguments
from .pictures import BrokenPictureError, EncodedPicture, HubPicture, read_content
from .rows import Entry, Labels, Vocabulary

DATA_FILES = {".parquet", ".arrow", ".tar", ".jsonl", ".csv"}


@dataclass(frozen=True)
class Columns:
    """Which columns of a data set hold what; None for no such column. `names` are those of a ClassLabel."""

    image: str
    emotion: str
    scene: str | None
    object: str | None
    names: tuple[str, ...] = EMOTIONS

    def labelled(self) -> list[str]:
        """The columns other than the image."""
        return [column for column in (self.emotion, self.scene, self.object) if column]

    def labels(self, row: dict[str, Any]) -> Labels:
        """What a row says about its picture."""
        emotion = row[self.emotion]
        if isinstance(emotion, int):
            emotion = self.names[emotion] if 0 <= emotion < len(self.names) else str(emotion)
        scene = row[self.scene] if self.scene else None
        objects = (row[self.object] if self.object else None) or ()
        return Labels(str(emotion), scene or None, (objects,) if isinstance(objects, str) else tuple(objects))


class EntryStream(IterableDataset):
    """The entries of a streamed split. `datasets` gives each worker of a loader its own share of the files."""

    def __init__(self, rows: datasets.IterableDataset, columns: Columns) -> None:
        self.rows = rows
        self.columns = columns

    def set_epoch(self, epoch: int) -> None:
        """Another epoch, another order; it also reaches workers that live on."""
        self.rows.set_epoch(epoch)

    @property
    def epoch(self) -> int:
        return self.rows.epoch

    def shuffled(self, seed: int, buffer: int) -> "EntryStream":
        """Files in random order, and rows drawn from a buffer of so many."""
        return EntryStream(self.rows.shuffle(seed=seed, buffer_size=buffer), self.columns)

    def shared(self, rank: int, world: int) -> "EntryStream":
        """One process's share: whole files where their number divides by the processes', else every so many-th row."""
        return EntryStream(split_dataset_by_node(self.rows, rank, world), self.columns)

    def __iter__(self) -> Iterator[Entry]:
        for row in self.rows:
            picture = _encoded(row[self.columns.image])
            yield Entry(picture.name, self.columns.labels(row), picture)


@dataclass(frozen=True)
class HubLayout:
    """A data set that `datasets.load_dataset` reads."""

    arguments: SourceArguments

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder holds data files of a Hub data set."""
        return any(path.suffix in DATA_FILES for path in root.rglob("*"))

    def splits(self) -> list[str]:
        """The splits that it has."""
        return _ask(self.arguments.data, datasets.get_dataset_split_names)

    def vocabulary(self) -> Vocabulary | None:
        """That of `--vocabulary`; None where the data set has attributes and nobody says which."""
        if self.arguments.vocabulary is not None:
            return Vocabulary.read(self.arguments.vocabulary)
        rows = self._load(self.arguments.train_split, streaming=True)
        return None if self._columns(rows).labelled()[1:] else Vocabulary()

    def entries(self, split: str) -> list[Entry] | EntryStream:
        """The rows of a split.

        Raises:
            ValueError: no such data set or split, or it lacks a column.
        """
        rows = self._load(split, self.arguments.streaming)
        columns = self._columns(rows)
        if isinstance(_features(rows)[columns.image], datasets.Image):
            rows = rows.cast_column(columns.image, datasets.Image(decode=False))
        if isinstance(rows, datasets.IterableDataset):
            return EntryStream(rows, columns)
        labels = rows.select_columns(columns.labelled())
        return [
            Entry(f"row {position}", columns.labels(row), HubPicture(rows, columns.image, position))
            for position, row in enumerate(labels)
        ]

    def _load(self, split: str, streaming: bool) -> datasets.Dataset | datasets.IterableDataset:
        return _ask(self.arguments.data, datasets.load_dataset, split=split, streaming=streaming)

    def _columns(self, rows: datasets.Dataset | datasets.IterableDataset) -> Columns:
        asked, found = self.arguments, _features(rows)
        fields = SourceArguments.__dataclass_fields__
        optional = {
            kind: None if name not in found and name == fields[f"{kind}_column"].default else name
            for kind, name in (("scene", asked.scene_column), ("object", asked.object_column))
        }
        for name in filter(None, (asked.image_column, asked.emotion_column, *optional.values())):
            if name not in found:
                raise ValueError(f"{asked.data}: expected a column {name!r}, found {', '.join(found)}.")
        feature = found[asked.emotion_column]
        names = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else EMOTIONS
        return Columns(asked.image_column, asked.emotion_column, optional["scene"], optional["object"], names)


def _features(rows: datasets.Dataset | datasets.IterableDataset) -> Mapping[str, Any]:
    """Columns and their types; None for types that a stream only shows row by row."""
    return rows.features or dict.fromkeys(next(iter(rows)))


def _encoded(value: Any) -> EncodedPicture:
    path = value.get("path") if isinstance(value, dict) else None
    try:
        return EncodedPicture(path, read_content(value, path or "a picture"))
    except BrokenPictureError:
        return EncodedPicture(path, b"")  # the stream goes on, and whoever opens it hears that it is no picture


def _ask(data: str, question: Callable[..., Any], **options: Any) -> Any:
    """An answer of `datasets`, its many errors as one line."""
    try:
        return question(data, **options)
    except (ConnectionError, OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{data}: expected a folder that is there or a data set on the Hub with such a split; {reason}"
        ) from None
