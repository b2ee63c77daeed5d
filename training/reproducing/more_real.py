"""As many more labelled images as a filter kept of each emotion: what generated images stand in for.

    python -m training.reproducing.more_real --data data/miniemoset --subset 800 --pool 1040 --seed 0 \\
        --as_many_as runs/kept --output runs/more_real

In EmoSet's layout, so that stage 1 reads them as it reads kept ones, in the same places of the same batches.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from ..data import DataArguments, Row, read_rows
from ..data.choosing import choose
from ..filtering.writing import LIST, kept_of_each
from ..runs import read_json, write_json
from ..scripts import errors_in_one_line


@dataclass(kw_only=True)
class Arguments:
    """Which images, and how many."""

    data: str = field(metadata={"help": "data set in EmoSet's layout"})
    subset: int = field(metadata={"help": "labels that are known already, as stage 1 takes them"})
    pool: int = field(metadata={"help": "larger subset, of which the others are taken"})
    as_many_as: str = field(metadata={"help": "folder of training.filter_generated: as many of each emotion"})
    output: str = field(metadata={"help": "folder to write"})
    seed: int = field(metadata={"help": "of the subsets, as in stage 1"})


def more_rows(arguments: Arguments) -> list[Row]:
    """Rows of the pool that are not in the subset.

    Raises:
        ValueError: the pool has too few of an emotion.
    """
    rows = read_rows(DataArguments(data=arguments.data), "train")
    known = {row.picture.name for row in choose(rows, arguments.subset, None, arguments.seed)}
    pool = choose(rows, arguments.pool, None, arguments.seed)
    found: list[Row] = []
    for label, number in enumerate(kept_of_each(arguments.as_many_as)):
        others = [row for row in pool if row.label == label and row.picture.name not in known]
        if len(others) < number:
            raise ValueError(
                f"Expected {number} more of {EMOTIONS[label]} in --pool, found {len(others)}; enlarge it."
            )
        found += others[:number]
    return found


def main(arguments: Arguments) -> None:
    """Copy them and what is said of them; the list of all last."""
    data, output = Path(arguments.data), Path(arguments.output)
    entries = {str(data / entry[-2]): entry for entry in read_json(data / LIST)}
    taken = [entries[row.picture.name] for row in more_rows(arguments)]
    for name in ("info.json", *(file for entry in taken for file in entry[-2:] if file)):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / name, output / name)
    write_json(output / LIST, taken)


if __name__ == "__main__":
    with errors_in_one_line():
        main(HfArgumentParser(Arguments).parse_args_into_dataclasses()[0])
