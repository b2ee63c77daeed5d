"""From the emotions that a call asks for to prompts with tokens, and to the condition vectors of the tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from .fusion_uniemo import EMOTIONS, EmotionSample, UniEmoFusionModel
from .loaders_uniemo import Conditions, UniEmoState, as_conditions, mix_conditions, put
from .prompting_uniemo import (
    ALL_TOKENS,
    SLOT_TOKEN,
    checked_number,
    emotion_weights,
    token_weights,
    tokens_in,
    with_slot,
    without_tokens,
)
from .understanding_uniemo import ImageInput

T = TypeVar("T")
Emotion = str | Mapping[str, float]
Emotions = Emotion | Sequence[Emotion | None] | None
Generators = torch.Generator | list[torch.Generator] | None
Weights = dict[str, torch.Tensor]  # of one prompt: (8,) by token
Prompts = Mapping[str, str | list[str] | None]  # "prompt" and, for a second text encoder, perhaps "prompt_2"
Texts = dict[str, list[str]]  # the same as lists over the batch


@dataclass(frozen=True)
class EmotionSettings:
    """What a call asks for.

    Attributes:
        emotion: a name, weights by name (a fusion), or a list of either over the prompts, None for a prompt without. A
            list sets the batch where the prompt is one string.
        emotion_image: what this image evokes, another image: a PIL image or a path, or a list of them over the
            prompts. Its features take the sample's place, and the predicted probabilities are the weights.
        emotion_scale: 0 is the stock image of the prompt without the tokens; up to 1 the prompt embeddings move to
            those with the tokens, and above 1 further in that direction.
        scene_scale, object_scale: factors of the scene's and the object's share in the condition.
        emotion_variation: from 0, each image the emotion's mean, to 1, the emotion space's full variety.
        negative_emotion: as `emotion`, to lead away from; put into the negative prompt with its mean condition.

    Raises:
        TypeError: a scale or variation that is no number.
        ValueError: a scale or variation out of range, or both `emotion` and `emotion_image`.
    """

    emotion: Emotions = None
    emotion_image: ImageInput | Sequence[ImageInput] | None = None
    emotion_scale: float = 1.0
    scene_scale: float = 1.0
    object_scale: float = 1.0
    emotion_variation: float = 1.0
    negative_emotion: Emotions = None

    def __post_init__(self) -> None:
        for name in ("emotion_scale", "scene_scale", "object_scale", "emotion_variation"):
            checked_number(name, getattr(self, name))
        if self.emotion_variation > 1:
            raise ValueError(f"Expected an emotion_variation from 0 to 1, found {self.emotion_variation}.")
        if self.emotion is not None and self.emotion_image is not None:
            raise ValueError("Expected emotion or emotion_image, found both; leave one out.")

    @property
    def asked(self) -> list[str]:
        """Names of the arguments that ask for an emotion."""
        return [name for name in ("emotion", "emotion_image", "negative_emotion") if getattr(self, name) is not None]


@dataclass
class EmotionPlan:
    """One call's prompts and conditions; b prompts, B = b times the images of each, D a token embedding's width.

    Attributes:
        texts: b prompts with tokens, for each text encoder that has its own.
        bare_texts: the same without: what a scale of 0 stands for.
        scale: the call's emotion scale times the pipeline's.
        conditions: (B, D) for each text encoder by token; a row whose prompt lacks the token is zero. Empty at a scale
            of 0.
        attributes: of each of the B images, by token: `emotion` (weights by name), `scene` and `object` (the retrieved
            names, None without a base), `scene_coefficient` and `object_coefficient` (the alphas).
        negative_texts: b negative prompts, as `texts`.
        negative_asked: whether there is a negative prompt or emotion; Stable Diffusion XL may have zeros without.
        negative_conditions: (b, D) for each text encoder by token.
    """

    texts: Texts
    bare_texts: Texts
    scale: float
    conditions: dict[str, Conditions] = field(default_factory=dict)
    attributes: list[dict[str, dict[str, Any]]] = field(default_factory=list)
    negative_texts: Texts = field(default_factory=dict)
    negative_asked: bool = False
    negative_conditions: dict[str, Conditions] = field(default_factory=dict)


@dataclass(frozen=True)
class _Acting:
    """An active adapter in one call: its share, a generator for each image, and how it reads the emotion image.

    `features` are (B, F) and `probabilities` (b, 8) of the image's emotions; both None without an emotion image.
    """

    fusion: UniEmoFusionModel
    share: float
    generators: list[torch.Generator]
    features: EmotionSample | None = None
    probabilities: torch.Tensor | None = None

    def sample(
        self, token: str, rows: list[int], weights: torch.Tensor, variation: float
    ) -> tuple[EmotionSample, torch.Tensor]:
        """Features (n, F) for a token in n of the images, with the emotion weights (n, 8) that go with them."""
        if token == SLOT_TOKEN and self.features is not None:
            each = len(self.generators) // len(self.probabilities)
            own = self.probabilities.repeat_interleave(each, dim=0)[rows]
            return EmotionSample(*(feature[rows] for feature in self.features)), own
        return self.fusion.sample(weights, [self.generators[i] for i in rows], variation), weights


def plan_emotions(
    prompts: Prompts,
    negative_prompts: Prompts,
    settings: EmotionSettings,
    state: UniEmoState,
    given: frozenset[str],
    images_per_prompt: int,
    generator: Generators,
) -> EmotionPlan | None:
    """The plan of a call; None where neither an argument nor a prompt asks for an emotion.

    Args:
        prompts, negative_prompts: the call's.
        settings: the call's.
        state: the pipeline's adapters, at least one; their device is where conditions are made.
        given: tokens whose conditions the caller has set by a context; they need no weights.
        images_per_prompt: of the call.
        generator: the call's; see `sample_generators`.

    Raises:
        ValueError: as the call's.
    """
    count = _prompt_count(prompts["prompt"], settings)
    texts = _as_lists(prompts, count)
    if not settings.asked and not any(tokens_in(text) for batch in texts.values() for text in batch):
        return None
    acting = _acting(settings, state, count, images_per_prompt, generator)
    placed, wanted = _place(texts, _argument_weights(settings, acting, count), given)
    scale = settings.emotion_scale * state.scale if state.enabled else 0.0
    plan = EmotionPlan(placed, _without_tokens(texts), scale)
    if scale > 0:
        wanted = [weights for weights in wanted for _ in range(images_per_prompt)]
        _add_conditions(plan, wanted, acting, given, settings)
    plan.negative_asked = settings.negative_emotion is not None or negative_prompts["prompt"] is not None
    _add_negatives(plan, _as_lists(negative_prompts, count, "negative_"), acting, given, settings, state.enabled)
    return plan


# ------------------------------------------------------------------------------------------------------- randomness


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


# --------------------------------------------------------------------------------------------------- prompts, lists


def _per_prompt(name: str, value: T | Sequence[T] | None, count: int) -> list[T | None]:
    """An argument as a list over the prompts: one value stands for all of them."""
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"Expected {count} entries in {name}, one for each prompt, found {len(value)}.")
    return list(value)


def _as_lists(prompts: Prompts, count: int, prefix: str = "") -> Texts:
    """The first text encoder's prompts, and those of a second that has its own."""
    return {
        name: [text or "" for text in _per_prompt(prefix + name, batch, count)]
        for name, batch in prompts.items()
        if name == "prompt" or batch is not None
    }


