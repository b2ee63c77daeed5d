"""From the emotions that a call asks for to condition vectors, and from those to prompt embeddings.

`UniEmoConditioningMixin` overrides `encode_prompt` alone, so that it serves every pipeline with one text encoder.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from diffusers.utils import logging

from .fusion_uniemo import EMOTIONS
from .prompting_uniemo import (
    ALL_TOKENS,
    SLOT_TOKEN,
    emotion_weights,
    misspelt_tokens,
    token_weights,
    tokens_in,
    with_slot,
    without_tokens,
)
from .understanding_uniemo import ImageInput, ImageUnderstanding, read_features, understand_images

logger = logging.get_logger(__name__)

T = TypeVar("T")
Emotion = str | Mapping[str, float]
Emotions = Emotion | Sequence[Emotion | None] | None
Generators = torch.Generator | list[torch.Generator] | None
Weights = dict[str, torch.Tensor]  # of one prompt: (8,) by token


@dataclass(frozen=True)
class EmotionSettings:
    """What a call asks for; see `UniEmoPipeline.__call__`."""

    emotion: Emotions = None
    emotion_image: ImageInput | Sequence[ImageInput] | None = None
    emotion_scale: float = 1.0
    scene_scale: float = 1.0
    object_scale: float = 1.0
    emotion_variation: float = 1.0
    negative_emotion: Emotions = None

    def __post_init__(self) -> None:
        for name in ("emotion_scale", "scene_scale", "object_scale"):
            if not math.isfinite(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"Expected a finite {name} of at least 0, found {getattr(self, name)}.")
        if not 0 <= self.emotion_variation <= 1:
            raise ValueError(f"Expected an emotion_variation from 0 to 1, found {self.emotion_variation}.")
        if self.emotion is not None and self.emotion_image is not None:
            raise ValueError("Expected emotion or emotion_image, found both; leave one out.")

    @property
    def asked(self) -> list[str]:
        """Names of the arguments that ask for an emotion."""
        return [name for name in ("emotion", "emotion_image", "negative_emotion") if getattr(self, name) is not None]


@dataclass
class EmotionPlan:
    """One call's prompts and conditions; b prompts, B = b times the images of each, D the token embedding's width.

    Attributes:
        prompts: b prompts with tokens.
        bare_prompts: the same without: what a scale of 0 stands for.
        scale: the call's emotion scale times the adapter's.
        conditions: (B, D) by token; a row whose prompt lacks the token is zero. Empty at a scale of 0.
        attributes: of each of the B images, by token: `emotion` (weights by name), `scene` and `object` (the
            retrieved names, None without a base), `scene_coefficient` and `object_coefficient` (the alphas).
        negative_prompts: b negative prompts.
        negative_conditions: (b, D) by token.
    """

    prompts: list[str]
    bare_prompts: list[str]
    scale: float
    conditions: dict[str, torch.Tensor] = field(default_factory=dict)
    attributes: list[dict[str, dict[str, Any]]] = field(default_factory=list)
    negative_prompts: list[str] = field(default_factory=list)
    negative_conditions: dict[str, torch.Tensor] = field(default_factory=dict)


def sample_generators(generator: Generators, count: int, device: torch.device) -> list[torch.Generator]:
    """A new generator for each image, seeded by an integer drawn from a clone of the image's own.

    Drawn from the user's generator itself, a sample would shift the latent noise; drawn from a clone, it would equal
    that noise. One generator for several images gives one integer after another, so that the first image's sample
    does not depend on their number. Without a generator the device's global state is read, and left as it is.

    Raises:
        ValueError: a list of another length than there are images.
    """
    if isinstance(generator, list) and len(generator) != count:
        raise ValueError(f"Expected one generator or {count}, one for each image, found {len(generator)}.")
    own = generator if isinstance(generator, list) else [generator] * count
    clones = {id(source): _clone(source, device) for source in own}
    seeds = [_draw_seed(clones[id(source)]) for source in own]
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _clone(generator: torch.Generator | None, device: torch.device) -> torch.Generator:
    if generator is not None:
        device, state = generator.device, generator.get_state()
    else:
        state = (torch if device.type == "cpu" else torch.get_device_module(device)).get_rng_state()
    clone = torch.Generator(device=device)
    clone.set_state(state)
    return clone


def _draw_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device).item())


def _per_prompt(name: str, value: T | Sequence[T] | None, count: int) -> list[T | None]:
    """An argument as a list over the prompts: one value stands for all of them."""
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"Expected {count} entries in {name}, one for each prompt, found {len(value)}.")
    return list(value)


def _prompt_count(prompt: str | list[str] | None, settings: EmotionSettings) -> int:
    """A list of prompts sets the batch; else a list among the arguments does, and one prompt stands for all."""
    for value in (prompt, *(getattr(settings, name) for name in settings.asked)):
        if isinstance(value, (list, tuple)):
            return len(value)
    return 1


def place_emotion(prompt: str, weights: torch.Tensor | None, given: frozenset[str]) -> tuple[str, Weights]:
    """Where in a prompt an emotion goes, and the weights that each of the prompt's tokens stands for.

    The slot takes the emotion of the argument; named tokens beside a slot stand for themselves. Without a slot the
    argument must agree with a named token, and is put in front where there is no token at all.

    Args:
        prompt: with or without tokens.
        weights: (8,), the argument's emotion; None without an argument.
        given: tokens whose conditions the caller has set by a context; they need no weights.

    Raises:
        ValueError: a slot without an emotion, or a named token without a slot that disagrees with the argument.
    """
    found = tokens_in(prompt)
    named = {token: token_weights(token) for token in found if token != SLOT_TOKEN}
    if weights is None:
        if SLOT_TOKEN in found and SLOT_TOKEN not in given:
            raise ValueError(f"Expected an emotion to fill {SLOT_TOKEN} in '{prompt}', found none; give emotion=...")
        return prompt, named
    if SLOT_TOKEN in found:
        return prompt, {SLOT_TOKEN: weights, **named}
    if not named:
        return with_slot(prompt), {SLOT_TOKEN: weights}
    if any(not torch.allclose(own, weights, atol=1e-6) for own in named.values()):
        raise ValueError(
            f"Expected the argument's emotion and the prompt's to agree, found {', '.join(named)} in '{prompt}' and "
            f"another argument; leave one out, or mark the argument's place by {SLOT_TOKEN}."
        )
    return prompt, named


class UniEmoConditioningMixin:
    """Emotions for a pipeline with one text encoder; used together with `UniEmoLoaderMixin`."""

    _emotion_plan: EmotionPlan | None = None

    def understand(
        self, images: ImageInput | Sequence[ImageInput], top_k: int = 5, attention_maps: bool = False
    ) -> list[ImageUnderstanding]:
        """What images evoke: label, probabilities, nearest scenes and objects, on request attention maps.

        The understanding model is fetched at first use. See `ImageUnderstanding` for the fields.

        Raises:
            ValueError: the adapter names no understanding model, or an image cannot be read.
        """
        model, processor = self.understanding_model, self.understanding_processor
        return understand_images(model, processor, images, top_k, attention_maps)

    @contextmanager
    def emotion_conditions(self, conditions: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Within the context tokens mean these conditions, (D,) or (B, D) by token, instead of samples or means.

        It holds for this pipeline's calls, for a bare `encode_prompt` and for whatever else runs the text encoder in
        this thread, compel for one. With an output's `conditions` it makes the output's images again.

        Raises:
            ValueError: no adapter is loaded, an unknown token, a condition of another width.
        """
        self._require_uniemo(["emotion_conditions"])
        with self._pseudo_tokens.conditions(conditions):
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
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Prompt embeddings with emotion for every pipeline that takes `prompt_embeds`.

        The arguments mean what they mean in the call. Given the same generator (in the same state), the embeddings
        are those of the call.

        Returns:
            `prompt_embeds` and `negative_prompt_embeds`, each (B, tokens, D); the second None without guidance.
        """
        settings = EmotionSettings(
            emotion, emotion_image, emotion_scale, scene_scale, object_scale, emotion_variation, negative_emotion
        )
        plan = self._plan_emotions(prompt, negative_prompt, settings, num_images_per_prompt, generator)
        texts, negative = (prompt or "", negative_prompt) if plan is None else (plan.bare_prompts, None)
        with self._planned(plan):
            return self.encode_prompt(
                texts,
                self._execution_device,
                num_images_per_prompt,
                do_classifier_free_guidance,
                negative,
                clip_skip=clip_skip,
            )

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
        if self._pseudo_tokens is not None:
            self._pseudo_tokens.refresh()
        if self._emotion_plan is not None:
            encode = super().encode_prompt
            prompt_embeds = self._encode_positive(encode, device, num_images_per_prompt, lora_scale, clip_skip)
            if do_classifier_free_guidance:
                negative_prompt_embeds = self._encode_negative(
                    encode, device, num_images_per_prompt, negative_prompt_embeds, lora_scale
                )
        else:
            prompt_embeds, negative_prompt_embeds = super().encode_prompt(
                prompt,
                device,
                num_images_per_prompt,
                do_classifier_free_guidance,
                negative_prompt,
                prompt_embeds=prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds,
                lora_scale=lora_scale,
                clip_skip=clip_skip,
            )
        return prompt_embeds, negative_prompt_embeds

    def _encode_positive(
        self, encode: Callable[..., Any], device: torch.device, count: int, lora_scale: float | None, skip: int | None
    ) -> torch.Tensor:
        """(B, tokens, D). Between 0 and 1 the scale moves the embeddings from the prompt without the slot, which is
        the stock one to the bit, to the prompt with it; above 1 it goes on in that direction."""
        plan, options = self._emotion_plan, {"lora_scale": lora_scale, "clip_skip": skip}
        if plan.scale != 1:
            bare, _ = encode(plan.bare_prompts, device, count, False, **options)
            if plan.scale == 0:
                return bare
        # Each image has its own condition, so that prompts are repeated here and not their embeddings.
        prompts = [prompt for prompt in plan.prompts for _ in range(count)]
        with self._pseudo_tokens.conditions(plan.conditions):
            full, _ = encode(prompts, device, 1, False, **options)
        return full if plan.scale == 1 else bare + plan.scale * (full - bare)

    def _encode_negative(
        self,
        encode: Callable[..., Any],
        device: torch.device,
        count: int,
        embeds: torch.Tensor | None,
        lora_scale: float | None,
    ) -> torch.Tensor:
        """(B, tokens, D); as in the stock pipeline `clip_skip` is for the prompt alone."""
        if embeds is not None:
            return embeds.to(device).repeat_interleave(count, dim=0)
        with self._pseudo_tokens.conditions(self._emotion_plan.negative_conditions):
            return encode(self._emotion_plan.negative_prompts, device, count, False, lora_scale=lora_scale)[0]

    @contextmanager
    def _planned(self, plan: EmotionPlan | None) -> Iterator[None]:
        self._emotion_plan = plan
        try:
            yield
        finally:
            self._emotion_plan = None

    def _plan_emotions(
        self,
        prompt: str | list[str] | None,
        negative_prompt: str | list[str] | None,
        settings: EmotionSettings,
        images_per_prompt: int,
        generator: Generators,
    ) -> EmotionPlan | None:
        """The plan of a call; None where neither an argument nor a prompt asks for an emotion."""
        if settings.asked:
            self._require_uniemo(settings.asked)
        if self._pseudo_tokens is None or not _are_texts(prompt):
            return None
        count = _prompt_count(prompt, settings)
        prompts = [text or "" for text in _per_prompt("prompt", prompt, count)]
        _warn_of_misspelt(prompts, self.tokenizer.backend_tokenizer.token_to_id)
        if not settings.asked and not any(map(tokens_in, prompts)):
            return None
        features, weights = self._argument_emotions(settings, count)
        placed = [place_emotion(*pair, self._pseudo_tokens.given) for pair in zip(prompts, weights, strict=True)]
        scale = settings.emotion_scale * self._uniemo_scale
        plan = EmotionPlan([text for text, _ in placed], [without_tokens(text) for text in prompts], scale)
        if scale > 0:
            wanted = [row for _, row in placed for _ in range(images_per_prompt)]
            if features is not None:
                features = [feature.repeat_interleave(images_per_prompt, dim=0) for feature in features]
            generators = sample_generators(generator, len(wanted), self._execution_device)
            self._add_conditions(plan, wanted, features, generators, settings)
        self._add_negatives(plan, negative_prompt, settings)
        return plan

    def _argument_emotions(
        self, settings: EmotionSettings, count: int
    ) -> tuple[list[torch.Tensor] | None, list[torch.Tensor | None]]:
        """The argument's weights (8,) for each prompt, and an emotion image's features, three of (count, F).

        An image stands for the whole distribution that the understanding model predicts for it, not for its top
        class alone: what an image evokes is a mixture, and a near tie would otherwise decide the coefficients.
        """
        if settings.emotion_image is None:
            emotions = _per_prompt("emotion", settings.emotion, count)
            return None, [None if emotion is None else emotion_weights(emotion) for emotion in emotions]
        images = _per_prompt("emotion_image", settings.emotion_image, count)
        shared = not isinstance(settings.emotion_image, (list, tuple))
        output = read_features(
            self.understanding_model, self.understanding_processor, images[:1] if shared else images
        )
        features = [output.emotion_features, output.scene_features, output.object_features]
        probabilities = output.logits.float().softmax(-1).cpu()
        return [feature.expand(count, -1) for feature in features], list(probabilities.expand(count, -1))

    def _add_conditions(
        self,
        plan: EmotionPlan,
        wanted: list[Weights],
        features: Sequence[torch.Tensor] | None,
        generators: list[torch.Generator],
        settings: EmotionSettings,
    ) -> None:
        """Sample, for each token, a condition for each image whose prompt has it.

        Tokens take their turns in the order of `ALL_TOKENS`, which makes an image independent of its neighbours and
        lets `emotion="awe"` and `<awe>` draw the same sample.
        """
        plan.attributes = [{} for _ in wanted]
        for token in ALL_TOKENS:
            rows = [i for i, weights in enumerate(wanted) if token in weights]
            if not rows or token in self._pseudo_tokens.given:
                continue
            weights = torch.stack([wanted[i][token] for i in rows])
            if token == SLOT_TOKEN and features is not None:
                sample = [feature[rows] for feature in features]
            else:
                sample = self.fusion.sample(weights, [generators[i] for i in rows], settings.emotion_variation)
            condition = self.fusion(*sample, weights, settings.scene_scale, settings.object_scale)
            plan.conditions[token] = condition.new_zeros(len(wanted), condition.shape[-1])
            plan.conditions[token][rows] = condition
            for i, attributes in zip(rows, self._attributes(sample, weights), strict=True):
                plan.attributes[i][token] = attributes

    def _attributes(self, sample: Sequence[torch.Tensor], weights: torch.Tensor) -> list[dict[str, Any]]:
        """What was retrieved for each of a batch of features, to explain the condition that they became."""
        _, scene_features, object_features = sample
        scenes, objects = self.fusion.retrieve(scene_features, object_features)
        alphas = self.fusion.coefficients(scene_features, object_features, weights)
        columns = (weights.tolist(), scenes.tolist(), objects.tolist(), alphas[0].tolist(), alphas[1].tolist())
        return [
            {
                "emotion": {name: weight for name, weight in zip(EMOTIONS, row, strict=True) if weight > 0},
                "scene": self.fusion.config.scenes[scene] if scene >= 0 else None,
                "object": self.fusion.config.objects[thing] if thing >= 0 else None,
                "scene_coefficient": alpha_scene,
                "object_coefficient": alpha_object,
            }
            for row, scene, thing, alpha_scene, alpha_object in zip(*columns, strict=True)
        ]

    def _add_negatives(
        self, plan: EmotionPlan, negative_prompt: str | list[str] | None, settings: EmotionSettings
    ) -> None:
        """The negative prompts; a negative emotion stands there with its mean condition.

        The mean and not a sample: guidance then leads away from the emotion, not from one picture of it.
        """
        count = len(plan.prompts)
        texts = [text or "" for text in _per_prompt("negative_prompt", negative_prompt, count)]
        emotions = _per_prompt("negative_emotion", settings.negative_emotion, count)
        weights = [None if emotion is None else emotion_weights(emotion) for emotion in emotions]
        placed = [place_emotion(*pair, self._pseudo_tokens.given) for pair in zip(texts, weights, strict=True)]
        plan.negative_prompts = [text for text, _ in placed]
        slots = [row.get(SLOT_TOKEN) for _, row in placed]
        if any(slot is not None for slot in slots):
            unused = torch.full((len(EMOTIONS),), 1 / len(EMOTIONS))
            rows = torch.stack([unused if slot is None else slot for slot in slots])
            scales = (settings.scene_scale, settings.object_scale)
            plan.negative_conditions[SLOT_TOKEN] = self.fusion(*self.fusion.mean_features(rows), rows, *scales)


def _are_texts(prompt: Any) -> bool:
    """What is no prompt is left to the stock pipeline's own checks."""
    texts = prompt if isinstance(prompt, list) else [prompt]
    return bool(texts) and all(text is None or isinstance(text, str) for text in texts)


def _warn_of_misspelt(prompts: Sequence[str], token_to_id: Callable[[str], int | None]) -> None:
    for prompt in prompts:
        for token, near in misspelt_tokens(prompt).items():
            if token_to_id(token) is None:
                logger.warning(f"'{token}' in the prompt is no emotion token and is read as plain text: '{near}'?")
