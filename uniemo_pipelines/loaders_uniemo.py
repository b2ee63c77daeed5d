"""The mixin that loads adapters onto a stock pipeline, as IP-Adapter's and LoRA's loaders do."""

import copy
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging
from huggingface_hub import parse_hf_uri
from huggingface_hub.constants import HF_PROTOCOL
from transformers import (
    AutoImageProcessor,
    BaseImageProcessor,
    CLIPImageProcessorPil,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import ModelOutput

from .adapters_uniemo import (
    ADAPTER_NAME,
    HUB_ARGUMENTS,
    UniEmoAdapter,
    build_fusion,
    load_adapter,
    write_adapter,
)
from .fusion_uniemo import EMOTIONS, UniEmoFusionModel
from .hub_uniemo import advice, is_repository, located, snapshot_of
from .prompting_uniemo import EMOTION_TOKENS, PseudoTokens, checked_number
from .understanding_uniemo import ImageInput, load_understanding, read_features

logger = logging.get_logger(__name__)

T = TypeVar("T")

Conditions = tuple[torch.Tensor, ...]
"""Condition vectors, one for each text encoder."""

_STATE = "_uniemo_state"  # on a fusion model that is a pipeline's component: what is loaded there
_ENCODERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
_WATCHED = {"fusion", *_ENCODERS, *_ENCODERS.values()}

# The understanding model may lie elsewhere than the adapter, whose revision or subfolder are not for it.
_SHARED_HUB_ARGUMENTS = ("token", "cache_dir", "local_files_only", "force_download")


def as_conditions(conditions: torch.Tensor | Iterable[torch.Tensor]) -> Conditions:
    """What the fusion model gives, a tensor or several, as a tuple."""
    return (conditions,) if isinstance(conditions, torch.Tensor) else tuple(conditions)


def put(fusion: UniEmoFusionModel, device: torch.device, dtype: torch.dtype) -> UniEmoFusionModel:
    """Move and cast a fusion model; past diffusers' own `to`, which warns of every cast."""
    return torch.nn.Module.to(fusion, device, dtype)


class LoadedAdapter:
    """An adapter on a pipeline, with its understanding model, which is fetched when first needed.

    Attributes:
        fusion: its fusion model.
        base_model: name of the base that it was trained on, if known.
        chain: its understanding chain, where it carries one.
        understanding: folder, repository, or folder in a repository ("hf://...") of its understanding model; None
            where it names none.
        folder: where it lies, with what is known of its training beside it; None where it is from no file.
        model, processor: the understanding model and its image processor once they are there; None before.
    """

    def __init__(self, adapter: UniEmoAdapter, **hub_arguments: Any) -> None:
        self.fusion = adapter.fusion
        self.base_model = adapter.base_model
        self.chain = adapter.chain
        self.understanding = adapter.understanding
        self.folder = adapter.folder
        self.model: PreTrainedModel | None = None
        self.processor: BaseImageProcessor | None = None
        self._hub: dict[str, Any] = {}
        self.share_hub_arguments(hub_arguments)

    def share_hub_arguments(self, hub_arguments: Mapping[str, Any]) -> None:
        """Fetch the understanding model with these too, as far as they are meant for it."""
        self._hub |= {name: hub_arguments[name] for name in _SHARED_HUB_ARGUMENTS if name in hub_arguments}

    def mean_conditions(self) -> list[Conditions]:
        """Each emotion's mean condition (D,) for each text encoder, in the order of `EMOTIONS`."""
        weights = torch.eye(len(EMOTIONS))
        with torch.no_grad():
            conditions = as_conditions(self.fusion(*self.fusion.mean_features(weights), weights))
        return list(zip(*conditions, strict=True))

    def understanding_model(self, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
        """The understanding model on a device; of this type if it has to be fetched."""
        if self.model is None:
            self.model = self._fetched().to(dtype).eval()
        return self.model.to(device)

    @property
    def understands(self) -> bool:
        """Whether there is an understanding model, here or anywhere else."""
        return self.model is not None or self.chain is not None or bool(self.understanding)

    @property
    def is_understood_here(self) -> bool:
        """Whether the understanding model lies on this machine alone, in a folder or set by hand."""
        place = self.understanding or ""
        on_hub = place.startswith(HF_PROTOCOL) or (is_repository(place) and not Path(place).is_dir())
        return self.understands and self.chain is None and not on_hub

    def save_understanding(self, directory: Path) -> None:
        """Write the understanding model, fetched for it if need be, and its image processor into a folder.

        Raises:
            ValueError: there is none, or it was set by hand with a LoRA adapter on it, which alone would be saved.
        """
        model = self._fetched() if self.model is None else self.model
        if getattr(model, "peft_config", None):
            raise ValueError("Expected a plain understanding model, found LoRA on it; call its merge_adapter() first.")
        model.save_pretrained(directory)
        self.understanding_processor().save_pretrained(directory)

    def understanding_processor(self) -> BaseImageProcessor:
        """The image processor beside the understanding model, or CLIP's at its size if the model was set."""
        if self.processor is None:
            if self.chain is not None:
                self.processor = self.chain.processor(**self._hub)
            elif self.model is None or self.understanding:
                self.processor = self._from_location(AutoImageProcessor.from_pretrained)
            else:
                size = self.model.config.vision_config.image_size
                crop = {"height": size, "width": size}
                self.processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size=crop)
        return self.processor

    def read(self, images: Sequence[ImageInput], device: torch.device, dtype: torch.dtype) -> ModelOutput:
        """The understanding model's output for images."""
        return read_features(self.understanding_model(device, dtype), self.understanding_processor(), images)

    def _fetched(self) -> PreTrainedModel:
        if self.chain is None:
            return self._from_location(load_understanding)
        with advice(self.chain.clip):
            return self.chain.model(**self._hub)

    def _from_location(self, load: Callable[..., T]) -> T:
        """What `load`, a `from_pretrained`, makes of the place that the adapter names."""
        if not self.understanding:
            raise ValueError(
                "Expected an adapter that names its understanding model, found none named; "
                "set pipe.understanding_model = UniEmoUnderstandingModel.from_pretrained(...)."
            )
        if not self.understanding.startswith(HF_PROTOCOL):
            with advice(self.understanding):
                return load(self.understanding, **self._hub)
        place = parse_hf_uri(self.understanding)
        with advice(place.id):
            return load(place.id, subfolder=place.path_in_repo, revision=place.revision, **self._hub)


@dataclass
class UniEmoState:
    """What is loaded on a pipeline.

    Attributes:
        adapters: by name.
        weights: of the active adapters by name, each above 0.
        scale: the factor on every call's `emotion_scale`.
        enabled: whether emotions act at all.
    """

    adapters: dict[str, LoadedAdapter] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    scale: float = 1.0
    enabled: bool = True

    @property
    def main(self) -> LoadedAdapter:
        """The active adapter of the largest weight."""
        return self.adapters[max(self.weights, key=self.weights.__getitem__)]

    @property
    def shares(self) -> list[tuple[LoadedAdapter, float]]:
        """The active adapters with their shares, which sum to 1; the main one first."""
        total = sum(self.weights.values())
        shares = [(self.adapters[name], weight / total) for name, weight in self.weights.items()]
        return sorted(shares, key=lambda pair: -pair[1])

    def mean_conditions(self) -> list[Conditions]:
        """As one adapter's, mixed by the shares."""
        mixed = [(adapter.mean_conditions(), share) for adapter, share in self.shares]
        return [
            mix_conditions([(means[emotion], share) for means, share in mixed]) for emotion in range(len(EMOTIONS))
        ]


def mix_conditions(shares: Sequence[tuple[Conditions, float]]) -> Conditions:
    """The weighted sum of conditions; of a single one, with a share of 1, exactly itself."""
    encoders = zip(*(conditions for conditions, _ in shares), strict=True)
    factors = [share for _, share in shares]
    return tuple(sum(share * row.to(rows[0]) for row, share in zip(rows, factors, strict=True)) for rows in encoders)


class UniEmoLoaderMixin:
    """Loads UniEmo onto a pipeline with CLIP text encoders: `load_uniemo`, `save_uniemo`, `unload_uniemo`, ..."""

    _uniemo: UniEmoState
    _pseudo_tokens: Sequence[PseudoTokens] = ()

    def load_uniemo(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike[str] | Mapping[str, torch.Tensor],
        weight_name: str | None = None,
        adapter_name: str = "default",
        config: Mapping[str, Any] | None = None,
        **hub_arguments: Any,
    ) -> None:
        """Load an adapter. Afterwards prompts know the eight emotion tokens and `<emotion>`.

        Several may be loaded under different names; the last one is active, until `set_uniemo_adapters` says more.

        Args:
            pretrained_model_name_or_path_or_dict: a Hub repository, a folder, a file, or a fusion model's state dict.
            weight_name: the file's name in a folder or repository, "uniemo_adapter.safetensors" unless given.
            adapter_name: the name that `list_uniemo` gives it.
            config: the fusion model's configuration; with a state dict, and only then.
            **hub_arguments: `subfolder`, `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`.

        Raises:
            ValueError: there is an adapter of this name, `config` is missing or out of place, the file is refused (see
                `read_adapter`), or the adapter is for text encoders of other widths. The pipeline is as before then.
            FileNotFoundError: nothing at that place.
            TypeError: an argument that there is not.
        """
        if unknown := sorted(hub_arguments.keys() - HUB_ARGUMENTS):
            raise TypeError(f"load_uniemo() got an unexpected keyword argument '{unknown[0]}'.")
        if adapter_name in self._uniemo.adapters:
            raise ValueError(
                f"Expected a new adapter_name, found '{adapter_name}', which is loaded; "
                f"give another, or call delete_uniemo('{adapter_name}') first."
            )
        if isinstance(pretrained_model_name_or_path_or_dict, Mapping):
            if config is None:
                raise ValueError("Expected a configuration with a bare state dict, found none; give config=...")
            adapter = UniEmoAdapter(build_fusion(copy.deepcopy(pretrained_model_name_or_path_or_dict), config))
        elif config is not None:
            raise ValueError("Expected config with a bare state dict only; an adapter file carries its own.")
        else:
            adapter = load_adapter(pretrained_model_name_or_path_or_dict, weight_name, **hub_arguments)
        self._check_base(adapter.fusion)
        put(adapter.fusion, self._execution_device, self._text_dtype)
        self._add_adapter(adapter_name, LoadedAdapter(adapter, **hub_arguments))

    def save_uniemo(
        self, save_directory: str | os.PathLike[str], weight_name: str = ADAPTER_NAME, adapter_name: str | None = None
    ) -> Path:
        """Write an adapter into a folder, and return the file.

        Args:
            save_directory: the folder, made if there is none.
            weight_name: the file's name.
            adapter_name: which one; the active one of the largest weight unless given.

        Raises:
            ValueError: no adapter is loaded, or none of this name.
        """
        adapter = self._adapter(adapter_name)
        understanding = adapter.chain or adapter.understanding
        path = Path(save_directory) / weight_name
        return write_adapter(path, adapter.fusion, self._base_name(adapter), understanding)

    def unload_uniemo(self) -> None:
        """Take all adapters off: images are the stock pipeline's again, and so are tokenizers and text encoders.

        Pipelines that share a text encoder share the tokens on it, which go with the last of them.

        Raises:
            ValueError: no adapter is loaded.
        """
        self._require_uniemo()
        for tokens in self._pseudo_tokens:
            tokens.release(self)
        vars(self._uniemo.main.fusion).pop(_STATE, None)
        self._uniemo, self._pseudo_tokens = UniEmoState(), ()  # first, for the next line asks
        self.register_modules(fusion=None)
        self.register_to_config(understanding=None)

    def list_uniemo(self) -> list[str]:
        """Names of the loaded adapters."""
        return list(self._uniemo.adapters)

    def get_active_uniemo(self) -> dict[str, float]:
        """The active adapters' weights by name."""
        return dict(self._uniemo.weights)

    def set_uniemo_adapters(
        self, adapter_names: str | Sequence[str], adapter_weights: float | Sequence[float] | None = None
    ) -> None:
        """Choose the adapters that act; several are mixed in their conditions, by their shares of the weights' sum.

        A mixture has the strength of one: how strongly emotions act is the scale's matter. Its image is explained by
        the adapter of the largest weight, which also is what `understand` uses and `save_pretrained` writes.

        Args:
            adapter_names: one or several of `list_uniemo()`.
            adapter_weights: not negative, one for each name or one for all; 1 unless given. At 0 an adapter rests.

        Raises:
            ValueError: a name that is not loaded, a weight that is negative or not finite, none above 0.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        several = isinstance(adapter_weights, Sequence)
        weights = list(adapter_weights) if several else [1.0 if adapter_weights is None else adapter_weights]
        weights = weights if several else weights * len(names)
        self._check_names(names)
        if len(weights) != len(names):
            raise ValueError(f"Expected {len(names)} adapter_weights, one for each name, found {len(weights)}.")
        if len(set(names)) < len(names):
            raise ValueError(f"Expected each adapter once, found {names}.")
        chosen = {name: checked_number("adapter_weight", own) for name, own in zip(names, weights, strict=True)}
        if not any(chosen.values()):
            raise ValueError(f"Expected one of the adapter_weights above 0, found {weights}.")
        self._uniemo.weights = {name: weight for name, weight in chosen.items() if weight > 0}
        self._apply_uniemo()

    def delete_uniemo(self, adapter_names: str | Sequence[str]) -> None:
        """Forget adapters; if no active one is left the first that is loaded becomes it, and with the last of them
        everything is unloaded.

        Raises:
            ValueError: a name that is not loaded.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        self._check_names(names)
        left = [name for name in self._uniemo.adapters if name not in names]
        if not left:
            return self.unload_uniemo()
        active = {name: weight for name, weight in self._uniemo.weights.items() if name in left} or {left[0]: 1.0}
        self._uniemo.adapters = {name: self._uniemo.adapters[name] for name in left}
        self.set_uniemo_adapters(list(active), list(active.values()))

    def disable_uniemo(self) -> None:
        """Leave emotions out of every prompt that this pipeline encodes, negative ones too, until `enable_uniemo`.

        The adapters stay loaded.

        Raises:
            ValueError: no adapter is loaded.
        """
        self._require_uniemo()
        self._uniemo.enabled = False

    def enable_uniemo(self) -> None:
        """Undo `disable_uniemo`.

        Raises:
            ValueError: no adapter is loaded.
        """
        self._require_uniemo()
        self._uniemo.enabled = True

    def set_uniemo_scale(self, scale: float) -> None:
        """Set the factor on every call's `emotion_scale`, 1 after loading. It has no part in a bare `encode_prompt`.

        Raises:
            ValueError: no adapter is loaded, or the scale is negative or not finite.
        """
        self._require_uniemo()
        self._uniemo.scale = checked_number("scale", scale)

    @property
    def understanding_model(self) -> PreTrainedModel:
        """The understanding model, fetched at first use from where the adapter says; it can be set as well.

        Raises:
            ValueError: no adapter; it names no model and none was set; it names a model of another kind.
        """
        self._require_uniemo()
        return self._uniemo.main.understanding_model(self._execution_device, self._text_dtype)

    @understanding_model.setter
    def understanding_model(self, model: PreTrainedModel) -> None:
        self._require_uniemo()
        self._uniemo.main.model = model.eval()

    @property
    def understanding_processor(self) -> BaseImageProcessor:
        """The understanding model's image processor: the one beside it, or CLIP's at its size if it was set."""
        self._require_uniemo()
        return self._uniemo.main.understanding_processor()

    @understanding_processor.setter
    def understanding_processor(self, processor: BaseImageProcessor) -> None:
        self._require_uniemo()
        self._uniemo.main.processor = processor

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> Self:
        """A pipeline of this class on another's components, adapters included.

        Unlike diffusers' own, which casts to float32 unless told otherwise, and the other pipeline's models with it,
        this one leaves their types alone unless `dtype` is given.

        Raises:
            ValueError: the other pipeline lacks components of this class, and they are not given by name.
        """
        dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
        expected, optional = cls._get_signature_keys(cls)
        parts = {name: getattr(pipeline, name, None) for name in expected}
        parts |= {name: pipeline.config[name] for name in optional if name in pipeline.config}
        parts |= kwargs
        needed = [name for name, own in inspect.signature(cls).parameters.items() if own.default is own.empty]
        if lacking := [name for name in needed if parts.get(name) is None and not hasattr(pipeline, name)]:
            raise ValueError(
                f"Expected {', '.join(lacking)} for {cls.__name__}, found none in {type(pipeline).__name__}; "
                f"give it, as in from_pipe(pipe, {lacking[0]}={lacking[0]})."
            )
        new = cls(**parts)
        if "_name_or_path" in pipeline.config:
            new.register_to_config(_name_or_path=pipeline.config["_name_or_path"])
        state = vars(pipeline).get("_uniemo")
        if state is not None and state.adapters and "fusion" not in kwargs:
            new._take_state(state)
        return new if dtype is None else new.to(dtype=dtype)

    def __setattr__(self, name: str, value: Any) -> None:
        """As diffusers' own. Components that are replaced by hand keep the emotions: the tokens go over to another
        tokenizer or text encoder, another fusion model takes the main adapter's place, and None unloads everything."""
        if name not in _WATCHED or not self._uniemo.adapters:
            return super().__setattr__(name, value)
        replaced = name == "fusion" and value is not self._uniemo.main.fusion
        if replaced and value is not None:
            self._check_base(value)
        super().__setattr__(name, value)
        if value is None and name == "fusion":
            self.unload_uniemo()
        elif replaced:
            self._uniemo.main.fusion = value
            self._apply_uniemo()
        elif value is not None and name != "fusion":
            self._know_tokens()

    def unload_textual_inversion(self, *args: Any, **kwargs: Any) -> None:
        """As diffusers' own; our tokens, which it drops along with its own, are put back."""
        super().unload_textual_inversion(*args, **kwargs)
        for tokens in self._pseudo_tokens:
            tokens.refresh()

    # -- inside

    @property
    def _text_encoders(self) -> list[tuple[PreTrainedTokenizerBase, PreTrainedModel]]:
        """The tokenizers and text encoders that are there; Stable Diffusion XL has two of each."""
        pairs = ((getattr(self, tokenizer, None), getattr(self, name, None)) for name, tokenizer in _ENCODERS.items())
        return [(tokenizer, encoder) for tokenizer, encoder in pairs if encoder is not None]

    @property
    def _text_dtype(self) -> torch.dtype:
        return self._text_encoders[0][1].dtype

    def _check_base(self, fusion: UniEmoFusionModel) -> None:
        widths = [encoder.get_input_embeddings().embedding_dim for _, encoder in self._text_encoders]
        if list(fusion.config.condition_dims) != widths:
            raise ValueError(
                f"Expected an adapter for text encoders of widths {widths}, found one for "
                f"{list(fusion.config.condition_dims)}; it belongs to another base."
            )

    def _adopt(self, fusion: UniEmoFusionModel, understanding: str | None) -> None:
        """Load a component, with all that was loaded beside it on the pipeline that it comes from."""
        state = vars(fusion).get(_STATE)
        if state is not None:
            return self._take_state(state)
        folder = Path(fusion.config.get("_name_or_path") or "fusion").parent  # the pipeline's, of which no other tells
        snapshot = snapshot_of(folder)
        hub = {} if snapshot is None else {"cache_dir": snapshot.cache_dir}
        adapter = UniEmoAdapter(fusion, None, located(understanding, folder), folder=folder)
        self._add_adapter("default", LoadedAdapter(adapter, **hub))

    def _take_state(self, state: UniEmoState) -> None:
        self._uniemo = replace(state, adapters=dict(state.adapters), weights=dict(state.weights))
        self._apply_uniemo()

    def _add_adapter(self, name: str, adapter: LoadedAdapter) -> None:
        """Load and activate an adapter that fits; where that fails nothing has changed."""
        before, fusion = self._uniemo, self.fusion
        self._uniemo = replace(before, adapters=before.adapters | {name: adapter}, weights={name: 1.0})
        try:
            self._apply_uniemo()
        except Exception:
            self._uniemo = UniEmoState()  # while the component is put back
            self.register_modules(fusion=fusion)
            self._uniemo = before
            raise

    def _apply_uniemo(self) -> None:
        """Let the tokens mean what the active adapters say, and the main one be the component `fusion`."""
        main = self._uniemo.main
        if self.fusion is not None and self.fusion is not main.fusion:
            put(main.fusion, self.fusion.device, self.fusion.dtype)
        means = self._uniemo.mean_conditions()
        self._install_tokens([[conditions[index] for conditions in means] for index in range(len(means[0]))])
        vars(main.fusion)[_STATE] = self._uniemo
        self.register_modules(fusion=main.fusion)
        self.register_to_config(understanding=main.understanding)

    def _install_tokens(self, means: Sequence[Sequence[torch.Tensor]]) -> None:
        """Put the tokens on each text encoder, or on none; `means` are each emotion's, for each text encoder."""
        if len(self._text_encoders) < len(means):
            return  # taken off by hand, when all prompts were encoded
        installed: list[PseudoTokens] = []
        try:
            for pair, rows in zip(self._text_encoders, means, strict=True):
                installed.append(PseudoTokens.shared(*pair))
                installed[-1].attach(self, dict(zip(EMOTION_TOKENS, rows, strict=True)))
        except ValueError:
            for tokens in installed:
                tokens.release(self)
            raise
        for tokens in self._pseudo_tokens:
            if tokens not in installed:
                tokens.release(self)
        self._pseudo_tokens = installed
        names = [tokenizer for encoder, tokenizer in _ENCODERS.items() if getattr(self, encoder, None) is not None]
        for name, tokens in zip(names, installed, strict=True):
            if getattr(self, name) is not tokens.tokenizer:
                self.register_modules(**{name: tokens.tokenizer})  # the one that knows the tokens

    def _know_tokens(self) -> None:
        """Put the tokens on where they are missing: on components that were replaced, and for copies of pipelines."""

        def parts(tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel) -> tuple[int, int]:
            return id(tokenizer), id(getattr(encoder, "_orig_mod", encoder))  # which torch.compile wraps

        there = [parts(tokens.tokenizer, tokens.text_encoder) for tokens in self._pseudo_tokens]
        wanted = [parts(*pair) for pair in self._text_encoders]
        if there != wanted or not all(tokens.knows(self) for tokens in self._pseudo_tokens):
            self._apply_uniemo()

    @contextmanager
    def _hidden_tokens(self) -> Iterator[None]:
        with ExitStack() as stack:
            for tokens in self._pseudo_tokens:
                stack.enter_context(tokens.hidden())
            yield

    def _adapter(self, name: str | None) -> LoadedAdapter:
        """The adapter of this name, or the active one of the largest weight."""
        self._require_uniemo()
        if name is None:
            return self._uniemo.main
        self._check_names([name])
        return self._uniemo.adapters[name]

    def _base_name(self, adapter: LoadedAdapter) -> str | None:
        """The base that an adapter was trained on; without its word, the one that it is loaded onto."""
        name = adapter.base_model or self._own_name(adapter)
        if name is not None and Path(name).is_dir():
            return Path(name).name  # where it lies on this machine is nobody else's matter
        return name

    def _other_base(self, adapter: LoadedAdapter) -> str | None:
        """The base of this pipeline, where it is another than the adapter was trained on; None where it is not known.

        A folder of the trained base's name is taken for that, and one that lies beside the adapter.
        """
        name, trained = self._own_name(adapter), adapter.base_model
        if name is None or name == trained:
            return None
        if not Path(name).is_dir():
            return name
        snapshot = snapshot_of(Path(name))
        folder = snapshot.repository.rpartition("/")[2] if snapshot else Path(name).resolve().name
        is_beside = adapter.folder is not None and Path(name).resolve().parent == adapter.folder.resolve()
        if is_beside or (trained is not None and trained.rpartition("/")[2] == folder):
            return None
        return snapshot.repository if snapshot else folder

    def _own_name(self, adapter: LoadedAdapter) -> str | None:
        """Where the base was loaded from; None where the adapter came with it, for that place is not the base's."""
        return None if "_name_or_path" in adapter.fusion.config else self.config.get("_name_or_path")

    def _check_names(self, names: Sequence[str]) -> None:
        if unknown := [name for name in names if name not in self._uniemo.adapters]:
            loaded = ", ".join(self.list_uniemo()) or "none"
            raise ValueError(f"Expected names of loaded adapters ({loaded}), found {', '.join(unknown)}.")

    def _require_uniemo(self, purpose: Iterable[str] = ()) -> None:
        if not self._uniemo.adapters:
            needed = f" for {', '.join(purpose)}" if purpose else ""
            raise ValueError(f"Expected a UniEmo adapter{needed}, found none; call load_uniemo(...) first.")
