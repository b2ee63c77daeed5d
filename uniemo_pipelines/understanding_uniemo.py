"""What an image evokes, in words: the understanding model's features read against its own vocabularies."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from .images_uniemo import as_rgb, open_image

if TYPE_CHECKING:
    from .modeling_uniemo import UniEmoUnderstandingModel

ImageInput = Image.Image | str | os.PathLike[str]


@dataclass(frozen=True)
class ImageUnderstanding:
    """What one image evokes.

    Attributes:
        label: the emotion of the highest probability.
        probabilities: of the eight emotions by name, summing to 1, in the model's order.
        scenes, objects: the nearest attributes with their cosines in the space stage 1 aligned, nearest first; empty
            where the model has no vocabulary.
        scene_attention, object_attention: on request, (rows, columns) over the patches: how much the queries look at
            each, the mean over heads and queries. With what they give to the class token each sums to 1.
    """

    label: str
    probabilities: dict[str, float]
    scenes: list[tuple[str, float]]
    objects: list[tuple[str, float]]
    scene_attention: torch.Tensor | None = None
    object_attention: torch.Tensor | None = None

    @property
    def polarity(self) -> dict[str, float]:
        """Probabilities of "positive", the first four emotions together, and "negative", the other four."""
        shares = list(self.probabilities.values())
        return {"positive": sum(shares[:4]), "negative": sum(shares[4:])}


def load_understanding(location: str | os.PathLike[str], **options: Any) -> "UniEmoUnderstandingModel":
    """An understanding model, whole; transformers would load a plain CLIP or half a checkpoint, the rest at random.

    Args:
        location: the model's folder or Hub repository.
        **options: `dtype`, `token`, `cache_dir`, ... as `from_pretrained` takes them.

    Raises:
        ValueError: the configuration is of another model type, or names none; tensors that are missing, unknown or of
            another shape, all of them listed.
        OSError: nothing at that place.
    """
    # Imported when needed: generation alone does not touch the CLIP backbone.
    from .modeling_uniemo import UniEmoUnderstandingModel, list_faults

    configuration, _ = PreTrainedConfig.get_config_dict(location, **options)
    kind = configuration.get("model_type")
    if kind != "uniemo":
        found = f"'{kind}'" if kind else "none"
        raise ValueError(
            f"Expected an understanding model (model_type 'uniemo' in its config.json), found {found} at {location}; "
            "name the folder or repository of a UniEmoUnderstandingModel."
        )
    model, loading = UniEmoUnderstandingModel.from_pretrained(
        location, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    if faults := list_faults(loading["missing_keys"], loading["unexpected_keys"], loading["mismatched_keys"]):
        raise ValueError(f"Expected the weights that its config.json describes at {location}, found others. {faults}.")
    return model


def pixel_values(processor: BaseImageProcessor, images: ImageInput | Sequence[ImageInput]) -> torch.Tensor:
    """What the model sees, (B, 3, height, width), of one image or several, opened or as paths.

    Raises:
        ValueError: no image, or a file that `open_image` refuses.
        TypeError: something that is neither an image nor a path.
    """
    several = [images] if isinstance(images, (Image.Image, str, os.PathLike)) else list(images)
    if not several:
        raise ValueError("Expected at least one image, found an empty list.")
    edge = processor.size.get("shortest_edge") if processor.do_resize else None
    opened = [_opened(image, edge) for image in several]
    if edge is not None:
        opened = [_scaled(image, edge, processor.resample) for image in opened]
    return processor(images=opened, return_tensors="pt").pixel_values


def _opened(image: ImageInput, edge: int | None) -> Image.Image:
    if isinstance(image, Image.Image):
        return as_rgb(image)
    if isinstance(image, (str, os.PathLike)):
        return open_image(image, edge)
    raise TypeError(f"Expected a PIL image or the path of one, found {type(image).__name__}.")


def _scaled(image: Image.Image, edge: int, resample: int) -> Image.Image:
    """The processor's own first step, to the same pixels; it would copy the large picture several times over."""
    short = min(image.size)
    return image.resize((edge * image.width // short, edge * image.height // short), resample)


@torch.no_grad()
def read_features(
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    images: ImageInput | Sequence[ImageInput],
    output_attentions: bool = False,
) -> ModelOutput:
    """The model's `UniEmoOutput` for images: logits (B, 8) and the three features (B, width)."""
    pixels = pixel_values(processor, images)
    return model(pixels.to(model.device, model.dtype), output_attentions=output_attentions)


@torch.no_grad()
def understand_images(
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    images: ImageInput | Sequence[ImageInput],
    top_k: int = 5,
    attention_maps: bool = False,
) -> list[ImageUnderstanding]:
    """Label, probabilities, nearest scenes and objects of each image, on request the queries' attention maps.

    Args:
        model: a `UniEmoUnderstandingModel`.
        processor: the image processor that belongs to it.
        images: PIL images or paths, one or several.
        top_k: how many scenes and objects to name.
        attention_maps: also `scene_attention` and `object_attention`.
    """
    return understand_pixels(model, pixel_values(processor, images), top_k, attention_maps)


@torch.no_grad()
def understand_pixels(
    model: PreTrainedModel, pixels: torch.Tensor, top_k: int = 5, attention_maps: bool = False
) -> list[ImageUnderstanding]:
    """`understand_images` for what `pixel_values` gave, (B, 3, height, width) on any device.

    Raises:
        ValueError: NaN comes out, by NaN in the pixels or by weights that overflow in the model's dtype.
    """
    output = model(pixels.to(model.device, model.dtype), output_attentions=attention_maps)
    scores = model.attribute_scores(output.scene_features, output.object_features)
    scenes = _nearest(scores[0], model.config.scenes, top_k)
    objects = _nearest(scores[1], model.config.objects, top_k)
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    probabilities = output.logits.float().softmax(-1).tolist()
    _check_finite(probabilities)
    scene_maps = _patch_maps(output.scene_attentions) if attention_maps else [None] * len(probabilities)
    object_maps = _patch_maps(output.object_attentions) if attention_maps else [None] * len(probabilities)
    return [
        ImageUnderstanding(names[row.index(max(row))], dict(zip(names, row, strict=True)), *rest)
        for row, *rest in zip(probabilities, scenes, objects, scene_maps, object_maps, strict=True)
    ]


def _check_finite(probabilities: list[list[float]]) -> None:
    # Here and not on the pixels: these numbers have come to the host anyway, so that looking costs nothing.
    for index, row in enumerate(probabilities):
        if not all(map(math.isfinite, row)):
            raise ValueError(
                f"Expected numbers from the model, found NaN for image {index + 1} of {len(probabilities)}: its "
                "pixels are not finite, or the weights are not, or they overflow; try the model in float32."
            )


def _nearest(scores: torch.Tensor, names: Sequence[str], top_k: int) -> list[list[tuple[str, float]]]:
    best, index = scores.topk(min(top_k, len(names)), dim=-1)
    rows = zip(best.tolist(), index.tolist(), strict=True)
    return [[(names[i], score) for score, i in zip(*row, strict=True)] for row in rows]


def _patch_maps(attentions: torch.Tensor) -> list[torch.Tensor]:
    """(B, heads, queries, 1 + patches) to one square map (side, side) for each image."""
    patches = attentions.float().mean((1, 2))[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    return list(patches.view(-1, side, side).cpu())
