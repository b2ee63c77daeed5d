"""Prompt embeddings with emotion: the mixin that overrides `encode_prompt`, and what works outside a call."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain
from threading import RLock
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from diffusers.utils import logging
from torch.nn.functional import pad

from .loaders_uniemo import as_conditions
from .planning_uniemo import EmotionPlan, Emotions, EmotionSettings, Generators, Texts, plan_emotions
from .prompting_uniemo import misspelt_tokens, without_tokens
from .understanding_uniemo import ImageInput, ImageUnderstanding, understand_images

logger = logging.get_logger(__name__)

_PLANNED: ContextVar[tuple[Any, EmotionPlan] | None] = ContextVar("_PLANNED", default=None)
_REPAIRING = RLock()

Encode = Callable[[Texts, int, int | None], tuple[torch.Tensor, ...]]
"""Prompts, images of each and `clip_skip` to (B, tokens, D), with Stable Diffusion XL also to pooled (B, D)."""


@dataclass
class UniEmoPipelineOutput(StableDiffusionPipelineOutput):
    """The stock output, and what explains it and makes it again.

    Attributes:
        images: the generated images, B of them.
        nsfw_content_detected: the safety checker's finding for each; None without a checker.
        conditions: (B, D) by token: the conditions that the tokens of each prompt stood for; a row whose prompt lacks
            the token is zero. None where no emotion was asked for or the scale is 0. `pipe.emotion_conditions` takes
            them back; what `emotion="awe"` put in front stands under "<emotion>", and what `emotion_conditions` gave
            is not repeated.
        attributes: for each image, by token: `emotion` (weights by name), the retrieved `scene` and `object` and their
            `scene_coefficient` and `object_coefficient`. None where conditions are.
    """

    conditions: dict[str, torch.Tensor] | None = None
    attributes: list[dict[str, dict[str, Any]]] | None = None


class UniEmoConditioningMixin:
    """Emotions for the prompts of a pipeline, whatever its text encoders; used together with `UniEmoLoaderMixin`."""

    def understand(
        self, images: ImageInput | Sequence[ImageInput], top_k: int = 5, attention_maps: bool = False
    ) -> list[ImageUnderstanding]:
        """What images evoke: label, probabilities, nearest scenes and objects, on request attention maps.

        The understanding model is fetched at first use. See `ImageUnderstanding` for the fields.

        Raises:
            ValueError: no adapter, the adapter names no understanding model, or an image cannot be read.
        """
        model, processor = self.understanding_model, self.understanding_processor
        return understand_images(model, processor, images, top_k, attention_maps)

    @contextmanager
    def emotion_conditions(self, conditions: Mapping[str, torch.Tensor | Sequence[torch.Tensor]]) -> Iterator[None]:
        """Within the context tokens mean these conditions, (D,) or (B, D) by token, instead of samples or means.

        With several text encoders it is a tuple of them, one for each. It holds for this pipeline's calls, for a bare
        `encode_prompt` and for whatever else runs the text encoder in this thread, compel for one. With an output's
        `conditions` it makes the output's images again.

        Raises:
            TypeError: no mapping, such as the None of an output without emotion.
            ValueError: no adapter is loaded, an unknown token, a condition of another width or for another number of
                text encoders.
        """
        self._require_uniemo(["emotion_conditions"])
        if not isinstance(conditions, Mapping):
            raise TypeError(f"Expected conditions by token, found {conditions!r}; an output without emotion has none.")
        self._know_tokens()
        with ExitStack() as stack:
            rows = {token: as_conditions(condition) for token, condition in conditions.items()}
            for token, own in rows.items():
                if len(own) != len(self._pseudo_tokens):
                    expected = len(self._pseudo_tokens)
                    raise ValueError(
                        f"Expected {expected} conditions for {token}, one a text encoder, found {len(own)}."
                    )
            for index, tokens in enumerate(self._pseudo_tokens):
                stack.enter_context(tokens.conditions({token: own[index] for token, own in rows.items()}))
            yield

    def encode_emotion(
        self,
        prompt: str | list[str] | None = None,
        emotion: Emotions = None,
        *,
        emotion_image: ImageInput | Sequence[ImageInput] | None = None,
        emotion_scale: float = 1.0,
        scene_scale: float = 1.0,
        object_scale: float = 1.0,
        emotion_variation: float = 1.0,
        negative_prompt: str | list[str] | None = None,
        negative_emotion: Emotions = None,
        num_images_per_prompt: int = 1,
        generator: Generators = None,
        do_classifier_free_guidance: bool = True,
        clip_skip: int | None = None,
        lora_scale: float | None = None,
        **second: str | list[str] | None,
    ) -> tuple[torch.Tensor | None, ...]:
        """Prompt embeddings with emotion for every pipeline that takes `prompt_embeds`.

        The arguments mean what they mean in the call. Given the same generator (in the same state), the embeddings
        are those of the call.

        Args:
            **second: with Stable Diffusion XL `prompt_2` and `negative_prompt_2`.

        Returns:
            What `encode_prompt` returns: `prompt_embeds` and `negative_prompt_embeds`, each (B, tokens, D), the second
            None without guidance; with Stable Diffusion XL both again pooled, (B, D).
        """
        settings = EmotionSettings(
            emotion, emotion_image, emotion_scale, scene_scale, object_scale, emotion_variation, negative_emotion
        )
        if unknown := sorted(second.keys() - {"prompt_2", "negative_prompt_2"}):
            raise TypeError(f"encode_emotion() got an unexpected keyword argument '{unknown[0]}'.")
        texts = {"prompt": prompt, "negative_prompt": negative_prompt, **second}
        plan = self._plan_emotions(texts, settings, num_images_per_prompt, generator)
        with self._planned(plan):
            return self.encode_prompt(
                prompt=prompt or "",
                device=self._execution_device,
                num_images_per_prompt=num_images_per_prompt,
                do_classifier_free_guidance=do_classifier_free_guidance,
                negative_prompt=negative_prompt,
                lora_scale=lora_scale,
                clip_skip=clip_skip,
                **second,
            )

    def _plan_emotions(
        self, texts: Mapping[str, Any], settings: EmotionSettings, images_per_prompt: int, generator: Generators
    ) -> EmotionPlan | None:
        """The plan of a call with these `prompt`, `prompt_2`, `negative_prompt`, ...; None without an emotion."""
        if settings.asked:
            self._require_uniemo(settings.asked)
        if settings.asked and not self._text_encoders:
            raise ValueError(
                f"Expected a text encoder for {', '.join(settings.asked)}, found none; give prompt_embeds."
            )
        if not self._uniemo.adapters or not self._text_encoders:
            return None
        if not _are_texts(texts.get("prompt")):
            if settings.asked:
                raise ValueError(f"Expected a prompt or a list of them, found {texts.get('prompt')!r}.")
            return None  # the stock pipeline says what is wrong
        self._know_tokens()
        prompts = {name: texts.get(name) for name in ("prompt", "prompt_2")}
        negatives = {name: texts.get(f"negative_{name}") for name in prompts}
        self._warn_of_misspelt(prompts["prompt"])
        given = frozenset(self._pseudo_tokens[0].rows)
        return plan_emotions(prompts, negatives, settings, self._uniemo, given, images_per_prompt, generator)

    def _warn_of_misspelt(self, prompt: str | list[str] | None) -> None:
        known = self._text_encoders[0][0].backend_tokenizer.token_to_id
        for text in prompt if isinstance(prompt, list) else [prompt]:
            for token, near in misspelt_tokens(text or "").items():
                if known(token) is None:
                    logger.warning(f"'{token}' in the prompt is no emotion token and is read as plain text: '{near}'?")

    @contextmanager
    def _planned(self, plan: EmotionPlan | None) -> Iterator[None]:
        """Within the context, and in this thread, this pipeline's next `encode_prompt` follows the plan."""
        reset = _PLANNED.set(None if plan is None else (self, plan))
        try:
            yield
        finally:
            _PLANNED.reset(reset)

    def _take_plan(self) -> EmotionPlan | None:
        """The plan to follow; once, for a callback that encodes other prompts means these."""
        planned = _PLANNED.get()
        if planned is None or planned[0] is not self:
            return None
        _PLANNED.set(None)
        return planned[1]

    # -- inside `encode_prompt`

    @contextmanager
    def _encoding(self, clip_skip: int | None) -> Iterator[None]:
        """Within the context tokens mean what this pipeline's adapters say, unless `emotion_conditions` says more."""
        if self._uniemo.adapters:
            self._know_tokens()
        with ExitStack() as stack:
            for tokens in self._pseudo_tokens:
                stack.enter_context(tokens.lock)
                tokens.refresh()
                own = {token: row for token, row in tokens.meanings(self).items() if token not in tokens.rows}
                stack.enter_context(tokens.conditions(own))
            if clip_skip is not None:
                for _, text_encoder in self._text_encoders:
                    stack.enter_context(_repaired_clip_skip(text_encoder))
            yield

    def _shown(self, prompt: str | list[str] | None) -> str | list[str] | None:
        """A prompt as it is, or without our tokens while emotions are disabled."""
        if self._uniemo.enabled or not self._uniemo.adapters or prompt is None:
            return prompt
        return without_tokens(prompt) if isinstance(prompt, str) else [without_tokens(text) for text in prompt]

    def _encode_planned(
        self,
        plan: EmotionPlan,
        stock: Callable[..., Any],
        device: torch.device | None,
        images_per_prompt: int,
        guidance: bool,
        lora_scale: float | None,
        clip_skip: int | None,
        negatives: Sequence[torch.Tensor | None],
    ) -> Iterator[torch.Tensor | None]:
        """Positive and negative embeddings in turn, as the stock `encode_prompt` returns them."""

        def encode(texts: Texts, repeats: int, skip: int | None) -> tuple[torch.Tensor, ...]:
            options = {"device": device, "lora_scale": lora_scale, "clip_skip": skip}
            return stock(**texts, num_images_per_prompt=repeats, do_classifier_free_guidance=False, **options)[::2]

        positives = self._encode_positive(plan, encode, images_per_prompt, clip_skip)
        if guidance:
            negatives = self._encode_negative(plan, encode, images_per_prompt, positives, negatives)
        return chain.from_iterable(zip(positives, negatives, strict=True))

    def _encode_positive(
        self, plan: EmotionPlan, encode: Encode, images_per_prompt: int, clip_skip: int | None
    ) -> tuple[torch.Tensor, ...]:
        """Between 0 and 1 the scale moves the embeddings from the prompt without the slot, which at 0 is the stock one
        to the bit, to the prompt with it; above 1 it goes on in that direction.

        On the way each word stays itself: the bare prompt's embeddings are first put where the same words stand beside
        the slots. Moved in place, words blend with their neighbours, and in "a photo of a <emotion> street" the
        embedded model's emotion was as strong at .75 as at 1 (our own choice and finding).
        """
        if plan.scale == 0:
            return encode(plan.bare_texts, images_per_prompt, clip_skip)
        # Each image has its own condition, so that prompts are repeated here and not their embeddings.
        texts = {
            name: [text for text in batch for _ in range(images_per_prompt)] for name, batch in plan.texts.items()
        }
        if plan.scale == 1:
            with self.emotion_conditions(plan.conditions):
                return encode(texts, 1, clip_skip)
        # In one batch, the bare prompts first.
        texts = {name: plan.bare_texts[name] + batch for name, batch in texts.items()}
        count = len(plan.bare_texts["prompt"])
        with self._padded_conditions(plan, count):
            both = encode(texts, 1, clip_skip)
        starts = [embeds[:count].repeat_interleave(images_per_prompt, dim=0) for embeds in both]
        starts[0] = self._beside_slots(starts[0])
        return tuple(start + plan.scale * (own[count:] - start) for start, own in zip(starts, both, strict=True))

    @contextmanager
    def _padded_conditions(self, plan: EmotionPlan, count: int) -> Iterator[None]:
        """The conditions of a batch that has so many bare prompts in front of the plan's."""
        with ExitStack() as stack:
            for index, tokens in enumerate(self._pseudo_tokens):
                planned = {token: own[index] for token, own in plan.conditions.items()}
                rows = {token: row for token, row in (tokens.rows | planned).items() if row.ndim == 2}
                stack.enter_context(tokens.conditions({t: pad(row, (0, 0, count, 0)) for t, row in rows.items()}))
            yield

    def _beside_slots(self, bare: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, tokens, D) of bare prompts in the order of the last B prompts that were encoded, with slots.

        With several text encoders each part of D has an order of its own. What comes last in a bare prompt, padding
        unless it is a very long one, stands for the slots.
        """
        parts = bare.split([tokens.width for tokens in self._pseudo_tokens], dim=-1)
        orders = (_order(tokens.places[-len(bare) :]) for tokens in self._pseudo_tokens)
        moved = [part.gather(1, order[..., None].expand_as(part)) for part, order in zip(parts, orders, strict=True)]
        return torch.cat(moved, dim=-1)

    def _encode_negative(
        self,
        plan: EmotionPlan,
        encode: Encode,
        images_per_prompt: int,
        positives: Sequence[torch.Tensor],
        given: Sequence[torch.Tensor | None],
    ) -> tuple[torch.Tensor, ...]:
        """As in the stock pipelines `clip_skip` is for the prompt alone."""
        if given[0] is not None:
            repeated = (embeds.repeat_interleave(images_per_prompt, dim=0) for embeds in given)
            return tuple(embeds.to(own.device) for embeds, own in zip(repeated, positives, strict=True))
        if not plan.negative_asked and self.config.get("force_zeros_for_empty_prompt"):
            return tuple(torch.zeros_like(embeds) for embeds in positives)
        with self.emotion_conditions(plan.negative_conditions):
            return encode(plan.negative_texts, images_per_prompt, None)


class UniEmoPromptMixin(UniEmoConditioningMixin):
    """`encode_prompt` of the pipelines with one text encoder."""

    _output = UniEmoPipelineOutput

    def encode_prompt(
        self,
        prompt: str | list[str],
        device: torch.device,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As the stock pipeline's. Within a call with emotions, the call's plan decides what the tokens mean; else an
        emotion token means the emotion's mean condition, unless `emotion_conditions` gives another.

        Raises:
            ValueError: a `<emotion>` slot that nothing fills.
        """
        with self._encoding(clip_skip):
            if (plan := self._take_plan()) is not None:
                prompt_embeds, negative_prompt_embeds = self._encode_planned(
                    plan,
                    super().encode_prompt,
                    device,
                    num_images_per_prompt,
                    do_classifier_free_guidance,
                    lora_scale,
                    clip_skip,
                    [negative_prompt_embeds],
                )
            else:
                prompt_embeds, negative_prompt_embeds = super().encode_prompt(
                    self._shown(prompt),
                    device,
                    num_images_per_prompt,
                    do_classifier_free_guidance,
                    self._shown(negative_prompt),
                    prompt_embeds=prompt_embeds,
                    negative_prompt_embeds=negative_prompt_embeds,
                    lora_scale=lora_scale,
                    clip_skip=clip_skip,
                )
        return prompt_embeds, negative_prompt_embeds


def _order(slots: torch.Tensor) -> torch.Tensor:
    """(B, tokens) bool to the index of the bare prompt's token that goes to each place."""
    words = ~slots
    return torch.where(slots, words.sum(-1, keepdim=True) + slots.cumsum(-1), words.cumsum(-1)) - 1


def _are_texts(prompt: Any) -> bool:
    """What is no prompt is left to the stock pipeline's own checks."""
    texts = prompt if isinstance(prompt, list) else [prompt]
    return bool(texts) and all(text is None or isinstance(text, str) for text in texts)


@contextmanager
def _repaired_clip_skip(text_encoder: torch.nn.Module) -> Iterator[None]:
    """Stock `encode_prompt` looks for the final norm in a `text_model`, which CLIPTextModel now is itself.

    Past `__setattr__`, which would make the encoder a part of itself, and not for longer than needed, for diffusers'
    LoRA loader takes the attribute for another text encoder.
    """
    if hasattr(text_encoder, "text_model"):
        yield
        return
    with _REPAIRING:
        vars(text_encoder)["text_model"] = text_encoder
        try:
            yield
        finally:
            del vars(text_encoder)["text_model"]
