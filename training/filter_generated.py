"""From generated images to a data set that stage 1 reads beside the real one: explicit feedback (design 2.5).

    python -m training.filter_generated --config training/configs/miniemoset.yaml --models MODEL

The criteria, in their order:

faithful   calibrated probability of the target emotion, and its lead over the runner-up. The temperature is fitted on
           the calibration split, and the least probability is the one from which on --precision of the predictions
           there are right.
clear      scene or object can be told as well as in most real validation images, by the models' attribute bases.
manifold   no farther from real training images than most real validation images are, in features of --extractor.
diverse    no near-duplicate of a better one; then the best image of each cell of a clustering, within quotas that
           follow the real P(attribute | emotion).

Whatever is skipped, no image is kept that is nearly a real one of any split, or one of --guarded_folders. Of the test
split the images alone are looked at, for that.

Who filters (--models): the generator was trained to please the emotion head of its own understanding model, which so
is a poor judge of what it drew. Cross-fitting takes one that was trained on other pictures: train stage 1 on either
half of the training split, stage 2 on the model of one half, and give the model of the *other* half here. Two
generators, one of each half, make two corpora, each filtered by the other half's model. Several models judge by the
mean of their log-probabilities: name more than one only if the generator was trained with none of them. Naming the
generator's own is self-filtering, to compare with: the emotion head tells, which generation.json names where it was
at hand, and then report and a warning say so.

--oracle takes the place of the models by the truth, where a --judge can read it: soft labels are the embedded world's
own probabilities of the attributes that the judge reads, annotations those that it reads and that were meant, and in
place of faithful an image falls if its target is not the likeliest emotion. What a filter could gain at the best;
--keep of the right ones are drawn at random, so --skip clear diverse goes with it.

Writes the data set (`train.json`, `info.json`, `image/`, `annotation/` with soft labels), `verdicts.jsonl` with the
criterion that each image fell at first, `report.json`, `report.md`, `report.png`, `kept.jpg`, `rejected.jpg`, and
`filter.json` with the arguments. Quotas are limits: where the corpus lacks what real images show, fewer than --keep
are kept. What networks find in images is kept in --features: the same command goes on where it was stopped, and other
thresholds take seconds. Of the embedded world, --judge reads the truth: how many labels are right, after each
criterion. Needs the extra `filtering`.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from .config import parse
from .data import DataArguments, open_vocabulary, read_rows
from .data.choosing import choose
from .data.opening import find_layout
from .files import write_whole
from .filtering.candidates import Candidates, Limits, RealRows, attribute_counts, measure
from .filtering.corpus import Corpus, read_corpora
from .filtering.kinship import kinships, warning
from .filtering.purity import Truth, purity_by_stage, read_truth, seen_by_oracle
from .filtering.reading import Extractor, Filter
from .filtering.report import kept_sheet, markdown, plot, rejected_sheet, summary
from .filtering.sieve import Sieve
from .filtering.sifting import ask_clear, ask_diverse, ask_faithful, ask_manifold, ask_true, ask_unseen, draw
from .filtering.writing import begin_output, check_output, kept_of_each, kept_rows, verdicts, write_data_set
from .runs import write_json
from .scripts import errors_in_one_line

STEPS = ("faithful", "clear", "manifold", "diverse")


@dataclass(kw_only=True)
class FilterArguments:
    """Which images, who judges them, and what is asked of them."""

    _argument_group_name = "the filter"

    corpora: list[str] = field(metadata={"help": "folders of training.generate, of one adapter"})
    models: list[str] = field(metadata={"help": "understanding models that filter, not the generator's: see above"})
    extractor: str = field(metadata={"help": "CLIP for distances: features other than the filter's"})
    output: str = field(metadata={"help": "folder to write"})
    features: str = field(metadata={"help": "folder where findings are kept, for any number of filters"})
    keep: int = field(metadata={"help": "images of each emotion to keep, at the most"})
    as_many_as: str | None = field(
        default=None,
        metadata={"help": "an earlier filter's folder: draw as many of each emotion as it kept; for --skip diverse"},
    )
    skip: list[str] = field(
        default_factory=list,
        metadata={"help": f"criteria to leave out: {', '.join(STEPS)}; without diverse, --keep are drawn at random"},
    )
    allow_empty: bool = field(
        default=False, metadata={"help": "go on where an emotion has no image left, instead of an error"}
    )
    calibration_split: str = field(
        default="calibration", metadata={"help": "split that sets temperature and threshold (validation B)"}
    )
    precision: float = field(default=0.9, metadata={"help": "of the filter on the calibration split"})
    margin: float = field(
        default=0.1,
        metadata={"help": "least lead over the runner-up; ours; above (1 + it) / 2 the least probability implies it"},
    )
    clarity_percentile: float = field(default=5.0, metadata={"help": "of real images that count as unclear; ours"})
    manifold_percentile: float = field(default=95.0, metadata={"help": "of real images that are on the manifold"})
    neighbours: int = field(default=5, metadata={"help": "the k-th nearest real image is the distance; ours"})
    duplicate_percentile: float = field(
        default=1.0, metadata={"help": "of real images that count as near-duplicates of another"}
    )
    guarded_splits: list[str] = field(
        default_factory=list, metadata={"help": "splits that no kept image may resemble; all if not given"}
    )
    guarded_folders: list[str] = field(
        default_factory=list, metadata={"help": "data sets kept by earlier filters, which no kept image may resemble"}
    )
    dimensions: int = field(default=64, metadata={"help": "numbers that PCA leaves of the extractor's features; ours"})
    judge: str | None = field(default=None, metadata={"help": "weights of the embedded world's judge, for purity"})
    oracle: bool = field(default=False, metadata={"help": "let the judge say what is faithful, to compare with"})
    batch_size: int = field(default=64, metadata={"help": "images of one step"})
    num_workers: int = field(default=0, metadata={"help": "processes that decode images"})
    device: str | None = field(default=None, metadata={"help": "the networks'; an accelerator where there is one"})
    seed: int = field(
        default=0, metadata={"help": "of the clusterings and the draw, and of --subset and --half as in stage 1"}
    )

    @property
    def faithful(self) -> bool:
        """Whether the models' probabilities are asked for."""
        return not self.oracle and "faithful" not in self.skip

    def __post_init__(self) -> None:
        if unknown := [name for name in self.skip if name not in STEPS]:
            raise ValueError(f"--skip knows {', '.join(STEPS)}; found {', '.join(unknown)}")
        if self.oracle and self.judge is None:
            raise ValueError("--oracle asks a judge; name its weights as --judge")
        if self.oracle and "faithful" in self.skip:
            raise ValueError("--oracle takes the place of faithful; leave out --oracle or --skip faithful")
        if self.oracle and not {"clear", "diverse"} <= set(self.skip):
            raise ValueError("--oracle knows what is right, not how clear it is: give --skip clear diverse as well")
        for name in ("clarity_percentile", "manifold_percentile", "duplicate_percentile"):
            if not 0 <= getattr(self, name) <= 100:
                raise ValueError(f"--{name} is from 0 to 100; found {getattr(self, name)}")
        if not 0 < self.precision <= 1:
            raise ValueError(f"--precision is above 0 and at most 1; found {self.precision}")
        if self.as_many_as is not None and "diverse" not in self.skip:
            raise ValueError("--as_many_as is for images that are drawn: give --skip diverse as well, or leave it out")
        for name in ("keep", "neighbours", "dimensions"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} is at least 1; found {getattr(self, name)}")


