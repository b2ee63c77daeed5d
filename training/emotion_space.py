"""The arithmetic of fitting an emotion space: one pass over the features, in bounded memory, mergeable.

Per emotion, over the emotion, scene and object features together (section 2.4 of the paper has only the first):

- mean and standard deviation, by Welford's update in Chan's batched and mergeable form;
- a joint bank of medoids: real images' features, each with the share of images that it stands for;
- a joint low-rank Gaussian: r factors and a diagonal remainder.

Bank and factors come from a random subset of images whose size does not grow with the data. An image is in it by the
hash of its index, so neither the order of the images nor how they are spread over processes matters.
"""

from dataclasses import dataclass, field
from hashlib import blake2b

import torch
from torch import Tensor

from uniemo_pipelines.fusion_uniemo import EMOTIONS, FEATURES

FREE = torch.iinfo(torch.int64).max  # above every image's key


@dataclass
class Moments:
    """Count, mean and sum of squared deviations per emotion, in float64."""

    width: int
    count: Tensor = field(init=False)  # (8,)
    mean: Tensor = field(init=False)  # (8, 3, width)
    squares: Tensor = field(init=False)  # (8, 3, width)

    def __post_init__(self) -> None:
        self.count = torch.zeros(len(EMOTIONS), dtype=torch.float64)
        self.mean = torch.zeros(len(EMOTIONS), len(FEATURES), self.width, dtype=torch.float64)
        self.squares = torch.zeros_like(self.mean)

    def update(self, labels: Tensor, features: Tensor) -> None:
        """Adds a batch: labels (B,), features (B, 3, width)."""
        for emotion in labels.unique().tolist():
            rows = features[labels == emotion].double()
            mean = rows.mean(0)
            self._combine(emotion, float(len(rows)), mean, (rows - mean).pow(2).sum(0))

    def merge(self, other: "Moments") -> None:
        """Adds those of other images."""
        for emotion, count in enumerate(other.count.tolist()):
            if count:
                self._combine(emotion, count, other.mean[emotion], other.squares[emotion])

    def _combine(self, emotion: int, count: float, mean: Tensor, squares: Tensor) -> None:
        before = self.count[emotion].item()
        delta = mean - self.mean[emotion]
        self.count[emotion] += count
        self.mean[emotion] += delta * (count / (before + count))
        self.squares[emotion] += squares + delta.pow(2) * (before * count / (before + count))

    @property
    def std(self) -> Tensor:
        """(8, 3, width), the unbiased deviation; 0 where an emotion has a single image."""
        return (self.squares / (self.count - 1).clamp_min(1)[:, None, None]).sqrt()


@dataclass
class Candidates:
    """A uniform random subset of at most `limit` images an emotion: those whose hashed index is least.

    They stand in no order, so that a batch moves no more than what it brings.
    """

    width: int
    limit: int = 2048
    seed: int = 0
    keys: Tensor = field(init=False)  # (8, limit), FREE where no image stands
    features: Tensor = field(init=False)  # (8, limit, 3, width), float32

    def __post_init__(self) -> None:
        self.keys = torch.full((len(EMOTIONS), self.limit), FREE)
        self.features = torch.zeros(len(EMOTIONS), self.limit, len(FEATURES), self.width)

    def update(self, labels: Tensor, features: Tensor, indices: Tensor) -> None:
        """Adds a batch: labels (B,), features (B, 3, width), indices (B,) of the images in the data set."""
        keys = torch.tensor([_key(self.seed, index) for index in indices.tolist()], dtype=torch.int64)
        for emotion in labels.unique().tolist():
            chosen = labels == emotion
            self._add(emotion, keys[chosen], features[chosen].float())

    def merge(self, other: "Candidates") -> None:
        """Adds those of other images."""
        for emotion in range(len(EMOTIONS)):
            self._add(emotion, other.keys[emotion], other.features[emotion])

    def rows(self, emotion: int) -> Tensor:
        """The features (n, 3, width) of an emotion's candidates, in the order of their keys."""
        count = int((self.keys[emotion] != FREE).sum())
        return self.features[emotion, self.keys[emotion].argsort()[:count]]

    def _add(self, emotion: int, keys: Tensor, features: Tensor) -> None:
        """Images whose keys are among the least take the places of those whose are not any more."""
        kept = torch.cat([self.keys[emotion], keys]).argsort(stable=True)[: self.limit]
        left = torch.ones(self.limit, dtype=torch.bool)
        left[kept[kept < self.limit]] = False
        newcomers = kept[kept >= self.limit] - self.limit
        self.keys[emotion, left] = keys[newcomers]
        self.features[emotion, left] = features[newcomers]


