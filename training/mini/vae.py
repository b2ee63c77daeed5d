"""The mini VAE: Stable Diffusion's architecture, factor 8, four latent channels, trained on crops."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn

from .corpus import Corpus, to_tensor
from .loop import train

SMALL_CROP, LARGE_CROP = 32, 64  # many cheap steps first: what is slow to learn needs steps, not context
SMALL_SHARE = 0.75
KL_WEIGHT = 1e-4
CHROMA_WEIGHT = 0.5
LOG_VARIANCE = -6.0


def new_vae() -> AutoencoderKL:
    """An untrained VAE for 128x128 pictures.

    Its posterior starts narrow and its first layer sees colour differences magnified: from the usual initialisation it
    spends a third of its training on growing latents out of their own noise, and learns colours last.
    """
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=128,
    )
    with torch.no_grad():
        log_variance = slice(vae.config.latent_channels, None)
        vae.quant_conv.weight[log_variance] = 0
        vae.quant_conv.bias[log_variance] = LOG_VARIANCE
        opponent = torch.tensor([[1, 1, 1], [3, -3, 0], [1.5, 1.5, -3]])
        vae.encoder.conv_in.weight.copy_(torch.einsum("ochw,cr->orhw", vae.encoder.conv_in.weight, opponent))
    return vae


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 for sharpness plus squared error, on pixels and on their colour differences.

    Luminance dominates the pixels, while palettes, which carry emotion, show in the differences of the channels.
    """

    def distance(error: torch.Tensor) -> torch.Tensor:
        return error.abs().mean() + 2 * error.square().mean()

    error = output - target
    return distance(error) + CHROMA_WEIGHT * distance(error.diff(dim=1))


def train_vae(corpus: Corpus, folder: Path, steps: int, batch_size: int = 16, learning_rate: float = 1.5e-3) -> None:
    """Train a VAE on random crops of the corpus and save it, its scaling factor measured, to `folder`."""
    torch.manual_seed(0)
    vae = new_vae().to(memory_format=torch.channels_last)

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng([10, step])
        size = SMALL_CROP if step < SMALL_SHARE * steps else LARGE_CROP
        pixels = to_tensor(_crops(corpus, rng, batch_size, size)).contiguous(memory_format=torch.channels_last)
        noise = torch.from_numpy(rng.standard_normal((batch_size, 4, size // 8, size // 8), dtype=np.float32))
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


def _crops(corpus: Corpus, rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    places = corpus.images.shape[1] - size + 1
    chosen = zip(rng.integers(len(corpus), size=count), *rng.integers(places, size=(2, count)), strict=True)
    return np.stack([corpus.images[i, y : y + size, x : x + size] for i, y, x in chosen])
