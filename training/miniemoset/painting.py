"""What scenes are painted with: a palette of five colours, ways to mix them, and a canvas with a few flat shapes.

The canvas is twice the size of the final image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Point = tuple[float, float]

CANVAS = 256
STROKE = 8
WHITE: RGB = (250, 250, 250)
BLACK: RGB = (10, 10, 14)


@dataclass(frozen=True)
class Palette:
    """Five colours (RGB 0..255) that tint a scene.

    In order: sky or backdrop (top), haze (sky at the horizon, or a light backdrop), ground, structure (the main
    features) and accent (small features).
    """

    sky: RGB
    haze: RGB
    ground: RGB
    structure: RGB
    accent: RGB


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """The colour that lies `share` of the way from first to second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def lighter(colour: RGB, share: float = 0.35) -> RGB:
    return mix(colour, WHITE, share)


def darker(colour: RGB, share: float = 0.35) -> RGB:
    return mix(colour, BLACK, share)


def luminance(colour: RGB) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def against(colour: RGB, backdrop: RGB, gap: float = 55) -> RGB:
    """The colour, lightened or darkened just enough to stand out from the backdrop."""
    behind = luminance(backdrop)
    brighter = luminance(colour) >= behind if gap < behind < 255 - gap else behind < 128
    extreme = WHITE if brighter else BLACK
    candidates = (mix(colour, extreme, step / 8) for step in range(8))
    return next((c for c in candidates if abs(luminance(c) - behind) >= gap), extreme)


def legible(palette: Palette) -> Palette:
    """The palette with ground, structure and accent held apart from what lies behind them."""
    structure = against(palette.structure, palette.haze, 65)
    ground = against(palette.ground, palette.haze, 35)
    return replace(palette, ground=ground, structure=structure, accent=against(palette.accent, structure, 45))


class Painter:
    """A canvas with the few shapes that the scenes are made of, and the randomness that varies them."""

    def __init__(self, palette: Palette, rng: np.random.Generator) -> None:
        self.image = Image.new("RGB", (CANVAS, CANVAS), palette.haze)
        self.draw = ImageDraw.Draw(self.image)
        self.palette = palette
        self.rng = rng

    def near(self, value: float, spread: float = 16) -> float:
        """The value moved by up to `spread` either way."""
        return value + spread * (2 * self.rng.random() - 1)

    def sized(self, value: float) -> float:
        """The value made up to 15 % smaller or larger."""
        return self.near(value, 0.15 * value)

    def pick(self, colours: Sequence[RGB]) -> RGB:
        return colours[int(self.rng.random() * len(colours))]

    def fade(self, top: float, bottom: float, first: RGB, last: RGB) -> None:
        """A vertical gradient over the full width."""
        rows = np.linspace(first, last, max(1, round(bottom) - round(top))).astype(np.uint8)
        strip = Image.fromarray(rows[:, None, :])
        self.image.paste(strip.resize((CANVAS, len(rows)), Image.Resampling.NEAREST), (0, round(top)))

    def landscape(self, horizon: float) -> None:
        """Sky down to the horizon, ground below it."""
        p = self.palette
        self.fade(0, horizon, p.sky, p.haze)
        self.fade(horizon, CANVAS, p.ground, darker(p.ground, 0.2))

    def area(self, points: Sequence[Point], colour: RGB) -> None:
        self.draw.polygon(points, fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: RGB) -> None:
        self.draw.rectangle((left, top, right, bottom), fill=colour)

    def stroke(self, points: Sequence[Point], colour: RGB, width: float = STROKE) -> None:
        self.draw.line(points, fill=colour, width=round(width), joint="curve")

    def disc(self, x: float, y: float, radius: float, colour: RGB, height: float | None = None) -> None:
        """A disc, or an ellipse where its half height is given."""
        tall = radius if height is None else height
        self.draw.ellipse((x - radius, y - tall, x + radius, y + tall), fill=colour)

    def ring(self, x: float, y: float, radius: float, colour: RGB, width: int = STROKE) -> None:
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=width)
