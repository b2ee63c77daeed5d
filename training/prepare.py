"""Check a data set once, before hours of training on it, and write what training takes from it.

    python -m training.prepare --data data/EmoSet-118K --output runs/emoset/prepared

Every picture is decoded. A run that was stopped goes on where it was, and one over a data set that was mended looks
only at what is new or was broken. The folder that training takes as `--prepared` then has

    broken.jsonl            a line for each picture that is missing or damaged, and why; training leaves them out
    unknown.jsonl           a line for each emotion, scene or object that is not in the vocabulary, and how often, and
                            for each annotation that is missing
    statistics.safetensors  P(emotion | scene) (S, 8) and P(emotion | object) (O, 8), and what they were made of
    summary.json            vocabulary, counts and arguments
    counts.png, report.md   for people
    checked.jsonl           what was looked at
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from transformers import CLIPImageProcessorPil, HfArgumentParser

from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel

from .data.arguments import DataArguments, SourceArguments
from .data.opening import find_layout, open_split
from .data.prepared import BROKEN, STATISTICS, SUMMARY, digest_of_names
from .data.rows import Vocabulary
from .data.statistics import AttributeSums
from .data.transforms import EvaluationTransform, PictureSample
from .files import save_whole, write_whole
from .preparing.checking import Checked, check_split
from .preparing.classifying import sum_probabilities
from .preparing.counting import SplitCounts, collect_vocabulary, count_split
from .preparing.report import plot, report
from .sampling import digest_of
from .scripts import errors_in_one_line


@dataclass(kw_only=True)
class PrepareArguments(SourceArguments):
    """What to check, and where the attribute statistics come from."""

    output: str = field(metadata={"help": "folder to write, training's --prepared"})
    num_workers: int = field(default=2, metadata={"help": "processes that decode pictures"})
    smoothing: float = field(
        default=1.0, metadata={"help": "pictures' worth of P(emotion) that each attribute starts with"}
    )
    classifier: str | None = field(
        default=None,
        metadata={
            "help": "understanding model whose mean probabilities are the statistics (released form), not counts"
        },
    )
    batch_size: int = field(default=64, metadata={"help": "pictures of one step of the classifier"})
    device: str | None = field(default=None, metadata={"help": "the classifier's; an accelerator where there is one"})


def main(arguments: PrepareArguments) -> None:
    """Check every split, count, write, and print the report.

    Raises:
        SystemExit: at the end, for an emotion of the training split without a picture.
    """
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    checked = check(arguments, output)
    vocabulary = find_layout(arguments).vocabulary() or collect_vocabulary(checked[arguments.train_split])
    counts = {split: count_split(found, vocabulary) for split, found in checked.items()}
    write_summary(output, arguments, vocabulary, counts, checked)
    sums = counts[arguments.train_split].sums
    if arguments.classifier is not None:
        sums = classify(arguments, vocabulary, counts[arguments.train_split], output)
    write_statistics(output, sums, arguments.smoothing)
    plot(counts, vocabulary, arguments.train_split).savefig(output / "counts.png", dpi=100)
    text = report(counts, checked)
    write_whole(output / "report.md", text)
    print(text)
    if lacking := [name for name, count in counts[arguments.train_split].emotions.items() if not count]:
        raise SystemExit(
            f"{arguments.data}: expected pictures of every emotion in the split {arguments.train_split!r}, found none "
            f"of {', '.join(lacking)}."
        )


def check(arguments: PrepareArguments, output: Path) -> dict[str, list[Checked]]:
    """What was found at each picture, by split.

    Raises:
        ValueError: no training split.
    """
    layout = find_layout(arguments)
    splits = layout.splits()
    if arguments.train_split not in splits:
        raise ValueError(
            f"{arguments.data}: expected a split {arguments.train_split!r}, found {', '.join(splits)}; --train_split "
            "names another one."
        )
    state = output / "checked.jsonl"
    return {split: check_split(split, layout.entries(split), state, arguments.num_workers) for split in splits}


def write_summary(
    output: Path,
    arguments: PrepareArguments,
    vocabulary: Vocabulary,
    counts: Mapping[str, SplitCounts],
    checked: Mapping[str, list[Checked]],
) -> None:
    """`broken.jsonl`, `unknown.jsonl`, and last `summary.json`, by which training knows the folder."""
    (output / STATISTICS).unlink(missing_ok=True)  # of an earlier run, perhaps over another vocabulary
    broken = [
        {"split": split, "name": found.name, "reason": found.reason}
        for split, all_found in checked.items()
        for found in all_found
        if found.reason is not None
    ]
    unknown = [
        {"split": split, **asdict(name), "pictures": number}
        for split, count in counts.items()
        for name, number in count.unknown.items()
    ]
    for name, lines in ((BROKEN, broken), ("unknown.jsonl", unknown)):
        write_whole(output / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    content = {
        "arguments": asdict(arguments),
        "vocabulary": asdict(vocabulary),
        "splits": {split: count.summary(vocabulary) for split, count in counts.items()},
        "names": {split: digest_of_names(found.name for found in all_found) for split, all_found in checked.items()},
    }
    write_whole(output / SUMMARY, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def classify(arguments: PrepareArguments, vocabulary: Vocabulary, counts: SplitCounts, output: Path) -> AttributeSums:
    """Sums of a model's predicted probabilities over the training split's usable pictures."""
    device = arguments.device or torch.accelerator.current_accelerator() or "cpu"
    model = UniEmoUnderstandingModel.from_pretrained(arguments.classifier, dtype=torch.float32).eval().to(device)
    transform = EvaluationTransform(CLIPImageProcessorPil.from_pretrained(arguments.classifier))
    source = {name: getattr(arguments, name) for name in SourceArguments.__dataclass_fields__}
    data = DataArguments(**source, prepared=str(output))
    pictures = open_split(data, arguments.train_split, PictureSample(transform, vocabulary))
    loader = DataLoader(pictures, arguments.batch_size, num_workers=arguments.num_workers)
    settings = [arguments.batch_size, arguments.num_workers, vocabulary, counts.summary(vocabulary)]
    key = digest_of(settings, [output / BROKEN, *sorted(Path(arguments.classifier).glob("*.safetensors"))])
    return sum_probabilities(model, loader, vocabulary, output / "classifier.safetensors", key)


def write_statistics(output: Path, sums: AttributeSums, smoothing: float) -> None:
    """The probabilities as `scenes` and `objects`, and beside them the sums that they were made of."""
    scenes, objects = sums.probabilities(smoothing)
    made_of = {f"sums.{name}": tensor for name, tensor in vars(sums).items()}
    save_whole(output / STATISTICS, {"scenes": scenes, "objects": objects, **made_of})


if __name__ == "__main__":
    with errors_in_one_line():
        main(HfArgumentParser(PrepareArguments).parse_args_into_dataclasses()[0])
