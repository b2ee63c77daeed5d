"""The rival of the expert queries, to compare with: pooled patches.

Scene and object feature are read at the same depths as always, but as the mean over the patch tokens: no queries in
the sequence, no interactive blocks. All else is the understanding chain's: emotion feature, head, projections,
contrasts. What the chain gains over this is the doing of its queries and blocks.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers.utils import CONFIG_NAME

from uniemo_pipelines.modeling_uniemo import UniEmoConfig, UniEmoUnderstandingModel

EXPERT_PARTS = ("scene_queries", "object_queries", "scene_interaction", "object_interaction")
"""What the chain has and this rival does not."""


def expert_parts(model: UniEmoUnderstandingModel) -> dict[str, nn.Module]:
    """Queries and interactive blocks by their names; none where patches are pooled instead."""
    return {name: part for name, part in model.named_children() if name in EXPERT_PARTS}


class PooledPatchesModel(UniEmoUnderstandingModel):
    """An understanding model whose scene and object features are means over patch tokens.

    The configuration's numbers of queries mean nothing here. A fresh one draws all that it shares with the chain by
    the same random numbers, so that under one seed both start with the same projections and head.

    A folder of it is for training alone; the library's own loading refuses it.
    """

    _auto_class = None  # a rival is not published with its code
    _no_split_modules = [name for name in UniEmoUnderstandingModel._no_split_modules if name != "InteractiveBlock"]

    def __init__(self, config: UniEmoConfig) -> None:
        super().__init__(config)
        for name in EXPERT_PARTS:
            delattr(self, name)

    def _chain(
        self, pixel_values: Tensor, output_attentions: bool, interpolate_pos_encoding: bool, **kwargs: Any
    ) -> dict[str, Tensor]:
        """The three features, each (B, W); there are no queries whose attention maps could be asked for."""
        tower, layers = self.vision_model, self.vision_model.encoder.layers
        first, second, third = self.config.stages
        tokens = tower.embeddings(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        tokens = tower.pre_layrnorm(tokens)
        for index in first:
            tokens = layers[index](tokens, None, **kwargs)
        scene_features = mean_patch(tokens)
        for index in second:
            tokens = layers[index](tokens, None, **kwargs)
        object_features = mean_patch(tokens)
        for index in third:
            tokens = layers[index](tokens, None, **kwargs)
        return {
            "emotion_features": tower.post_layernorm(tokens[:, 0]),
            "scene_features": scene_features,
            "object_features": object_features,
        }


def mean_patch(tokens: Tensor) -> Tensor:
    """Mean (B, W) over the patches of visual tokens (B, 1 + patches, W), which CLS leads."""
    return tokens[:, 1:].mean(dim=1)


def is_pooled(folder: str | Path) -> bool:
    """Whether a folder has this rival, by the class that its config.json names."""
    path = Path(folder, CONFIG_NAME)
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("architectures") == [
        PooledPatchesModel.__name__
    ]


def load_trained(folder: str, **options: Any) -> UniEmoUnderstandingModel:
    """What stage 1 wrote: the chain, or this rival of it.

    Args:
        folder: a folder; of the chain also a Hub repository.
        **options: as `from_pretrained` takes them.

    Raises:
        OSError: nothing at that place.
    """
    kind = PooledPatchesModel if is_pooled(folder) else UniEmoUnderstandingModel
    return kind.from_pretrained(folder, **options)
