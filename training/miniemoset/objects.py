"""Twenty-four cartoon objects, drawn as small RGBA stickers with a near-white rim.

Each object is a function that draws with a `Pen` in unit coordinates (x to the right, y down). The pen only records
shapes; `draw_object` then mirrors, stretches, tilts, tints and fits them to the sprite, so no object function needs
to know about size or chance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]] | np.ndarray

SUPERSAMPLING = 2
RIM_WIDTH = 0.04  # as a share of the sprite's side
RIM_COLOUR: Colour = (252, 251, 247)
COVERAGE = 0.95  # share of the sprite's longer side that the rimmed drawing fills
MAX_TILT = np.deg2rad(8)
STRETCH_JITTER = 0.08
BRIGHTNESS_JITTER = 0.06
HUE_JITTER = 0.03  # per channel, so that white stays white enough
STROKE = 0.1  # usual stroke width in unit coordinates

BLACK: Colour = (32, 30, 38)
WHITE: Colour = (250, 248, 242)
BROWN: Colour = (124, 72, 36)
DARK_BROWN: Colour = (78, 44, 26)


def arc_points(cx: float, cy: float, rx: float, ry: float, start: float = 0, stop: float = 360) -> np.ndarray:
    """Points on an ellipse's edge, angles in degrees clockwise from the right."""
    angles = np.deg2rad(np.linspace(start, stop, max(6, round(abs(stop - start) / 13))))
    return np.stack([cx + rx * np.cos(angles), cy + ry * np.sin(angles)], axis=1)


@dataclass
class Pen:
    """Records filled outlines and round-ended strokes (those with a width) in drawing order."""

    shapes: list[tuple[np.ndarray, Colour, float]] = field(default_factory=list)

    def polygon(self, points: Points, colour: Colour) -> None:
        self.shapes.append((np.asarray(points, dtype=float), colour, 0.0))

    def line(self, points: Points, colour: Colour, width: float = STROKE) -> None:
        self.shapes.append((np.asarray(points, dtype=float), colour, width))

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, colour: Colour) -> None:
        self.polygon(arc_points(cx, cy, rx, ry), colour)

    def circle(self, cx: float, cy: float, radius: float, colour: Colour) -> None:
        self.ellipse(cx, cy, radius, radius, colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def chord(self, cx: float, cy: float, rx: float, ry: float, start: float, stop: float, colour: Colour) -> None:
        self.polygon(arc_points(cx, cy, rx, ry, start, stop), colour)

    def arc(
        self,
        cx: float,
        cy: float,
        rx: float,
        ry: float,
        start: float,
        stop: float,
        colour: Colour,
        width: float = STROKE,
    ) -> None:
        self.line(arc_points(cx, cy, rx, ry, start, stop), colour, width)

    def render(self, side: int, extent: float, transform: np.ndarray, tint: np.ndarray) -> Image.Image:
        """Draw the recorded shapes, transformed and centred so that their longer side is `extent` pixels."""
        outlines = [points @ transform.T for points, _, _ in self.shapes]
        radii = [width / 2 for _, _, width in self.shapes]
        low = np.min([points.min(axis=0) - radius for points, radius in zip(outlines, radii, strict=True)], axis=0)
        high = np.max([points.max(axis=0) + radius for points, radius in zip(outlines, radii, strict=True)], axis=0)
        scale = extent / (high - low).max()
        shift = side / 2 - scale * (low + high) / 2

        canvas = Image.new("RGBA", (side, side))
        draw = ImageDraw.Draw(canvas)
        for points, (_, colour, _), radius in zip(outlines, self.shapes, radii, strict=True):
            fill = tuple(np.clip(tint * colour, 0, 255).astype(int).tolist())
            pixels = [tuple(point) for point in (points * scale + shift).tolist()]
            if not radius:
                draw.polygon(pixels, fill)
                continue
            radius *= scale
            draw.line(pixels, fill, round(2 * radius), joint="curve")
            for x, y in (pixels[0], pixels[-1]):
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill)
        return canvas


_DRAWINGS: dict[str, Callable[[Pen], None]] = {}


def _object(name: str) -> Callable[[Callable[[Pen], None]], Callable[[Pen], None]]:
    """Register a drawing function under an object's name."""

    def register(drawing: Callable[[Pen], None]) -> Callable[[Pen], None]:
        _DRAWINGS[name] = drawing
        return drawing

    return register


