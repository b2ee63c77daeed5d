"""Are generated images among real ones, and do real ones have generated neighbours?"""

from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 1_024


@dataclass(frozen=True)
class Neighbourhoods:
    """What each image's k nearest neighbours say; the figures are the means.

    Attributes:
        precise: (M,) whether a generated image lies within a real one's radius (Kynkäänniemi et al. 2019).
        recalled: (N,) whether a real image lies within a generated one's radius (the same).
        density: (M,) the number of real images within whose radius a generated one lies, over k (Naeem et al. 2020).
        covered: (N,) whether a real image has a generated one within its own radius (the same).

    An image's radius is the distance to its k-th nearest neighbour on its own side.
    """

    precise: Tensor
    recalled: Tensor
    density: Tensor
    covered: Tensor


def neighbourhoods(real: Tensor, generated: Tensor, neighbours: int = 5) -> Neighbourhoods:
    """Of as many images on either side, for all four depend on the numbers; k = 5 as Naeem et al. set it.

    Args:
        real, generated: (N, F) and (M, F) features.

    Raises:
        ValueError: no more than k images on a side.
    """
    if min(len(real), len(generated)) <= neighbours:
        raise ValueError(
            f"Expected over {neighbours} images on each side, found {len(real)} real and {len(generated)} generated."
        )
    within, around = radii(real, neighbours), radii(generated, neighbours)
    counts = torch.zeros(len(generated), device=real.device)
    recalled, covered = [], []
    for block, radius in zip(real.split(ROWS), within.split(ROWS), strict=True):
        distances = torch.cdist(block, generated)
        counts += (distances <= radius[:, None]).sum(dim=0)
        recalled.append((distances <= around).any(dim=1))
        covered.append(distances.amin(dim=1) <= radius)
    return Neighbourhoods(counts > 0, torch.cat(recalled), counts / neighbours, torch.cat(covered))


def radii(features: Tensor, neighbours: int) -> Tensor:
    """The distance of each to its k-th nearest neighbour, (N,); the nearest of all is the image itself."""
    blocks = features.split(ROWS)
    return torch.cat([torch.cdist(block, features).kthvalue(neighbours + 1, dim=1).values for block in blocks])
