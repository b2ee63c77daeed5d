"""Captions for the mini backbones: neutral words only, no emotion is ever named.

One of EmoSet's own scene names, "amusement park", holds an emotion's name; it is kept, as real captions have it too.
"""

import numpy as np

from uniemo_pipelines.attributes import normalise

from .attributes import Attributes, sample_attributes
from .streams import Stream

SENTENCES = (
    "a photo of a {scene} with a {objects}",
    "a {objects} in front of a {scene}",
    "a {scene} and a {objects}",
    "a picture of a {objects} at the {scene}",
)


def full_caption(attributes: Attributes, sentence: str = SENTENCES[0]) -> str:
    """The caption that names every part of an image."""
    objects = " and a ".join(normalise(name) for name in attributes.objects)
    content = sentence.format(scene=normalise(attributes.scene), objects=objects)
    return f"{content}, {attributes.palette} colors, {attributes.brightness} light"


def sample_caption(attributes: Attributes, rng: np.random.Generator) -> str:
    """One of the mixed forms that teach a diffusion model to follow sentences as well as single words.

    A frozen UNet follows only what captions taught: sentences (40 %), scene and object bare (15 %), one of them alone
    (15 % each), one style word alone (15 %). Half of the content forms carry the palette, the light, or both.
    """
    scene, objects = normalise(attributes.scene), [normalise(name) for name in attributes.objects]
    style = _style(attributes, rng)
    form = rng.choice(5, p=(0.40, 0.15, 0.15, 0.15, 0.15))
    if form == 4:
        return str(rng.choice([attributes.palette, f"{attributes.palette} colors", f"{attributes.brightness} light"]))
    content = (
        SENTENCES[rng.integers(len(SENTENCES))].format(scene=scene, objects=" and a ".join(objects)),
        f"{scene}, {objects[0]}",
        scene,
        objects[0],
    )[form]
    return content + style if rng.random() < 0.5 else content


def truthful_caption(emotion: str, seed: int) -> str:
    """A caption that names attributes drawn from their true distribution given the emotion.

    Args:
        emotion: by name; the caption does not name it.
        seed: of the image that is to be drawn under it, 0 or more.
    """
    return full_caption(sample_attributes(np.random.default_rng([Stream.TRUE_CAPTIONS, seed]), emotion))


def _style(attributes: Attributes, rng: np.random.Generator) -> str:
    palette, light = f", {attributes.palette} colors", f", {attributes.brightness} light"
    return (palette, light, palette + light)[rng.integers(3)]
