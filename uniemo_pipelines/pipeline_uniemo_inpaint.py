"""UniEmo on Stable Diffusion 1.x and 2.x, inpainting."""

from diffusers import StableDiffusionInpaintPipeline

from .conditioning_uniemo import UniEmoPromptMixin
from .extending_uniemo import with_emotions
from .saving_uniemo import UniEmoSavingMixin


@with_emotions
class UniEmoInpaintPipeline(UniEmoPromptMixin, UniEmoSavingMixin, StableDiffusionInpaintPipeline):
    """A part of a picture redrawn so that it evokes an emotion; see `UniEmoPipeline`."""
