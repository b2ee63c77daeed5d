"""Distances of pairs of images of one emotion, by a network that looks at both."""

from collections.abc import Sequence
from importlib import import_module

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from ..backbones.reader import Reader, load_reader
from ..data import Row
from ..metrics import Estimate, check_classes, mean_estimate
from ..observing import Square
from .networks import Openers

LPIPS_NETWORKS = ("alex", "vgg", "squeeze")


class Lpips(nn.Module):
    """LPIPS (Zhang et al. 2018) by torchmetrics, whose networks are torchvision's.

    Images are in [-1, 1], as its authors define it; the released code gives it [0, 1].
    """

    figure = "lpips"

    def __init__(self, network: str) -> None:
        super().__init__()
        if network not in LPIPS_NETWORKS:
            raise ValueError(f"Expected lpips:{', lpips:'.join(LPIPS_NETWORKS)}; found lpips:{network}.")
        try:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            import_module("torchvision.models")  # torchmetrics would ask for it later, and not so clearly
        except ImportError as error:
            raise ValueError(
                f'LPIPS needs torchvision, found: {error}; install ".[metrics-torchvision]", or leave --pairwise out.'
            ) from None
        self.metric = LearnedPerceptualImagePatchSimilarity(net_type=network, reduction="none")

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.metric(first, second)


class ReaderMaps(nn.Module):
    """The form of LPIPS without its learnt weights, over the feature maps of MiniEmoSet's reader; it is not LPIPS.

    The squared difference of features that are normalised over channels, mean over places, sum over stages.
    """

    figure = "reader_map_distance"

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.backbone = reader.backbone

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        maps = [self.backbone(images, output_hidden_states=True).hidden_states for images in (first, second)]
        stages = zip(*([functional.normalize(stage, dim=1) for stage in one] for one in maps), strict=True)
        return sum((a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in stages)


PAIRWISE: Openers = {"lpips": Lpips, "reader": lambda weights: ReaderMaps(load_reader(weights))}
"""Networks of two images (B, 3, H, W) in [-1, 1] -> their distances (B,)."""


@torch.no_grad()
def pairwise_distance(rows: Sequence[Row], load: Square, network: nn.Module, batch_size: int, seed: int) -> Estimate:
    """The mean distance of images of one emotion, over all emotions.

    Each image is in one pair, drawn at random: pairs that share no image are independent, and the interval is exact
    where over all pairs it would be too small.

    Args:
        rows: of images with their emotions.
        load: their pixels.
        network: see `PAIRWISE`.
        batch_size: pairs at once.
        seed: decides the pairs.

    Raises:
        ValueError: an emotion with fewer than two images.
    """
    device = PartialState().device
    pairs = draw_pairs(torch.tensor([row.label for row in rows]), seed)
    distances = []
    for batch in tqdm(pairs.split(batch_size), "pairs", unit="batch"):
        first, second = (
            torch.stack([load(rows[index].picture) for index in side]).to(device) / 127.5 - 1
            for side in batch.T.tolist()
        )
        distances.append(network(first, second).flatten().cpu())
    return mean_estimate(torch.cat(distances))


def draw_pairs(labels: Tensor, seed: int) -> Tensor:
    """Indices (P, 2) of pairs of one emotion, each image at most once; of an odd number one is left.

    Raises:
        ValueError: an emotion with fewer than two images.
    """
    check_classes(labels)
    source = torch.Generator().manual_seed(seed)
    pairs = []
    for label in range(len(EMOTIONS)):
        rows = (labels == label).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=source)]
        pairs.append(rows[: len(rows) // 2 * 2].view(-1, 2))
    return torch.cat(pairs)
