"""From attributes to a 128x128 picture."""

import numpy as np
from PIL import Image

from .attributes import Attributes
from .objects import draw_object
from .painting import CANVAS, Palette
from .scenes import draw_scene

IMAGE_SIZE = 128

PALETTE_COLORS = {
    "candy": Palette((255, 178, 214), (255, 226, 236), (160, 220, 205), (238, 108, 160), (255, 236, 120)),
    "crystal": Palette((96, 178, 240), (212, 240, 255), (150, 200, 222), (58, 112, 182), (240, 252, 255)),
    "golden": Palette((250, 200, 110), (255, 234, 178), (206, 158, 66), (156, 98, 38), (255, 246, 196)),
    "neon": Palette((58, 20, 130), (214, 40, 220), (24, 190, 200), (250, 70, 150), (230, 255, 60)),
    "crimson": Palette((140, 20, 24), (226, 84, 54), (90, 30, 32), (190, 40, 36), (255, 170, 70)),
    "olive": Palette((150, 156, 84), (190, 190, 120), (92, 104, 44), (112, 84, 40), (196, 214, 70)),
    "midnight": Palette((22, 26, 74), (64, 76, 140), (30, 44, 66), (92, 86, 150), (186, 196, 240)),
    "ashen": Palette((136, 142, 148), (188, 192, 196), (112, 114, 116), (84, 88, 94), (214, 216, 220)),
}
LIGHT = {"dim": (0.50, 0.0), "even": (0.80, 0.08), "bright": (0.70, 0.30)}
"""Brightness as (gain, lift) on values in [0, 1]: a multiplication alone would saturate light palettes."""


def render(attributes: Attributes, rng: np.random.Generator) -> Image.Image:
    """Draw the attributes: scene and palette behind, the second object small at one side, the first large in front.

    Returns:
        A 128x128 RGB image; objects measure 32 to 56 px.
    """
    return render_and_locate(attributes, rng)[0]


def render_and_locate(attributes: Attributes, rng: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """The picture that `render` draws, and where its objects are.

    Returns:
        The image, and (128, 128) uint8: 1 where the first object shows, 2 where the second does, else 0.
    """
    canvas = draw_scene(attributes.scene, PALETTE_COLORS[attributes.palette], rng)
    places = Image.new("L", canvas.size)
    side = int(rng.choice((-1, 1)))
    if len(attributes.objects) == 2:
        second = _place(attributes.objects[1], (64, 84), (128 + side * 78, 182), 10, rng)
        first = _place(attributes.objects[0], (92, 112), (128 - side * 30, 172), 12, rng)
        pasted = [(2, *second), (1, *first)]
    else:
        pasted = [(1, *_place(attributes.objects[0], (92, 112), (128, 170), 24, rng))]
    for number, sprite, corner in pasted:
        canvas.paste(sprite, corner, sprite)
        places.paste(number, corner, sprite.getchannel("A").point(lambda alpha: 255 * (alpha > 127)))
    gain, lift = LIGHT[attributes.brightness]
    small = np.asarray(canvas.reduce(CANVAS // IMAGE_SIZE), dtype=np.float32)
    picture = Image.fromarray((small * gain + 255 * lift).astype(np.uint8))
    return picture, np.asarray(places.resize(picture.size, Image.Resampling.NEAREST))


def _place(
    name: str, size_range: tuple[int, int], centre: tuple[int, int], jitter: int, rng: np.random.Generator
) -> tuple[Image.Image, tuple[int, int]]:
    """An object's sprite, and where on the canvas its upper left corner goes."""
    size = int(rng.integers(*size_range, endpoint=True))
    sprite = draw_object(name, size, rng)
    x, y = (middle + int(rng.integers(-jitter, jitter, endpoint=True)) - size // 2 for middle in centre)
    return sprite, (x, y)
