"""Our pipelines in the tables by which diffusers' AutoPipeline classes go from task to task."""

from types import ModuleType
from typing import Any

from .pipeline_uniemo import UniEmoPipeline
from .pipeline_uniemo_controlnet import UniEmoControlNetPipeline
from .pipeline_uniemo_img2img import UniEmoImg2ImgPipeline
from .pipeline_uniemo_inpaint import UniEmoInpaintPipeline
from .pipeline_uniemo_xl import UniEmoXLPipeline

FAMILY = (
    UniEmoPipeline,
    UniEmoImg2ImgPipeline,
    UniEmoInpaintPipeline,
    UniEmoControlNetPipeline,
    UniEmoXLPipeline,
)


def register(auto_pipeline: ModuleType) -> None:
    """Called with `diffusers.pipelines.auto_pipeline` when that is imported, for importing it here would import every
    pipeline that there is."""
    text_to_image = auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING
    text_to_image["uniemo"] = UniEmoPipeline
    text_to_image["uniemo-controlnet"] = UniEmoControlNetPipeline
    text_to_image["uniemo-xl"] = UniEmoXLPipeline
    for ours, mapping in (
        (UniEmoImg2ImgPipeline, auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING),
        (UniEmoInpaintPipeline, auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING),
    ):
        mapping["uniemo"] = ours
        # A task for which there is none of ours is the stock pipeline's, as it was.
        for kind in ("controlnet", "xl"):
            mapping[f"uniemo-{kind}"] = mapping[f"stable-diffusion-{kind}"]
    for auto_class in (
        auto_pipeline.AutoPipelineForText2Image,
        auto_pipeline.AutoPipelineForImage2Image,
        auto_pipeline.AutoPipelineForInpainting,
    ):
        _read_our_index(auto_class)


def _read_our_index(auto_class: type) -> None:
    """Let an AutoPipeline class see the installed class in a `model_index.json` that says which code to run for it."""
    stock = auto_class.load_config
    ours = {pipeline.__name__ for pipeline in FAMILY}

    def load_config(cls: type, *args: Any, **kwargs: Any) -> Any:
        config = stock(*args, **kwargs)
        if isinstance(config.get("_class_name"), list) and config["_class_name"][-1] in ours:
            config["_class_name"] = config["_class_name"][-1]
        return config

    auto_class.load_config = classmethod(load_config)
