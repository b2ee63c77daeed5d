"""UniEmo for diffusers: Stable Diffusion that understands and evokes emotions, as an adapter."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook

__version__ = "0.1.0"

register_post_import_hook("uniemo_pipelines.auto_pipelines:register", "diffusers.pipelines.auto_pipeline")

# Imported at first use, so that the command line answers at once and understanding alone needs no diffusers.
_EXPORTS = {
    "EMOTIONS": "modeling_uniemo",
    "UniEmoConfig": "modeling_uniemo",
    "UniEmoUnderstandingModel": "modeling_uniemo",
    "UniEmoFusionModel": "fusion_uniemo",
    "UniEmoLoaderMixin": "loaders_uniemo",
    "UniEmoPipeline": "pipeline_uniemo",
    "UniEmoImg2ImgPipeline": "pipeline_uniemo_img2img",
    "UniEmoInpaintPipeline": "pipeline_uniemo_inpaint",
    "UniEmoControlNetPipeline": "pipeline_uniemo_controlnet",
    "UniEmoXLPipeline": "pipeline_uniemo_xl",
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
    from .fusion_uniemo import UniEmoFusionModel
    from .loaders_uniemo import UniEmoLoaderMixin
    from .modeling_uniemo import EMOTIONS, UniEmoConfig, UniEmoUnderstandingModel
    from .pipeline_uniemo import UniEmoPipeline
    from .pipeline_uniemo_controlnet import UniEmoControlNetPipeline
    from .pipeline_uniemo_img2img import UniEmoImg2ImgPipeline
    from .pipeline_uniemo_inpaint import UniEmoInpaintPipeline
    from .pipeline_uniemo_xl import UniEmoXLPipeline


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