def real_rows(data: DataArguments, arguments: FilterArguments) -> RealRows:
    """The real images by what they are for, and with them the generated ones that were kept before.

    Raises:
        FileNotFoundError: an earlier filter's folder without a data set.
        ValueError: a stream, which cannot be gone back to.
    """
    if data.streaming:
        raise ValueError("Filtering goes over the real images several times: leave out --streaming.")
    guarded = arguments.guarded_splits or find_layout(data).splits()
    earlier = {folder: kept_rows(folder) for folder in arguments.guarded_folders}
    return RealRows(
        train=choose(read_rows(data, data.train_split), data.subset, data.half, arguments.seed),
        validation=read_rows(data, data.validation_split),
        calibration=read_rows(data, arguments.calibration_split),
        known={split: read_rows(data, split) for split in guarded} | earlier,
    )


def numbers_to_draw(arguments: FilterArguments) -> list[int]:
    """How many of each emotion, in EmoSet's order, where they are drawn at random.

    Raises:
        FileNotFoundError: no earlier filter at --as_many_as.
    """
    if arguments.as_many_as is None:
        return [arguments.keep] * len(EMOTIONS)
    return kept_of_each(arguments.as_many_as)


def check_numbers(corpus: Corpus, keep: int) -> None:
    """Make sure that there are enough to choose from.

    Raises:
        ValueError: an emotion with fewer images than shall be kept of it.
    """
    counts = dict.fromkeys(EMOTIONS, 0)
    for one in corpus.pictures:
        counts[EMOTIONS[one.label]] += 1
    emotion = min(counts, key=counts.__getitem__)
    if counts[emotion] < keep:
        raise ValueError(
            f"Expected at least {keep} generated images of each emotion, found {counts[emotion]} of {emotion}; "
            "generate more or lower --keep."
        )


