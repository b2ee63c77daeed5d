"""What a filter did, for people: how many fell at which criterion, what changed, and what it looks like."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from uniemo_pipelines import drawing
from uniemo_pipelines.fusion_uniemo import EMOTIONS

from ..data.rows import NO_LABEL, Vocabulary
from ..metrics import total_variation
from .candidates import Candidates, Limits
from .corpus import Corpus
from .kinship import Kinship
from .purity import Purity
from .sieve import Sieve

SHEET_COLUMNS, SHEET_EDGE = 10, 128
MOST_SHOWN = 24
FLOOR_DRAWS = 20


def summary(
    candidates: Candidates,
    limits: Limits,
    sieve: Sieve,
    counts: Mapping[str, np.ndarray],
    purity: Mapping[str, Purity] | None,
    kinships: Sequence[Kinship],
) -> dict[str, Any]:
    """All figures as JSON has them.

    Args:
        counts: by kind, real images of each emotion that name each attribute, (8, A).
        purity: by stage, where there is a judge.
        kinships: of the filtering models.
    """
    return {
        "filtered_by": [asdict(one) for one in kinships],
        "limits": asdict(limits),
        "generated": dict(zip(EMOTIONS, np.bincount(sieve.labels, minlength=len(EMOTIONS)).tolist(), strict=True)),
        "fallen": {one.name: dict(zip(EMOTIONS, sieve.fallen(one), strict=True)) for one in sieve.asked},
        "kept": dict(zip(EMOTIONS, sieve.counts(), strict=True)),
        "annotated": {kind: int((agreed[sieve.left] != NO_LABEL).sum()) for kind, agreed in candidates.agreed.items()},
        "total_variation": {
            kind: {
                "generated": attribute_distance(candidates.read[kind], sieve.labels, counts[kind]),
                "kept": attribute_distance(candidates.read[kind][sieve.left], sieve.labels[sieve.left], counts[kind]),
                "floor_generated": attribute_floor(sieve.labels, counts[kind]),
                "floor_kept": attribute_floor(sieve.labels[sieve.left], counts[kind]),
            }
            for kind in candidates.read
        },
        "purity": {stage: asdict(figures) for stage, figures in purity.items()} if purity else None,
    }


def attribute_distance(read: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> float | None:
    """Total variation, 0..1, of the attributes read from the real labels, the mean over emotions.

    Args:
        read: (M,) attributes of generated images.
        labels: (M,) their emotions.
        counts: (8, A) of the real labels. Emotions with fewer than two labels or images are left out; None where all
            are.
    """
    distances = []
    for label, real in enumerate(counts):
        own = read[labels == label]
        if min(real.sum(), len(own)) > 1:
            reference = torch.from_numpy(np.repeat(np.arange(len(real)), real.astype(int)))
            distances.append(total_variation(torch.from_numpy(own), reference, len(real)))
    return float(np.mean(distances)) if distances else None


def attribute_floor(labels: np.ndarray, counts: np.ndarray) -> float | None:
    """The distance that as many attributes would have if they were drawn as the real ones are, a mean of 20 draws.

    Few images are far from any distribution; what a filter adds to that is its own doing.

    Args:
        labels: (M,) the images' emotions.
        counts: (8, A) of the real labels.
    """
    random, distances = np.random.default_rng(0), []
    for number, real in zip(np.bincount(labels, minlength=len(counts)), counts, strict=True):
        if min(real.sum(), number) > 1:
            share = real / real.sum()
            drawn = random.multinomial(number, share, FLOOR_DRAWS) / number
            distances.append(np.abs(drawn - share).sum(1).mean() / 2)
    return float(np.mean(distances)) if distances else None


def markdown(content: Mapping[str, Any]) -> str:
    """The figures of `summary` as tables."""
    lines = ["| | " + " | ".join(EMOTIONS) + " | all |", "|---" * (len(EMOTIONS) + 2) + "|"]
    rows = {"generated": content["generated"]}
    rows |= {f"fell: {name}": row for name, row in content["fallen"].items()}
    rows["**kept**"] = content["kept"]
    for name, row in rows.items():
        cells = [row[emotion] for emotion in EMOTIONS]
        lines.append(f"| {name} | " + " | ".join(map(str, [*cells, sum(cells)])) + " |")
    asked = content["fallen"].keys()
    lines += ["", *_judges(content["filtered_by"], asked), *_limits(content["limits"], asked), *_attributes(content)]
    if content["purity"]:
        lines += ["", *_purity(content["purity"])]
    return "\n".join(lines) + "\n"


def _judges(found: Sequence[Mapping[str, Any]], asked: Container[str]) -> list[str]:
    if "truth" in asked:
        return ["- filtered and labelled by an oracle, the judge"]
    said = {True: "its own model", False: "another model than its own", None: "a model that may be its own or not"}
    did = "filtered and labelled" if "probability" in asked else "labelled"
    return [f"- {did} by {said[one['own']]}: {one['model']}" for one in found]


def _limits(limits: Mapping[str, Any], asked: Container[str]) -> list[str]:
    """Of the criteria that were asked; real copies always are."""
    lines = []
    if "probability" in asked:
        lines.append(
            f"- probability at least {limits['probability']:.3f} at temperature {limits['temperature']:.3f}, and "
            f"{limits['margin']:.3f} above the runner-up"
        )
    if "clarity" in asked:
        lines.append(f"- clarity at least: {', '.join(f'{k} {value:.3f}' for k, value in limits['clarity'].items())}")
    if "manifold" in asked:
        lines.append(f"- distance to real images at most {limits['distance']:.4f}")
    lines.append(
        f"- near-duplicates within {limits['radius']:.4f}, in {limits['explained']:.1%} of the features' variance"
    )
    return lines


def _attributes(content: Mapping[str, Any]) -> list[str]:
    lines = []
    for kind, distance in content["total_variation"].items():
        told = [
            f"{distance[stage]:.3f} {when} (as many real images have {distance[f'floor_{stage}']:.3f})"
            for stage, when in (("generated", "before"), ("kept", "after"))
            if distance[stage] is not None
        ]
        if told:
            lines.append(
                f"- {kind}: total variation from the real labels {' and '.join(told)}; {content['annotated'][kind]} "
                "kept images are annotated with one"
            )
    return lines


def _purity(purity: Mapping[str, Mapping[str, Any]]) -> list[str]:
    kinds = list(next(iter(purity.values()))["attributes"])
    heads = ["images", "number", "judge sees the target", "95 % interval", "posterior of the target"]
    heads += [f"{kind} annotations right" for kind in kinds]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for stage, row in purity.items():
        shares = ["" if row["attributes"][kind] is None else f"{row['attributes'][kind]:.3f}" for kind in kinds]
        interval = "{:.3f}-{:.3f}".format(*row["interval"])
        cells = [stage, row["images"], f"{row['judged']:.3f}", interval, f"{row['posterior']:.3f}", *shares]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def plot(candidates: Candidates, sieve: Sieve, counts: Mapping[str, np.ndarray], vocabulary: Vocabulary) -> Figure:
    """Where images of each emotion fell, and the share of each attribute in real, generated and kept ones."""
    kinds = [kind for kind in candidates.read if counts[kind].sum()]
    figure = Figure(figsize=(11, 4.2 * (1 + len(kinds))), layout="constrained")
    first, *others = figure.subplots(1 + len(kinds), 1, squeeze=False)[:, 0]
    _plot_fallen(first, sieve)
    names = {"scene": vocabulary.scenes, "object": vocabulary.objects}
    for axis, kind in zip(others, kinds, strict=True):
        read = candidates.read[kind]
        shares = {
            "real": counts[kind].sum(0),
            "generated": np.bincount(read, minlength=len(names[kind])),
            "kept": np.bincount(read[sieve.left], minlength=len(names[kind])),
        }
        _plot_shares(axis, kind, names[kind], {name: found / found.sum() for name, found in shares.items()})
    return figure


def _plot_fallen(axis: Axes, sieve: Sieve) -> None:
    parts = {"kept": sieve.counts()} | {one.name: sieve.fallen(one) for one in sieve.asked}
    bottom = np.zeros(len(EMOTIONS))
    for name, numbers in parts.items():
        axis.bar(EMOTIONS, numbers, bottom=bottom, label=name, color="black" if name == "kept" else None)
        bottom += numbers
    axis.set(title="generated images of each emotion, by the criterion that they fell at first", ylabel="images")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)


def _plot_shares(axis: Axes, kind: str, names: Sequence[str], shares: Mapping[str, np.ndarray]) -> None:
    shown = np.argsort(-shares["real"], kind="stable")[:MOST_SHOWN]
    for number, (name, found) in enumerate(shares.items()):
        axis.bar(np.arange(len(shown)) + (number - 1) * 0.27, found[shown], 0.27, label=name)
    axis.set_xticks(range(len(shown)), [names[index] for index in shown], rotation=50, ha="right", fontsize=8)
    axis.set(title=f"most frequent {kind}s: labels of real images, read in generated ones", ylabel="share")
    axis.legend(fontsize=8)


def kept_sheet(corpus: Corpus, sieve: Sieve) -> Image.Image:
    """A row an emotion of kept images, evenly picked; none of an emotion that has none."""
    left = sieve.left
    rows = {name: left[sieve.labels[left] == label] for label, name in enumerate(EMOTIONS)}
    return _sheet(corpus, {name: found for name, found in rows.items() if len(found)})


def rejected_sheet(corpus: Corpus, sieve: Sieve) -> Image.Image | None:
    """A row a criterion of images that fell at it, evenly picked; None where none fell."""
    rows = {criterion.name: np.flatnonzero(sieve.fell == position) for criterion, position in sieve.positions()}
    rows = {name: found for name, found in rows.items() if len(found)}
    return _sheet(corpus, rows) if rows else None


def _sheet(corpus: Corpus, rows: Mapping[str, np.ndarray]) -> Image.Image:
    picked = {name: found[:: -(-len(found) // SHEET_COLUMNS)] for name, found in rows.items()}
    return drawing.sheet(
        {name: [_small(corpus.pictures[index].picture.open()) for index in found] for name, found in picked.items()}
    )


def _small(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((SHEET_EDGE, SHEET_EDGE))
    return small
