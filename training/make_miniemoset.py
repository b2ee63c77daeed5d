"""Draw MiniEmoSet from its seeds, in EmoSet's layout, and print the best accuracy that its attributes allow.

python -m training.make_miniemoset --output data/miniemoset
"""

from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser

from .miniemoset.attributes import bayes_accuracy
from .miniemoset.dataset import SPLIT_SIZES, write_dataset

PARTS = (("scene",), ("objects",), ("palette",), ("brightness",), ("scene", "objects"), ())


@dataclass
class Arguments:
    """Where to draw MiniEmoSet, and how much of it."""

    output: str = field(default="data/miniemoset", metadata={"help": "folder to write"})
    train: int = field(default=SPLIT_SIZES["train"], metadata={"help": "labelled training images"})
    val: int = field(default=SPLIT_SIZES["val"], metadata={"help": "validation A: picks checkpoints"})
    calibration: int = field(default=SPLIT_SIZES["calibration"], metadata={"help": "validation B: picks settings"})
    test: int = field(default=SPLIT_SIZES["test"], metadata={"help": "test images"})


def main(arguments: Arguments) -> None:
    """Draw every split, and print the Bayes-optimal accuracy, computed exactly, of parts of an image and of all."""
    sizes = {split: getattr(arguments, split) for split in SPLIT_SIZES}
    write_dataset(Path(arguments.output), sizes)
    for parts in PARTS:
        print(f"Bayes-optimal accuracy from {' and '.join(parts) or 'everything'}: {bayes_accuracy(*parts):.4f}")


if __name__ == "__main__":
    main(HfArgumentParser(Arguments).parse_args_into_dataclasses()[0])
