"""UniEmo on Stable Diffusion XL, text to image."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.pipelines.stable_diffusion_xl import StableDiffusionXLPipelineOutput

from .conditioning_uniemo import UniEmoConditioningMixin
from .extending_uniemo import with_emotions
from .saving_uniemo import UniEmoSavingMixin


@dataclass
class UniEmoXLPipelineOutput(StableDiffusionXLPipelineOutput):
    """As `UniEmoPipelineOutput`, but for the safety checker's finding; conditions are one (B, D) a text encoder."""

    conditions: dict[str, torch.Tensor | tuple[torch.Tensor, ...]] | None = None
    attributes: list[dict[str, dict[str, Any]]] | None = None


@with_emotions
class UniEmoXLPipeline(UniEmoConditioningMixin, UniEmoSavingMixin, StableDiffusionXLPipeline):
    """`StableDiffusionXLPipeline` with emotions; see `UniEmoPipeline`.

    Its adapter's fusion model has a set of mappers for each of the two text encoders. The tokens work in `prompt_2` as
    well, where they stand for the same sample.
    """

    _output = UniEmoXLPipelineOutput

    def encode_prompt(
        self,
        prompt: str | list[str],
        prompt_2: str | list[str] | None = None,
        device: torch.device | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor | None]:
        """As the stock pipeline's, with emotion tokens; see `UniEmoPipeline.encode_prompt`."""
        with self._encoding(None):  # nothing to repair about clip_skip here
            if (plan := self._take_plan()) is not None:
                embeds = self._encode_planned(
                    plan,
                    super().encode_prompt,
                    device,
                    num_images_per_prompt,
                    do_classifier_free_guidance,
                    lora_scale,
                    clip_skip,
                    [negative_prompt_embeds, negative_pooled_prompt_embeds],
                )
            else:
                embeds = super().encode_prompt(
                    prompt=self._shown(prompt),
                    prompt_2=self._shown(prompt_2),
                    device=device,
                    num_images_per_prompt=num_images_per_prompt,
                    do_classifier_free_guidance=do_classifier_free_guidance,
                    negative_prompt=self._shown(negative_prompt),
                    negative_prompt_2=self._shown(negative_prompt_2),
                    prompt_embeds=prompt_embeds,
                    negative_prompt_embeds=negative_prompt_embeds,
                    pooled_prompt_embeds=pooled_prompt_embeds,
                    negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
                    lora_scale=lora_scale,
                    clip_skip=clip_skip,
                )
        prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds = embeds
        return prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds
