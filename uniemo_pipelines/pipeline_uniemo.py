"""UniEmo on Stable Diffusion, text to image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import PipelineImageInput
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput, StableDiffusionSafetyChecker
from diffusers.schedulers import KarrasDiffusionSchedulers
from transformers import (
    BaseImageProcessor,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from .conditioning_uniemo import Emotions, EmotionSettings, UniEmoConditioningMixin
from .fusion_uniemo import UniEmoFusionModel
from .loaders_uniemo import UniEmoLoaderMixin
from .understanding_uniemo import ImageInput


@dataclass
class UniEmoPipelineOutput(StableDiffusionPipelineOutput):
    """The stock output, and what explains it and makes it again.

    Attributes:
        images: the generated images, B of them.
        nsfw_content_detected: the safety checker's finding for each; None without a checker.
        conditions: (B, D) by token: the conditions that the tokens of each prompt stood for; a row whose prompt lacks
            the token is zero. None where no emotion was asked for or the scale is 0. `pipe.emotion_conditions` takes
            them back; what `emotion="awe"` put in front stands under "<emotion>".
        attributes: for each image, by token: `emotion` (weights by name), the retrieved `scene` and `object` and their
            `scene_coefficient` and `object_coefficient`. None where conditions are.
    """

    conditions: dict[str, torch.Tensor] | None = None
    attributes: list[dict[str, dict[str, Any]]] | None = None


class UniEmoPipeline(UniEmoConditioningMixin, UniEmoLoaderMixin, StableDiffusionPipeline):
    """Stable Diffusion with emotions: everything that `StableDiffusionPipeline` does, and what `load_uniemo` adds.

        pipe = UniEmoPipeline.from_pretrained(base)     # or UniEmoPipeline.from_pipe(pipe)
        pipe.load_uniemo(adapter)
        pipe(emotion="awe").images[0]

    Without an emotion, by argument or by token, it gives the stock pipeline's images to the bit.

    Args:
        fusion: the fusion model, as a component; `load_uniemo` sets it from an adapter.
        understanding: folder or repository of the understanding model, fetched when an image is to be understood.
        Others: as `StableDiffusionPipeline`.
    """

    _optional_components = [*StableDiffusionPipeline._optional_components, "fusion"]
    # `fusion.sample` goes past `forward`, which is all that accelerate's offload wraps.
    _exclude_from_cpu_offload = [*StableDiffusionPipeline._exclude_from_cpu_offload, "fusion"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        safety_checker: StableDiffusionSafetyChecker,
        feature_extractor: BaseImageProcessor,
        image_encoder: CLIPVisionModelWithProjection = None,
        fusion: UniEmoFusionModel = None,
        requires_safety_checker: bool = True,
        understanding: str | None = None,
    ) -> None:
        super().__init__(
            vae,
            text_encoder,
            tokenizer,
            unet,
            scheduler,
            safety_checker,
            feature_extractor,
            image_encoder,
            requires_safety_checker,
        )
        self.register_modules(fusion=fusion)
        self.register_to_config(understanding=understanding)
        if fusion is not None and text_encoder is not None:
            self._attach_uniemo(fusion)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float = 7.5,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int | None = 1,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        ip_adapter_image: PipelineImageInput | None = None,
        ip_adapter_image_embeds: list[torch.Tensor] | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guidance_rescale: float = 0.0,
        clip_skip: int | None = None,
        callback_on_step_end: Callable[[int, int], None] | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        emotion: Emotions = None,
        emotion_image: ImageInput | Sequence[ImageInput] | None = None,
        emotion_scale: float = 1.0,
        scene_scale: float = 1.0,
        object_scale: float = 1.0,
        emotion_variation: float = 1.0,
        negative_emotion: Emotions = None,
        **kwargs: Any,
    ) -> UniEmoPipelineOutput | tuple:
        """Generate images that evoke an emotion.

        Beside the arguments below it takes those of `StableDiffusionPipeline`, which mean what they mean there.

        Args:
            prompt: the eight tokens (`<awe>`, ...) work anywhere in it, several at once, each with its own sample;
                `<emotion>` is the slot that `emotion` or `emotion_image` fills. Without any of them the slot is put in
                front, and without a prompt the slot is the prompt.
            emotion: a name, weights by name (a fusion), or a list of either over the prompts, None for a prompt
                without. A list sets the batch where the prompt is one string.
            emotion_image: what this image evokes, another image: a PIL image or a path, or a list of them over the
                prompts. Its features take the sample's place, and the predicted probabilities are the weights.
            emotion_scale: 0 is the stock image of the prompt without the tokens; up to 1 the prompt embeddings move to
                those with the tokens, and above 1 further in that direction.
            scene_scale, object_scale: factors of the scene's and the object's share in the condition.
            emotion_variation: from 0, each image the emotion's mean, to 1, the emotion space's full variety.
            negative_emotion: as `emotion`, to lead away from; put into the negative prompt with its mean condition.
            num_images_per_prompt: each image has its own sample.
            generator: it alone decides, one or a list with one for each image.

        Returns:
            `UniEmoPipelineOutput`, or with `return_dict=False` the stock pipeline's tuple.

        Raises:
            ValueError: no adapter for an emotion; an unknown emotion (the nearest is suggested) or weights that are
                negative or sum to zero; a slot that nothing fills; a prompt and an argument that disagree; lists that
                do not fit the batch; a scale or variation out of range; `prompt_embeds` together with an emotion.
        """
        settings = EmotionSettings(
            emotion, emotion_image, emotion_scale, scene_scale, object_scale, emotion_variation, negative_emotion
        )
        plan = None
        if prompt_embeds is None:
            plan = self._plan_emotions(prompt, negative_prompt, settings, num_images_per_prompt, generator)
        elif settings.asked:
            raise ValueError(
                f"Expected a prompt with {', '.join(settings.asked)}, found prompt_embeds; call encode_emotion."
            )
        with self._planned(plan):
            images, nsfw_content_detected = super().__call__(
                prompt=prompt if plan is None else plan.bare_prompts,
                height=height,
                width=width,
                num_inference_steps=num_inference_steps,
                timesteps=timesteps,
                sigmas=sigmas,
                guidance_scale=guidance_scale,
                negative_prompt=negative_prompt,
                num_images_per_prompt=num_images_per_prompt,
                eta=eta,
                generator=generator,
                latents=latents,
                prompt_embeds=prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds,
                ip_adapter_image=ip_adapter_image,
                ip_adapter_image_embeds=ip_adapter_image_embeds,
                output_type=output_type,
                return_dict=False,
                cross_attention_kwargs=cross_attention_kwargs,
                guidance_rescale=guidance_rescale,
                clip_skip=clip_skip,
                callback_on_step_end=callback_on_step_end,
                callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
                **kwargs,
            )
        if not return_dict:
            return images, nsfw_content_detected
        if plan is None or not plan.conditions:
            return UniEmoPipelineOutput(images, nsfw_content_detected)
        return UniEmoPipelineOutput(images, nsfw_content_detected, plan.conditions, plan.attributes)
