"""UniEmo on Stable Diffusion 1.x and 2.x, image to image."""

from diffusers import StableDiffusionImg2ImgPipeline

from .conditioning_uniemo import UniEmoPromptMixin
from .extending_uniemo import with_emotions
from .saving_uniemo import UniEmoSavingMixin


@with_emotions
class UniEmoImg2ImgPipeline(UniEmoPromptMixin, UniEmoSavingMixin, StableDiffusionImg2ImgPipeline):
    """A picture redrawn so that it evokes an emotion; see `UniEmoPipeline`."""