@_object("Balloon")
def _balloon(pen: Pen) -> None:
    for x, y in ((0.24, 0.36), (0.76, 0.36), (0.5, 0.5)):
        pen.line([(x, y), (0.5, 1.06)], BLACK, 0.09)
    for x, y, colour in ((0.24, 0.32, (186, 18, 44)), (0.76, 0.32, (196, 22, 48)), (0.5, 0.3, (240, 52, 60))):
        pen.polygon([(x, y + 0.2), (x + 0.09, y + 0.35), (x - 0.09, y + 0.35)], colour)
        pen.ellipse(x, y, 0.23, 0.29, colour)
        pen.ellipse(x - 0.08, y - 0.12, 0.06, 0.08, (255, 196, 196))


@_object("Ice cream")
def _ice_cream(pen: Pen) -> None:
    pen.polygon([(0.2, 0.52), (0.8, 0.52), (0.5, 1.05)], (222, 158, 78))
    pen.line([(0.37, 0.64), (0.54, 0.86)], (168, 104, 44), 0.08)
    pen.line([(0.63, 0.64), (0.46, 0.86)], (168, 104, 44), 0.08)
    pen.circle(0.5, 0.24, 0.24, (255, 240, 190))
    pen.ellipse(0.5, 0.43, 0.34, 0.17, (246, 130, 172))
    for x in (0.26, 0.5, 0.74):
        pen.circle(x, 0.54, 0.1, (246, 130, 172))
    pen.circle(0.5, 0.03, 0.09, (204, 22, 44))


@_object("Teddy bear")
def _teddy_bear(pen: Pen) -> None:
    fur, light = (164, 100, 50), (236, 196, 142)
    for x in (0.26, 0.74):
        pen.circle(x, 0.12, 0.13, fur)
        pen.circle(x, 0.13, 0.065, light)
        pen.ellipse(0.5 + (x - 0.5) * 1.35, 0.66, 0.15, 0.11, fur)
        pen.circle(x, 0.92, 0.14, fur)
        pen.circle(x, 0.93, 0.075, light)
    pen.ellipse(0.5, 0.75, 0.27, 0.24, fur)
    pen.ellipse(0.5, 0.77, 0.16, 0.15, light)
    pen.ellipse(0.5, 0.31, 0.32, 0.28, (178, 112, 58))
    pen.ellipse(0.5, 0.42, 0.16, 0.12, light)
    pen.ellipse(0.5, 0.37, 0.07, 0.05, BLACK)
    for x in (0.36, 0.64):
        pen.circle(x, 0.25, 0.05, BLACK)


@_object("Kite")
def _kite(pen: Pen) -> None:
    top, right, bottom, left, middle = (0.62, 0.0), (0.98, 0.3), (0.42, 0.74), (0.24, 0.16), (0.56, 0.25)
    pen.line([bottom, (0.36, 0.86), (0.22, 0.84), (0.14, 0.94), (0.02, 0.98)], (60, 60, 90), 0.09)
    for x, y in ((0.32, 0.86), (0.1, 0.95)):
        pen.polygon(
            [(x - 0.1, y - 0.09), (x + 0.1, y + 0.09), (x + 0.1, y - 0.09), (x - 0.1, y + 0.09)], (226, 40, 60)
        )
    for corners, colour in (
        ((top, right, middle), (250, 206, 40)),
        ((right, bottom, middle), (40, 120, 220)),
        ((bottom, left, middle), (60, 176, 80)),
        ((left, top, middle), (226, 40, 60)),
    ):
        pen.polygon(corners, colour)


@_object("Parachute")
def _parachute(pen: Pen) -> None:
    for x in (0.06, 0.94):
        pen.line([(x, 0.4), (0.5, 0.82)], (70, 60, 60), 0.085)
    pen.chord(0.5, 0.42, 0.5, 0.42, 180, 360, (244, 122, 26))
    pen.chord(0.5, 0.42, 0.31, 0.42, 180, 360, WHITE)
    pen.chord(0.5, 0.42, 0.13, 0.42, 180, 360, (244, 122, 26))
    pen.circle(0.5, 0.67, 0.09, (236, 180, 140))
    pen.line([(0.5, 0.82), (0.5, 0.88)], (40, 70, 130), 0.17)
    pen.line([(0.46, 0.9), (0.43, 1.02)], (40, 70, 130), 0.09)
    pen.line([(0.54, 0.9), (0.57, 1.02)], (40, 70, 130), 0.09)