class EmotionSpaceFit:
    """Collects features and fits the three forms of the emotion space.

    Args:
        width: F, the width of each feature.
        candidates: images an emotion that bank and factors are fitted on; memory is 8 * candidates * 3F floats.
        seed: decides which images, and the bank's start.
    """

    def __init__(self, width: int, candidates: int = 2048, seed: int = 0) -> None:
        self.width, self.seed = width, seed
        self.moments = Moments(width)
        self.candidates = Candidates(width, candidates, seed)

    def update(self, labels: Tensor, features: Tensor, indices: Tensor) -> None:
        """Adds a batch.

        Args:
            labels: (B,) long, 0 to 7.
            features: (B, 3, F): emotion, scene and object features.
            indices: (B,) long, the images' places in the data set; each image must come once.

        Raises:
            ValueError: features of another shape or with numbers that are not finite.
        """
        if tuple(features.shape) != (len(labels), len(FEATURES), self.width):
            expected = (len(labels), len(FEATURES), self.width)
            raise ValueError(f"features must have shape {expected}, but have {tuple(features.shape)}")
        labels, features, indices = labels.detach().cpu(), features.detach().cpu(), indices.detach().cpu()
        broken = ~torch.isfinite(features).flatten(1).all(1)
        if broken.any():
            raise ValueError(f"features are not finite for the images with index {indices[broken].tolist()}")
        self.moments.update(labels, features)
        self.candidates.update(labels, features, indices)

    def merge(self, other: "EmotionSpaceFit") -> None:
        """Adds what was collected from other images; it does not matter which of two is merged into which.

        Raises:
            ValueError: the other was made with other arguments.
        """
        mine, others = ((fit.width, fit.candidates.limit, fit.seed) for fit in (self, other))
        if mine != others:
            raise ValueError(f"Expected a fit of the same width, candidates and seed, {mine}; found {others}.")
        self.moments.merge(other.moments)
        self.candidates.merge(other.candidates)

    def fit(self, bank_size: int = 64, rank: int = 16) -> dict[str, Tensor]:
        """Fits all forms.

        Returns:
            Float32 tensors under the names of the arguments of `UniEmoFusionModel.set_emotion_space`.

        Raises:
            ValueError: an emotion without an image; a size below 1.
        """
        if min(bank_size, rank) < 1:
            raise ValueError(f"bank_size and rank must be at least 1, but are {bank_size} and {rank}")
        empty = [name for name, count in zip(EMOTIONS, self.moments.count, strict=True) if count == 0]
        if empty:
            raise ValueError(f"an emotion space needs images of all eight emotions, but found none of {empty}")
        mean, std = self.moments.mean, self.moments.std
        generator = torch.Generator().manual_seed(self.seed)
        fitted = []
        for emotion, (centre, deviation) in enumerate(zip(mean, std, strict=True)):
            rows = self.candidates.rows(emotion)
            scale = block_scale(deviation)
            bank, shares = fit_bank(rows, scale, bank_size, generator)
            factors, remainder = fit_low_rank(rows, centre, deviation, scale, rank)
            fitted.append((centre, deviation, bank, shares, factors, remainder))
        names = ("mean", "std", "bank", "bank_weights", "low_rank_factors", "low_rank_diagonal")
        columns = zip(*fitted, strict=True)
        return {name: torch.stack(column).float() for name, column in zip(names, columns, strict=True)}


def block_scale(std: Tensor) -> Tensor:
    """The typical deviation (3, 1) of each feature, by which it is divided so that all three count alike.

    One number a feature, and not one a dimension: the geometry within a feature stays as it was learnt.
    """
    scale = std.pow(2).mean(-1, keepdim=True).sqrt()
    return scale.where(scale > 0, 1.0)


