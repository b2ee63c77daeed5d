"""The adapter file: one safetensors file with everything that UniEmo adds to a stock pipeline.

Its tensors carry the prefix "fusion.", or "chain." where the understanding chain is in the file, as it can be unless
its CLIP tower was trained whole. The header's metadata says:

    format_version  "1"
    configuration   the fusion model's configuration, JSON
    base_model      the base that it was trained on, to be read by people; empty if unknown
    understanding   where the understanding model is, if not in the file: a folder relative to it, a repository
                    ("owner/name"), or a folder in one ("hf://models/owner/name@revision/folder")
    chain           the stock CLIP that the chain stands on, its configuration and LoRA's, JSON; empty without a chain
"""

import inspect
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import RemoteEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .chain_uniemo import UnderstandingChain
from .fusion_uniemo import UniEmoFusionModel
from .hub_uniemo import advice, check_whole, is_repository, located

ADAPTER_NAME = "uniemo_adapter.safetensors"
FORMAT_VERSION = "1"
_PREFIX = "fusion."
_CHAIN = "chain."
_CHAIN_FIELDS = {"clip", "tower", "configuration", "lora"}
HUB_ARGUMENTS = {"subfolder", "revision", "token", "cache_dir", "local_files_only", "force_download"}
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")  # torch.save's zip, and a bare pickle
_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")


@dataclass(frozen=True)
class UniEmoAdapter:
    """What an adapter file holds: the fusion model, its base's name, the understanding chain or where its model is.

    `folder` is where it lies, with what is known of its training beside it; None where it is from no file.
    """

    fusion: UniEmoFusionModel
    base_model: str | None = None
    understanding: str | None = None
    chain: UnderstandingChain | None = None
    folder: Path | None = None


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
    """Read an adapter file; what it names beside it is named by where that is (see `located`).

    Raises:
        ValueError: the file is a pickle, is cut short or otherwise no safetensors file, is no UniEmo adapter or one of
            another format version, or its tensors do not fit its configuration (all that do not are listed).
    """
    path = Path(path)
    adapter = _read(path)
    return replace(adapter, understanding=located(adapter.understanding, path.parent), folder=path.parent)


def _read(path: Path) -> UniEmoAdapter:
    """An adapter file, its understanding model named as in the file."""
    with path.open("rb") as file:
        start = file.read(9)
        # Eight bytes of a safetensors file are a number, which may be any, and then comes its header.
        if start.startswith(_PICKLE_STARTS) and start[8:] != b"{":
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
    configuration, about_chain = (_parsed(metadata.get(key) or "{}", path) for key in ("configuration", "chain"))
    chain = None
    if about_chain:
        tensors = {name: state_dict.pop(name) for name in list(state_dict) if name.startswith(_CHAIN)}
        own = {name.removeprefix(_CHAIN): tensor for name, tensor in tensors.items()}
        if missing := sorted(_CHAIN_FIELDS - about_chain.keys()):
            raise ValueError(f"Expected a whole header, found one without the chain's {', '.join(missing)}: {path}.")
        chain = UnderstandingChain(**{name: about_chain[name] for name in _CHAIN_FIELDS}, tensors=own)
    fusion = build_fusion(state_dict, configuration, name=str(path))
    return UniEmoAdapter(fusion, metadata.get("base_model") or None, metadata.get("understanding") or None, chain)


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"Expected a whole header, found one that is damaged: {path}; fetch the file again.")
    return content


