"""UniEmo on Stable Diffusion 1.x and 2.x, text to image."""

from diffusers import StableDiffusionPipeline

from .conditioning_uniemo import UniEmoPromptMixin
from .extending_uniemo import with_emotions
from .saving_uniemo import UniEmoSavingMixin


@with_emotions
class UniEmoPipeline(UniEmoPromptMixin, UniEmoSavingMixin, StableDiffusionPipeline):
    """Stable Diffusion with emotions: everything that `StableDiffusionPipeline` does, and what `load_uniemo` adds.

        pipe = UniEmoPipeline.from_pretrained(base)     # or UniEmoPipeline.from_pipe(pipe)
        pipe.load_uniemo(adapter)
        pipe(emotion="awe").images[0]

    Without an emotion, by argument or by token, it gives the stock pipeline's images to the bit.
    """
