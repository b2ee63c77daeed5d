"""From a picture to what a model sees, and the basic sample."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from kornia.augmentation import ColorJiggle
from kornia.augmentation.random_generator import ResizedCropGenerator
from kornia.geometry.transform import hflip
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil

from uniemo_pipelines.fusion_uniemo import EMOTIONS
from uniemo_pipelines.understanding_uniemo import pixel_values

from .pictures import Picture
from .rows import Row, Vocabulary

SampleFunction = Callable[[Row, Picture, random.Random], dict[str, Any]]
Transform = Callable[[Picture, random.Random], Tensor]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class EvaluationTransform:
    """What the model sees in use: decoded as finely as needed, then the model's own image processor."""

    processor: CLIPImageProcessorPil

    def __call__(self, picture: Picture, source: random.Random) -> Tensor:
        """A picture -> (3, height, width)."""
        edge = self.processor.size.get("shortest_edge") if self.processor.do_resize else None
        return pixel_values(self.processor, picture.open(None if edge is None else 2 * edge))[0]


@dataclass(frozen=True)
class TrainingTransform:
    """Random resized crop and horizontal flip, change of colour if asked for, then the processor's normalisation.

    The crop covers a share of the area within `scale`, at an aspect ratio within [3/4, 4/3] (released settings).
    `color_jitter` c draws factors of brightness, contrast and saturation from [1 - c, 1 + c]; the hue stays. None by
    default: colour carries emotion.
    """

    processor: CLIPImageProcessorPil
    scale: tuple[float, float] = (0.08, 1.0)
    color_jitter: float = 0.0

    def __call__(self, picture: Picture, source: random.Random) -> Tensor:
        """A picture -> (3, height, width). `source` alone decides; torch's own randomness is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(source.getrandbits(63))  # `torch.manual_seed` would reach the GPUs too
            # kornia draws the crop and Pillow cuts it: kornia's slice mode does not antialias, and the box is known
            # before decoding, so that a JPEG comes no finer than needed.
            full = picture.size
            image = crop(picture, full, self._draw_box(full), self._size, self.processor.resample)
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous().float().div_(255)
            pixels = hflip(pixels) if source.random() < 0.5 else pixels
            pixels = self._jiggle(pixels) if self.color_jitter else pixels
            scale, shift = self._normalisation
            return torch.addcmul(shift, pixels[0], scale)

    def _draw_box(self, size: tuple[int, int]) -> Box:
        corners = self._generator((1, 3, size[1], size[0]))["src"][0]
        (left, top), (right, bottom) = corners[0].tolist(), corners[2].tolist()
        return left, top, right + 1, bottom + 1  # kornia's corners are the outermost pixels inside

    @property
    def _size(self) -> tuple[int, int]:
        return self.processor.crop_size["width"], self.processor.crop_size["height"]

    @cached_property
    def _generator(self) -> ResizedCropGenerator:
        return ResizedCropGenerator(self._size[::-1], self.scale, (3 / 4, 4 / 3))

    @cached_property
    def _jiggle(self) -> ColorJiggle:
        jitter = self.color_jitter
        return ColorJiggle(brightness=jitter, contrast=jitter, saturation=jitter)

    @cached_property
    def _normalisation(self) -> tuple[Tensor, Tensor]:
        """Scale and shift, (3, 1, 1) each, of the processor: a linear map is known by what it makes of two colours."""
        black, white = (
            self.processor(Image.new("RGB", (1, 1), color), do_resize=False, do_center_crop=False, return_tensors="pt")
            for color in ("black", "white")
        )
        return white.pixel_values[0] - black.pixel_values[0], black.pixel_values[0]


def crop(picture: Picture, full: tuple[int, int], box: Box, size: tuple[int, int], resample: int) -> Image.Image:
    """A box (left, top, right, bottom) of a picture, in pixels of its `full` size, scaled to `size` with antialiasing.

    A JPEG is decoded at the smallest size at which the box still has the pixels that are asked for.
    """
    width, height = full
    left, top, right, bottom = box
    shrinkage = min((right - left) / size[0], (bottom - top) / size[1])
    image = picture.open(math.ceil(min(width, height) / shrinkage))
    across, down = image.width / width, image.height / height
    within = (left * across, top * down, min(right * across, image.width), min(bottom * down, image.height))
    return image.resize(size, resample, box=within)


def _soft_label(row: Row) -> Tensor:
    return torch.eye(len(EMOTIONS))[row.label] if row.probabilities is None else torch.tensor(row.probabilities)


@dataclass(frozen=True)
class PictureSample:
    """A sample for understanding.

    A dictionary: `index` (), `pixel_values` (3, height, width), `labels` () long, `scene_labels` () long with -100 for
    no label, `object_labels` (O,) multi-hot floats, all zero for no label. The last two are left out where the
    vocabulary has no scenes or no objects at all. With `soft`, `labels` are the probabilities (8,) of each emotion: a
    row's own, or 1 for its emotion.
    """

    transform: Transform
    vocabulary: Vocabulary = Vocabulary()
    soft: bool = False

    def __call__(self, row: Row, picture: Picture, source: random.Random) -> dict[str, Tensor]:
        """The sample of a row."""
        sample = {
            "index": torch.tensor(row.index),
            "pixel_values": self.transform(picture, source),
            "labels": _soft_label(row) if self.soft else torch.tensor(row.label),
        }
        if self.vocabulary.scenes:
            sample["scene_labels"] = torch.tensor(row.scene)
        if self.vocabulary.objects:
            sample["object_labels"] = torch.zeros(len(self.vocabulary.objects))
            sample["object_labels"][list(row.objects)] = 1.0
        return sample
