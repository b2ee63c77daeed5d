"""The released understanding chain (JiuTian-VL/UniEmo, `train_vit_class/Emotion_clip.py`) as its training runs it.

Modules have the released names, so that `release_checkpoint` fills them with our weights. It is here to be measured
and compared with: `uniemo_pipelines.modeling_uniemo` is the model to use.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModelWithProjection
from transformers.activations import ACT2FN

from uniemo_pipelines.conversion import release_checkpoint
from uniemo_pipelines.fusion_uniemo import EMOTIONS
from uniemo_pipelines.modeling_uniemo import UniEmoConfig, UniEmoUnderstandingModel

HEAD_WIDTH = 64


class Layer(nn.Module):
    """A layer of either tower; tokens (N, B, W)."""

    def __init__(self, width: int, intermediate: int, mask: Tensor | None = None) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // HEAD_WIDTH)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, intermediate))
        self.mlp.add_module("gelu", ACT2FN["quick_gelu"])
        self.mlp.add_module("c_proj", nn.Linear(intermediate, width))
        self.mask = mask

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.ln_1(tokens)
        tokens = tokens + self.attn(normed, normed, normed, need_weights=False, attn_mask=self.mask)[0]
        return tokens + self.mlp(self.ln_2(tokens))


class CrossAttention(nn.Module):
    """Queries (B, Q, W) read visual tokens (B, N, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, visual: Tensor) -> Tensor:
        projected = self.q_proj(queries), self.k_proj(visual), self.v_proj(visual)
        query, key, value = (part.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2) for part in projected)
        weights = (query @ key.transpose(-2, -1) * HEAD_WIDTH**-0.5).softmax(dim=-1)
        return self.proj((weights @ value).transpose(1, 2).flatten(2))