def _chain_metadata(chain: UnderstandingChain) -> dict[str, Any]:
    return {name: getattr(chain, name) for name in _CHAIN_FIELDS}


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
    try:
        with torch.device("meta"):  # all of it comes from the state dict
            fusion = UniEmoFusionModel(**settings)
    except Exception as error:  # a damaged number fails wherever it is used first
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"Expected a fusion model's configuration, found in {name} one that fails: {reason}"
        ) from None
    expected = fusion.state_dict()
    found = {str(key).removeprefix(_PREFIX): tensor for key, tensor in state_dict.items()}
    if others := sorted(key for key, value in found.items() if not isinstance(value, torch.Tensor)):
        raise ValueError(f"Expected tensors, found others in {name}: {', '.join(others)}.")
    faults = [f"missing {key}" for key in sorted(expected.keys() - found.keys())]
    faults += [f"unknown {key}" for key in sorted(found.keys() - expected.keys())]
    faults += [
        f"{key} of shape {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & found.keys())
        if found[key].shape != expected[key].shape
    ]
    faults += [
        f"{key} with {fault}" for key in sorted(expected.keys() & found.keys()) if (fault := _fault(key, found))
    ]
    if faults:
        raise ValueError(f"Expected the tensors of a UniEmo fusion model, found in {name}: {'; '.join(faults)}.")
    fusion.load_state_dict(found, assign=True)
    return fusion.requires_grad_(False).eval()


def _fault(key: str, found: Mapping[str, torch.Tensor]) -> str | None:
    """What is wrong with a tensor's values, which would only show in images; None where nothing is."""
    tensor = found[key]
    if key == "bank_neighbours":
        size = tensor.shape[1] if tensor.ndim > 1 else 0
        whole = not tensor.is_floating_point() and (not tensor.numel() or 0 <= tensor.min() <= tensor.max() < size)
        return None if whole else "what are no indices of the bank"
    if not tensor.is_floating_point():
        return f"numbers of type {tensor.dtype}"
    return None if tensor.isfinite().all() else "NaN or infinity"


def load_adapter(
    location: str | os.PathLike[str], weight_name: str | None = None, subfolder: str | None = None, **hub: Any
) -> UniEmoAdapter:
    """Find an adapter (see `find_adapter`) and read it (see `read_adapter`); of a repository that file alone comes."""
    return read_adapter(find_adapter(location, weight_name, subfolder, **hub))


def find_adapter(
    location: str | os.PathLike[str], weight_name: str | None = None, subfolder: str | None = None, **hub: Any
) -> Path:
    """The adapter file at a path, in a folder, or in a Hub repository (`hub`: `revision`, `token`, ...).

    Raises:
        FileNotFoundError: nothing of that name, here or on the Hub.
        ValueError: there is a pickle in its place, or what arrived from the Hub is damaged.
        OSError: what the Hub's client raises, with a line on what to do.
    """
    path, weight_name = Path(location), weight_name or ADAPTER_NAME
    if path.is_file():
        return path
    if path.is_dir():
        path = path / (subfolder or "")
        if (path / weight_name).is_file():
            return path / weight_name
        refuse_pickles([file.name for file in path.iterdir()] if path.is_dir() else [], weight_name, path)
        raise FileNotFoundError(f"Expected an adapter file '{weight_name}' in {path}, found none; give weight_name.")
    if not is_repository(os.fspath(location)):
        raise FileNotFoundError(f"Expected an adapter's file, folder or repository, found nothing at '{location}'.")
    return _fetched(os.fspath(location), weight_name, subfolder, **hub)


def _fetched(repository: str, weight_name: str, subfolder: str | None, **hub: Any) -> Path:
    with advice(repository):
        try:
            path = Path(hf_hub_download(repository, weight_name, subfolder=subfolder, **hub))
        except RemoteEntryNotFoundError as error:
            there = HfApi(token=hub.get("token")).list_repo_files(repository, revision=hub.get("revision"))
            refuse_pickles(there, weight_name, repository)
            error.add_note(
                f"Give weight_name or subfolder; a full pipeline is loaded by from_pretrained('{repository}')."
            )
            raise
    check_whole(path)
    return path


def refuse_pickles(files: Iterable[str], weight_name: str, place: str | os.PathLike[str]) -> None:
    """Raises ValueError where a pickle is among the files in the place of the one that is missing."""
    pickles = [file for file in sorted(files) if Path(file).stem == Path(weight_name).stem and file.endswith(_PICKLES)]
    if pickles:
        raise ValueError(
            f"Expected '{weight_name}' in {place}, found the pickle '{pickles[0]}', which is not read, for "
            "unpickling runs whatever its author wrote; ask for safetensors."
        ) from None  # the missing file, of which a reader would be told instead
