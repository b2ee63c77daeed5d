"""The released code's key names to ours, as pure functions on state dicts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

# Released layer names on the left: the same in CLIP's two towers.
_LAYER = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BLOCK = {
    "norm": "visual_norm",
    "query_decoder.0.norm1": "query_norm",
    "query_decoder.0.cross_attn.q_proj": "attention.q_proj",
    "query_decoder.0.cross_attn.k_proj": "attention.k_proj",
    "query_decoder.0.cross_attn.v_proj": "attention.v_proj",
    "query_decoder.0.cross_attn.proj": "attention.out_proj",
    "query_decoder.0.norm3": "mlp_norm",
    "query_decoder.0.mlp.0": "fc1",
    "query_decoder.0.mlp.3": "fc2",
}
_UNDERSTANDING = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.visual_query_scene.weight": "scene_queries.weight",
    "visual.visual_query_object.weight": "object_queries.weight",
    "visual_query_scene_proj": "scene_projection.weight",
    "visual_query_object_proj": "object_projection.weight",
    # The scene's temperature is CLIP's own; the released code added one for objects.
    "logit_scale": "scene_logit_scale",
    "logit_scale_object": "object_logit_scale",
}
_TEXT = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
}
# Stored as (in, out) factors of a matrix product, where a linear layer keeps (out, in).
_TRANSPOSED = ("visual_query_scene_proj", "visual_query_object_proj", "text_projection")
_RESBLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)")
_IN_PROJ = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")
_INTERACT = re.compile(r"visual\.transformer\.visual_query_interact\.([01])\.(.+)\.(weight|bias)")


@dataclass(frozen=True)
class ConvertedChain:
    """A released understanding chain under our names.

    Attributes:
        config: what the tensors tell of `UniEmoConfig`, as its keyword arguments.
        state_dict: weights of `UniEmoUnderstandingModel`; the emotion head and the vocabulary are not among them.
        text_config, text_state_dict: the same for transformers' `CLIPTextModelWithProjection`.
        unused: released keys that have no place in either, in their order.
    """

    config: dict[str, Any]
    state_dict: dict[str, torch.Tensor]
    text_config: dict[str, Any]
    text_state_dict: dict[str, torch.Tensor]
    unused: tuple[str, ...]


def convert_chain(released: Mapping[str, torch.Tensor]) -> ConvertedChain:
    """Convert the released understanding chain (CLIP with expert queries).

    Sizes are inferred from the tensors; heads are width/64 and the activation is QuickGELU, as in the released models.
    The tensors are the given ones or views of them.

    Args:
        released: state dict under the released names.

    Raises:
        ValueError: names that must be there are not; all of them are listed.
    """
    missing = [key for key in (*_UNDERSTANDING, *_TEXT) if key not in released]
    if missing:
        raise ValueError(f"Not a released understanding chain: missing {', '.join(missing)}.")
    ours: dict[str, torch.Tensor] = {}
    text: dict[str, torch.Tensor] = {}
    unused = []
    for key, tensor in released.items():
        renamed = _rename(key, tensor)
        if not renamed:
            unused.append(key)
        for name, value in renamed.items():
            (text if name.startswith("text_") else ours)[name] = value
    return ConvertedChain(_config(ours), ours, _text_config(text), text, tuple(unused))


def _rename(key: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """Our names for one released tensor; none where nothing of ours corresponds."""
    if name := _UNDERSTANDING.get(key) or _TEXT.get(key):
        return {name: tensor.T if key in _TRANSPOSED else tensor}
    if match := _IN_PROJ.fullmatch(key):
        visual, layer, kind = match.groups()
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{_tower(visual)}.{layer}.self_attn.{part}_proj.{kind}": chunk for part, chunk in parts}
    if match := _RESBLOCK.fullmatch(key):
        visual, layer, module, kind = match.groups()
        return {f"{_tower(visual)}.{layer}.{_LAYER[module]}.{kind}": tensor} if module in _LAYER else {}
    if match := _INTERACT.fullmatch(key):
        block, module, kind = match.groups()
        owner = ("scene_interaction", "object_interaction")[int(block)]
        return {f"{owner}.{_BLOCK[module]}.{kind}": tensor} if module in _BLOCK else {}
    return {}


def _tower(visual: str | None) -> str:
    return "vision_model.encoder.layers" if visual else "text_model.encoder.layers"


def _count_layers(state_dict: Mapping[str, torch.Tensor], tower: str) -> int:
    return len({key.split(".")[3] for key in state_dict if key.startswith(f"{tower}.encoder.layers.")})


def _config(ours: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    width, channels, patch, _ = ours["vision_model.embeddings.patch_embedding.weight"].shape
    positions = len(ours["vision_model.embeddings.position_embedding.weight"])
    projection = len(ours["scene_projection.weight"])
    return {
        "vision_config": {
            "hidden_size": width,
            "intermediate_size": len(ours["vision_model.encoder.layers.0.mlp.fc1.weight"]),
            "num_hidden_layers": _count_layers(ours, "vision_model"),
            "num_attention_heads": width // 64,
            "num_channels": channels,
            "image_size": patch * round((positions - 1) ** 0.5),
            "patch_size": patch,
            "projection_dim": projection,
            "hidden_act": "quick_gelu",
        },
        "num_scene_queries": len(ours["scene_queries.weight"]),
        "num_object_queries": len(ours["object_queries.weight"]),
        "projection_dim": projection,
    }


def _text_config(text: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    vocabulary, width = text["text_model.embeddings.token_embedding.weight"].shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": len(text["text_model.encoder.layers.0.mlp.fc1.weight"]),
        "projection_dim": len(text["text_projection.weight"]),
        "num_hidden_layers": _count_layers(text, "text_model"),
        "num_attention_heads": width // 64,
        "max_position_embeddings": len(text["text_model.embeddings.position_embedding.weight"]),
        "hidden_act": "quick_gelu",
        "bos_token_id": vocabulary - 2,
        # Under this value transformers pools at the highest id, CLIP's end token, as the released code does.
        "eos_token_id": 2,
    }
