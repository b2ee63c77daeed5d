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
    "UniEmoPipeline": "auto_pipelines",  # this and the others make themselves known to AutoPipeline
    "UniEmoImg2ImgPipeline": "auto_pipelines",
    "UniEmoInpaintPipeline": "auto_pipelines",
    "UniEmoControlNetPipeline": "auto_pipelines",
    "UniEmoXLPipeline": "auto_pipelines",
}

__all__ = [
    "EMOTIONS",
    "UniEmoConfig",
    "UniEmoControlNetPipeline",
    "UniEmoFusionModel",
    "UniEmoImg2ImgPipeline",
    "UniEmoInpaintPipeline",
    "UniEmoLoaderMixin",
    "UniEmoPipeline",
    "UniEmoUnderstandingModel",
    "UniEmoXLPipeline",
]

if TYPE_CHECKING:
    from .auto_pipelines import (
        UniEmoControlNetPipeline,
        UniEmoImg2ImgPipeline,
        UniEmoInpaintPipeline,
        UniEmoPipeline,
        UniEmoXLPipeline,
    )
    from .fusion_uniemo import UniEmoFusionModel
    from .loaders_uniemo import UniEmoLoaderMixin
    from .modeling_uniemo import EMOTIONS, UniEmoConfig, UniEmoUnderstandingModel


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
