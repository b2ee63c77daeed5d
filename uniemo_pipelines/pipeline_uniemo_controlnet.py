"""UniEmo on Stable Diffusion 1.x and 2.x, with ControlNet."""

from diffusers import StableDiffusionControlNetPipeline

from .conditioning_uniemo import UniEmoPromptMixin
from .extending_uniemo import with_emotions
from .saving_uniemo import UniEmoSavingMixin


@with_emotions
class UniEmoControlNetPipeline(UniEmoPromptMixin, UniEmoSavingMixin, StableDiffusionControlNetPipeline):
    """Images that follow a ControlNet's condition and evoke an emotion; see `UniEmoPipeline`."""
