"""The order of an epoch."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class EpochSampler(Sampler[int]):
    """An order that is a function of seed and epoch alone.

    Args:
        labels: the emotion of each row.
        seed: with the epoch it decides the order.
        balanced: draw as many rows with replacement, each emotion that occurs being equally likely; otherwise every
            row comes once.
    """

    def __init__(self, labels: Sequence[int], seed: int = 0, balanced: bool = False) -> None:
        self.labels = torch.as_tensor(labels)
        self.seed = seed
        self.balanced = balanced
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Another epoch, another order; the same each time an epoch is run."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        if not self.balanced:
            return iter(torch.randperm(len(self.labels), generator=generator).tolist())
        weights = 1 / torch.bincount(self.labels).double()[self.labels]
        return iter(torch.multinomial(weights, len(self.labels), replacement=True, generator=generator).tolist())
