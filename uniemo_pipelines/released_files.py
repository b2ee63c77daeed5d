"""From the files that the released code and EmoGen's release leave on disk to folders that this library loads.

    best.pth, VIT_query.pth                  stage 1's and stage 2's understanding chain and emotion head
    mapper.pth, mapper_scene.pth, mapper_object.pth
    <emotion>_<cls_fea|scene|object>_<mean|std>.pt              the emotion space, 48 files in UniEmo_space
    object_attr.pkl, scene_attr.pkl                             the attributes that alpha is retrieved among
    attr_coefficient_emotion_object.pkl, ..._scene.pkl          P(emotion | attribute)
    info.json                                                   EmoSet's scenes and objects

The released code tells files apart by their names, and so does this module.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)
from transformers.activations import ACT2FN
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.utils import cached_file

from .adapters_uniemo import ADAPTER_NAME, write_adapter
from .attributes import normalise, read_names
from .conversion import MAPPER_FILES, SPACE_FILES, ConvertedCheckpoint, convert_checkpoint, convert_generation
from .folders import check_new, whole_folder
from .fusion_uniemo import EMOTIONS, UniEmoFusionModel
from .modeling_uniemo import UniEmoConfig, UniEmoUnderstandingModel
from .pickles import read_pickle

CHECKPOINTS = ("best.pth", "VIT_query.pth")
INFO = "info.json"
# In each pair the order in which the released code reads them: the later table wins, the later names come last.
COEFFICIENT_FILES = ("attr_coefficient_emotion_scene.pkl", "attr_coefficient_emotion_object.pkl")
ATTRIBUTE_FILES = ("object_attr.pkl", "scene_attr.pkl")
NEEDLESS = ("all_attribute_object_scene.pkl", "object_norepeat.pkl", "scene_norepeat.pkl")
"""Lists that come with the others: names that are in the tables as well, and paths of its authors' pictures."""

ADAPTER_FILES = {*MAPPER_FILES.values(), *SPACE_FILES, *COEFFICIENT_FILES, *ATTRIBUTE_FILES}

TEXTS_AT_ONCE = 128

Encode = Callable[[Sequence[str]], Tensor]


def convert_files(
    paths: Sequence[Path],
    out: Path,
    tokenizer: str,
    heads: int | None = None,
    activation: str = "quick_gelu",
) -> list[str]:
    """Convert released files into a folder: an understanding model, or with mappers an adapter that holds one.

    Args:
        paths: files, or folders of which the files with released names are taken; one checkpoint among them.
        out: the folder to write, new or empty.
        tokenizer: CLIP's, folder or Hub name; needed where attribute names are among the files.
        heads: attention heads of the vision tower, width/64 unless given.
        activation: of CLIP's two towers.

    Returns:
        The report, line by line.

    Raises:
        ValueError: a file that is refused or not whole, tensors that do not fit, files that are missing, a folder that
            is not empty, a tokenizer that cannot be had. Nothing is written then.
        OSError: a file that is not there.
    """
    if activation not in ACT2FN:
        raise ValueError(f"expected an activation that transformers knows, found '{activation}'.")
    check_new(out)
    files = _by_name(paths)
    contents = {name: read_pickle(path) for name, path in files.items() if name != INFO}
    name = _the_checkpoint(files)
    chain, head, others = _parts(contents[name], files[name])
    converted = convert_checkpoint(chain, head, str(files[name]), heads, activation)
    encode = partial(_encode, converted, tokenizer)
    model = _understanding(converted)
    report = [*_describe(files[name], model, converted, others), _add_vocabulary(model, encode, files.get(INFO))]
    fusion = _fusion(model, contents) if contents.keys() & ADAPTER_FILES else None
    if fusion is not None:
        report.append(_add_attributes(fusion, model, encode, contents))
    report += [f"{files[needless]}: not needed" for needless in NEEDLESS if needless in files]
    with whole_folder(out) as unnamed:
        folder = unnamed if fusion is None else unnamed / "understanding"
        _save(model, folder)
        if fusion is not None:
            write_adapter(unnamed / ADAPTER_NAME, fusion, understanding=folder)
    use = f"uniemo understand --model {out}" if fusion is None else f'pipe.load_uniemo("{out}")'
    if not head:
        use = f'UniEmoUnderstandingModel.from_pretrained("{out}"), for its features or to train a head'
    return [*report, f"written: {', '.join(sorted(_files_in(out)))}", f"use: {use}"]


# ----------------------------------------------------------------------------------------------------- what is there


def _by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """The files by their names; of folders, those whose names the released code gives."""
    released = {*CHECKPOINTS, *ADAPTER_FILES, *NEEDLESS, INFO}
    files: dict[str, Path] = {}
    for path in paths:
        found = [path]
        if path.is_dir():
            found = [file for file in sorted(path.iterdir()) if file.name in released]
            if not found:
                raise ValueError(f"{path}: expected a folder with files of the released code, found none in it.")
        for file in found:
            if file.name in files:
                raise ValueError(f"expected each file once, found {files[file.name]} and {file}.")
            files[file.name] = file
    return files


