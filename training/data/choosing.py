"""Fewer labels than there are: a subset, or one of two halves."""

import random
from collections.abc import Sequence
from dataclasses import replace

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from .rows import Row


def choose(rows: Sequence[Row], subset: int | None, half: int | None, seed: int) -> list[Row]:
    """The rows to learn from, in their order, numbered anew.

    A smaller subset is part of a larger one of the same seed, and both halves together are the subset.

    Args:
        rows: of the training split.
        subset: how many, as many of each emotion; all of them if None.
        half: 0 or 1 for one half of each emotion's; both if None.
        seed: decides which.

    Raises:
        ValueError: an emotion has too few pictures, or the subset does not divide by the emotions.
    """
    if subset is None and half is None:
        return list(rows)
    each, rest = (None, 0) if subset is None else divmod(subset, len(EMOTIONS))
    if rest:
        raise ValueError(f"Expected --subset to be a multiple of {len(EMOTIONS)}, found {subset}.")
    chosen = []
    for label, emotion in enumerate(EMOTIONS):
        mine = [row for row in rows if row.label == label]
        if each is not None and len(mine) < each:
            raise ValueError(f"Expected {each} pictures of {emotion} for --subset {subset}, found {len(mine)}.")
        random.Random(f"{seed}/{emotion}").shuffle(mine)
        chosen += mine[:each] if half is None else mine[:each][half::2]
    return [replace(row, index=index) for index, row in enumerate(sorted(chosen, key=lambda row: row.index))]
