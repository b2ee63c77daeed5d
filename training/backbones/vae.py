"""The mini VAE: Stable Diffusion's architecture, factor 8, four latent channels, trained on crops."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional as F

from ..miniemoset.streams import Stream
from .corpus import Corpus, to_tensor
from .loop import train
from .reader import Reader

BATCH_SIZE = 16
SMALL_CROP, LARGE_CROP = 32, 64  # many cheap steps first: what is slow to learn needs steps, not context
SMALL_SHARE = 0.75
KL_WEIGHT = 1e-4
CHROMA_WEIGHT = 0.5
PERCEPTUAL_WEIGHT, STRONG_PERCEPTUAL_WEIGHT = 0.2, 0.6
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


def perceptual_loss(network: Reader, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Distance of a trained network's features, unit length at each place, summed over its stages (as LPIPS).

    Pixels alone leave small objects blurred: a spider's legs are few of them.
    """
    features = [
        [F.normalize(stage, dim=1) for stage in network.backbone(images, output_hidden_states=True).hidden_states]
        for images in (output, target)
    ]
    return sum((a - b).square().sum(dim=1).mean() for a, b in zip(*features, strict=True))


def train_vae(
    corpus: Corpus,
    folder: Path,
    perceptual_network: Reader,
    *,
    pixel_steps: int,
    detail_steps: int,
    decoder_steps: int,
    final_steps: int,
) -> None:
    """Train a VAE on random crops of the corpus and save it, its scaling factor measured, to `folder`.

    Args:
        perceptual_network: A reader that judges nothing.
        pixel_steps: On pixels alone, small crops first.
        detail_steps: More, with the perceptual loss.
        decoder_steps: More, with a stronger perceptual loss, of the decoder alone.
        final_steps: More, of both, with that loss.
    """
    torch.manual_seed(0)
    vae = new_vae().to(memory_format=torch.channels_last)
    perceptual_network.requires_grad_(False)

    def pixel_loss_at(step: int) -> torch.Tensor:
        size = SMALL_CROP if step < SMALL_SHARE * pixel_steps else LARGE_CROP
        pixels, output, divergence = _autoencode(vae, corpus, Stream.VAE_PIXELS, step, size)
        return reconstruction_loss(output, pixels) + divergence

    def detail_loss_at(step: int, stream: Stream, weight: float) -> torch.Tensor:
        pixels, output, divergence = _autoencode(vae, corpus, stream, step, LARGE_CROP)
        perceptual = perceptual_loss(perceptual_network, output, pixels)
        return reconstruction_loss(output, pixels) + weight * perceptual + divergence

    def fit(name: str, loss_at: Callable[[int], torch.Tensor], steps: int, rate: float) -> None:
        checkpoint = folder / f"{name}.ckpt"
        train(nn.ModuleDict({"vae": vae}), loss_at, steps=steps, learning_rate=rate, name=name, checkpoint=checkpoint)

    fit("vae pixels", pixel_loss_at, pixel_steps, 1.5e-3)
    detail = partial(detail_loss_at, stream=Stream.VAE_DETAIL, weight=PERCEPTUAL_WEIGHT)
    fit("vae detail", detail, detail_steps, 1e-3)
    _set_encoder_trainable(vae, False)
    decoder = partial(detail_loss_at, stream=Stream.VAE_DECODER, weight=STRONG_PERCEPTUAL_WEIGHT)
    fit("vae decoder", decoder, decoder_steps, 1e-3)
    _set_encoder_trainable(vae, True)
    final = partial(detail_loss_at, stream=Stream.VAE_FINAL, weight=STRONG_PERCEPTUAL_WEIGHT)
    fit("vae final", final, final_steps, 1e-3)
    with torch.no_grad():
        latents = vae.encode(to_tensor(corpus.images[:512])).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    vae.save_pretrained(folder)


def _set_encoder_trainable(vae: AutoencoderKL, trainable: bool) -> None:
    vae.encoder.requires_grad_(trainable)
    vae.quant_conv.requires_grad_(trainable)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) in [-1, 1] through the VAE and back."""
    return vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)


def _autoencode(
    vae: AutoencoderKL, corpus: Corpus, stream: Stream, step: int, size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A batch of crops, their reconstructions, and the weighted divergence of the posterior from the prior."""
    rng = np.random.default_rng([stream, step])
    pixels = to_tensor(_crops(corpus, rng, BATCH_SIZE, size)).contiguous(memory_format=torch.channels_last)
    posterior = vae.encode(pixels).latent_dist
    noise = torch.from_numpy(rng.standard_normal(posterior.mean.shape, dtype=np.float32))
    output = vae.decode(posterior.mean + posterior.std * noise).sample
    return pixels, output, KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()


def _crops(corpus: Corpus, rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    places = corpus.images.shape[1] - size + 1
    chosen = zip(rng.integers(len(corpus), size=count), *rng.integers(places, size=(2, count)), strict=True)
    return np.stack([corpus.images[i, y : y + size, x : x + size] for i, y, x in chosen])