def fit_bank(rows: Tensor, scale: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """K-medoids over the three features together.

    Args:
        rows: (n, 3, F), one emotion's candidates.
        scale: (3, 1), see `block_scale`.
        size: K.
        generator: for the start.

    Returns:
        The medoids (K, 3, F), members of `rows`, and their clusters' shares (K,), descending and summing to 1. With
        fewer than K different rows the rest repeats the first medoid with weight 0.
    """
    medoids, assigned = k_medoids(distances(rows, scale), size, generator)
    shares = torch.bincount(assigned, minlength=len(medoids)).double() / len(rows)
    order = shares.argsort(descending=True, stable=True)
    padding = order[:1].expand(size - len(order))
    bank = rows[medoids[torch.cat([order, padding])]]
    return bank, torch.cat([shares[order], torch.zeros(len(padding), dtype=shares.dtype)])


def distances(rows: Tensor, scale: Tensor) -> Tensor:
    """Distances (n, n) over the three features together, float64; rows (n, 3, F) and scale (3, 1) as in `fit_bank`.

    A cluster of two is a tie between its members, which rounding must not decide, for the medoid would change with
    the order of the images: so the way back is as long as the way there, and equal rows have distance 0.
    """
    # centred, for matrix products lose their digits far from the origin
    flat = ((rows.double() - rows.double().mean(0)) / scale).flatten(1)
    distance = torch.cdist(flat, flat)
    distance = (distance + distance.T) / 2
    distance[distance < 1e-6 * distance.max()] = 0
    return distance


def k_medoids(distance: Tensor, size: int, generator: torch.Generator, rounds: int = 50) -> tuple[Tensor, Tensor]:
    """Alternates between nearest medoids and best centres, from a k-means++ start.

    Args:
        distance: (n, n).
        size: the most medoids to look for.
        generator: for the start.
        rounds: the most rounds; it mostly stops by itself after ten.

    Returns:
        Indices of the medoids (k,), k at most `size`, and for each point which of them is nearest (n,).
    """
    medoids = _spread_start(distance, size, generator)
    for _ in range(rounds):
        assigned = distance[:, medoids].argmin(-1)
        better = medoids.clone()
        for cluster in range(len(medoids)):
            members = (assigned == cluster).nonzero().squeeze(-1)
            if len(members):  # nearly equal medoids may take all of each other's points
                better[cluster] = members[distance[members][:, members].sum(0).argmin()]
        if torch.equal(better, medoids):
            break
        medoids = better
    return medoids, distance[:, medoids].argmin(-1)


def _spread_start(distance: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """k-means++: each next point with probability proportional to its squared distance from those before."""
    chosen = [int(torch.randint(len(distance), (1,), generator=generator))]
    while len(chosen) < size:
        chances = distance[:, chosen].min(-1).values.pow(2)
        if not chances.any():
            break  # fewer different points than medoids
        chosen.append(int(torch.multinomial(chances, 1, generator=generator)))
    return torch.tensor(chosen)


def fit_low_rank(rows: Tensor, mean: Tensor, std: Tensor, scale: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A Gaussian over the three features together, by probabilistic principal components.

    The factors are the candidates' strongest joint directions less the noise that any direction has; the diagonal
    then fills each dimension's variance up to that of all images, so the marginals are the released form's.

    Args:
        rows: (n, 3, F), one emotion's candidates.
        mean, std: (3, F), of all images of the emotion.
        scale: (3, 1), see `block_scale`.
        rank: r.

    Returns:
        Factors (r, 3F) and standard deviations of the remainder (3F,). Directions that the data do not have are zero.
    """
    centred = ((rows.double() - mean) / scale).flatten(1)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    variances = singular.pow(2) / max(len(rows) - 1, 1)
    noise = variances[rank:].sum() / max(centred.shape[1] - rank, 1)
    strengths = (variances[:rank] - noise).clamp_min(0).sqrt()
    # a direction's sign is arbitrary: fix it, so that a seed means the same sample however the data were split
    directions = directions[:rank]
    signs = directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
    factors = torch.zeros(rank, centred.shape[1], dtype=torch.float64)
    factors[: len(directions)] = strengths[:, None] * signs * directions
    factors *= scale.expand_as(mean).flatten()
    return factors, (std.flatten().pow(2) - factors.pow(2).sum(0)).clamp_min(0).sqrt()


def _key(seed: int, index: int) -> int:
    """A uniform number of an image, by its index alone."""
    return int.from_bytes(blake2b(f"{seed}:{index}".encode(), digest_size=7).digest(), "big")
