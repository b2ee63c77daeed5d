"""The released code's key names to ours and back, as pure functions on state dicts.

What is where is told by tables of `_Row`: a released key, our names for it, and its shape in the names of sizes. Sizes
are not given but inferred: each is what most of the tensors that have it say, so that one misshapen tensor is found
out and does not make all the others seem wrong.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .fusion_uniemo import EMOTIONS, FEATURES

HEAD_WIDTH = 64
HEAD_PREFIX = "Emo_classifier."
RELEASED_HEAD_WIDTH = 768
UNUSED = {
    "alphas of the queries": {
        "visual.transformer.visual_query_interact.0.query_alpha": "width",
        "visual.transformer.visual_query_interact.1.query_alpha": "width",
    },
    "projections of the last queries": {
        "visual_query_scene_last_proj": "width projection",
        "visual_query_object_last_proj": "width projection",
    },
    "temperatures of the last queries": {"logit_scale_last": "", "logit_scale_object_last": ""},
    "CLIP's projection of images": {"visual.proj": "width projection"},
}
"""Keys of the released chain that no feature and no loss needs, by kind, with their shapes; a file may lack them."""

MAPPER_FILES = {"emotion": "mapper.pth", "scene": "mapper_scene.pth", "object": "mapper_object.pth"}
SPACE_FEATURES = {"emotion": "cls_fea", "scene": "scene", "object": "object"}
SPACE_FILES = {
    f"{emotion}_{released}_{statistic}.pt": f"{statistic}.{emotion}.{feature}"
    for emotion in EMOTIONS
    for feature, released in SPACE_FEATURES.items()
    for statistic in ("mean", "std")
}
"""Files of the released emotion space, each one tensor, and the names by which they are known here."""


@dataclass(frozen=True)
class _Row:
    """One released tensor.

    Attributes:
        released: its key.
        ours: our names for it; several where ours are its equal parts along the first axis, none where it is unused.
        shape: sizes by name, "3*width width" for instance; "" for a number.
        transposed: kept as the (in, out) factor of a matrix product, where a linear layer has (out, in).
    """

    released: str
    ours: tuple[str, ...]
    shape: str
    transposed: bool = False


@dataclass(frozen=True)
class ConvertedCheckpoint:
    """A released checkpoint under our names.

    Attributes:
        config: what the tensors tell of `UniEmoConfig`, as its keyword arguments.
        state_dict: weights of `UniEmoUnderstandingModel`, all but the vocabulary's text features.
        text_config, text_state_dict: the same for transformers' `CLIPTextModelWithProjection`.
        unused: released keys that have no place in either, by kind.
    """

    config: dict[str, Any]
    state_dict: dict[str, Tensor]
    text_config: dict[str, Any]
    text_state_dict: dict[str, Tensor]
    unused: dict[str, list[str]]


def convert_checkpoint(
    chain: Mapping[str, Tensor],
    head: Mapping[str, Tensor],
    name: str = "the checkpoint",
    heads: int | None = None,
    activation: str = "quick_gelu",
) -> ConvertedCheckpoint:
    """Convert the released understanding chain (CLIP with expert queries) and its emotion head.

    The tensors are the given ones or views of them.

    Args:
        chain: state dict under the released names, with or without the prefix "module." of a distributed run.
        head: the released emotion head's, likewise; empty where there is none.
        name: what errors call it.
        heads: attention heads of the vision tower, width/64 unless given; those of the text tower are width/64.
        activation: of both towers.

    Raises:
        ValueError: keys that are missing, unknown or of another shape, all of them listed; or a number of heads that
            does not divide the width.
    """
    released = {key.removeprefix("module."): tensor for key, tensor in chain.items()}
    released |= {HEAD_PREFIX + key.removeprefix("module."): tensor for key, tensor in head.items()}
    layers, text_layers = (
        _count_layers(released, f"{tower}.resblocks") for tower in ("visual.transformer", "transformer")
    )
    rows = [*_checkpoint_rows(layers, text_layers), *(_head_rows() if head else ())]
    sizes = _infer_sizes(rows, released) | {"emotions": len(EMOTIONS)}
    if "positions" in sizes:
        sizes["positions"] = _side(sizes["positions"]) ** 2 + 1
    converted = _convert(rows, released, sizes, name)
    heads = heads or max(1, sizes["width"] // HEAD_WIDTH)
    if sizes["width"] % heads:
        raise ValueError(
            f"{name}: expected a width that its {heads} heads share, found {sizes['width']}; give --heads."
        )
    text = {key: tensor for key, tensor in converted.items() if key.startswith("text_")}
    return ConvertedCheckpoint(
        _config(sizes, layers, heads, activation),
        {key: tensor for key, tensor in converted.items() if key not in text},
        _text_config(sizes, text_layers, activation),
        text,
        {kind: [key for key in keys if key in released] for kind, keys in UNUSED.items()},
    )


def release_checkpoint(state_dict: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Our understanding model's weights as a released checkpoint, {"model": ..., "Emo_classifier": ...}.

    The inverse of `convert_checkpoint`. The released code reads a checkpoint onto CLIP with strict=False, so neither
    the unused keys nor the text tower, which it never trains, have to be there.

    Args:
        state_dict: of `UniEmoUnderstandingModel`; the text tower's may be among it, and is released as well.
    """
    released: dict[str, dict[str, Tensor]] = {"model": {}, "Emo_classifier": {}}
    depths = [_count_layers(state_dict, f"{tower}.encoder.layers") for tower in ("vision_model", "text_model")]
    for row in (*_checkpoint_rows(*depths), *_head_rows()):
        if row.ours and row.ours[0] in state_dict:
            parts = [state_dict[name] for name in row.ours]
            tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
            _, head, key = row.released.rpartition(HEAD_PREFIX)
            released["Emo_classifier" if head else "model"][key] = tensor.T.contiguous() if row.transposed else tensor
    return released


