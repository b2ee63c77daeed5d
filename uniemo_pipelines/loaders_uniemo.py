"""The adapter file, and the mixin that loads it onto a stock pipeline, as IP-Adapter's and LoRA's loaders do.

An adapter is one safetensors file. Its tensors carry the prefix "fusion."; its header's metadata says:

    format_version  "1"
    configuration   the fusion model's configuration, JSON
    base_model      the base that it was trained on, to be read by people; empty if unknown
    understanding   where the understanding model is: a folder relative to the file, or a repository; empty if nowhere
"""

import inspect
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import DiffusionPipeline
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import (
    AutoImageProcessor,
    BaseImageProcessor,
    CLIPImageProcessorPil,
    PreTrainedModel,
)

from .fusion_uniemo import EMOTIONS, UniEmoFusionModel
from .prompting_uniemo import EMOTION_TOKENS, PseudoTokens
from .understanding_uniemo import load_understanding

ADAPTER_NAME = "uniemo_adapter.safetensors"
FORMAT_VERSION = "1"
_PREFIX = "fusion."
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")  # torch.save's zip, and a bare pickle


@dataclass(frozen=True)
class UniEmoAdapter:
    """What an adapter file holds: the fusion model, and where its base and its understanding model are."""

    fusion: UniEmoFusionModel
    base_model: str | None = None
    understanding: str | None = None


def write_adapter(
    path: str | os.PathLike[str],
    fusion: UniEmoFusionModel,
    base_model: str | None = None,
    understanding: str | os.PathLike[str] | None = None,
) -> Path:
    """Write an adapter file; an existing one is replaced only when the new one is whole.

    Args:
        path: the file to write.
        fusion: the fusion model; tensors keep their type.
        base_model: name of the base that it was trained on.
        understanding: the understanding model's folder, written relative to the file, or its repository.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if understanding is not None and Path(understanding).is_dir():
        understanding = Path(os.path.relpath(understanding, path.parent)).as_posix()
    configuration = {name: value for name, value in fusion.config.items() if not name.startswith("_")}
    metadata = {
        "format_version": FORMAT_VERSION,
        "configuration": json.dumps(configuration),
        "base_model": base_model or "",
        "understanding": str(understanding or ""),
    }
    tensors = {_PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in fusion.state_dict().items()}
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
    fusion = build_fusion(state_dict, json.loads(metadata["configuration"]), name=str(path))
    understanding = metadata.get("understanding") or None
    if understanding is not None and (path.parent / understanding).is_dir():
        understanding = str((path.parent / understanding).resolve())
    return UniEmoAdapter(fusion, metadata.get("base_model") or None, understanding)


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


def mean_conditions(fusion: UniEmoFusionModel) -> dict[str, torch.Tensor]:
    """Each emotion's mean condition (D,) by token: what the tokens mean outside a call."""
    weights = torch.eye(len(EMOTIONS))
    with torch.no_grad():
        rows = fusion(*fusion.mean_features(weights), weights)
    return dict(zip(EMOTION_TOKENS, rows, strict=True))


_HANDED_OVER = {
    "_adapter_name",
    "_base_model",
    "_uniemo_scale",
    "_understanding_model",
    "_understanding_processor",
    "_hub_arguments",
}