def _without_tokens(texts: Texts) -> Texts:
    return {name: [without_tokens(text) for text in batch] for name, batch in texts.items()}


def _prompt_count(prompt: str | list[str] | None, settings: EmotionSettings) -> int:
    """A list of prompts sets the batch; else a list among the arguments does, and one prompt stands for all."""
    for value in (prompt, *(getattr(settings, name) for name in settings.asked)):
        if isinstance(value, (list, tuple)):
            if not value:
                raise ValueError("Expected at least one prompt or emotion, found an empty list.")
            return len(value)
    return 1


def _place(texts: Texts, weights: list[torch.Tensor | None], given: frozenset[str]) -> tuple[Texts, list[Weights]]:
    """Every text with its emotion in place, and of each prompt the weights of its tokens for any text encoder."""
    placed: Texts = {}
    wanted: list[Weights] = [{} for _ in weights]
    for name, batch in texts.items():
        pairs = [place_emotion(text, own, given) for text, own in zip(batch, weights, strict=True)]
        placed[name] = [text for text, _ in pairs]
        for row, (_, own) in zip(wanted, pairs, strict=True):
            row |= own
    return placed, wanted


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


# ------------------------------------------------------------------------------------------------------- conditions


def _acting(
    settings: EmotionSettings, state: UniEmoState, count: int, images_per_prompt: int, generator: Generators
) -> list[_Acting]:
    """The active adapters in this call, the main one first.

    Each has generators of its own from the same seeds, so that what it draws does not depend on the others.
    """
    main = state.main.fusion
    found = []
    for adapter, share in state.shares:
        fusion = adapter.fusion
        if fusion is not main:  # which is the only one that a pipeline moves and casts
            put(fusion, main.device, main.dtype)
        generators = sample_generators(generator, count * images_per_prompt, main.device)
        features = probabilities = None
        if settings.emotion_image is not None:
            images = _per_prompt("emotion_image", settings.emotion_image, count)
            shared = not isinstance(settings.emotion_image, (list, tuple))
            output = adapter.read(images[:1] if shared else images, main.device, main.dtype)
            read = (output.emotion_features, output.scene_features, output.object_features)
            expanded = (feature.expand(count, -1).repeat_interleave(images_per_prompt, dim=0) for feature in read)
            features = EmotionSample(*expanded)
            probabilities = output.logits.float().softmax(-1).cpu().expand(count, -1)
        found.append(_Acting(fusion, share, generators, features, probabilities))
    return found