class QueryLayer(nn.Module):
    """Cross-attention and an MLP, pre-norm with residuals."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.cross_attn = CrossAttention(width)
        # The dropout drops nothing, but the released keys count it.
        parts = nn.Linear(width, 4 * width), ACT2FN["quick_gelu"], nn.Dropout(0.0), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(*parts)

    def forward(self, queries: Tensor, visual: Tensor) -> Tensor:
        queries = queries + self.cross_attn(self.norm1(queries), visual)
        return queries + self.mlp(self.norm3(queries))


class Interaction(nn.Module):
    """An interactive block; queries (Q, B, W) and visual tokens (N, B, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query_decoder = nn.ModuleList([QueryLayer(width)])

    def forward(self, queries: Tensor, visual: Tensor) -> Tensor:
        return self.query_decoder[0](queries.transpose(0, 1), self.norm(visual.transpose(0, 1))).transpose(0, 1)


class Features(NamedTuple):
    """Of B pictures, each (B, W)."""

    emotion: Tensor
    scene: Tensor
    object: Tensor
    last_scene: Tensor
    last_object: Tensor


class VisionTower(nn.Module):
    """CLIP's vision tower with expert queries, from pixels (B, 3, H, H) to features."""

    def __init__(self, config: UniEmoConfig) -> None:
        super().__init__()
        vision = config.vision_config
        width, patch = vision.hidden_size, vision.patch_size
        self.conv1 = nn.Conv2d(vision.num_channels, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty((vision.image_size // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.visual_query_scene = nn.Embedding(config.num_scene_queries, width)
        self.visual_query_object = nn.Embedding(config.num_object_queries, width)
        self.transformer = nn.Module()
        layers = (Layer(width, vision.intermediate_size) for _ in range(vision.num_hidden_layers))
        self.transformer.resblocks = nn.Sequential(*layers)
        self.transformer.visual_query_interact = nn.ModuleList(Interaction(width) for _ in range(2))

    def forward(self, pixels: Tensor) -> Features:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        class_token = self.class_embedding.expand(len(pixels), 1, -1)
        visual = self.ln_pre(torch.cat([class_token, patches], dim=1) + self.positional_embedding).transpose(0, 1)
        queries = (self.visual_query_scene.weight, self.visual_query_object.weight)
        scenes, objects = (query[:, None].repeat(1, len(pixels), 1) for query in queries)
        sizes, stage = [len(visual), len(scenes), len(objects)], len(self.transformer.resblocks) // 3
        interact = self.transformer.visual_query_interact

        visual, scenes = self._run(0, stage, visual, scenes).split(sizes[:2])
        scenes = interact[0](scenes, visual)
        scene = scenes.mean(dim=0)
        visual, scenes, objects = self._run(stage, 2 * stage, visual, scenes, objects).split(sizes)
        objects = interact[1](objects, visual)
        object_ = objects.mean(dim=0)
        visual, scenes, objects = self._run(2 * stage, 3 * stage, visual, scenes, objects).split(sizes)
        return Features(self.ln_post(visual[0]), scene, object_, scenes.mean(dim=0), objects.mean(dim=0))

    def _run(self, start: int, end: int, *parts: Tensor) -> Tensor:
        tokens = torch.cat(parts)
        for index in range(start, end):
            tokens = self.transformer.resblocks[index](tokens)
        return tokens


class ReleasedChain(nn.Module):
    """Both towers and the contrast between them, with our weights under the released names.

    Frozen is what the released recipe freezes: all but the vision tower, its queries and its interactive blocks.
    """

    def __init__(self, understanding: UniEmoUnderstandingModel, text: CLIPTextModelWithProjection) -> None:
        super().__init__()
        config, words = understanding.config, text.config
        length, width, projection = words.max_position_embeddings, words.hidden_size, config.projection_dim
        self.visual = VisionTower(config)
        mask = torch.full((length, length), -torch.inf).triu(1)
        layers = (Layer(width, words.intermediate_size, mask) for _ in range(words.num_hidden_layers))
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(*layers)
        self.token_embedding = nn.Embedding(words.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(length, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, projection))
        for kind in ("scene", "object"):
            for suffix in ("", "_last"):
                matrix = nn.Parameter(torch.randn(config.hidden_size, projection))
                self.register_parameter(f"visual_query_{kind}{suffix}_proj", matrix)
        for name in ("", "_object", "_last", "_object_last"):
            self.register_parameter(f"logit_scale{name}", nn.Parameter(torch.tensor(config.logit_scale_init_value)))
        weights = release_checkpoint(understanding.state_dict() | text.state_dict())["model"]
        found = self.load_state_dict(weights, strict=False)
        ours_alone = {name for name in found.missing_keys if "_last" not in name}
        if ours_alone or found.unexpected_keys:
            raise ValueError(f"Expected weights of this size, found faults: {ours_alone}, {found.unexpected_keys}.")
        self.requires_grad_(False)
        self.visual.requires_grad_(True)

    def encode_text(self, ids: Tensor) -> Tensor:
        """Token ids (B, L) of full length to features (B, P), read where the id is highest."""
        tokens = (self.token_embedding(ids) + self.positional_embedding).transpose(0, 1)
        tokens = self.ln_final(self.transformer.resblocks(tokens).transpose(0, 1))
        return tokens[torch.arange(len(ids)), ids.argmax(dim=-1)] @ self.text_projection

    def forward(self, pixels: Tensor, scene_ids: Tensor, object_ids: Tensor) -> tuple[Features, dict[str, Tensor]]:
        """The features, and the logits (B, B) of pictures and texts: scene, object, and both of the last layer."""
        features = self.visual(pixels)
        scenes, objects = self.encode_text(scene_ids), self.encode_text(object_ids)
        last = (features.last_scene, self.visual_query_scene_last_proj, self.logit_scale_last, scenes)
        last_object = (features.last_object, self.visual_query_object_last_proj, self.logit_scale_object_last, objects)
        return features, {
            "scene": similarity(features.scene, self.visual_query_scene_proj, self.logit_scale, scenes),
            "object": similarity(features.object, self.visual_query_object_proj, self.logit_scale_object, objects),
            "last_scene": similarity(*last),
            "last_object": similarity(*last_object),
        }


def similarity(features: Tensor, projection: Tensor, log_scale: Tensor, texts: Tensor) -> Tensor:
    """Scaled cosines (B, T) of projected features and texts."""
    images = features @ projection
    return log_scale.exp() * (images / images.norm(dim=1, keepdim=True)) @ (texts / texts.norm(dim=1, keepdim=True)).T


class EmotionHead(nn.Module):
    """The emotion head under the released names, with our weights."""

    def __init__(self, understanding: UniEmoUnderstandingModel) -> None:
        super().__init__()
        config = understanding.config
        self.fc0 = nn.Linear(config.hidden_size, config.classifier_hidden)
        self.drop_out = nn.Dropout(config.classifier_dropout)
        self.fc1 = nn.Linear(config.classifier_hidden, len(EMOTIONS))
        self.load_state_dict(release_checkpoint(understanding.state_dict())["Emo_classifier"])

    def forward(self, features: Tensor) -> Tensor:
        return self.fc1(self.drop_out(functional.relu(self.fc0(features))))
