"""The mini latent diffusion model: Stable Diffusion's architecture; text encoder and UNet are trained together."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
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

from uniemo_pipelines.prompting_uniemo import SLOT_TOKEN

from ..miniemoset.captions import sample_caption
from ..miniemoset.streams import Stream
from .compounds import NAMES, PROMPTS, Compounds, compound_weights
from .corpus import Corpus, to_tensor
from .loop import train
from .tokenizer import MAX_LENGTH, make_tokenizer

TEXT_WIDTH = 128
EMPTY_CAPTIONS = 0.10


@dataclass(frozen=True)
class Cycle:
    """One cosine of the training, from the full learning rates and the averaged weights of the cycle before.

    Attributes:
        steps: How many.
        power: Of the timesteps' density; 1 learns captions sooner, 0 draws more sharply.
        compounds: Share of captions that are one compound word.
    """

    steps: int
    power: float
    compounds: float


def new_scheduler() -> UniPCMultistepScheduler:
    """Zero terminal SNR and trailing timesteps: the usual schedule pulls brightness, which is a cue, to the mean."""
    return UniPCMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,  # of no effect with trailing steps; without it diffusers warns at every load
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

    Raises:
        ValueError: `path` holds another number of latents.
    """
    if not path.exists():
        parts = [
            vae.encode(to_tensor(corpus.images[i : i + batch_size])).latent_dist.mean * vae.config.scaling_factor
            for i in trange(0, size, batch_size, desc="latents", mininterval=10)
        ]
        save_file({"latents": torch.cat(parts)[:size].half().contiguous()}, path)
    latents = load_file(path)["latents"]
    if len(latents) != size:
        raise ValueError(f"Expected {size} latents in {path}, found {len(latents)}; remove the file.")
    return latents


def velocity_loss(
    unet: UNet2DConditionModel,
    scheduler: DDPMScheduler,
    clean: torch.Tensor,
    timesteps: torch.Tensor,
    text: torch.Tensor,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Squared error of the predicted velocity (Salimans & Ho 2022) of latents under noise drawn from `rng`.

    Args:
        clean: (B, 4, 16, 16) latents.
        timesteps: (B,).
        text: (B, tokens, width) prompt embeddings.
    """
    noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
    prediction = unet(scheduler.add_noise(clean, noise, timesteps), timesteps, text).sample
    return F.mse_loss(prediction, scheduler.get_velocity(clean, noise, timesteps))


def train_diffusion(
    corpus: Corpus,
    vae: AutoencoderKL,
    latents: torch.Tensor,
    folder: Path,
    *,
    cycles: Sequence[Cycle],
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    muon_learning_rate: float = 5e-3,
) -> None:
    """Train text encoder and UNet on latents and captions of the corpus, and save a whole pipeline to `folder`."""
    torch.manual_seed(0)
    tokenizer, scheduler = make_tokenizer(), new_scheduler()
    noising = DDPMScheduler.from_config(scheduler.config)
    text_encoder = new_text_encoder(tokenizer)
    unet = new_unet().to(memory_format=torch.channels_last)

    compounds = Compounds(tokenizer, text_encoder)

    def encode(captions: list[str], weights: np.ndarray) -> torch.Tensor:
        ids = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        with compounds.tokens.conditions({SLOT_TOKEN: compounds.rows(torch.from_numpy(weights))}):
            return text_encoder(ids).last_hidden_state

    def loss_at(step: int, done: int, cycle: Cycle) -> torch.Tensor:
        rng = np.random.default_rng([Stream.DIFFUSION, done + step])
        chosen = rng.integers(len(latents), size=batch_size)
        text = encode(*draw_captions(corpus, chosen, cycle.compounds, rng))
        timesteps = draw_timesteps(batch_size, cycle.power, rng)
        return velocity_loss(unet, noising, latents[chosen].float(), timesteps, text, rng)

    done = 0
    for number, cycle in enumerate(cycles, start=1):
        train(
            nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}),
            partial(loss_at, done=done, cycle=cycle),
            steps=cycle.steps,
            learning_rate=learning_rate,
            muon_learning_rate=muon_learning_rate,
            name=f"diffusion {number}",
            checkpoint=folder / f"diffusion {number}.ckpt",
        )
        done += cycle.steps
    compounds.tokens.remove()
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def draw_captions(
    corpus: Corpus, chosen: np.ndarray, compounds: float, rng: np.random.Generator
) -> tuple[list[str], np.ndarray]:
    """Captions of the chosen pictures: none, a compound, or words; and the compounds' weights (B, 51), else 0."""
    captions, weights = [], np.zeros((len(chosen), len(NAMES)), dtype=np.float32)
    for row, index in enumerate(chosen):
        form = rng.random()
        if form < EMPTY_CAPTIONS:
            captions.append("")
        elif form < EMPTY_CAPTIONS + compounds:
            captions.append(str(rng.choice(PROMPTS)))
            weights[row] = compound_weights(corpus.labels[index], rng)
        else:
            captions.append(sample_caption(corpus.attributes(index), rng))
    return captions, weights


def draw_timesteps(count: int, power: float, rng: np.random.Generator) -> torch.Tensor:
    """(count,) timesteps t with a density proportional to t**power, one from each of as many equal strata.

    Captions lower the loss above timestep 600 almost alone, so that power 1 learns them sooner; below, the picture
    already shows what they say, and power 0 learns to draw it sharply.
    """
    strata = (np.arange(count) + rng.random(count)) / count
    return torch.from_numpy((strata ** (1 / (1 + power)) * 1000).astype(np.int64))