def _argument_weights(settings: EmotionSettings, acting: Sequence[_Acting], count: int) -> list[torch.Tensor | None]:
    """The argument's weights (8,) for each prompt.

    An image stands for the whole distribution that the understanding model predicts for it, not for its top class
    alone: what an image evokes is a mixture, and a near tie would otherwise decide the coefficients.
    """
    if settings.emotion_image is not None:
        return list(acting[0].probabilities)
    return _weights(_per_prompt("emotion", settings.emotion, count))


def _weights(emotions: Sequence[Emotion | None]) -> list[torch.Tensor | None]:
    return [None if emotion is None else emotion_weights(emotion) for emotion in emotions]


def _add_conditions(
    plan: EmotionPlan,
    wanted: list[Weights],
    acting: Sequence[_Acting],
    given: frozenset[str],
    settings: EmotionSettings,
) -> None:
    """Sample, for each token, a condition for each image whose prompt has it.

    Tokens take their turns in the order of `ALL_TOKENS`, which makes an image independent of its neighbours and lets
    `emotion="awe"` and `<awe>` draw the same sample.
    """
    plan.attributes = [{} for _ in wanted]
    for token in ALL_TOKENS:
        rows = [i for i, weights in enumerate(wanted) if token in weights]
        if not rows:
            continue
        weights = torch.stack([wanted[i][token] for i in rows])
        parts = []
        for adapter in acting:
            sample, own = adapter.sample(token, rows, weights, settings.emotion_variation)
            if token in given:
                continue  # having taken its turn, so that the other tokens' samples stay what they are
            condition = adapter.fusion(*sample, own, settings.scene_scale, settings.object_scale)
            parts.append((as_conditions(condition), adapter.share))
            if adapter is acting[0]:
                for i, attributes in zip(rows, _attributes(adapter.fusion, sample, own), strict=True):
                    plan.attributes[i][token] = attributes
        if not parts:
            continue
        plan.conditions[token] = tuple(_spread(rows, one, len(wanted)) for one in mix_conditions(parts))


def _spread(rows: list[int], conditions: torch.Tensor, count: int) -> torch.Tensor:
    """Conditions (n, D) of some rows among (count, D) zeros."""
    spread = conditions.new_zeros(count, conditions.shape[-1])
    spread[rows] = conditions
    return spread


def _attributes(fusion: UniEmoFusionModel, sample: EmotionSample, weights: torch.Tensor) -> list[dict[str, Any]]:
    """What was retrieved for each of a batch of features, to explain the condition that they became."""
    scenes, objects = nearest = fusion.retrieve(sample.scene_features, sample.object_features)
    alphas = fusion.coefficients_of(nearest, weights)
    columns = (weights.tolist(), scenes.tolist(), objects.tolist(), alphas[0].tolist(), alphas[1].tolist())
    return [
        {
            "emotion": {name: weight for name, weight in zip(EMOTIONS, row, strict=True) if weight > 0},
            "scene": fusion.config.scenes[scene] if scene >= 0 else None,
            "object": fusion.config.objects[thing] if thing >= 0 else None,
            "scene_coefficient": alpha_scene,
            "object_coefficient": alpha_object,
        }
        for row, scene, thing, alpha_scene, alpha_object in zip(*columns, strict=True)
    ]


def _add_negatives(
    plan: EmotionPlan,
    texts: Texts,
    acting: Sequence[_Acting],
    given: frozenset[str],
    settings: EmotionSettings,
    enabled: bool,
) -> None:
    """The negative prompts; a negative emotion stands there with its mean condition.

    The mean and not a sample: guidance then leads away from the emotion, not from one picture of it.
    """
    weights = _weights(_per_prompt("negative_emotion", settings.negative_emotion, len(texts["prompt"])))
    placed, wanted = _place(texts, weights, given)
    plan.negative_texts = placed if enabled else _without_tokens(texts)
    slots = [row.get(SLOT_TOKEN) for row in wanted]
    if any(slot is not None for slot in slots):
        unused = torch.full((len(EMOTIONS),), 1 / len(EMOTIONS))
        rows = torch.stack([unused if slot is None else slot for slot in slots])
        scales = (settings.scene_scale, settings.object_scale)
        means = [
            (as_conditions(adapter.fusion(*adapter.fusion.mean_features(rows), rows, *scales)), adapter.share)
            for adapter in acting
        ]
        plan.negative_conditions[SLOT_TOKEN] = mix_conditions(means)
