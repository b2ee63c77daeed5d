"""Distances between two sets of images in a feature space."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .intervals import Estimate

LEAST_IMAGES = 2_000
"""On each side of a Fréchet distance: below, its bias is larger than what it shall tell apart."""

ROWS = 2_048
"""Rows of a kernel matrix that are in memory at once."""


@dataclass(frozen=True)
class PrincipalSpace:
    """The directions in which real images vary most: `mean` (F,) and orthonormal `axes` (F, C)."""

    mean: Tensor
    axes: Tensor

    def project(self, features: Tensor) -> Tensor:
        """(N, F) -> (N, C) float64."""
        return (features.double() - self.mean) @ self.axes


def principal_space(real: Tensor, components: int) -> PrincipalSpace:
    """Fit to real images alone, so that all generated sets are measured in one space.

    Args:
        real: (N, F) features.
        components: C; all F where there are fewer.

    Raises:
        ValueError: no more images than components, so that the space would hold noise.
    """
    components = min(components, real.shape[1])
    if len(real) <= components:
        raise ValueError(f"Expected over {components} images for {components} components, found {len(real)}.")
    _, axes = torch.linalg.eigh(torch.cov(real.double().T).reshape(real.shape[1], real.shape[1]))
    return PrincipalSpace(real.double().mean(dim=0), axes.flip(1)[:, :components])


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """The squared Fréchet distance of the two Gaussians (Dowson & Landau 1982), the formula of FID.

    It is FID only of Inception's 2,048 features. It is biased by the numbers of images, so that it is compared with
    that of real images as many; a resample has fewer different ones, and a bootstrap would be biased again.

    Args:
        real, generated: (N, F) and (M, F) features, best in a `principal_space`.

    Raises:
        ValueError: fewer than 2,000 images on a side.
    """
    if min(len(real), len(generated)) < LEAST_IMAGES:
        raise ValueError(
            f"Expected at least {LEAST_IMAGES:,} images on each side of a Fréchet distance, found {len(real):,} and "
            f"{len(generated):,}; draw more, or take the kernel distance, which is unbiased."
        )
    return gaussian_distance(*_moments(real), *_moments(generated))


def gaussian_distance(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> float:
    """|m - n|² + tr(S + T - 2 (S^½ T S^½)^½), of means (F,) and covariances (F, F) in float64."""
    root = _square_root(covariance)
    middle = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp(min=0).sqrt().sum()
    traces = covariance.trace() + other_covariance.trace() - 2 * middle
    return ((mean - other_mean).square().sum() + traces).item()


def kernel_distance(real: Tensor, generated: Tensor) -> float:
    """The unbiased squared MMD under KID's cubic kernel (Binkowski et al. 2018); KID only of Inception's features.

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
    within_real, within_generated, (across, _) = _sums(real, generated)
    n, m = len(real), len(generated)
    first, second = within_real.sum() / (n * (n - 1)), within_generated.sum() / (m * (m - 1))
    return (first + second - 2 * across.sum() / (n * m)).item()


def kernel_estimate(real: Tensor, generated: Tensor, z: float = 1.96) -> Estimate:
    """`kernel_distance` with a 95 % interval by the jackknife over the images of both sides (Efron & Stein 1981).

    Its variance is on average no smaller than the true one, and near the distance 0 up to twice as large. A bootstrap
    would draw images twice, and compare them with themselves.

    Raises:
        ValueError: fewer than three images on a side.
    """
    n, m = len(real), len(generated)
    if min(n, m) < 3:
        raise ValueError(f"Expected three images on each side, found {n} and {m}.")
    xs, ys, (across_x, across_y) = _sums(real, generated)
    within_x, within_y, across = xs.sum() / (n * (n - 1)), ys.sum() / (m * (m - 1)), across_x.sum()
    value = within_x + within_y - 2 * across / (n * m)
    without_x = (xs.sum() - 2 * xs) / ((n - 1) * (n - 2)) + within_y - 2 * (across - across_x) / ((n - 1) * m)
    without_y = (ys.sum() - 2 * ys) / ((m - 1) * (m - 2)) + within_x - 2 * (across - across_y) / ((m - 1) * n)
    variance = sum((len(w) - 1) * w.var(correction=0) for w in (without_x, without_y))
    half = z * variance.sqrt()
    return Estimate(value.item(), ((value - half).item(), (value + half).item()))


def _sums(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Sums of each image's kernel values: with the others of its own side (N,), (M,), and with the other side."""
    real, generated = real.double(), generated.double()
    return (
        _kernel_sums(real, real)[0] - _kernel(real, real),
        _kernel_sums(generated, generated)[0] - _kernel(generated, generated),
        _kernel_sums(real, generated),
    )


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """Row by row, (N,)."""
    return ((a * b).sum(dim=1) / a.shape[1] + 1) ** 3


def _kernel_sums(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the kernel matrix's columns and over its rows, (N,) and (M,), with a block of it in memory at once."""
    over_b, over_a = [], torch.zeros(len(b), dtype=torch.float64, device=b.device)
    for block in a.split(ROWS):
        values = (block @ b.T / a.shape[1] + 1) ** 3
        over_b.append(values.sum(dim=1))
        over_a += values.sum(dim=0)
    return torch.cat(over_b), over_a


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    features = features.double()
    width = features.shape[1]
    return features.mean(dim=0), torch.cov(features.T).reshape(width, width)


def _square_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T
