"""Real pictures and kept generated ones in one data set."""

from collections.abc import Sequence
from dataclasses import replace

from .arguments import DataArguments
from .dataset import EmotionDataset
from .opening import open_vocabulary, read_rows


def with_generated(pictures: EmotionDataset, folders: Sequence[str]) -> EmotionDataset:
    """The pictures, and after them those of folders that training.filter_generated wrote.

    Args:
        pictures: real ones.
        folders: in EmoSet's layout; all that is in their training splits.

    Raises:
        ValueError: a folder of another vocabulary, or one that has no pictures.
    """
    rows = list(pictures.rows)
    for folder in folders:
        arguments = DataArguments(data=folder)
        if open_vocabulary(arguments) != pictures.vocabulary:
            raise ValueError(f"{folder}: expected the real pictures' vocabulary in its info.json, found another.")
        for row in read_rows(arguments, "train"):
            rows.append(replace(row, index=len(rows), generated=True))
    return pictures.with_rows(rows)
