"""What makes a stock pipeline class one of ours: the emotion arguments of its call, and the component `fusion`."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from inspect import Parameter, Signature
from typing import Any, TypeVar

import torch
from diffusers import DiffusionPipeline, ModelMixin

from .fusion_uniemo import UniEmoFusionModel
from .loaders_uniemo import UniEmoState
from .planning_uniemo import EmotionSettings

Pipeline = TypeVar("Pipeline", bound=type[DiffusionPipeline])

EMOTION_ARGUMENTS = inspect.signature(EmotionSettings).parameters

CALL = """Generate images that evoke an emotion.

Beside the stock pipeline's arguments, which follow in its own words, it takes these by name:

    prompt: the eight tokens (`<awe>`, ...) work anywhere in it, several at once, each with its own sample; `<emotion>`
        is the slot that `emotion` or `emotion_image` fills. Without any of them the slot is put in front, and without
        a prompt the slot is the prompt.
{arguments}
    num_images_per_prompt: each image has its own sample.
    generator: it alone decides, one or a list with one for each image.

Returns the stock output with `conditions` and `attributes`, or with `return_dict=False` the stock tuple.

Raises ValueError for: no adapter for an emotion; an unknown emotion (the nearest is suggested) or weights that are
negative or sum to zero; a slot that nothing fills; a prompt and an argument that disagree; lists that do not fit the
batch; a scale or variation out of range; `prompt_embeds` together with an emotion.

The stock pipeline's own:
{stock}"""


def with_emotions(pipeline: Pipeline) -> Pipeline:
    """Class decorator: a stock pipeline class below `UniEmoConditioningMixin` and `UniEmoLoaderMixin`.

    Its constructor also takes `fusion` (the fusion model; `load_uniemo` sets it from an adapter) and `understanding`
    (folder or repository of the understanding model), and its call the fields of `EmotionSettings`, both by name.
    """
    pipeline.__init__ = _with_fusion(pipeline.__init__)
    pipeline.__call__ = _with_arguments(pipeline)
    pipeline._optional_components = [*pipeline._optional_components, "fusion"]
    # `fusion.sample` goes past `forward`, which is all that accelerate's offload wraps.
    pipeline._exclude_from_cpu_offload = [*pipeline._exclude_from_cpu_offload, "fusion"]
    return pipeline


def _with_fusion(stock: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(stock)
    def initialise(
        self: Any, *args: Any, fusion: UniEmoFusionModel = None, understanding: str | None = None, **kwargs: Any
    ) -> None:
        self._uniemo = UniEmoState()
        stock(self, *args, **kwargs)
        self.register_modules(fusion=fusion)
        self.register_to_config(understanding=understanding)
        if fusion is not None and self._text_encoders:
            self._check_base(fusion)
            self._adopt(fusion, understanding)

    # diffusers reads from both which components there are, and of which types; one that came with its repository is of
    # a class of its own.
    types = {"fusion": ModelMixin, "understanding": str | None}
    own = [Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind) for name, kind in types.items()]
    initialise.__signature__ = _joined(stock, own)
    initialise.__annotations__ = stock.__annotations__ | types
    return initialise


def _with_arguments(pipeline: type[DiffusionPipeline]) -> Callable[..., Any]:
    stock = pipeline.__call__
    signature = inspect.signature(stock)

    @functools.wraps(stock)
    @torch.no_grad()
    def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        settings = EmotionSettings(**{name: kwargs.pop(name) for name in EMOTION_ARGUMENTS if name in kwargs})
        _refuse_misspelt(kwargs.keys() - signature.parameters.keys())
        call = signature.bind(self, *args, **kwargs)
        plan = _plan(self, call.arguments, settings)
        return_dict = call.arguments.get("return_dict", True)
        call.arguments |= {"return_dict": False} if plan is None else {"return_dict": False, **plan.bare_texts}
        with self._planned(plan):
            results = super(pipeline, self).__call__(*call.args[1:], **call.kwargs)
        if not return_dict:
            return results
        if plan is None or not plan.conditions:
            return self._output(*results)
        conditions = {token: own if len(own) > 1 else own[0] for token, own in plan.conditions.items()}
        return self._output(*results, conditions=conditions, attributes=plan.attributes)

    own = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in EMOTION_ARGUMENTS.values()]
    generate.__signature__ = _joined(stock, own)
    generate.__doc__ = CALL.format(arguments=_documented(EmotionSettings), stock=inspect.cleandoc(stock.__doc__ or ""))
    return generate


def _refuse_misspelt(unknown: Iterable[str]) -> None:
    """The stock call passes over arguments that it does not know."""
    for name in unknown:
        if near := difflib.get_close_matches(name, EMOTION_ARGUMENTS, n=1, cutoff=0.75):
            raise TypeError(f"__call__() got an unexpected keyword argument '{name}'. Did you mean '{near[0]}'?")


def _plan(pipeline: Any, arguments: dict[str, Any], settings: EmotionSettings) -> Any:
    """The plan of a call; embeddings that are passed in have none."""
    if settings.negative_emotion is not None and arguments.get("negative_prompt_embeds") is not None:
        raise ValueError("Expected negative_emotion or negative_prompt_embeds, found both; leave one out.")
    if arguments.get("prompt_embeds") is None:
        images = arguments.get("num_images_per_prompt") or 1
        return pipeline._plan_emotions(arguments, settings, images, arguments.get("generator"))
    if settings.asked:
        raise ValueError(
            f"Expected a prompt with {', '.join(settings.asked)}, found prompt_embeds; call encode_emotion."
        )
    return None


def _joined(stock: Callable[..., Any], own: list[Parameter]) -> Signature:
    """The stock signature with our arguments behind its named ones."""
    signature = inspect.signature(stock)
    theirs = list(signature.parameters.values())
    at = len(theirs) - (theirs[-1].kind is Parameter.VAR_KEYWORD)
    return signature.replace(parameters=[*theirs[:at], *own, *theirs[at:]])


def _documented(settings: type) -> str:
    """The lines of a dataclass's docstring on its attributes."""
    return inspect.cleandoc(settings.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