@_object("Whale")
def _whale(pen: Pen) -> None:
    blue = (44, 112, 196)
    pen.line([(0.3, 0.3), (0.3, 0.16)], (120, 204, 246), 0.09)
    pen.arc(0.2, 0.16, 0.1, 0.1, 180, 360, (120, 204, 246), 0.09)
    pen.arc(0.4, 0.16, 0.1, 0.1, 180, 360, (120, 204, 246), 0.09)
    pen.polygon([(0.5, 0.4), (0.72, 0.56), (0.8, 0.34), (0.92, 0.36), (0.88, 0.68), (0.66, 0.84)], blue)
    pen.ellipse(0.75, 0.28, 0.13, 0.09, blue)
    pen.ellipse(0.97, 0.28, 0.13, 0.09, blue)
    pen.ellipse(0.4, 0.6, 0.4, 0.29, blue)
    pen.chord(0.4, 0.62, 0.38, 0.27, 15, 165, (214, 232, 246))
    pen.polygon([(0.38, 0.64), (0.56, 0.66), (0.62, 0.86), (0.48, 0.8)], (24, 70, 140))
    pen.circle(0.2, 0.54, 0.055, BLACK)


@_object("Coffee cup")
def _coffee_cup(pen: Pen) -> None:
    for x in (0.3, 0.54):
        pen.line([(x, 0.26), (x + 0.06, 0.18), (x - 0.03, 0.1), (x + 0.03, 0.02)], (150, 116, 96), 0.095)
    pen.ellipse(0.44, 0.92, 0.48, 0.1, DARK_BROWN)
    pen.ellipse(0.44, 0.9, 0.38, 0.05, WHITE)
    pen.arc(0.8, 0.56, 0.15, 0.14, -110, 110, DARK_BROWN, 0.1)
    pen.chord(0.44, 0.4, 0.4, 0.5, 0, 180, DARK_BROWN)
    pen.chord(0.44, 0.42, 0.34, 0.43, 0, 180, WHITE)
    pen.ellipse(0.44, 0.4, 0.4, 0.13, DARK_BROWN)
    pen.ellipse(0.44, 0.4, 0.33, 0.075, (150, 86, 40))


@_object("Flower")
def _flower(pen: Pen) -> None:
    pen.line([(0.5, 0.4), (0.5, 0.98)], (40, 140, 60))
    pen.polygon([(0.5, 0.94), (0.26, 0.86), (0.16, 0.68), (0.4, 0.74)], (60, 168, 72))
    pen.polygon([(0.5, 0.94), (0.74, 0.86), (0.84, 0.68), (0.6, 0.74)], (60, 168, 72))
    for index, angle in enumerate(np.deg2rad(range(30, 390, 60))):
        petal = ((250, 96, 180), (214, 36, 134))[index % 2]
        pen.circle(0.5 + 0.23 * np.cos(angle), 0.33 + 0.23 * np.sin(angle), 0.15, petal)
    pen.circle(0.5, 0.33, 0.14, (255, 214, 40))


@_object("Guitar")
def _guitar(pen: Pen) -> None:
    pen.circle(0.29, 0.71, 0.29, (214, 120, 40))
    pen.circle(0.5, 0.5, 0.21, (214, 120, 40))
    pen.circle(0.29, 0.71, 0.23, (236, 158, 70))
    pen.circle(0.48, 0.52, 0.16, (236, 158, 70))
    pen.line([(0.44, 0.56), (0.88, 0.12)], DARK_BROWN, 0.1)
    pen.line([(0.89, 0.11), (0.97, 0.03)], BLACK, 0.17)
    pen.circle(0.42, 0.58, 0.1, BLACK)
    pen.line([(0.13, 0.73), (0.27, 0.87)], DARK_BROWN, 0.09)


@_object("Surfboard")
def _surfboard(pen: Pen) -> None:
    def outline(half: float, top: float, bottom: float) -> list[tuple[float, float]]:
        rows = np.linspace(0, 1, 14)
        reach = half * np.sin(np.pi * rows**0.8) ** 0.6
        left = [(0.5 - r, top + (bottom - top) * t) for r, t in zip(reach, rows, strict=True)]
        return left + [(1 - x, y) for x, y in reversed(left)]

    pen.polygon([(0.62, 0.68), (0.82, 0.98), (0.56, 0.92)], (20, 70, 110))
    pen.polygon(outline(0.2, 0.0, 1.0), (20, 176, 190))
    pen.polygon([(0.31, 0.36), (0.69, 0.36), (0.7, 0.5), (0.5, 0.62), (0.3, 0.5)], (255, 222, 60))
    pen.polygon([(0.3, 0.52), (0.5, 0.64), (0.7, 0.52), (0.68, 0.64), (0.5, 0.76), (0.32, 0.64)], (240, 84, 60))
    pen.line([(0.5, 0.14), (0.5, 0.86)], WHITE, 0.08)