def convert_generation(
    mappers: Mapping[str, Mapping[str, Tensor]], space: Mapping[str, Tensor], width: int, name: str
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Convert the released mappers and emotion space.

    Args:
        mappers: state dicts by file name (`MAPPER_FILES`).
        space: tensors (width,) by file name (`SPACE_FILES`).
        width: of the features, the understanding chain's.
        name: what errors call it.

    Returns:
        The state dict of a fusion model's `mappers`; its emotion space's mean and standard deviation, (8, 3, width).

    Raises:
        ValueError: files or keys that are missing, unknown or of another shape, all of them listed.
    """
    released = {
        f"{file} {key.removeprefix('module.')}": t for file, keys in mappers.items() for key, t in keys.items()
    }
    released |= space
    rows = list(_generation_rows())
    converted = _convert(rows, released, _infer_sizes(rows, released) | {"width": width}, name)
    mean, std = (
        torch.stack(
            [converted.pop(f"{statistic}.{emotion}.{feature}") for emotion in EMOTIONS for feature in FEATURES]
        )
        for statistic in ("mean", "std")
    )
    shape = (len(EMOTIONS), len(FEATURES), width)
    return converted, mean.view(shape), std.view(shape)


def _convert(
    rows: Sequence[_Row], released: Mapping[str, Tensor], sizes: Mapping[str, int], name: str
) -> dict[str, Tensor]:
    """Tensors under our names, after all of them were held against the table."""
    faults = [f"missing {row.released}" for row in rows if row.ours and row.released not in released]
    known = {row.released for row in rows}
    faults += [f"unknown {key}" for key in released if key not in known]
    for row in rows:
        expected = _shape(row, sizes)
        if row.released in released and (found := tuple(released[row.released].shape)) != expected:
            faults.append(f"{row.released} of shape {found} instead of {expected}".replace("'", ""))
    if faults:
        raise ValueError(
            f"{name}: expected the released code's tensors, found {len(faults)} faults: {'; '.join(faults)}."
        )
    ours: dict[str, Tensor] = {}
    for row in rows:
        if row.ours:
            tensor = released[row.released].T if row.transposed else released[row.released]
            parts = tensor.chunk(len(row.ours)) if len(row.ours) > 1 else (tensor,)
            ours |= zip(row.ours, parts, strict=True)
    return ours


def _infer_sizes(rows: Sequence[_Row], released: Mapping[str, Tensor]) -> dict[str, int]:
    """Each size by name, as most of the tensors have it."""
    votes: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for row in rows:
        axes = row.shape.split()
        if row.released in released and released[row.released].ndim == len(axes):
            for axis, found in zip(axes, released[row.released].shape, strict=True):
                factor, size = _axis(axis)
                if found % factor == 0:
                    votes[size][found // factor] += 1
    return {size: counter.most_common(1)[0][0] for size, counter in votes.items()}


def _shape(row: _Row, sizes: Mapping[str, int]) -> tuple[int | str, ...]:
    """A row's shape; a size that no tensor tells stays a name."""
    axes = [(axis, *_axis(axis)) for axis in row.shape.split()]
    return tuple(factor * sizes[size] if size in sizes else axis for axis, factor, size in axes)


def _axis(axis: str) -> tuple[int, str]:
    """ "3*width" as (3, "width")."""
    factor, star, size = axis.rpartition("*")
    return int(factor) if star else 1, size


# ------------------------------------------------------------------------------------------------------- the tables


def _checkpoint_rows(layers: int, text_layers: int) -> Iterator[_Row]:
    """The understanding chain and CLIP's text tower."""
    tower = "vision_model"
    yield _Row("visual.class_embedding", (f"{tower}.embeddings.class_embedding",), "width")
    yield _Row("visual.conv1.weight", (f"{tower}.embeddings.patch_embedding.weight",), "width channels patch patch")
    yield _Row("visual.positional_embedding", (f"{tower}.embeddings.position_embedding.weight",), "positions width")
    yield from _module("visual.ln_pre", f"{tower}.pre_layrnorm", "width")
    yield from _module("visual.ln_post", f"{tower}.post_layernorm", "width")
    for layer in range(layers):
        yield from _layer(f"visual.transformer.resblocks.{layer}", f"{tower}.encoder.layers.{layer}", "width", "mlp")
    for block, kind in enumerate(("scene", "object")):
        yield _Row(f"visual.visual_query_{kind}.weight", (f"{kind}_queries.weight",), f"{kind}_queries width")
        yield from _interaction(f"visual.transformer.visual_query_interact.{block}", f"{kind}_interaction")
        yield _Row(f"visual_query_{kind}_proj", (f"{kind}_projection.weight",), "width projection", transposed=True)
    # The scene's temperature is CLIP's own; the released code added one for objects.
    yield _Row("logit_scale", ("scene_logit_scale",), "")
    yield _Row("logit_scale_object", ("object_logit_scale",), "")
    yield from (_Row(key, (), shape) for keys in UNUSED.values() for key, shape in keys.items())
    yield from _text_rows(text_layers)


def _head_rows() -> Iterator[_Row]:
    """The emotion head."""
    yield from _module(f"{HEAD_PREFIX}fc0", "classifier.0", "head_width width")
    yield from _module(f"{HEAD_PREFIX}fc1", "classifier.3", "emotions head_width")


def _text_rows(layers: int) -> Iterator[_Row]:
    tower = "text_model"
    yield _Row("token_embedding.weight", (f"{tower}.embeddings.token_embedding.weight",), "text_vocabulary text_width")
    yield _Row("positional_embedding", (f"{tower}.embeddings.position_embedding.weight",), "text_length text_width")
    for layer in range(layers):
        yield from _layer(
            f"transformer.resblocks.{layer}", f"{tower}.encoder.layers.{layer}", "text_width", "text_mlp"
        )
    yield from _module("ln_final", f"{tower}.final_layer_norm", "text_width")
    yield _Row("text_projection", ("text_projection.weight",), "text_width projection", transposed=True)


def _layer(released: str, ours: str, width: str, mlp: str) -> Iterator[_Row]:
    """A layer of either tower."""
    for kind, shape in (("weight", f"3*{width} {width}"), ("bias", f"3*{width}")):
        names = tuple(f"{ours}.self_attn.{part}_proj.{kind}" for part in "qkv")
        yield _Row(f"{released}.attn.in_proj_{kind}", names, shape)
    yield from _module(f"{released}.attn.out_proj", f"{ours}.self_attn.out_proj", f"{width} {width}")
    yield from _module(f"{released}.ln_1", f"{ours}.layer_norm1", width)
    yield from _module(f"{released}.ln_2", f"{ours}.layer_norm2", width)
    yield from _module(f"{released}.mlp.c_fc", f"{ours}.mlp.fc1", f"{mlp} {width}")
    yield from _module(f"{released}.mlp.c_proj", f"{ours}.mlp.fc2", f"{width} {mlp}")


def _interaction(released: str, ours: str) -> Iterator[_Row]:
    decoder = f"{released}.query_decoder.0"
    yield from _module(f"{released}.norm", f"{ours}.visual_norm", "width")
    yield from _module(f"{decoder}.norm1", f"{ours}.query_norm", "width")
    for part in "qkv":
        names = (f"{ours}.attention.{part}_proj.weight",)
        yield _Row(f"{decoder}.cross_attn.{part}_proj.weight", names, "width width")
    yield from _module(f"{decoder}.cross_attn.proj", f"{ours}.attention.out_proj", "width width")
    yield from _module(f"{decoder}.norm3", f"{ours}.mlp_norm", "width")
    yield from _module(f"{decoder}.mlp.0", f"{ours}.fc1", "4*width width")
    yield from _module(f"{decoder}.mlp.3", f"{ours}.fc2", "width 4*width")


def _generation_rows() -> Iterator[_Row]:
    for feature, file in MAPPER_FILES.items():
        yield from _module(f"{file} mlp.0", f"0.{feature}.0", "width width")
        yield from _module(f"{file} mlp.2", f"0.{feature}.2", "condition width")
    yield from (_Row(file, (name,), "width") for file, name in SPACE_FILES.items())


def _module(released: str, ours: str, shape: str) -> Iterator[_Row]:
    """The weight and the bias of a linear layer or a norm."""
    yield _Row(f"{released}.weight", (f"{ours}.weight",), shape)
    yield _Row(f"{released}.bias", (f"{ours}.bias",), shape.split()[0])


# ---------------------------------------------------------------------------------------------------- configurations


def _count_layers(keys: Iterable[str], prefix: str) -> int:
    """The number of layers, at least one; a layer counts where half of its tensors are there, that is six."""
    layers = Counter(key.removeprefix(f"{prefix}.").split(".")[0] for key in keys if key.startswith(f"{prefix}."))
    return max((int(layer) + 1 for layer, tensors in layers.items() if layer.isdecimal() and tensors >= 6), default=1)


def _side(positions: int) -> int:
    """Patches along a side of the image; the first position is the class token's."""
    return round(max(positions - 1, 0) ** 0.5)


def _config(sizes: Mapping[str, int], layers: int, heads: int, activation: str) -> dict[str, Any]:
    return {
        "vision_config": {
            "hidden_size": sizes["width"],
            "intermediate_size": sizes["mlp"],
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_channels": sizes["channels"],
            "image_size": sizes["patch"] * _side(sizes["positions"]),
            "patch_size": sizes["patch"],
            "projection_dim": sizes["projection"],
            "hidden_act": activation,
        },
        "num_scene_queries": sizes["scene_queries"],
        "num_object_queries": sizes["object_queries"],
        "projection_dim": sizes["projection"],
        "classifier_hidden": sizes.get("head_width", RELEASED_HEAD_WIDTH),
    }


def _text_config(sizes: Mapping[str, int], layers: int, activation: str) -> dict[str, Any]:
    width, vocabulary = sizes["text_width"], sizes["text_vocabulary"]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": sizes["text_mlp"],
        "projection_dim": sizes["projection"],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "max_position_embeddings": sizes["text_length"],
        "hidden_act": activation,
        "bos_token_id": vocabulary - 2,
        # Under this value transformers pools at the highest id, CLIP's end token, as the released code does.
        "eos_token_id": 2,
    }
