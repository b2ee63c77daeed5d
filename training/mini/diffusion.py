"""The mini latent diffusion model: Stable Diffusion's architecture; text encoder and UNet are trained together."""

from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from tqdm import trange
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..miniemoset.captions import sample_caption
from .corpus import Corpus, to_tensor
from .loop import train
from .tokenizer import MAX_LENGTH, make_tokenizer

TEXT_WIDTH = 128
EMPTY_CAPTIONS = 0.10


def new_scheduler() -> UniPCMultistepScheduler:
    """Zero terminal SNR and trailing timesteps: the usual schedule pulls brightness, which is a cue, to the mean."""
    return UniPCMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder, 128 wide, 3 layers."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_unet() -> UNet2DConditionModel:
    """An untrained UNet for 16x16 latents; the first level, the costliest, has no attention."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(48, 96, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


@torch.no_grad()
def encode_latents(vae: AutoencoderKL, corpus: Corpus, size: int, path: Path, batch_size: int = 50) -> torch.Tensor:
    """Scaled latents (size, 4, 16, 16) of the corpus's first pictures, encoded once and kept in `path` as fp16.

    The mean stands for a draw: the VAE's posterior is narrow, and the noise of the diffusion hides the rest.
    """
    if not path.exists():
        parts = [
            vae.encode(to_tensor(corpus.images[i : i + batch_size])).latent_dist.mean * vae.config.scaling_factor
            for i in trange(0, size, batch_size, desc="latents", mininterval=10)
        ]
        save_file({"latents": torch.cat(parts).half().contiguous()}, path)
    return load_file(path)["latents"]


def train_diffusion(
    corpus: Corpus,
    vae_folder: Path,
    folder: Path,
    *,
    steps: int,
    size: int,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
) -> None:
    """Train text encoder and UNet on the latents and captions of the corpus's first `size` pictures.

    A whole Stable Diffusion pipeline is saved to `folder`.
    """
    torch.manual_seed(0)
    vae = AutoencoderKL.from_pretrained(vae_folder).eval()
    latents = encode_latents(vae, corpus, size, folder.parent / "latents.safetensors")
    tokenizer, scheduler = make_tokenizer(), new_scheduler()
    noising = DDPMScheduler.from_config(scheduler.config)
    text_encoder = new_text_encoder(tokenizer)
    unet = new_unet().to(memory_format=torch.channels_last)

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng([20, step])
        chosen = rng.integers(len(latents), size=batch_size)
        captions = ["" if rng.random() < EMPTY_CAPTIONS else sample_caption(corpus.attributes(i), rng) for i in chosen]
        clean = latents[chosen].float()
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        # One timestep from each of `batch_size` equal strata: the loss's variance falls, its mean stays.
        timesteps = torch.from_numpy(
            ((np.arange(batch_size) + rng.random(batch_size)) / batch_size * 1000).astype(int)
        )
        noisy = noising.add_noise(clean, noise, timesteps)
        ids = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        prediction = unet(noisy, timesteps, text_encoder(ids).last_hidden_state).sample
        return F.mse_loss(prediction, noising.get_velocity(clean, noise, timesteps))

    train(
        nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}),
        loss_at,
        steps=steps,
        learning_rate=learning_rate,
        name="diffusion",
        checkpoint=folder.parent / "diffusion.ckpt",
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