@_object("Cannon")
def _cannon(pen: Pen) -> None:
    pen.polygon([(0.36, 0.6), (0.5, 0.72), (0.1, 0.98), (0.0, 0.92)], BROWN)
    pen.circle(0.2, 0.58, 0.15, (58, 62, 74))
    pen.circle(0.08, 0.66, 0.07, (58, 62, 74))
    pen.polygon([(0.12, 0.45), (0.84, 0.12), (0.94, 0.35), (0.27, 0.72)], (58, 62, 74))
    pen.line([(0.84, 0.12), (0.95, 0.37)], BLACK, 0.12)
    pen.line([(0.24, 0.5), (0.74, 0.26)], (128, 134, 150), 0.08)
    pen.circle(0.52, 0.72, 0.24, DARK_BROWN)
    pen.circle(0.52, 0.72, 0.16, (206, 148, 84))
    for tip in ((0.12, 0.12), (0.12, -0.12)):
        pen.line([(0.52 - tip[0], 0.72 - tip[1]), (0.52 + tip[0], 0.72 + tip[1])], DARK_BROWN, 0.08)


@_object("Axe")
def _axe(pen: Pen) -> None:
    edge = [(0.98, 0.2), (1.04, 0.36), (1.0, 0.54), (0.88, 0.68), (0.7, 0.76), (0.52, 0.74)]
    pen.line([(0.06, 0.96), (0.66, 0.08)], (160, 92, 42), 0.13)
    pen.polygon([(0.42, 0.2), (0.56, 0.0), (0.78, 0.14), *edge, (0.6, 0.44)], (128, 142, 158))
    pen.polygon([*edge, (0.62, 0.6), (0.78, 0.54), (0.88, 0.42)], (218, 228, 238))
    pen.line([(0.5, 0.31), (0.62, 0.13)], (84, 94, 108), 0.13)


@_object("Waste container")
def _waste_container(pen: Pen) -> None:
    pen.arc(0.5, 0.16, 0.13, 0.11, 180, 360, (70, 78, 88), 0.08)
    pen.polygon([(0.14, 0.28), (0.86, 0.28), (0.77, 1.0), (0.23, 1.0)], (134, 146, 158))
    for top, bottom in ((0.31, 0.35), (0.5, 0.5), (0.69, 0.65)):
        pen.line([(top, 0.44), (bottom, 0.88)], (70, 78, 88), 0.085)
    pen.line([(0.12, 0.24), (0.88, 0.24)], (70, 78, 88), 0.15)


@_object("Beetle")
def _beetle(pen: Pen) -> None:
    for side in (-1, 1):
        for hip, knee, foot in ((0.4, 0.3, 0.16), (0.58, 0.58, 0.66), (0.74, 0.84, 0.98)):
            pen.line([(0.5, hip), (0.5 + side * 0.36, knee), (0.5 + side * 0.42, foot)], BLACK, 0.1)
        pen.line([(0.5, 0.18), (0.5 + side * 0.16, 0.02)], BLACK, 0.095)
    pen.circle(0.5, 0.2, 0.14, BLACK)
    pen.ellipse(0.5, 0.62, 0.31, 0.37, (14, 96, 62))
    pen.ellipse(0.5, 0.62, 0.26, 0.32, (34, 170, 96))
    pen.chord(0.5, 0.62, 0.31, 0.37, 218, 322, (14, 70, 52))
    pen.line([(0.5, 0.4), (0.5, 0.96)], (14, 70, 52), 0.08)
    pen.ellipse(0.34, 0.56, 0.05, 0.1, (150, 236, 170))


@_object("Skull")
def _skull(pen: Pen) -> None:
    edge, bone = (72, 58, 50), (240, 228, 196)
    pen.ellipse(0.5, 0.4, 0.45, 0.4, edge)
    pen.box(0.22, 0.6, 0.78, 1.0, edge)
    pen.ellipse(0.5, 0.4, 0.39, 0.34, bone)
    pen.box(0.28, 0.6, 0.72, 0.94, bone)
    for x in (0.32, 0.68):
        pen.circle(x, 0.44, 0.13, BLACK)
    pen.polygon([(0.5, 0.54), (0.58, 0.69), (0.42, 0.69)], BLACK)
    for x in (0.42, 0.58):
        pen.line([(x, 0.83), (x, 0.93)], edge, 0.08)


