"""What every training through a Stable Diffusion shares: the diffusion loss of pictures under prompts (design 2.3)."""

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline
from diffusers.training_utils import compute_snr
from torch import Tensor, nn
from torch.nn import functional

from uniemo_pipelines.prompting_uniemo import SLOT_TOKEN, PseudoTokens

from .config import RunArguments
from .engine import Batch


def load_base(base: str, training: RunArguments) -> StableDiffusionPipeline:
    """A stock pipeline; what stays frozen is held in the precision that the run computes in."""
    precision = torch.float16 if training.fp16 else torch.bfloat16 if training.bf16 else torch.float32
    return StableDiffusionPipeline.from_pretrained(base, dtype=precision, safety_checker=None)


class PromptedDiffusion(nn.Module):
    """A Stable Diffusion, and the loss of its predictions where given vectors stand in the prompts' slots.

    Args:
        base: its tokenizer and text encoder receive the pseudo-tokens. Who inherits decides what is trained.
        vae: where pictures come without latents.
        min_snr_gamma: of the timesteps' weights; None for none.

    Raises:
        ValueError: a base that predicts neither noise nor velocity.
    """

    def __init__(
        self,
        base: StableDiffusionPipeline,
        vae: AutoencoderKL | None = None,
        min_snr_gamma: float | None = None,
    ) -> None:
        super().__init__()
        self.text_encoder = base.text_encoder
        self.unet = base.unet
        self.vae = vae
        self.scheduler = DDPMScheduler.from_config(base.scheduler.config)
        if self.scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(
                "Expected a base that predicts epsilon or v_prediction, found "
                f"{self.scheduler.config.prediction_type!r} in its scheduler's configuration."
            )
        self.pseudo_tokens = PseudoTokens(base.tokenizer, base.text_encoder)
        self.token_norm = base.text_encoder.get_input_embeddings().weight.detach().float().norm(dim=1).median().item()
        self.min_snr_gamma = min_snr_gamma

    def encode_prompts(self, prompts: Sequence[str], condition: Tensor) -> Tensor:
        """Prompt embeddings (B, L, D') with condition i in the slot of prompt i."""
        tokens = self.pseudo_tokens.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
        return self.encode_ids(tokens.input_ids.to(condition.device), condition)

    def encode_ids(self, input_ids: Tensor, condition: Tensor) -> Tensor:
        """As `encode_prompts`, of token ids (B, L)."""
        with self.pseudo_tokens.conditions({SLOT_TOKEN: condition}):
            return self.text_encoder(input_ids)[0]

    @torch.no_grad()
    def latents(self, batch: Batch) -> Tensor:
        """Scaled latents (B, C, h, w): the batch's own, or its pictures encoded."""
        return batch["latents"] if "latents" in batch else encode(self.vae, batch["latent_pixels"])

    def relative_norm(self, condition: Tensor) -> Tensor:
        """Lengths of conditions (B, D) in that of the median token embedding, (B,)."""
        return condition.float().norm(dim=1) / self.token_norm

    def diffusion_loss(self, condition: Tensor, latents: Tensor, batch: Batch) -> Tensor:
        """Mean squared error of the UNet's prediction; the condition (B, D) stands in the prompt's slot."""
        noise, timesteps = batch["noise"], batch["timesteps"]
        prompt_embeds = self.encode_ids(batch["input_ids"], condition)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        prediction = self.unet(noisy, timesteps, prompt_embeds).sample
        errors = functional.mse_loss(prediction.float(), self.target(latents, noise, timesteps), reduction="none")
        return (self.timestep_weights(timesteps) * errors.mean((1, 2, 3))).mean()

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the base's UNet predicts."""
        if self.scheduler.config.prediction_type == "epsilon":
            return noise
        return self.scheduler.get_velocity(latents, noise, timesteps)

    def timestep_weights(self, timesteps: Tensor) -> Tensor:
        """1 for all, or min-SNR's weight of each (B,); for velocity it is divided by SNR + 1 in the place of SNR."""
        if self.min_snr_gamma is None:
            return torch.ones_like(timesteps, dtype=torch.float32)
        snr = compute_snr(self.scheduler, timesteps)
        divisor = snr if self.scheduler.config.prediction_type == "epsilon" else snr + 1
        # at the last step of a schedule that ends in pure noise, where SNR is 0, the noise is all there is to predict
        return torch.where(divisor > 0, snr.clamp(max=self.min_snr_gamma) / divisor, 1.0)


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Scaled latents (B, C, h, w) of pixels (B, 3, H, W) in [-1, 1], float32.

    The mode of the encoder's distribution: its spread is far below the noise that training adds.
    """
    return (vae.encode(pixels.to(vae.dtype)).latent_dist.mode() * vae.config.scaling_factor).float()
