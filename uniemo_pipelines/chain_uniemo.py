"""The understanding chain without its CLIP tower, as an adapter file carries it.

It presumes a tower that stage 1 left frozen or trained by LoRA. Queries, interactive blocks, projections, head, the
vocabularies' text features and the LoRA weights are then all that there is beside a stock CLIP. A tower that was
trained whole is published as an understanding model's folder or repository instead.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedModel

TOWER = "vision_model."
_LORA = "lora."


@dataclass(frozen=True)
class UnderstandingChain:
    """What makes an understanding model of a stock CLIP.

    Attributes:
        clip: the CLIP's folder or repository.
        tower: digest of its vision tower, by which another CLIP is told apart.
        configuration: fields of `UniEmoConfig`, all but the tower's own.
        lora: fields of PEFT's LoraConfig where the tower has LoRA weights; None where it was frozen.
        tensors: by their names in the model; LoRA's with the prefix "lora.".
    """

    clip: str
    tower: str
    configuration: dict[str, Any]
    lora: dict[str, Any] | None
    tensors: dict[str, torch.Tensor]

    def model(self, **hub: Any) -> "PreTrainedModel":
        """A `UniEmoUnderstandingModel` on the stock CLIP, fetched with `token`, `cache_dir`, ...; LoRA is merged.

        Raises:
            ValueError: the CLIP is not the one that the chain was trained on, or tensors are missing, unknown or of
                another shape, all of them listed.
            OSError: no CLIP at that place.
        """
        # Imported when needed: generation alone does not touch the CLIP backbone.
        from transformers import AutoModel

        from .modeling_uniemo import UniEmoUnderstandingModel

        clip = AutoModel.from_pretrained(self.clip, **hub)
        model = UniEmoUnderstandingModel.from_clip(clip, **self.configuration)
        if _digest(model.vision_model.state_dict()) != self.tower:
            raise ValueError(
                f"Expected the CLIP that the adapter was trained on, found another at {self.clip}; name its place by "
                "pipe.understanding_model = ..., or fetch the adapter again."
            )
        self._fill(model)
        return model.eval()

    def processor(self, **hub: Any) -> "BaseImageProcessor":
        """The stock CLIP's image processor."""
        from transformers import AutoImageProcessor

        return AutoImageProcessor.from_pretrained(self.clip, **hub)

    def _fill(self, model: "PreTrainedModel") -> None:
        from .modeling_uniemo import list_faults

        own = {name: tensor for name, tensor in self.tensors.items() if not name.startswith(_LORA)}
        expected = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(TOWER)}
        shapes = [(name, own[name].shape, expected[name].shape) for name in own.keys() & expected.keys()]
        misshapen = [entry for entry in shapes if entry[1] != entry[2]]
        if faults := list_faults(expected.keys() - own.keys(), own.keys() - expected.keys(), misshapen):
            raise ValueError(f"Expected the tensors of an understanding chain, found others. {faults}.")
        model.load_state_dict(own, strict=False)
        if self.lora is not None:
            from peft import LoraConfig

            deltas = {name.removeprefix(_LORA): t for name, t in self.tensors.items() if name.startswith(_LORA)}
            model.load_adapter(peft_config=LoraConfig(**self.lora), adapter_state_dict=deltas)
            model.merge_adapter()


def take_chain(
    model: "PreTrainedModel", clip: str, merged: str | os.PathLike[str] | None = None
) -> UnderstandingChain:
    """The chain of a `UniEmoUnderstandingModel` that `from_clip(clip)` started, with its active LoRA adapter if any.

    Args:
        model: the model.
        clip: folder or repository of the stock CLIP.
        merged: folder of the LoRA adapter that was merged into the model's tower, if one was.

    Raises:
        ValueError: the model's tower is not that CLIP's, for it was trained whole.
    """
    from transformers import AutoModel

    from .modeling_uniemo import UniEmoConfig

    stock = AutoModel.from_pretrained(clip)
    tower = expected = _digest(getattr(stock, "vision_model", stock).state_dict())
    own = {field.name for field in fields(UniEmoConfig)} & UniEmoConfig.__annotations__.keys() - {"vision_config"}
    configuration = {name: value for name, value in model.config.to_dict().items() if name in own}
    if merged is None:
        lora, tensors = _adapted(model)
    else:
        reference = model.from_clip(stock, **configuration)
        reference.load_adapter(merged)
        lora, weights = _adapted(reference)
        tensors = {name: tensor for name, tensor in weights.items() if name.startswith(_LORA)}
        reference.merge_adapter()
        expected = _digest(reference.vision_model.state_dict())
    if _digest(_frozen_tower(model.state_dict())) != expected:
        raise ValueError(
            f"Expected the vision tower of {clip} with at most LoRA on it, found one that was trained whole, or "
            "another CLIP's; publish it as an understanding folder or repository."
        )
    for name, tensor in model.state_dict().items():
        if not name.startswith(TOWER) and ".original_module." not in name and ".modules_to_save." not in name:
            tensors[name] = tensor
    return UnderstandingChain(clip, tower, configuration, lora, tensors)


def _adapted(model: "PreTrainedModel") -> tuple[dict[str, Any] | None, dict[str, torch.Tensor]]:
    """The active LoRA adapter's configuration and weights, and what it holds whole beside them."""
    if not getattr(model, "peft_config", None):
        return None, {}
    from peft import get_peft_model_state_dict

    (active,) = model.active_adapters()
    config, weights = model.peft_config[active], get_peft_model_state_dict(model, adapter_name=active)
    kept = ("r", "lora_alpha", "target_modules", "use_rslora")
    lora = {name: getattr(config, name) for name in kept}
    return lora, {(_LORA if ".lora_" in name else "") + name: tensor for name, tensor in weights.items()}


def _frozen_tower(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tower's own weights, under the names that they had before LoRA."""
    tower = {name.removeprefix(TOWER): tensor for name, tensor in state.items() if name.startswith(TOWER)}
    return {name.replace(".base_layer.", "."): tensor for name, tensor in tower.items() if ".lora_" not in name}


def _digest(state: Mapping[str, torch.Tensor]) -> str:
    """Of weights in half precision, so that a CLIP stored in either precision is the same."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().half().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
