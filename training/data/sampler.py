"""The order of an epoch."""

import math
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from .dataset import EmotionDataset


class EpochSampler(Sampler[int]):
    """An order that is a function of seed and epoch alone; the data set is told the epoch as well.

    Args:
        dataset: what is ordered.
        seed: with the epoch it decides the order.
        balanced: draw as many rows with replacement, each emotion that occurs being equally likely; otherwise every
            row comes once.
        generated_share: at most this share of an epoch, 0 to 1, is generated; each epoch draws its own of them. If
            balanced, so is the chance of a generated row in each emotion; one without a real row then never comes.
    """

    def __init__(
        self, dataset: EmotionDataset, seed: int = 0, balanced: bool = False, generated_share: float = 0.5
    ) -> None:
        self.dataset = dataset
        self.labels = torch.tensor(dataset.labels)
        generated = torch.tensor([row.generated for row in dataset.rows])
        self.real, self.generated = ((generated == which).nonzero()[:, 0] for which in (False, True))
        most = len(self.real) * generated_share / (1 - generated_share)
        self.num_generated = min(len(self.generated), math.floor(most))
        self.generated_share = generated_share
        self.seed = seed
        self.balanced = balanced
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Another epoch, another order; the same each time an epoch is run."""
        self.epoch = epoch
        self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.real) + self.num_generated

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(10_007 * self.seed + self.epoch)
        rows = self.real
        if self.num_generated:
            drawn = torch.randperm(len(self.generated), generator=generator)[: self.num_generated]
            rows = torch.cat([rows, self.generated[drawn]])
        if not self.balanced:
            return iter(rows[torch.randperm(len(rows), generator=generator)].tolist())
        weights = self._balancing(rows)
        return iter(rows[torch.multinomial(weights, len(rows), replacement=True, generator=generator)].tolist())

    def _balancing(self, rows: torch.Tensor) -> torch.Tensor:
        """Weights (N,) of rows, real ones first, by which each emotion is as likely, and few enough are generated."""
        labels, made = self.labels[rows], torch.arange(len(rows)) >= len(self.real)
        real, generated = (torch.bincount(labels[which], minlength=len(EMOTIONS)).double() for which in (~made, made))
        most = real * self.generated_share / (1 - self.generated_share)
        lighter = (most / generated.clamp(min=1)).clamp(max=1)
        total = (real + lighter * generated).clamp(min=1)
        return torch.where(made, lighter[labels], 1.0) / total[labels]
