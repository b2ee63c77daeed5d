"""From what networks said of images to the figures of a set of them, beside real images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from ..metrics import (
    Estimate,
    check_classes,
    confusion_of,
    diversity_by_cosine,
    diversity_by_mse,
    emotion_accuracy,
    emotion_score,
    frechet_distance,
    kernel_estimate,
    mean_estimate,
    neighbourhoods,
    polarity_accuracy,
    principal_space,
    resampled_interval,
    semantic_clarity,
    share_estimate,
    total_variation,
)
from ..metrics.distances import LEAST_IMAGES
from .networks import INCEPTION

NEIGHBOURS, COMPONENTS = 5, 64
Figures = dict[str, Estimate]


@dataclass(frozen=True)
class Observed:
    """What networks said of N images.

    Attributes:
        labels: (N,) the true emotions, or those that were asked for.
        probabilities: (N, 8) of the judge.
        attributes: by part ("scene", "object", ...), (N, K) probabilities; empty where none can be read.
        features: by extractor, (N, F).
    """

    labels: Tensor
    probabilities: Tensor
    attributes: Mapping[str, Tensor] = field(default_factory=dict)
    features: Mapping[str, Tensor] = field(default_factory=dict)

    def take(self, chosen: Tensor) -> "Observed":
        """The images with these indices."""
        attributes, features = (
            {name: values[chosen] for name, values in named.items()} for named in (self.attributes, self.features)
        )
        return Observed(self.labels[chosen], self.probabilities[chosen], attributes, features)

    def of_emotion(self, label: int) -> "Observed":
        """The images of one emotion."""
        return self.take((self.labels == label).nonzero().flatten())


def joined(parts: Sequence[Observed]) -> Observed:
    """The images of all parts, by the same networks."""
    attributes, features = (
        {name: torch.cat([one[name] for one in named]) for name in named[0]}
        for named in ([part.attributes for part in parts], [part.features for part in parts])
    )
    labels, probabilities = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("labels", "probabilities")
    )
    return Observed(labels, probabilities, attributes, features)


Pair = tuple[Observed, Observed]
"""Images of one emotion, and real ones of it."""


@dataclass(frozen=True)
class Matching:
    """As many images of each emotion in every set that is held against the real reference; indices.

    Attributes:
        generated: by set.
        held: real images, the floor: what two sets of one distribution, as large as these, are apart.
        reference: the other real ones, in the same proportions of emotions.
    """

    generated: list[Tensor]
    held: Tensor
    reference: Tensor


@dataclass(frozen=True)
class Scores:
    """The figures of a set of images.

    Attributes:
        images: all of the set; Emo-A, Emo-score, Sem-C and Sem-D are of these.
        compared: those that were held against `reference` real ones.
        figures: that need no extractor.
        spaces: by extractor, those of its features.
        by_emotion: by figure, its eight values in EmoSet's order; of a space "figure, extractor".
        confusion: (8, 8) numbers of images, a row an emotion asked for and a column the one that the judge names.
        left_out: why a figure is missing, a sentence each.
    """

    images: int
    compared: int
    reference: int
    figures: Figures
    spaces: dict[str, Figures]
    by_emotion: dict[str, list[float]]
    confusion: list[list[int]]
    left_out: list[str]


@dataclass(frozen=True)
class Part:
    """Some figures, and eight values each of some."""

    figures: Figures
    by_emotion: dict[str, list[float]]


def match(generated: Sequence[Tensor], real: Tensor, seed: int = 0) -> Matching:
    """Draw sets that are as large as each other, emotion by emotion, so that distances tell images and not sizes.

    Args:
        generated: labels (N,) of each generated set.
        real: labels (M,) of the real images; at most half of each emotion is held out.
        seed: decides which images.

    Raises:
        ValueError: an emotion with too few images for the neighbours that coverage asks for.
    """
    for labels in generated:
        check_classes(labels, NEIGHBOURS + 1, "generated images")
    check_classes(real, 2 * (NEIGHBOURS + 1), "real images")
    source = torch.Generator().manual_seed(seed)
    counts = [torch.bincount(labels, minlength=len(EMOTIONS)) for labels in (*generated, real)]
    sizes = torch.stack([*counts[:-1], counts[-1] // 2]).amin(dim=0)
    times = min(map(Fraction, (counts[-1] - sizes).tolist(), sizes.tolist()))  # of floats 64 could come out as 63
    drawn = _shuffled(real, source)
    held = [rows[:size] for rows, size in zip(drawn, sizes.tolist(), strict=True)]
    reference = [rows[size : size + int(size * times)] for rows, size in zip(drawn, sizes.tolist(), strict=True)]
    chosen = [
        torch.cat([rows[:size] for rows, size in zip(_shuffled(labels, source), sizes.tolist(), strict=True)])
        for labels in generated
    ]
    return Matching(chosen, torch.cat(held), torch.cat(reference))


def _shuffled(labels: Tensor, source: torch.Generator) -> list[Tensor]:
    """The indices of each emotion, in random order."""
    rows = [(labels == label).nonzero().flatten() for label in range(len(EMOTIONS))]
    return [some[torch.randperm(len(some), generator=source)] for some in rows]


def score(found: Observed, compared: Observed, reference: Observed) -> Scores:
    """All figures of a set of images.

    Args:
        found: all of them.
        compared: those of them that are held against the reference, see `match`.
        reference: real images, at least as many of each emotion.

    Raises:
        ValueError: an emotion with too few images.
    """
    emotions = [found.of_emotion(label) for label in range(len(EMOTIONS))]
    pairs = [(compared.of_emotion(label), reference.of_emotion(label)) for label in range(len(EMOTIONS))]
    parts, left_out = [_judged(found, emotions)], []
    if not found.attributes:
        left_out.append("Total variation and Sem-C: nothing reads attributes; give --attributes.")
    else:
        parts += [_varied(pairs), _clear(emotions)]
    spaces = {}
    fewest = min(len(compared.labels), len(reference.labels))
    for extractor in found.features:
        in_space = [_diverse(emotions, extractor), _neighbouring(pairs, extractor), _near(pairs, extractor)]
        real, generated = reference.features[extractor], compared.features[extractor]
        spaces[extractor] = _merged(part.figures for part in in_space)
        spaces[extractor]["kernel_distance"] = kernel_estimate(real, generated)
        if fewest >= LEAST_IMAGES:
            spaces[extractor] |= frechet_figures(real, generated, extractor)
        parts += [Part({}, {f"{n}, {extractor}": values for n, values in p.by_emotion.items()}) for p in in_space]
    if fewest < LEAST_IMAGES:
        left_out.append(
            f"Fréchet distance: it needs {LEAST_IMAGES:,} images on each side, here are {fewest:,}; the kernel "
            "distance, which is unbiased, stands without it."
        )
    counts = (len(one.labels) for one in (found, compared, reference))
    figures, by_emotion = _merged(part.figures for part in parts), _merged(part.by_emotion for part in parts)
    return Scores(*counts, figures, spaces, by_emotion, confusion_of(found.probabilities, found.labels), left_out)


def frechet_figures(real: Tensor, generated: Tensor, extractor: str) -> Figures:
    """The Fréchet distance in the real images' principal space; of Inception's features also FID, in all of theirs.

    They have no interval: see `frechet_distance`. FID of fewer images than features rests on covariances without full
    rank; its authors ask for 10,000.

    Raises:
        ValueError: fewer than 2,000 images on a side.
    """
    space = principal_space(real, COMPONENTS)
    figures = {"frechet_distance": Estimate(frechet_distance(space.project(real), space.project(generated)))}
    if extractor == INCEPTION:
        figures["fid"] = Estimate(frechet_distance(real, generated))
    return figures


def _judged(found: Observed, emotions: Sequence[Observed]) -> Part:
    figures = {"emotion_accuracy": emotion_accuracy, "polarity_accuracy": polarity_accuracy}
    figures["emotion_score"] = emotion_score
    hits = [(one.probabilities.argmax(dim=1) == label).double() for label, one in enumerate(emotions)]
    targets = [one.probabilities[:, label] for label, one in enumerate(emotions)]
    return Part(
        {name: figure(found.probabilities, found.labels) for name, figure in figures.items()},
        {"emotion_accuracy": _means(hits), "emotion_score": _means(targets)},
    )


def _varied(pairs: Sequence[Pair]) -> Part:
    """Total variation of the likeliest attributes, the mean over emotions and parts, and that of each part."""
    parts = list(pairs[0][0].attributes)
    figures = {"total_variation": _variation(pairs, parts)}
    figures |= {f"total_variation_{part}": _variation(pairs, [part]) for part in parts}
    return Part(figures, {"total_variation": [_variation([pair], parts).value for pair in pairs]})


def _variation(pairs: Sequence[Pair], parts: Sequence[str]) -> Estimate:
    """The bootstrap is over the images that are compared."""
    read = [
        (group, a.attributes[part].argmax(dim=1), b.attributes[part].argmax(dim=1), a.attributes[part].shape[1])
        for group, (a, b) in enumerate(pairs)
        for part in parts
    ]

    def mean(chosen: Sequence[Tensor]) -> float:
        return sum(total_variation(a[chosen[group]], b, size) for group, a, b, size in read) / len(read)

    return _resampled(mean, [len(a.labels) for a, _ in pairs])


def _clear(emotions: Sequence[Observed]) -> Part:
    """Sem-C."""
    values = [semantic_clarity(one.attributes["scene"], one.attributes["object"]) for one in emotions]
    return Part({"semantic_clarity": mean_estimate(torch.cat(values))}, {"semantic_clarity": _means(values)})


def _diverse(emotions: Sequence[Observed], extractor: str) -> Part:
    """Sem-D, the mean over emotions."""
    groups = [one.features[extractor] for one in emotions]
    forms = {"semantic_diversity": diversity_by_cosine, "semantic_diversity_mse": diversity_by_mse}

    def estimate(diversity: Callable[[Tensor], float]) -> Estimate:
        def mean(chosen: Sequence[Tensor]) -> float:
            return sum(diversity(one[rows]) for one, rows in zip(groups, chosen, strict=True)) / len(groups)

        return _resampled(mean, [len(one) for one in groups])

    figures = {name: estimate(diversity) for name, diversity in forms.items()}
    return Part(figures, {name: [diversity(one) for one in groups] for name, diversity in forms.items()})


def _neighbouring(pairs: Sequence[Pair], extractor: str) -> Part:
    """Within each emotion, against as many of the reference; intervals leave out what the other side's draw adds."""
    found = [
        neighbourhoods(real.features[extractor][: len(generated.labels)], generated.features[extractor], NEIGHBOURS)
        for generated, real in pairs
    ]
    figures = {
        "coverage": share_estimate(torch.cat([one.covered for one in found])),
        "density": mean_estimate(torch.cat([one.density for one in found])),
        "precision": share_estimate(torch.cat([one.precise for one in found])),
        "recall": share_estimate(torch.cat([one.recalled for one in found])),
    }
    return Part(figures, {"coverage": _means([one.covered for one in found])})


def _near(pairs: Sequence[Pair], extractor: str) -> Part:
    """The kernel distance within emotions, its mean: of all images together a wrong emotion could not be seen."""
    each = [kernel_estimate(real.features[extractor], generated.features[extractor]) for generated, real in pairs]
    mean = sum(one.value for one in each) / len(each)
    half = sum((one.value - one.interval[0]) ** 2 for one in each) ** 0.5 / len(each)
    return Part(
        {"kernel_distance_within": Estimate(mean, (mean - half, mean + half))},
        {"kernel_distance": [one.value for one in each]},
    )


def _resampled(figure: Callable[[Sequence[Tensor]], float], sizes: Sequence[int]) -> Estimate:
    return Estimate(figure([torch.arange(size) for size in sizes]), resampled_interval(figure, sizes))


def _means(groups: Sequence[Tensor]) -> list[float]:
    return [values.double().mean().item() for values in groups]


def _merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}
