"""Stable Diffusion components as one checkpoint with the keys of the original code, as such files are shared."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE = {
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
}
OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def write_checkpoint(path: Path, components: Mapping[str, Any], open_clip: bool = False) -> Path:
    """Write UNet, VAE and text encoder into one file; Stable Diffusion 2.x has its text encoder in OpenCLIP's keys."""
    text = components["text_encoder"].state_dict()
    tensors = {f"model.diffusion_model.{key}": value for key, value in unet_tensors(components["unet"]).items()}
    tensors |= {f"first_stage_model.{key}": value for key, value in vae_tensors(components["vae"]).items()}
    if open_clip:
        tensors |= {f"cond_stage_model.model.{key}": value for key, value in open_clip_tensors(text).items()}
    else:
        tensors |= {f"cond_stage_model.transformer.text_model.{key}": value for key, value in text.items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return path


def unet_tensors(unet: torch.nn.Module) -> Tensors:
    """The original numbers all blocks of the way down, and of the way up, in one row."""
    a_level = unet.config.layers_per_block + 1
    attends = {level for level, block in enumerate(unet.up_blocks) if hasattr(block, "attentions")}

    def place(key: str) -> str:
        for name, original in UNET_ENDS.items():
            if key.startswith(name + "."):
                return original + key.removeprefix(name)
        half, *rest = key.split(".", 1)
        if half == "mid_block":
            kind, index, inner = rest[0].split(".", 2)
            return f"middle_block.{2 * int(index) if kind == 'resnets' else 1}.{_resnet(kind, inner)}"
        level, kind, index, inner = rest[0].split(".", 3)
        level, index = int(level), int(index)
        layer = int(kind == "attentions")
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * a_level}.0.{inner.replace('conv', 'op')}"
        if kind == "upsamplers":
            return f"output_blocks.{(level + 1) * a_level - 1}.{1 + (level in attends)}.{inner}"
        if half == "down_blocks":
            return f"input_blocks.{1 + level * a_level + index}.{layer}.{_resnet(kind, inner)}"
        return f"output_blocks.{level * a_level + index}.{layer}.{_resnet(kind, inner)}"

    return {place(key): value for key, value in unet.state_dict().items()}


def _resnet(kind: str, inner: str) -> str:
    return _renamed(inner, RESNET) if kind == "resnets" else inner


def vae_tensors(vae: torch.nn.Module) -> Tensors:
    """The original counts the decoder's levels from the image, and has 1 x 1 convolutions where there is attention."""
    top = len(vae.config.block_out_channels) - 1
    tensors = {}
    for key, value in vae.state_dict().items():
        if re.search(r"attentions.*(to_\w|to_out\.0)\.weight", key):
            value = value[:, :, None, None]
        key = re.sub(r"down_blocks\.(\d)\.", r"down.\1.", key)
        key = re.sub(r"up_blocks\.(\d)\.", lambda level: f"up.{top - int(level[1])}.", key)
        key = re.sub(r"(down|up)\.(\d)\.resnets\.", r"\1.\2.block.", key)
        tensors[_renamed(key, VAE)] = value
    return tensors


def open_clip_tensors(text: Tensors) -> Tensors:
    """OpenCLIP has the projections of queries, keys and values in one."""
    tensors = {}
    for key, value in text.items():
        match = re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", key)
        if match:
            parts = [text[key.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            tensors[f"transformer.resblocks.{match[1]}.attn.in_proj_{match[2]}"] = torch.cat(parts)
        elif not re.search(r"[kv]_proj", key):
            tensors[_renamed(key, OPEN_CLIP)] = value
    return tensors


def _renamed(key: str, names: Mapping[str, str]) -> str:
    """The key with each of the names that it holds as whole components replaced."""
    for name, original in names.items():
        key = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", original, key)
    return key
