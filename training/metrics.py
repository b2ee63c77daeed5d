"""Figures for generated images: is the emotion there, and is the variety of the real images there?

Emotion accuracy alone rewards collapse: one picture that every judge takes for awe scores higher than real images do.
Total variation of what a judge reads in the images, and coverage, stand beside it.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


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


def mean_interval(values: Tensor, z: float = 1.96) -> tuple[float, tuple[float, float]]:
    """The mean of (N,) values and its 95 % interval, by the normal approximation.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"Expected at least two values, found {len(values)}.")
    mean, half = values.mean().item(), z * values.std().item() / math.sqrt(len(values))
    return mean, (mean - half, mean + half)


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


def total_variation(found: Tensor, reference: Tensor, size: int) -> float:
    """Total variation distance, 0..1, between two samples of categories.

    Args:
        found, reference: (N,) and (M,) integers below `size`.
        size: the number of categories.

    Raises:
        ValueError: an empty sample.
    """
    if not len(found) or not len(reference):
        raise ValueError(f"Expected two samples, found {len(found)} and {len(reference)} values.")
    p = torch.bincount(found, minlength=size) / len(found)
    q = torch.bincount(reference, minlength=size) / len(reference)
    return 0.5 * (p - q).abs().sum().item()


def coverage(real: Tensor, generated: Tensor, neighbours: int = 5) -> float:
    """Share of real images with a generated one no further than their k-th nearest real neighbour (Naeem et al. 2020).

    Args:
        real, generated: (N, F) and (M, F) features.

    Raises:
        ValueError: too few real images for that many neighbours, or no generated one.
    """
    if len(real) <= neighbours or not len(generated):
        raise ValueError(
            f"Expected over {neighbours} real images and at least one generated, found {len(real)} and "
            f"{len(generated)}."
        )
    radius = torch.cdist(real, real).kthvalue(neighbours + 1, dim=1).values  # the nearest is the image itself
    return (torch.cdist(real, generated).amin(dim=1) <= radius).float().mean().item()


def kernel_distance(real: Tensor, generated: Tensor) -> float:
    """The unbiased squared MMD under KID's cubic kernel (Binkowski et al. 2018), of features other than Inception's.

    Ours and not torchmetrics', which wants as many images on either side: here all real ones make it tighter.

    Args:
        real, generated: (N, F) and (M, F) features.

    Returns:
        About 0 for two samples of one distribution; it may be negative, and has no upper bound.

    Raises:
        ValueError: fewer than two images on a side.
    """
    if min(len(real), len(generated)) < 2:
        raise ValueError(f"Expected two images on each side, found {len(real)} and {len(generated)}.")

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a.double() @ b.double().T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        values = kernel(a, a)
        return (values.sum() - values.trace()) / (len(a) * (len(a) - 1))

    return (within(real) + within(generated) - 2 * kernel(real, generated).mean()).item()