class UniEmoLoaderMixin:
    """Loads UniEmo onto a pipeline with one text encoder: `load_uniemo`, `save_uniemo`, `unload_uniemo` and others."""

    _adapter_name: str | None = None
    _base_model: str | None = None
    _uniemo_scale: float = 1.0
    _pseudo_tokens: PseudoTokens | None = None
    _understanding_model: PreTrainedModel | None = None
    _understanding_processor: BaseImageProcessor | None = None
    _hub_arguments: Mapping[str, Any] = {}

    def load_uniemo(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike[str] | Mapping[str, torch.Tensor],
        weight_name: str | None = None,
        adapter_name: str = "default",
        config: Mapping[str, Any] | None = None,
        **hub_arguments: Any,
    ) -> None:
        """Load an adapter. Afterwards prompts know the eight emotion tokens and `<emotion>`.

        Args:
            pretrained_model_name_or_path_or_dict: a Hub repository, a folder, a file, or a fusion model's state dict.
            weight_name: the file's name in a folder or repository, "uniemo_adapter.safetensors" unless given.
            adapter_name: the name that `list_uniemo` gives it.
            config: the fusion model's configuration; with a state dict, and only then.
            **hub_arguments: `revision`, `token`, `cache_dir`, `local_files_only`, ... of `hf_hub_download`.

        Raises:
            ValueError: an adapter is loaded already, `config` is missing or out of place, the file is refused (see
                `read_adapter`), or the adapter is for text encoders of other widths. The pipeline is as before then.
            FileNotFoundError: nothing at that place.
        """
        if self.list_uniemo():
            raise ValueError(
                f"Expected no adapter, found '{self.list_uniemo()[0]}' loaded; call unload_uniemo() first."
            )
        if isinstance(pretrained_model_name_or_path_or_dict, Mapping):
            if config is None:
                raise ValueError("Expected a configuration with a bare state dict, found none; give config=...")
            adapter = UniEmoAdapter(build_fusion(pretrained_model_name_or_path_or_dict, config))
        elif config is not None:
            raise ValueError("Expected config with a bare state dict only; an adapter file carries its own.")
        else:
            adapter = read_adapter(find_adapter(pretrained_model_name_or_path_or_dict, weight_name, **hub_arguments))
        if adapter.fusion.dtype != self.text_encoder.dtype:
            adapter.fusion.to(self.text_encoder.dtype)
        adapter.fusion.to(self._execution_device)
        self._attach_uniemo(adapter.fusion, adapter_name)
        self.register_modules(fusion=adapter.fusion)
        self.register_to_config(understanding=adapter.understanding)
        self._base_model = adapter.base_model
        # The understanding model may lie elsewhere, so a revision or subfolder of the adapter's is not for it.
        self._hub_arguments = {
            name: value
            for name, value in hub_arguments.items()
            if name in ("token", "cache_dir", "local_files_only", "force_download")
        }

    def save_uniemo(self, save_directory: str | os.PathLike[str], weight_name: str = ADAPTER_NAME) -> Path:
        """Write the loaded adapter into a folder, and return the file.

        Raises:
            ValueError: no adapter is loaded.
        """
        self._require_uniemo()
        base_model = self._base_model or self.config.get("_name_or_path")
        return write_adapter(Path(save_directory) / weight_name, self.fusion, base_model, self.config.understanding)

    def unload_uniemo(self) -> None:
        """Take the adapter off: images are the stock pipeline's again, and so are tokenizer and text encoder.

        Pipelines that share a text encoder share the tokens on it, which go with the last of them.

        Raises:
            ValueError: no adapter is loaded.
        """
        self._require_uniemo()
        self._pseudo_tokens.release(self)
        self.register_modules(fusion=None)
        self.register_to_config(understanding=None)
        for name in ("_pseudo_tokens", *_HANDED_OVER):
            vars(self).pop(name, None)  # back to the class's own

    def set_uniemo_scale(self, scale: float) -> None:
        """Set the factor on every call's `emotion_scale`, 1 after loading. It has no part in a bare `encode_prompt`.

        Raises:
            ValueError: no adapter is loaded, or the scale is negative or not finite.
        """
        self._require_uniemo()
        if not math.isfinite(scale) or scale < 0:
            raise ValueError(f"Expected a finite scale of at least 0, found {scale}.")
        self._uniemo_scale = float(scale)

    def list_uniemo(self) -> list[str]:
        """Names of the loaded adapters."""
        return [] if self.fusion is None else [self._adapter_name or "default"]

    @property
    def understanding_model(self) -> PreTrainedModel:
        """The understanding model, fetched at first use from where the adapter says; it can be set as well.

        Raises:
            ValueError: neither the adapter names one nor was one set, or it names a model of another kind.
        """
        if self._understanding_model is None:
            model = load_understanding(self._understanding_location(), **self._hub_arguments)
            self._understanding_model = model.to(self.text_encoder.dtype).eval()
        return self._understanding_model.to(self._execution_device)

    @understanding_model.setter
    def understanding_model(self, model: PreTrainedModel) -> None:
        self._understanding_model = model.eval()

    @property
    def understanding_processor(self) -> BaseImageProcessor:
        """The understanding model's image processor: the one beside it, or CLIP's at its size if it was set."""
        if self._understanding_processor is None:
            if self.config.understanding:
                location = self._understanding_location()
                self._understanding_processor = AutoImageProcessor.from_pretrained(location, **self._hub_arguments)
            else:
                size = self.understanding_model.config.vision_config.image_size
                crop = {"height": size, "width": size}
                self._understanding_processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size=crop)
        return self._understanding_processor

    @understanding_processor.setter
    def understanding_processor(self, processor: BaseImageProcessor) -> None:
        self._understanding_processor = processor

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> Self:
        """A pipeline of this class on another's components, fusion included.

        Unlike diffusers' own, which casts to float32 unless told otherwise, and the other pipeline's models with it,
        this one leaves their types alone unless `dtype` is given.
        """
        dtype = kwargs.pop("dtype", None)
        expected, optional = cls._get_signature_keys(cls)
        parts = {name: getattr(pipeline, name, None) for name in expected}
        parts |= {name: pipeline.config[name] for name in optional if name in pipeline.config}
        new = cls(**parts | kwargs)
        if "_name_or_path" in pipeline.config:
            new.register_to_config(_name_or_path=pipeline.config["_name_or_path"])
        for name in _HANDED_OVER & vars(pipeline).keys():
            setattr(new, name, vars(pipeline)[name])
        return new if dtype is None else new.to(dtype=dtype)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As diffusers' own; the tokenizer is written as the base's, for loading adds our tokens again."""
        if self._pseudo_tokens is None:
            return super().save_pretrained(save_directory, *args, **kwargs)
        with self._pseudo_tokens.hidden():
            return super().save_pretrained(save_directory, *args, **kwargs)

    def unload_textual_inversion(self, *args: Any, **kwargs: Any) -> None:
        """As diffusers' own; our tokens, which it drops along with its own, are put back."""
        super().unload_textual_inversion(*args, **kwargs)
        if self._pseudo_tokens is not None:
            self._pseudo_tokens.refresh()

    def _attach_uniemo(self, fusion: UniEmoFusionModel, adapter_name: str = "default") -> None:
        """Put the tokens on the text encoder, after everything that can be refused has been checked."""
        widths = [self.text_encoder.get_input_embeddings().embedding_dim]
        if list(fusion.config.condition_dims) != widths:
            raise ValueError(
                f"Expected an adapter for text encoders of widths {widths}, found one for "
                f"{list(fusion.config.condition_dims)}; it belongs to another base."
            )
        means = mean_conditions(fusion)
        self._pseudo_tokens = PseudoTokens.shared(self.tokenizer, self.text_encoder)
        self._pseudo_tokens.attach(self, means)
        self._adapter_name = adapter_name

    def _require_uniemo(self, purpose: Iterable[str] = ()) -> None:
        if self.fusion is None or self._pseudo_tokens is None:
            needed = f" for {', '.join(purpose)}" if purpose else ""
            raise ValueError(f"Expected a UniEmo adapter{needed}, found none; call load_uniemo(...) first.")

    def _understanding_location(self) -> str:
        if not self.config.understanding:
            raise ValueError(
                "Expected an adapter that names its understanding model, found none named; "
                "set pipe.understanding_model = UniEmoUnderstandingModel.from_pretrained(...)."
            )
        return self.config.understanding
