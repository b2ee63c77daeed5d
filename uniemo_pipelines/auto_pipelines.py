"""Our pipelines, and their places in the tables by which diffusers' AutoPipeline classes go from task to task."""

from diffusers.pipelines.auto_pipeline import (
    AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    AUTO_INPAINT_PIPELINES_MAPPING,
    AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
)

from .pipeline_uniemo import UniEmoPipeline
from .pipeline_uniemo_controlnet import UniEmoControlNetPipeline
from .pipeline_uniemo_img2img import UniEmoImg2ImgPipeline
from .pipeline_uniemo_inpaint import UniEmoInpaintPipeline
from .pipeline_uniemo_xl import UniEmoXLPipeline

AUTO_TEXT2IMAGE_PIPELINES_MAPPING["uniemo"] = UniEmoPipeline
AUTO_TEXT2IMAGE_PIPELINES_MAPPING["uniemo-controlnet"] = UniEmoControlNetPipeline
AUTO_TEXT2IMAGE_PIPELINES_MAPPING["uniemo-xl"] = UniEmoXLPipeline
AUTO_IMAGE2IMAGE_PIPELINES_MAPPING["uniemo"] = UniEmoImg2ImgPipeline
AUTO_INPAINT_PIPELINES_MAPPING["uniemo"] = UniEmoInpaintPipeline
