"""How well models understand emotions, and how well generated images evoke them: figures with 95 % intervals.

    python -m training.evaluate --config training/configs/miniemoset.yaml --split calibration \\
        --models runs/mini/understanding --generated runs/mini/generated

Reads `split` of the data, which for a reported table is the test split, opened once. Writes `evaluation.json`,
`evaluation.md` and `confusion.png`. What networks said of pictures is kept, all but the distances of pairs, so that a
run that was stopped goes on where it was, another network costs its own pass only, and with --observed other sets cost
theirs.

Understanding: accuracy over eight and two classes, macro-F1, precision, recall and F1 of each emotion, calibration
error, Brier score, negative log-likelihood. Several models (of several seeds) also get their mean and its t interval.

Generation: a set is a folder that `training.generate` wrote, or one of a folder an emotion; several sets (of several
seeds) get their mean too. Beside them stands the same number of real images of the split, the floor: both are held
against the split's other images. Intervals are over images; those of coverage, density, precision and recall take the
images on the other side as they are, and so are too narrow. The classifier, the readers of attributes and the
extractors should have had no part in training, tuning or filtering what they judge, which is for you to see to:
refused is the generator's own understanding model alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .config import parse
from .data import DataArguments, Row, read_rows
from .evaluating.images import read_generated
from .evaluating.independence import refuse_own_judges
from .evaluating.networks import (
    ATTRIBUTES,
    CLASSIFIERS,
    EXTRACTORS,
    EmotionProbabilities,
    OfPixels,
    open_network,
)
from .evaluating.pairs import PAIRWISE, pairwise_distance
from .evaluating.scoring import Figures, Observed, Scores, frechet_figures, joined, match, score
from .evaluating.tables import generation_tables, pooled_table, understanding_tables
from .files import write_whole
from .metrics.distances import LEAST_IMAGES
from .metrics.seeds import seed_estimate
from .metrics.understanding import UnderstandingScores, draw_confusion, score_understanding
from .observing import OUTPUT, Observer, Seen, Square
from .runs import write_json
from .scripts import errors_in_one_line

REAL, POOLED = "real images", "all generated sets together"
JUDGE, ATTRIBUTE_READER = "the judge", "the reader of attributes"


@dataclass(kw_only=True)
class EvaluationArguments:
    """What is evaluated, and by what."""

    _argument_group_name = "the evaluation"

    split: str = field(metadata={"help": "real images: test, once, for a reported table; another to develop"})
    output: str = field(metadata={"help": "folder to write"})
    models: list[str] = field(
        default_factory=list, metadata={"help": "image classifiers of emotions: folders of one row's seeds"}
    )
    generated: list[str] = field(
        default_factory=list, metadata={"help": "folders of generated images, of one row's seeds"}
    )
    classifier: str | None = field(
        default=None, metadata={"help": "who judges emotions: model:FOLDER, or reader:WEIGHTS of MiniEmoSet"}
    )
    attributes: str | None = field(
        default=None,
        metadata={"help": "who reads scenes and objects: uniemo:FOLDER, classifiers:SCENES,OBJECTS, reader:WEIGHTS"},
    )
    extractors: list[str] = field(
        default_factory=list, metadata={"help": "whose features: clip:FOLDER, inception, reader:WEIGHTS"}
    )
    pairwise: str | None = field(
        default=None, metadata={"help": "distance of two images: lpips:alex, lpips:vgg, or reader:WEIGHTS"}
    )
    observed: str | None = field(
        default=None,
        metadata={"help": "folder where what networks said is kept, for several evaluations; --output has one else"},
    )
    resolution: int | None = field(
        default=None, metadata={"help": "edge of all images before a network; that of the first generated one"}
    )
    batch_size: int = field(default=50, metadata={"help": "pictures at once"})
    num_workers: int = field(default=0, metadata={"help": "processes that read pictures"})
    seed: int = field(default=0, metadata={"help": "decides which images are held against each other"})


@dataclass(frozen=True)
class Networks:
    """Who looks at generated images."""

    judge: nn.Module
    attributes: nn.Module | None
    extractors: dict[str, nn.Module]
    pairwise: nn.Module | None

    @property
    def all(self) -> list[nn.Module]:
        """Each of them."""
        named = (self.judge, self.attributes, *self.extractors.values(), self.pairwise)
        return [network for network in named if network is not None]

    def look(self, rows: Sequence[Row], load: Square, observer: Observer, description: str) -> Observed:
        """What all but the pairwise one say of images."""
        networks = {JUDGE: self.judge, **self.extractors}
        if self.attributes is not None:
            networks[ATTRIBUTE_READER] = self.attributes
        said = observer.observe([row.picture for row in rows], load, networks, description)
        return Observed(
            labels_of(rows),
            said.pop(JUDGE)[OUTPUT],
            said.pop(ATTRIBUTE_READER, {}),
            {name: outputs[OUTPUT] for name, outputs in said.items()},
        )


def open_networks(arguments: EvaluationArguments) -> Networks:
    """The networks that the arguments name.

    Raises:
        ValueError, OSError: as `open_network`.
    """
    return Networks(
        open_network(CLASSIFIERS, arguments.classifier),
        open_network(ATTRIBUTES, arguments.attributes) if arguments.attributes else None,
        {name: open_network(EXTRACTORS, name) for name in arguments.extractors},
        open_network(PAIRWISE, arguments.pairwise) if arguments.pairwise else None,
    )


def evaluate_understanding(
    locations: Sequence[str], rows: Sequence[Row], observer: Observer
) -> dict[str, UnderstandingScores]:
    """The figures of each model on all rows.

    Raises:
        ValueError: a model with other labels, or an emotion with fewer than two pictures.
    """
    pictures, said = [row.picture for row in rows], {}
    alike: dict[str, dict[str, EmotionProbabilities]] = {}  # by what they see of a picture, which is read once for all
    for location in locations:
        classifier = open_network(CLASSIFIERS, f"model:{location}")
        alike.setdefault(repr(Seen(classifier.processor)), {})[location] = classifier
    for classifiers in alike.values():
        seen = Seen(next(iter(classifiers.values())).processor)
        networks = {location: OfPixels(classifier) for location, classifier in classifiers.items()}
        said |= observer.observe(pictures, seen, networks, f"understanding, {len(classifiers)} models")
    return {location: score_understanding(said[location][OUTPUT], labels_of(rows)) for location in locations}


def evaluate_generation(
    sets: Mapping[str, Sequence[Row]],
    real: Sequence[Row],
    networks: Networks,
    load: Square,
    observer: Observer,
    seed: int = 0,
) -> dict[str, Scores]:
    """The figures of the held real images, then of each generated set, all against the same reference.

    Args:
        sets: by name, generated images with the emotions that were asked for.
        real: images of one split.
        networks: who looks at them.
        load: what they see.
        observer: keeps what they said.
        seed: decides which images are held against each other, and the pairs.

    Raises:
        ValueError: an emotion with too few images in one of the sets.
    """
    matching = match([labels_of(rows) for rows in sets.values()], labels_of(real), seed)
    of_real = networks.look(real, load, observer, REAL)
    reference, held = of_real.take(matching.reference), of_real.take(matching.held)
    scores = {REAL: score(held, held, reference)}
    for (name, rows), compared in zip(sets.items(), matching.generated, strict=True):
        found = networks.look(rows, load, observer, name)
        scores[name] = score(found, found.take(compared), reference)
    if networks.pairwise is not None:
        shown = {REAL: [real[index] for index in matching.held.tolist()], **sets}
        for name, rows in shown.items():
            distance = pairwise_distance(rows, load, networks.pairwise, observer.batch_size, seed)
            scores[name].figures[networks.pairwise.figure] = distance
    return scores


def pooled_distances(
    sets: Mapping[str, Sequence[Row]],
    real: Sequence[Row],
    networks: Networks,
    load: Square,
    observer: Observer,
    seed: int = 0,
) -> dict[str, dict[str, Figures]]:
    """By row and extractor, Fréchet distances of all sets together, and of as many real images, the floor.

    Empty for a single set, whose own row has them, and where all together are too few.
    """
    if len(sets) < 2:
        return {}
    found = joined([networks.look(rows, load, observer, name) for name, rows in sets.items()])
    of_real = networks.look(real, load, observer, REAL)
    matching = match([found.labels], of_real.labels, seed)
    if min(len(matching.held), len(matching.reference)) < LEAST_IMAGES:
        return {}
    reference = of_real.take(matching.reference).features
    compared = {REAL: of_real.take(matching.held), POOLED: found.take(matching.generated[0])}
    return {
        row: {name: frechet_figures(reference[name], features, name) for name, features in one.features.items()}
        for row, one in compared.items()
    }


def over_seeds(runs: Sequence[Figures]) -> Figures:
    """The mean of each figure over several runs, with its t interval; nothing of one run."""
    if len(runs) < 2:
        return {}
    return {name: seed_estimate([figures[name].value for figures in runs]) for name in runs[0]}


def labels_of(rows: Sequence[Row]) -> torch.Tensor:
    """(N,) the emotions."""
    return torch.tensor([row.label for row in rows])


def check(data: DataArguments, arguments: EvaluationArguments) -> None:
    """Whether the arguments say enough.

    Raises:
        ValueError: they do not.
    """
    if not (arguments.models or arguments.generated):
        raise ValueError("Expected --models to evaluate understanding, --generated to evaluate images, or both.")
    if arguments.generated and not (arguments.classifier and arguments.extractors):
        raise ValueError(
            "Generated images need --classifier, who judges their emotions, and --extractors, whose features tell "
            "their variety: emotions alone reward collapse."
        )
    if data.streaming:
        raise ValueError("--streaming: an evaluation needs all rows at hand; leave it out.")
    for name in ("models", "generated", "extractors"):
        given = getattr(arguments, name)
        if len(set(given)) < len(given):
            raise ValueError(f"Expected different --{name}, found {' '.join(given)}.")


def edge_of(sets: Mapping[str, Sequence[Row]], arguments: EvaluationArguments) -> int:
    """The resolution asked for, else the shorter edge of the first generated image."""
    return arguments.resolution or min(next(iter(sets.values()))[0].picture.size)


@dataclass(frozen=True)
class Part:
    """One half of an evaluation: for the JSON, as Markdown, and the matrices to draw."""

    content: dict[str, Any]
    table: str
    confusions: dict[str, list[list[int]]]


def understanding_part(models: Mapping[str, UnderstandingScores]) -> Part:
    """Of models that are seeds of one row."""
    mean = over_seeds([found.figures for found in models.values()])
    return Part(
        {"understanding": {"models": {name: asdict(one) for name, one in models.items()}, "mean": as_json(mean)}},
        understanding_tables(models, mean),
        {f"understanding, {named(list(models))}": total([found.confusion for found in models.values()])},
    )


def generation_part(rows: Mapping[str, Scores], pooled: dict[str, dict[str, Figures]], resolution: int) -> Part:
    """Of real images, and generated sets that are seeds of one row."""
    generated = {name: found for name, found in rows.items() if name != REAL}
    mean = over_seeds([found.figures for found in generated.values()])
    spaces = {name: over_seeds([found.spaces[name] for found in generated.values()]) for name in rows[REAL].spaces}
    means = {"figures": as_json(mean), "spaces": {name: as_json(one) for name, one in spaces.items()}}
    scores = {name: asdict(found) for name, found in rows.items()}
    together = {row: {name: as_json(one) for name, one in found.items()} for row, found in pooled.items()}
    return Part(
        {"generation": {"resolution": resolution, "rows": scores, "mean": means, "pooled": together}},
        generation_tables(rows, mean, spaces) + pooled_table(pooled),
        {
            f"{REAL}, by the judge": rows[REAL].confusion,
            f"generated, {named(list(generated))}": total([found.confusion for found in generated.values()]),
        },
    )


def as_json(figures: Figures) -> dict[str, Any]:
    """Figures as JSON holds them."""
    return {name: asdict(figure) for name, figure in figures.items()}


def named(places: Sequence[str]) -> str:
    """How a figure calls one folder, or several whose numbers are summed."""
    return Path(places[0]).name if len(places) == 1 else f"sum of {len(places)}"


def total(confusions: Sequence[Sequence[Sequence[int]]]) -> list[list[int]]:
    """The sum of (8, 8) matrices."""
    return torch.tensor(confusions).sum(dim=0).tolist()


def write(output: Path, arguments: dict[str, Any], parts: Sequence[Part]) -> None:
    """All files of an evaluation; the JSON last, for it says that the others are there."""
    text = "\n".join(part.table for part in parts)
    write_whole(output / "evaluation.md", text)
    confusions = {title: matrix for part in parts for title, matrix in part.confusions.items()}
    draw_confusion(confusions).savefig(output / "confusion.png", dpi=100)
    write_json(output / "evaluation.json", arguments | {k: v for part in parts for k, v in part.content.items()})
    print(text)


def main(data: DataArguments, arguments: EvaluationArguments) -> None:
    """Evaluate, print the tables, and write them beside the arguments that they came from."""
    check(data, arguments)
    output, parts = Path(arguments.output), []
    output.mkdir(parents=True, exist_ok=True)
    folder = Path(arguments.observed or output / "observed")
    observer = Observer(folder, arguments.batch_size, arguments.num_workers)
    real = read_rows(data, arguments.split)
    sets = {folder: read_generated(Path(folder)) for folder in arguments.generated}
    networks = open_networks(arguments) if sets else None  # before the long work, which a wrong name would waste
    if networks is not None:
        refuse_own_judges(networks.all, arguments.generated)
    if arguments.models:
        parts.append(understanding_part(evaluate_understanding(arguments.models, real, observer)))
    if networks is not None:
        load = Square(edge_of(sets, arguments))
        looked = (sets, real, networks, load, observer, arguments.seed)
        parts.append(generation_part(evaluate_generation(*looked), pooled_distances(*looked), load.edge))
    write(output, {"data": asdict(data), "arguments": asdict(arguments)}, parts)


if __name__ == "__main__":
    with errors_in_one_line():
        main(*parse((DataArguments, EvaluationArguments), "evaluate"))