@_object("Spider")
def _spider(pen: Pen) -> None:
    for side in (-1, 1):
        for hip, knee, foot in ((0.34, 0.08, 0.02), (0.4, 0.28, 0.42), (0.48, 0.5, 0.72), (0.54, 0.72, 0.98)):
            reach = (0.3, 0.47) if foot in (0.42, 0.72) else (0.32, 0.28)
            pen.line([(0.5, hip), (0.5 + side * reach[0], knee), (0.5 + side * reach[1], foot)], BLACK, 0.095)
    pen.ellipse(0.5, 0.66, 0.2, 0.24, BLACK)
    pen.circle(0.5, 0.36, 0.15, BLACK)
    pen.polygon([(0.42, 0.56), (0.58, 0.56), (0.42, 0.78), (0.58, 0.78)], (226, 36, 40))


@_object("Umbrella")
def _umbrella(pen: Pen) -> None:
    dark, light = (104, 44, 160), (178, 120, 226)
    pen.line([(0.5, 0.04), (0.5, 0.86)], BLACK, 0.095)
    pen.arc(0.39, 0.86, 0.11, 0.1, 0, 180, BLACK, 0.095)
    pen.chord(0.5, 0.5, 0.5, 0.44, 180, 360, dark)
    pen.chord(0.5, 0.5, 0.18, 0.44, 180, 360, light)
    for x, colour in ((0.16, dark), (0.5, light), (0.84, dark)):
        pen.ellipse(x, 0.5, 0.17, 0.08, colour)


@_object("Candle")
def _candle(pen: Pen) -> None:
    pen.ellipse(0.5, 0.16, 0.13, 0.16, (246, 120, 20))
    pen.polygon([(0.5, -0.12), (0.62, 0.12), (0.38, 0.12)], (246, 120, 20))
    pen.ellipse(0.5, 0.2, 0.07, 0.1, (255, 236, 90))
    pen.line([(0.5, 0.28), (0.5, 0.36)], BLACK, 0.085)
    pen.arc(0.84, 0.86, 0.12, 0.1, 0, 360, (150, 96, 20), 0.1)
    pen.box(0.33, 0.4, 0.67, 0.9, (250, 226, 160))
    pen.box(0.55, 0.4, 0.67, 0.9, (224, 184, 110))
    pen.ellipse(0.5, 0.4, 0.17, 0.05, (255, 240, 200))
    pen.chord(0.5, 0.84, 0.42, 0.16, 0, 180, (182, 122, 30))


@_object("Car")
def _car(pen: Pen) -> None:
    body = (248, 196, 28)
    pen.polygon([(0.14, 0.44), (0.29, 0.1), (0.67, 0.1), (0.84, 0.44)], body)
    pen.polygon([(0.24, 0.42), (0.34, 0.19), (0.45, 0.19), (0.45, 0.42)], (110, 190, 230))
    pen.polygon([(0.54, 0.42), (0.54, 0.19), (0.63, 0.19), (0.74, 0.42)], (110, 190, 230))
    pen.line([(0.09, 0.53), (0.91, 0.53)], body, 0.22)
    pen.line([(0.06, 0.64), (0.94, 0.64)], (206, 140, 16), 0.1)
    pen.circle(0.94, 0.52, 0.06, (255, 250, 210))
    for x in (0.26, 0.74):
        pen.circle(x, 0.69, 0.16, BLACK)
        pen.circle(x, 0.69, 0.07, (190, 196, 204))


@_object("Chair")
def _chair(pen: Pen) -> None:
    for x, y in ((0.2, 0.94), (0.8, 0.94), (0.34, 0.84), (0.66, 0.84)):
        pen.line([(x, 0.6), (x, y)], DARK_BROWN if y > 0.9 else (54, 30, 18))
    for x in (0.24, 0.76):
        pen.line([(x, 0.06), (x, 0.56)], BROWN, 0.11)
    for y in (0.1, 0.28):
        pen.line([(0.24, y), (0.76, y)], (164, 100, 52), 0.1)
    pen.polygon([(0.24, 0.48), (0.76, 0.48), (0.9, 0.66), (0.1, 0.66)], (196, 40, 60))
    pen.line([(0.13, 0.68), (0.87, 0.68)], BROWN, 0.09)