def judged_truth(corpus: Corpus, candidates: Candidates, arguments: FilterArguments) -> Truth | None:
    """What the judge finds; None without one."""
    if arguments.judge is None:
        return None
    pictures = [one.picture for one in corpus.pictures]
    return read_truth(arguments.judge, pictures, candidates.labels, arguments.features)


def sift(
    candidates: Candidates,
    limits: Limits,
    counts: Mapping[str, np.ndarray],
    arguments: FilterArguments,
) -> Sieve:
    """Ask criterion by criterion.

    Args:
        candidates: as an oracle sees them, where it is asked.
        counts: by kind, real images of each emotion that name each attribute, (8, A).
    """
    sieve = Sieve(candidates.labels, arguments.allow_empty)
    if arguments.oracle:
        ask_true(sieve, candidates)
    elif arguments.faithful:
        ask_faithful(sieve, candidates, limits)
    if "clear" not in arguments.skip:
        ask_clear(sieve, candidates, limits)
    if "manifold" not in arguments.skip:
        ask_manifold(sieve, candidates, limits)
    ask_unseen(sieve, candidates, limits)
    if "diverse" not in arguments.skip:
        ask_diverse(sieve, candidates, limits, counts, arguments.keep, arguments.seed)
    else:
        draw(sieve, numbers_to_draw(arguments), arguments.seed)
    return sieve


def main(data: DataArguments, arguments: FilterArguments) -> None:
    """Read, let fall what does not pass, and write what is left."""
    output = Path(arguments.output)
    check_output(output, [data.data, *arguments.corpora])
    vocabulary = open_vocabulary(data)
    corpus = read_corpora(arguments.corpora, vocabulary)
    check_numbers(corpus, arguments.keep)
    real = real_rows(data, arguments)
    judges = Filter(arguments.models, vocabulary, arguments)
    related = kinships(judges, corpus)
    if (line := warning(related)) is not None:
        print(line, file=sys.stderr)
    candidates, limits = measure(corpus, real, judges, Extractor(arguments.extractor, arguments), arguments)
    counts = attribute_counts(real.train, vocabulary)
    truth = judged_truth(corpus, candidates, arguments)
    if arguments.oracle:
        candidates = seen_by_oracle(candidates, truth)
    sieve = sift(candidates, limits, counts, arguments)

    begin_output(output, asdict(data) | asdict(arguments))
    write_whole(output / "verdicts.jsonl", verdicts(corpus, candidates, sieve))
    purity = purity_by_stage(truth, candidates, sieve) if truth else None
    content = summary(candidates, limits, sieve, counts, purity, related)
    write_json(output / "report.json", content)
    write_whole(output / "report.md", markdown(content))
    plot(candidates, sieve, counts, vocabulary).savefig(output / "report.png", dpi=100)
    write_sheets(output, corpus, sieve)
    write_data_set(output, corpus, candidates, sieve, vocabulary)
    print(markdown(content))


def write_sheets(output: Path, corpus: Corpus, sieve: Sieve) -> None:
    """`kept.jpg`, and `rejected.jpg` where any fell."""
    (output / "rejected.jpg").unlink(missing_ok=True)  # an earlier filter's
    kept_sheet(corpus, sieve).save(output / "kept.jpg", quality=90)
    if (rejected := rejected_sheet(corpus, sieve)) is not None:
        rejected.save(output / "rejected.jpg", quality=90)


if __name__ == "__main__":
    with errors_in_one_line():
        main(*parse((DataArguments, FilterArguments), "filter_generated"))
