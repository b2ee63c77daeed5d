"""Explicit feedback in rounds: generate, filter, learn from what was kept, train jointly (design 2.5).

    python -m training.feedback --config training/configs/miniemoset.yaml

The steps are this package's scripts with the sections of the same file: train_understanding, train_joint, generate and
filter_generated. Cross-fitted: an understanding model is trained on either half of the labels and filters, in every
round, what the *other* half's generator drew; in the first nothing that a filter has to judge was drawn to please it.
From the second on a generator goes on from a model that has learnt from images which that filter chose and labelled,
so that its judgement comes back in part. A round is

1. on each half a generator: stage 2 on that half's model, which from the second round on has learnt from the images
   kept of its own half's corpora,
2. of each generator a corpus, filtered by the other half's model of the first round, without near-duplicates of what
   was kept before,
3. on all labels stage 1 with all that was kept so far, and stage 2 on that: `round-N/joint` is an adapter folder as
   any other, and the last round's is the result.

The same command again goes on where it was stopped; with more `--rounds` it goes on with one that is finished. Each
step's output is in `logs/`. With two or more `--workers` steps that do not wait for each other run side by side, each
with its share of the processor's threads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniemo_pipelines.fusion_uniemo import EMOTIONS
from uniemo_pipelines.training_records_uniemo import RESULTS

from .config import parse
from .files import write_whole
from .generated import MOST_SEED
from .runs import read_json
from .scripts import errors_in_one_line
from .tasks import Task, run_tasks, script

HALVES = (0, 1)


@dataclass(kw_only=True)
class FeedbackArguments:
    """How many rounds, of how many images."""

    config: str = field(metadata={"help": "YAML file with a section for this and for every step's script"})
    output: str = field(metadata={"help": "folder to write, or to go on with"})
    rounds: int = field(default=1, metadata={"help": "how often"})
    images: int = field(default=200, metadata={"help": "images of each emotion that each half's generator draws"})
    keep: int = field(default=50, metadata={"help": "images of each emotion to keep of each corpus, at the most"})
    start: str | None = field(
        default=None,
        metadata={
            "help": "understanding model to go on from, each round from the one before; all afresh if not given"
        },
    )
    subset: int | None = field(default=None, metadata={"help": "learn from so many labels only"})
    seed: int = field(default=0, metadata={"help": "decides everything random, the halves too"})
    workers: int = field(default=1, metadata={"help": "steps that run side by side"})

    def __post_init__(self) -> None:
        for name in ("rounds", "images", "keep", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected --{name} of at least 1, found {getattr(self, name)}.")
        most = MOST_SEED - len(HALVES) * self.rounds
        if not 0 <= self.seed <= most:
            raise ValueError(
                f"Expected --seed from 0 to {most}, found {self.seed}: each of {self.rounds} rounds draws by "
                f"{len(HALVES)} more above it, and the highest is {MOST_SEED}."
            )


@dataclass(frozen=True)
class Round:
    """The steps of one round; a task's name is its folder in the output."""

    arguments: FeedbackArguments
    number: int

    def tasks(self) -> Iterator[Task]:
        """In an order in which they could run one by one."""
        for half in HALVES:
            yield from self._corpus(half)
        yield from (self._filter(half) for half in HALVES)
        yield from self._result()

    @property
    def before(self) -> "Round | None":
        """The round before; None for the first."""
        return Round(self.arguments, self.number - 1) if self.number > 1 else None

    def name(self, step: str) -> str:
        """Of a step of this round."""
        return f"round-{self.number}/{step}"

    def _corpus(self, half: int) -> Iterator[Task]:
        model, generator = self.name(f"model-{half}"), self.name(f"generator-{half}")
        yield self._stage1(model, [half], half=half)
        yield self._task(generator, "train_joint", (model,), understanding=self._place(model), half=half)
        places = {"adapter": self._place(generator), "output": self._place(self.name(f"corpus-{half}"))}
        command = self._script("generate", **places, images=self.arguments.images, seed=self._seed_of_corpus(half))
        yield Task(self.name(f"corpus-{half}"), command, (generator,))

    def _filter(self, half: int) -> Task:
        corpus, judge, kept = self.name(f"corpus-{half}"), f"round-1/model-{1 - half}", self.name(f"kept-{half}")
        before = [*self._kept_before(HALVES), *(self.name(f"kept-{one}") for one in range(half))]
        command = self._script(
            "filter_generated",
            corpora=self._place(corpus),
            models=self._place(judge),
            output=self._place(kept),
            features=self._place("features"),
            keep=self.arguments.keep,
            guarded_folders=[self._place(one) for one in before] or None,
            subset=self.arguments.subset,
            seed=self.arguments.seed,
        )
        return Task(kept, command, (corpus, judge, *before))

    def _result(self) -> Iterator[Task]:
        model = self.name("understanding")
        yield self._stage1(model, HALVES, this_round=True)
        yield self._task(self.name("joint"), "train_joint", (model,), understanding=self._place(model))

    def _stage1(self, name: str, halves: Sequence[int], half: int | None = None, this_round: bool = False) -> Task:
        """Stage 1 on labels and on what was kept of these halves' corpora, of earlier rounds or of this one too."""
        kept = self._kept_before(halves) + [self.name(f"kept-{one}") for one in halves if this_round]
        start, needs = self.arguments.start if half is None else None, tuple(kept)
        if self.before and self.arguments.start:
            joint = self.before.name("joint" if half is None else f"generator-{half}")
            start, needs = f"{self._place(joint)}/understanding", (*kept, joint)
        generated = [self._place(one) for one in kept] or None
        return self._task(name, "train_understanding", needs, half=half, generated=generated, start=start)

    def _kept_before(self, halves: Sequence[int]) -> list[str]:
        """What the rounds before this one kept of these halves' corpora."""
        rounds = range(1, self.number)
        return [Round(self.arguments, number).name(f"kept-{half}") for number in rounds for half in halves]

    def _task(self, name: str, module: str, needs: tuple[str, ...], **flags: Any) -> Task:
        shared = {"output_dir": self._place(name), "subset": self.arguments.subset, "seed": self.arguments.seed}
        return Task(name, self._script(module, **shared, **flags), needs)

    def _script(self, module: str, **flags: Any) -> tuple[str, ...]:
        return script(module, self.arguments.config, **flags)

    def _place(self, name: str) -> str:
        return str(Path(self.arguments.output, name))

    def _seed_of_corpus(self, half: int) -> int:
        """Other noise in each corpus: generators that hardly differ would draw the same again."""
        return self.arguments.seed + len(HALVES) * (self.number - 1) + half + 1


