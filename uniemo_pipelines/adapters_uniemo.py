"""The adapter file: one safetensors file with everything that UniEmo adds to a stock pipeline.

Its tensors carry the prefix "fusion.", or "chain." where the understanding chain is in the file, as it can be unless
its CLIP tower was trained whole. The header's metadata says:

    format_version  "1"
    configuration   the fusion model's configuration, JSON
    base_model      the base that it was trained on, to be read by people; empty if unknown
    understanding   where the understanding model is, if not in the file: a folder relative to it, or a repository
    chain           the stock CLIP that the chain stands on, its configuration and LoRA's, JSON; empty without a chain
"""

import inspect
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .chain_uniemo import UnderstandingChain
from .fusion_uniemo import UniEmoFusionModel

ADAPTER_NAME = "uniemo_adapter.safetensors"
FORMAT_VERSION = "1"
_PREFIX = "fusion."
_CHAIN = "chain."
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")  # torch.save's zip, and a bare pickle


@dataclass(frozen=True)
class UniEmoAdapter:
    """What an adapter file holds: the fusion model, its base's name, the understanding chain or where its model is."""

    fusion: UniEmoFusionModel
    base_model: str | None = None
    understanding: str | None = None
    chain: UnderstandingChain | None = None


def write_adapter(
    path: str | os.PathLike[str],
    fusion: UniEmoFusionModel,
    base_model: str | None = None,
    understanding: str | os.PathLike[str] | UnderstandingChain | None = None,
) -> Path:
    """Write an adapter file; an existing one is replaced only when the new one is whole.

    Args:
        path: the file to write.
        fusion: the fusion model; tensors keep their type.
        base_model: name of the base that it was trained on.
        understanding: the understanding chain (see `take_chain`); or the model's folder, written relative to the
            file, or its repository.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    chain, understanding = (
        (understanding, None) if isinstance(understanding, UnderstandingChain) else (None, understanding)
    )
    if understanding is not None and Path(understanding).is_dir():
        understanding = Path(os.path.relpath(understanding, path.parent)).as_posix()
    configuration = {name: value for name, value in fusion.config.items() if not name.startswith("_")}
    metadata = {
        "format_version": FORMAT_VERSION,
        "configuration": json.dumps(configuration),
        "base_model": base_model or "",
        "understanding": str(understanding or ""),
        "chain": json.dumps(_chain_metadata(chain)) if chain else "",
    }
    named = {_PREFIX + name: tensor for name, tensor in fusion.state_dict().items()}
    named |= {_CHAIN + name: tensor for name, tensor in (chain.tensors if chain else {}).items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, partial, metadata)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def read_adapter(path: str | os.PathLike[str]) -> UniEmoAdapter:
    """Read an adapter file.

    Raises:
        ValueError: the file is a pickle, is cut short or otherwise no safetensors file, is no UniEmo adapter or one of
            another format version, or its tensors do not fit its configuration (all that do not are listed).
    """
    path = Path(path)
    with path.open("rb") as file:
        if file.read(4).startswith(_PICKLE_STARTS):
            raise ValueError(f"Expected a safetensors file, found a pickle: {path}; convert it with `uniemo convert`.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state_dict = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(
            f"Expected a whole safetensors file, found one cut short or damaged: {path} ({error}); fetch it again."
        ) from None
    version = metadata.get("format_version")
    if version != FORMAT_VERSION or "configuration" not in metadata:
        found = f"format version {version}" if version else "no UniEmo adapter (its header names no format version)"
        raise ValueError(f"Expected a UniEmo adapter of format version {FORMAT_VERSION}, found {found}: {path}.")
    chain = None
    if metadata.get("chain"):
        tensors = {name: state_dict.pop(name) for name in list(state_dict) if name.startswith(_CHAIN)}
        own = {name.removeprefix(_CHAIN): tensor for name, tensor in tensors.items()}
        chain = UnderstandingChain(**json.loads(metadata["chain"]), tensors=own)
    fusion = build_fusion(state_dict, json.loads(metadata["configuration"]), name=str(path))
    understanding = metadata.get("understanding") or None
    if understanding is not None and (path.parent / understanding).is_dir():
        understanding = str((path.parent / understanding).resolve())
    return UniEmoAdapter(fusion, metadata.get("base_model") or None, understanding, chain)


def _chain_metadata(chain: UnderstandingChain) -> dict[str, Any]:
    return {name: value for name, value in vars(chain).items() if name != "tensors"}


def build_fusion(
    state_dict: Mapping[str, torch.Tensor], configuration: Mapping[str, Any], name: str = "the state dict"
) -> UniEmoFusionModel:
    """A fusion model from its tensors (with or without the prefix "fusion.") and its configuration.

    Raises:
        ValueError: an unknown configuration key; tensors missing, unknown or of another shape, all of them listed.
    """
    known = set(inspect.signature(UniEmoFusionModel.__init__).parameters) - {"self"}
    settings = {key: value for key, value in configuration.items() if not key.startswith("_")}
    if unknown := sorted(settings.keys() - known):
        raise ValueError(f"Expected the configuration keys {sorted(known)}, found also {unknown} in {name}.")
    fusion = UniEmoFusionModel(**settings)
    expected = fusion.state_dict()
    found = {key.removeprefix(_PREFIX): tensor for key, tensor in state_dict.items()}
    faults = [f"missing {key}" for key in sorted(expected.keys() - found.keys())]
    faults += [f"unknown {key}" for key in sorted(found.keys() - expected.keys())]
    faults += [
        f"{key} of shape {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & found.keys())
        if found[key].shape != expected[key].shape
    ]
    if faults:
        raise ValueError(f"Expected the tensors of a UniEmo fusion model, found in {name}: {'; '.join(faults)}.")
    fusion.load_state_dict(found, assign=True)
    return fusion.requires_grad_(False).eval()


def find_adapter(location: str | os.PathLike[str], weight_name: str | None = None, **hub: Any) -> Path:
    """The adapter file at a path, in a folder, or in a Hub repository (`hub`: `revision`, `token`, ...)."""
    path, weight_name = Path(location), weight_name or ADAPTER_NAME
    if path.is_file():
        return path
    if path.is_dir():
        if (path / weight_name).is_file():
            return path / weight_name
        raise FileNotFoundError(f"Expected an adapter file '{weight_name}' in {path}, found none; give weight_name.")
    if not _REPOSITORY.fullmatch(os.fspath(location)):
        raise FileNotFoundError(f"Expected an adapter's file, folder or repository, found nothing at '{location}'.")
    return Path(hf_hub_download(os.fspath(location), weight_name, **hub))
