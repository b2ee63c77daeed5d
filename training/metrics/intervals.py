"""95 % intervals over images; over seeds they are in `metrics.seeds`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval, None where it has none."""

    value: float
    interval: tuple[float, float] | None = None


def wilson_interval(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927).

    Raises:
        ValueError: `count` is not positive, or `hits` is not within 0..count.
    """
    if count <= 0 or not 0 <= hits <= count:
        raise ValueError(f"Expected 0 <= hits <= count and a positive count, found {hits} of {count}.")
    share = hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return centre - half, centre + half


def share_estimate(hits: Tensor) -> Estimate:
    """The share of true values among (N,) booleans, with Wilson's interval.

    Raises:
        ValueError: no values.
    """
    interval = wilson_interval(int(hits.sum()), len(hits))
    return Estimate(hits.double().mean().item(), interval)


def mean_interval(values: Tensor, z: float = 1.96) -> tuple[float, tuple[float, float]]:
    """The mean of (N,) values and its 95 % interval, by the normal approximation.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"Expected at least two values, found {len(values)}.")
    mean, half = values.mean().item(), z * values.std().item() / math.sqrt(len(values))
    return mean, (mean - half, mean + half)


def mean_estimate(values: Tensor) -> Estimate:
    """`mean_interval` as an estimate."""
    return Estimate(*mean_interval(values.double()))


def resampled_interval(
    figure: Callable[[Sequence[Tensor]], float], sizes: Sequence[int], replicates: int = 400, z: float = 1.96
) -> tuple[float, float]:
    """The 95 % interval of a figure of grouped images, by its deviation over resamples (the bootstrap, Efron 1979).

    The figure stands in its middle. The resamples' own percentiles would not do for total variation, which is too
    large in a small sample and once more so in a resample of it.

    Args:
        figure: of indices (n,) into each group, n the group's size.
        sizes: of the groups; each is drawn from with replacement by itself, from a fixed seed.
        replicates: how often.
    """
    generator = torch.Generator().manual_seed(0)
    found = [figure([torch.randint(size, (size,), generator=generator) for size in sizes]) for _ in range(replicates)]
    middle, half = figure([torch.arange(size) for size in sizes]), z * torch.tensor(found).std().item()
    return middle - half, middle + half