def table(arguments: FeedbackArguments) -> str:
    """What each round kept, and how well its understanding model does, as Markdown."""
    lines = ["| round | kept of each emotion | accuracy on the validation split |", "|---|---|---|"]
    for number in range(1, arguments.rounds + 1):
        folder = Path(arguments.output, f"round-{number}")
        kept = [read_json(folder / f"kept-{half}/train.json") for half in HALVES]
        counts = [sum(row[0] == emotion for rows in kept for row in rows) for emotion in EMOTIONS]
        results = read_json(folder / "understanding" / RESULTS)
        accuracy = next(one for one in results if one["metric"] == "accuracy")
        lines.append(f"| {number} | {min(counts)} to {max(counts)} | {accuracy['value']:.4f} |")
    return "\n".join(lines) + "\n"


def main(arguments: FeedbackArguments) -> None:
    """All rounds, and a table of them."""
    tasks = [task for number in range(1, arguments.rounds + 1) for task in Round(arguments, number).tasks()]
    run_tasks(tasks, Path(arguments.output), arguments.workers)
    write_whole(Path(arguments.output, "rounds.md"), table(arguments))
    print(table(arguments))
    print(f"The last round's adapter: {Path(arguments.output, f'round-{arguments.rounds}', 'joint')}")


if __name__ == "__main__":
    with errors_in_one_line():
        main(parse(FeedbackArguments, "feedback"))