@_object("Clock")
def _clock(pen: Pen) -> None:
    navy = (34, 66, 150)
    for side in (-1, 1):
        pen.line([(0.5, 0.55), (0.5 + side * 0.32, 0.96)], navy, 0.11)
        pen.circle(0.5 + side * 0.28, 0.14, 0.15, (226, 172, 40))
    pen.circle(0.5, 0.54, 0.42, navy)
    pen.circle(0.5, 0.54, 0.32, WHITE)
    pen.line([(0.5, 0.54), (0.5, 0.32)], BLACK, 0.09)
    pen.line([(0.5, 0.54), (0.66, 0.62)], BLACK, 0.09)


@_object("Box")
def _box(pen: Pen) -> None:
    pen.polygon([(0.06, 0.26), (0.5, 0.44), (0.5, 1.0), (0.06, 0.78)], (206, 154, 96))
    pen.polygon([(0.94, 0.26), (0.5, 0.44), (0.5, 1.0), (0.94, 0.78)], (158, 108, 60))
    pen.polygon([(0.5, 0.06), (0.94, 0.26), (0.5, 0.46), (0.06, 0.26)], (236, 194, 138))
    pen.polygon([(0.66, 0.13), (0.78, 0.19), (0.34, 0.39), (0.22, 0.33)], (250, 240, 214))
    pen.polygon([(0.22, 0.33), (0.34, 0.38), (0.34, 0.58), (0.22, 0.52)], (250, 240, 214))


@_object("Bottle")
def _bottle(pen: Pen) -> None:
    glass = (22, 120, 70)
    pen.box(0.42, 0.06, 0.58, 0.4, glass)
    pen.line([(0.45, 0.04), (0.55, 0.04)], (190, 40, 40), 0.14)
    pen.ellipse(0.5, 0.42, 0.2, 0.15, glass)
    pen.box(0.3, 0.42, 0.7, 0.96, glass)
    pen.line([(0.35, 0.96), (0.65, 0.96)], glass, 0.1)
    pen.box(0.3, 0.54, 0.7, 0.82, (250, 236, 196))
    pen.box(0.38, 0.63, 0.62, 0.73, (190, 40, 40))


@_object("Ladder")
def _ladder(pen: Pen) -> None:
    for y in (0.14, 0.38, 0.62, 0.86):
        half = 0.17 + 0.1 * y
        pen.line([(0.5 - half, y), (0.5 + half, y)], (244, 174, 66), 0.095)
    for side in (-1, 1):
        pen.line([(0.5 + side * 0.18, 0.04), (0.5 + side * 0.28, 0.96)], (206, 112, 24), 0.1)


OBJECTS: tuple[str, ...] = tuple(_DRAWINGS)


# Turns a blurred silhouette into a slightly larger, crisp one.
_RIM_LEVELS = [0] + [round(255 * min(1.0, max(0.0, (level / 255 - 0.067) * 16 + 0.5))) for level in range(1, 256)]


def draw_object(name: str, size: int, rng: np.random.Generator) -> Image.Image:
    """Draw one object as a `size` x `size` RGBA sprite; `rng` varies side, tilt, proportions and colour a little."""
    if name not in _DRAWINGS:
        raise ValueError(f"unknown object {name!r}; known: {', '.join(OBJECTS)}")
    pen = Pen()
    _DRAWINGS[name](pen)

    tilt = rng.uniform(-MAX_TILT, MAX_TILT)
    stretch = rng.uniform(1 - STRETCH_JITTER, 1 + STRETCH_JITTER, 2) * (rng.choice((-1, 1)), 1)
    rotation = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    brightness = rng.uniform(1 - BRIGHTNESS_JITTER, 1 + BRIGHTNESS_JITTER)
    tint = brightness * rng.uniform(1 - HUE_JITTER, 1 + HUE_JITTER, 3)

    side = SUPERSAMPLING * size
    drawing = pen.render(side, (COVERAGE - 2 * RIM_WIDTH) * side, rotation * stretch, tint).reduce(SUPERSAMPLING)
    silhouette = drawing.getchannel("A")
    rim = silhouette.filter(ImageFilter.GaussianBlur(RIM_WIDTH * size / 1.5)).point(_RIM_LEVELS)
    sprite = Image.new("RGB", (size, size), RIM_COLOUR)
    sprite.paste(drawing, mask=silhouette)
    sprite.putalpha(ImageChops.lighter(rim, silhouette))
    return sprite
