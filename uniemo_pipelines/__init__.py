"""UniEmo for diffusers: Stable Diffusion that understands and evokes emotions, as an adapter."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Imported at first use, so that the command line answers at once and understanding alone needs no diffusers.
_EXPORTS = {
    "EMOTIONS": "modeling_uniemo",
    "UniEmoConfig": "modeling_uniemo",
    "UniEmoUnderstandingModel": "modeling_uniemo",
    "UniEmoFusionModel": "fusion_uniemo",
    "UniEmoLoaderMixin": "loaders_uniemo",
    "UniEmoPipeline": "pipeline_uniemo",
}

__all__ = [
    "EMOTIONS",
    "UniEmoConfig",
    "UniEmoFusionModel",
    "UniEmoLoaderMixin",
    "UniEmoPipeline",
    "UniEmoUnderstandingModel",
]

if TYPE_CHECKING:
    from .fusion_uniemo import UniEmoFusionModel
    from .loaders_uniemo import UniEmoLoaderMixin
    from .modeling_uniemo import EMOTIONS, UniEmoConfig, UniEmoUnderstandingModel
    from .pipeline_uniemo import UniEmoPipeline


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
