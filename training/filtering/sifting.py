"""The criteria in their order: faithful, clear and on the manifold, then diverse, which by itself loves artefacts."""

from collections.abc import Mapping, Sequence

import numpy as np

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from ..data.rows import NO_LABEL
from .candidates import Candidates, Limits
from .diverse import apportion, choose, without_duplicates
from .faithful import margins
from .manifold import is_clear
from .neighbours import cells_of
from .sieve import Sieve


def ask_faithful(sieve: Sieve, candidates: Candidates, limits: Limits) -> None:
    """The target is probable, and no other emotion nearly as much."""
    sieve.ask("probability", candidates.quality[sieve.left] >= limits.probability)
    left = sieve.left
    sieve.ask("margin", margins(candidates.probabilities[left], candidates.labels[left]) >= limits.margin)


def ask_true(sieve: Sieve, candidates: Candidates) -> None:
    """No emotion is likelier than the target, of candidates as an oracle sees them."""
    left = sieve.left
    sieve.ask("truth", candidates.probabilities[left].argmax(1) == candidates.labels[left])


def ask_clear(sieve: Sieve, candidates: Candidates, limits: Limits) -> None:
    """Scene or object can be told; nothing is asked where the data have neither."""
    if limits.clarity:
        scores = {kind: values[sieve.left] for kind, values in candidates.clarity.items()}
        sieve.ask("clarity", is_clear(scores, limits.clarity))


def ask_manifold(sieve: Sieve, candidates: Candidates, limits: Limits) -> None:
    """As near to real images as other real images are."""
    sieve.ask("manifold", candidates.distance[sieve.left] <= limits.distance)


def ask_unseen(sieve: Sieve, candidates: Candidates, limits: Limits) -> None:
    """No copy of a real image, of whichever split."""
    sieve.ask("real copy", candidates.nearest_real[sieve.left] > limits.radius)


def ask_diverse(
    sieve: Sieve,
    candidates: Candidates,
    limits: Limits,
    counts: Mapping[str, np.ndarray],
    keep: int,
    seed: int = 0,
) -> None:
    """No copy of another one, over all emotions; then the best of each cell of an emotion, within quotas.

    Args:
        counts: by kind, how many real images of each emotion name each attribute, (8, A); quotas follow them. Where
            none of an emotion names any, there is no quota.
        keep: cells, and the most images, of each emotion.
        seed: of the clusterings.
    """
    left = sieve.left
    sieve.ask("own copy", without_duplicates(candidates.points[left], candidates.quality[left], limits.radius, seed))
    left = sieve.left
    shown = clearly_read(candidates, limits)
    passes = np.zeros(len(left), bool)
    for label in range(len(EMOTIONS)):
        own = candidates.labels[left] == label
        if not own.any():
            continue
        mine = left[own]
        passes[own] = choose(
            cells_of(candidates.points[mine], keep, seed),
            candidates.quality[mine],
            {kind: values[mine] for kind, values in shown.items()},
            {kind: apportion(keep, counts[kind][label]) for kind in shown if counts[kind][label].sum()},
            keep,
        )
    sieve.ask("quota", passes)


def clearly_read(candidates: Candidates, limits: Limits) -> dict[str, np.ndarray]:
    """By kind, the attribute that quotas count at each image, (N,): the one read, NO_LABEL where it cannot be told."""
    return {
        kind: np.where(candidates.clarity[kind] >= least, candidates.read[kind], NO_LABEL)
        for kind, least in limits.clarity.items()
    }


def draw(sieve: Sieve, numbers: Sequence[int], seed: int = 0) -> None:
    """So many of each emotion at random: what a selection has to be better than."""
    left = sieve.left
    order = np.random.default_rng(seed).permutation(len(left))
    passes = np.zeros(len(left), bool)
    for label, number in enumerate(numbers):
        passes[order[sieve.labels[left[order]] == label][:number]] = True
    sieve.ask("draw", passes)
