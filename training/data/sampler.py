"""The order of an epoch."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from .dataset import EmotionDataset


class EpochSampler(Sampler[int]):
    """An order that is a function of seed and epoch alone; the data set is told the epoch as well.

    Args:
        dataset: what is ordered.
        seed: with the epoch it decides the order.
        balanced: draw as many rows with replacement, each emotion that occurs being equally likely; otherwise every
            row comes once.
    """

    def __init__(self, dataset: EmotionDataset, seed: int = 0, balanced: bool = False) -> None:
        self.dataset = dataset
        self.labels = torch.tensor(dataset.labels)
        self.seed = seed
        self.balanced = balanced
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Another epoch, another order; the same each time an epoch is run."""
        self.epoch = epoch
        self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(10_007 * self.seed + self.epoch)
        if not self.balanced:
            return iter(torch.randperm(len(self.labels), generator=generator).tolist())
        weights = 1 / torch.bincount(self.labels).double()[self.labels]
        return iter(torch.multinomial(weights, len(self.labels), replacement=True, generator=generator).tolist())
