"""The one way to a split, whatever the data looks like."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from accelerate.utils.environment import get_int_from_env

from .arguments import DataArguments, SourceArguments
from .choosing import choose
from .dataset import SHUFFLE_BUFFER, EmotionDataset, EmotionStream
from .emoset import SPLITS, EmoSetLayout
from .folders import FolderLayout
from .hub import DATA_FILES, EntryStream, HubLayout
from .prepared import Prepared
from .rows import Entry, Labeller, Row, Vocabulary, overlook, refuse
from .transforms import SampleFunction


class Layout(Protocol):
    """One of the forms that a data set may have."""

    def splits(self) -> list[str]:
        """The names of its splits."""

    def vocabulary(self) -> Vocabulary | None:
        """Its attributes' names; None where it has attributes and does not say which."""

    def entries(self, split: str) -> Sequence[Entry] | EntryStream:
        """The pictures of a split with what is said about them."""


def find_layout(arguments: SourceArguments) -> Layout:
    """The form that the data has.

    Raises:
        FileNotFoundError: a folder in no known form.
        ValueError: streaming from a folder that is no Hub data set.
    """
    root = Path(arguments.data)
    if not root.is_dir():
        return HubLayout(arguments)
    for layout in (EmoSetLayout, FolderLayout):
        if layout.fits(root):
            if arguments.streaming:
                raise ValueError(f"--streaming is for Hub data sets; {root} is a folder of pictures, leave it out.")
            return layout(root)
    if HubLayout.fits(root):
        return HubLayout(arguments)
    files = ", ".join(f"{name}.json" for name in ("info", *SPLITS))
    found = ", ".join(sorted(entry.name for entry in root.iterdir())) or "nothing"
    raise FileNotFoundError(
        f"{root}: expected EmoSet's layout ({files}), folders of emotions (train/awe or awe), or a Hub data set's "
        f"files (*{', *'.join(sorted(DATA_FILES))}); found {found}."
    )


def open_vocabulary(arguments: DataArguments) -> Vocabulary:
    """The attributes of a data set: those that it was prepared with, else its own.

    Raises:
        ValueError: a Hub data set with attributes, and nothing that says which.
    """
    if arguments.prepared is not None:
        return Prepared(Path(arguments.prepared)).vocabulary
    vocabulary = find_layout(arguments).vocabulary()
    if vocabulary is None:
        raise ValueError(
            f"{arguments.data}: it has scenes or objects, but nothing says which there are; give --vocabulary "
            "info.json, or run python -m training.prepare, which collects them, and give its folder as --prepared."
        )
    return vocabulary


def read_rows(arguments: DataArguments, split: str) -> list[Row]:
    """The labelled pictures of a split, in order; broken ones are left out where `prepared` lists them.

    Raises:
        FileNotFoundError: another layout, or no such split.
        ValueError: a row that cannot be used, no row at all, or a `prepared` of other pictures.
    """
    return _label(arguments, split, find_layout(arguments).entries(split), open_vocabulary(arguments))


def open_split(
    arguments: DataArguments, split: str, sample: SampleFunction, seed: int = 0
) -> EmotionDataset | EmotionStream:
    """A split of the data as samples.

    Args:
        arguments: what data, and how it is seen.
        split: its name. A stream of the training split is shuffled, and each process has a share of it; of another
            split every process has the whole, in order.
        sample: makes an item of a row, its picture and a random source.
        seed: decides everything random.

    Raises:
        FileNotFoundError, ValueError: as `read_rows`, or an option that streams cannot have.
    """
    vocabulary, entries = open_vocabulary(arguments), find_layout(arguments).entries(split)
    if not isinstance(entries, EntryStream):
        rows = _label(arguments, split, entries, vocabulary)
        if split == arguments.train_split:
            rows = choose(rows, arguments.subset, arguments.half, seed)
        return EmotionDataset(rows, vocabulary, sample, seed, arguments.keep_images)
    for option in ("keep_images", "class_balanced", "subset", "half"):
        if getattr(arguments, option) is not DataArguments.__dataclass_fields__[option].default:
            raise ValueError(f"--{option} needs all rows at hand and cannot go with --streaming; leave one out.")
    if split == arguments.train_split:
        # Set by every launcher; asking the process group would start it, and loaders' workers have none.
        rank, world = get_int_from_env(["RANK"], 0), get_int_from_env(["WORLD_SIZE"], 1)
        entries = entries.shuffled(seed, SHUFFLE_BUFFER).shared(rank, world)
    labeller = _labeller(arguments, vocabulary)
    return EmotionStream(entries, labeller, vocabulary, sample, seed, _left_out(arguments, split))


def _label(arguments: DataArguments, split: str, entries: Sequence[Entry], vocabulary: Vocabulary) -> list[Row]:
    labeller, left_out = _labeller(arguments, vocabulary), _left_out(arguments, split)
    if arguments.prepared is not None:
        Prepared(Path(arguments.prepared)).check_names(split, (entry.name for entry in entries))
    rows: list[Row] = []
    for entry in entries:
        row = None if entry.name in left_out else labeller.row(len(rows), entry)
        if row is not None:
            rows.append(row)
    if not rows:
        raise ValueError(f"{arguments.data}: expected pictures in the split {split!r}, found none that can be used.")
    return rows


def _labeller(arguments: DataArguments, vocabulary: Vocabulary) -> Labeller:
    return Labeller(vocabulary, refuse if arguments.prepared is None else overlook)


def _left_out(arguments: DataArguments, split: str) -> frozenset[str]:
    return frozenset() if arguments.prepared is None else Prepared(Path(arguments.prepared)).broken(split)
