"""What a user says about the data, as typed arguments."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class SourceArguments:
    """Where the data lies and how it is read."""

    data: str = field(
        metadata={"help": "folder in EmoSet's layout, folder of one folder per emotion, or a Hub data set"}
    )
    streaming: bool = field(default=False, metadata={"help": "read a Hub data set while training; shuffle its files"})
    image_column: str = field(default="image", metadata={"help": "pictures of a Hub data set"})
    emotion_column: str = field(
        default="emotion", metadata={"help": "its emotions: names, or numbers in EmoSet's order"}
    )
    scene_column: str = field(default="scene", metadata={"help": "its scenes: a name or nothing; may be missing"})
    object_column: str = field(default="object", metadata={"help": "its objects: any number of names; may be missing"})
    vocabulary: str | None = field(default=None, metadata={"help": "info.json with a Hub data set's attribute names"})
    train_split: str = field(default="train", metadata={"help": "split to learn from"})
    validation_split: str = field(default="val", metadata={"help": "split that picks the best checkpoint"})


@dataclass(kw_only=True)
class DataArguments(SourceArguments):
    """How training sees it."""

    _argument_group_name = "the data"

    prepared: str | None = field(
        default=None,
        metadata={"help": "folder that training.prepare wrote: broken files are left out, statistics come from it"},
    )
    keep_images: bool = field(default=False, metadata={"help": "keep decoded pictures in memory, in each process"})
    class_balanced: bool = field(default=False, metadata={"help": "draw every emotion equally often"})
    subset: int | None = field(
        default=None,
        metadata={"help": "learn from so many pictures only, as many of each emotion, drawn by the seed"},
    )
    half: int | None = field(
        default=None,
        metadata={
            "help": "learn from this half of each emotion's pictures, for cross-fitting",
            "choices": [0, 1],
        },
    )
