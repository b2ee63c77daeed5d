"""The mini VAE: Stable Diffusion's architecture, factor 8, four latent channels, trained on crops."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional as F

from .corpus import Corpus, to_tensor
from .loop import train

CROP = 64  # a quarter of the arithmetic of a whole picture, and the convolutions do not mind
KL_WEIGHT = 1e-4


def new_vae() -> AutoencoderKL:
    """An untrained VAE for 128x128 pictures."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=128,
    )


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 for sharpness plus squared error, which learns colours sooner."""
    return F.l1_loss(output, target) + 2 * F.mse_loss(output, target)


def train_vae(corpus: Corpus, folder: Path, steps: int, batch_size: int = 24, learning_rate: float = 2e-3) -> None:
    """Train a VAE on random crops of the corpus and save it, its scaling factor measured, to `folder`."""
    torch.manual_seed(0)
    vae = new_vae().to(memory_format=torch.channels_last)

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng([10, step])
        pixels = to_tensor(_crops(corpus, rng, batch_size)).contiguous(memory_format=torch.channels_last)
        noise = torch.from_numpy(rng.standard_normal((batch_size, 4, CROP // 8, CROP // 8), dtype=np.float32))
        return _autoencoding_loss(vae, pixels, noise)

    train(
        nn.ModuleDict({"vae": vae}),
        loss_at,
        steps=steps,
        learning_rate=learning_rate,
        name="vae",
        checkpoint=folder.parent / "vae.ckpt",
    )
    with torch.no_grad():
        latents = vae.encode(to_tensor(corpus.images[:512])).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    vae.save_pretrained(folder)


def _autoencoding_loss(vae: AutoencoderKL, pixels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    posterior = vae.encode(pixels).latent_dist
    output = vae.decode(posterior.mean + posterior.std * noise).sample
    return reconstruction_loss(output, pixels) + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()


def _crops(corpus: Corpus, rng: np.random.Generator, count: int) -> np.ndarray:
    size = corpus.images.shape[1] - CROP + 1
    places = zip(rng.integers(len(corpus), size=count), *rng.integers(size, size=(2, count)), strict=True)
    return np.stack([corpus.images[i, y : y + CROP, x : x + CROP] for i, y, x in places])