def _the_checkpoint(files: Mapping[str, Path]) -> str:
    """The one file whose name says nothing else."""
    found = [name for name in files if name not in {*ADAPTER_FILES, *NEEDLESS, INFO}]
    if len(found) != 1:
        listed = ", ".join(str(files[name]) for name in found) or "none"
        raise ValueError(f"expected one checkpoint such as {' or '.join(CHECKPOINTS)}, found {listed}.")
    return found[0]


def _parts(content: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """The chain, the emotion head, and what else is in a checkpoint; a bare chain is one without a head."""
    whole = content if isinstance(content, dict) and "model" in content else {"model": content}
    chain, head = _tensors(whole["model"], path), _tensors(whole.get("Emo_classifier", {}), path)
    return chain, head, [str(key) for key in whole if key not in ("model", "Emo_classifier")]


def _tensors(content: Any, name: str | Path) -> dict[str, Tensor]:
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{name}: expected a state dict (names and tensors), found {_kind(content)}.")
    return {str(key): tensor.detach() for key, tensor in content.items()}


def _kind(content: Any) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    others = [f"{key} ({type(value).__name__})" for key, value in content.items() if not isinstance(value, Tensor)]
    return f"a dict with {', '.join(others)}"


# ----------------------------------------------------------------------------------------------------- understanding


def _understanding(converted: ConvertedCheckpoint) -> UniEmoUnderstandingModel:
    """The model, with an empty vocabulary."""
    config = UniEmoConfig(**converted.config)
    empty = {f"{kind}_text_features": torch.zeros(0, config.projection_dim) for kind in ("scene", "object")}
    empty |= {f"missing_{kind}_text": torch.zeros(config.projection_dim) for kind in ("scene", "object")}
    with torch.device("meta"):
        model = UniEmoUnderstandingModel(config)
    # Copies, for the parts of a checkpoint's tensor share its memory, and files hold each tensor on its own.
    own = {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in converted.state_dict.items()}
    model.load_state_dict(own | empty, strict=False, assign=True)  # without a head in the file, its place stays empty
    return model.eval()


def _save(model: UniEmoUnderstandingModel, folder: Path) -> None:
    """What was in the file, with its image processor; a head that was not is not made up."""
    there = {name: tensor for name, tensor in model.state_dict().items() if not tensor.is_meta}
    model.save_pretrained(folder, state_dict=there)
    _processor(model.config.vision_config.image_size).save_pretrained(folder)


def _processor(size: int) -> CLIPImageProcessorPil:
    """The released evaluation transform of stage 1, which the emotion space was computed with as well."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        resample=PILImageResampling.BILINEAR,
        image_mean=IMAGENET_DEFAULT_MEAN,
        image_std=IMAGENET_DEFAULT_STD,
    )


@torch.no_grad()
def _encode(converted: ConvertedCheckpoint, tokenizer_name: str, texts: Sequence[str]) -> Tensor:
    """Features (len(texts), P) of norm 1, by the checkpoint's own CLIP text tower.

    Raises:
        ValueError: no tokenizer of that name, or one of another vocabulary.
    """
    config = CLIPTextConfig(**converted.text_config)
    _check_tokenizer(tokenizer_name)
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_name)
    if len(tokenizer) != config.vocab_size:
        raise ValueError(
            f"{tokenizer_name}: expected a tokenizer of {config.vocab_size} tokens, as many as the checkpoint's text "
            f"tower knows, found one of {len(tokenizer)}; give --tokenizer."
        )
    model = CLIPTextModelWithProjection(config).eval()
    model.load_state_dict(converted.text_state_dict)
    options = {"padding": True, "truncation": True, "max_length": config.max_position_embeddings}
    features = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        batch = tokenizer(list(texts[start : start + TEXTS_AT_ONCE]), return_tensors="pt", **options)
        features.append(functional.normalize(model(batch.input_ids, batch.attention_mask).text_embeds, dim=-1))
    return torch.cat(features)


def _check_tokenizer(name: str) -> None:
    """transformers would make a tokenizer of no words where there is none."""
    try:
        cached_file(name, "tokenizer_config.json")
    except (OSError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{name}: expected CLIP's tokenizer, found none ({reason}); give --tokenizer.") from None


def _add_vocabulary(model: UniEmoUnderstandingModel, encode: Encode, info: Path | None) -> str:
    """Sets the model's vocabulary to EmoSet's; returns a line of the report."""
    if info is None:
        return f"vocabulary: none, so no nearest scenes and objects; add EmoSet's {INFO} for them"
    scenes, objects = read_names(info)
    # Stage 1 was trained on EmoSet's own spelling; what a picture lacks was "scene" or "object" to it.
    features = encode([*scenes, *objects, "scene", "object"])
    parts = features.split([len(scenes), len(objects), 1, 1])
    names = ([normalise(name) for name in kind] for kind in (scenes, objects))
    model.set_vocabulary(*names, parts[0], parts[1], parts[2][0], parts[3][0])
    return f"{info}: {len(scenes)} scenes, {len(objects)} objects"


def _describe(
    path: Path, model: UniEmoUnderstandingModel, converted: ConvertedCheckpoint, others: Sequence[str]
) -> Iterator[str]:
    config, vision, text = model.config, model.config.vision_config, converted.text_config
    has_head = "classifier.0.weight" in converted.state_dict
    yield (
        f"{path}: ViT of width {vision.hidden_size}, {vision.num_hidden_layers} layers, "
        f"{vision.num_attention_heads} heads, {vision.hidden_act}, patches of {vision.patch_size} px, images of "
        f"{vision.image_size} px (normalised as in the released stage 1); "
        f"{config.num_scene_queries} scene and {config.num_object_queries} object queries; "
        f"projections to {config.projection_dim}; "
        + (f"emotion head of width {config.classifier_hidden}" if has_head else "no emotion head (Emo_classifier)")
    )
    yield f"text tower, for attribute names only: width {text['hidden_size']}, {text['num_hidden_layers']} layers"
    for kind, keys in converted.unused.items():
        if keys:
            yield f"unused, {kind}: {', '.join(keys)}"
    if others:
        yield f"unused, of training: {', '.join(others)}"


# -------------------------------------------------------------------------------------------------------- generation


def _fusion(model: UniEmoUnderstandingModel, contents: Mapping[str, Any]) -> UniEmoFusionModel:
    """Mappers and emotion space, for attributes as wide as the model's projections."""
    width = model.config.hidden_size
    mappers = {file: _tensors(contents.get(file, {}), file) for file in MAPPER_FILES.values()}
    space = {file: contents[file] for file in SPACE_FILES if file in contents}
    _tensors(space, "the emotion space")
    tensors, mean, std = convert_generation(mappers, space, width, "mappers and emotion space")
    condition = len(tensors["0.emotion.2.bias"])
    with_attributes = any(file in contents for file in (*COEFFICIENT_FILES, *ATTRIBUTE_FILES))
    fusion = UniEmoFusionModel(
        width,
        [condition],
        model.config.projection_dim,
        retrieval="released" if with_attributes else "aligned",
        emotion_space="gaussian",
        bank_size=0,
        rank=0,
    )
    fusion.mappers.load_state_dict(tensors)
    fusion.set_emotion_space(mean, std)
    return fusion


def _add_attributes(
    fusion: UniEmoFusionModel, model: UniEmoUnderstandingModel, encode: Encode, contents: Mapping[str, Any]
) -> str:
    """Sets the one list of scenes and objects that the released code retrieves from; returns a line of the report."""
    kind = f"mappers to width {fusion.config.condition_dims[0]}, gaussian emotion space as released"
    wanted = (*COEFFICIENT_FILES, *ATTRIBUTE_FILES)
    if missing := [file for file in wanted if file not in contents]:
        if len(missing) < len(wanted):
            raise ValueError(f"expected all of EmoGen's attribute files or none; missing {', '.join(missing)}.")
        return f"{kind}; no attributes, so every coefficient is 1: add EmoGen's {', '.join(wanted)} for them"
    table: dict[str, Tensor] = {}
    for file in COEFFICIENT_FILES:
        table |= {normalise(name): row for name, row in _coefficients(contents[file], file)}
    spelt = {normalise(name): name for file in ATTRIBUTE_FILES for name in _names(contents[file], file)}
    rows = torch.stack([table.get(name, torch.zeros(len(EMOTIONS))) for name in spelt])
    base = encode(list(spelt.values()))
    projections = (model.scene_projection.weight, model.object_projection.weight)
    fusion.set_attribute_bases(list(spelt), list(spelt), base, base, *projections, rows, rows)
    without = [name for name in spelt if name not in table]
    zero = f"; no coefficient for {', '.join(without)}, hence 0" if without else ""
    return f"{kind}; {len(spelt)} attributes, retrieved as the released code does{zero}"


def _coefficients(content: Any, file: str) -> Iterator[tuple[str, Tensor]]:
    """Names and P(emotion | name), (8,)."""
    for name, row in _dict(content, file).items():
        if not isinstance(row, numpy.ndarray) or row.shape != (len(EMOTIONS),) or row.dtype.kind != "f":
            found = f"{row.shape} of {row.dtype}" if isinstance(row, numpy.ndarray) else type(row).__name__
            raise ValueError(f"{file}: expected an array of {len(EMOTIONS)} numbers for '{name}', found {found}.")
        yield name, torch.tensor(row, dtype=torch.float32)


def _names(content: Any, file: str) -> Iterator[str]:
    for emotion, names in _dict(content, file).items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{file}: expected a list of names for '{emotion}', found {type(names).__name__}.")
        yield from names


def _dict(content: Any, file: str) -> dict[str, Any]:
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{file}: expected a dict by name, found {type(content).__name__}.")
    return content


# ----------------------------------------------------------------------------------------------------------- writing


def _files_in(folder: Path) -> Iterator[str]:
    return (str(folder / file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
