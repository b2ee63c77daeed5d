"""Sixteen flat background scenes, drawn with Pillow and tinted by a five-colour palette.

Every scene is told by its shapes alone: broad strokes, flat areas, landmarks in the upper part and at the sides, and
a calm lower middle where a foreground object is to be pasted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from .painting import CANVAS, RGB, STROKE, WHITE, Painter, Palette, Point, against, darker, legible, lighter, mix

Scene = Callable[[Painter], None]
_SCENES: dict[str, Scene] = {}


def scene(draw: Scene) -> Scene:
    """Registers a scene under its function's name."""
    _SCENES[draw.__name__] = draw
    return draw


def draw_scene(name: str, palette: Palette, rng: np.random.Generator) -> Image.Image:
    """Draws the named scene, 256x256 RGB, in the palette's colours; the generator varies and may mirror it."""
    if name not in _SCENES:
        raise ValueError(f"unknown scene {name!r}; known: {', '.join(_SCENES)}")
    painter = Painter(legible(palette), rng)
    _SCENES[name](painter)
    return ImageOps.mirror(painter.image) if rng.random() < 0.5 else painter.image


@scene
def amusement_park(art: Painter) -> None:
    p = art.palette
    art.landscape(192)
    x, y, radius, turn = art.near(98, 12), art.near(94, 8), min(art.sized(68), 74), art.near(0, 0.4)
    for foot in (-46, 46):
        art.stroke([(x, y), (x + foot, 204)], darker(p.structure), 12)
    angles = [turn + k * math.tau / 8 for k in range(8)]
    rim = [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]
    for point in rim:
        art.stroke([(x, y), point], p.structure)
    art.ring(x, y, radius + 4, p.structure, 10)
    art.disc(x, y, 14, p.accent)
    for k, (gx, gy) in enumerate(rim):
        art.disc(gx, gy, 14, p.accent if k % 2 else lighter(p.accent, 0.55))
    _tent(art, art.near(212, 10), art.near(124, 10), art.sized(42))


def _tent(art: Painter, x: float, top: float, half: float) -> None:
    stripes = art.palette.accent, lighter(against(art.palette.accent, WHITE, 90), 0.85)
    art.stroke([(x, top - 26), (x, top + 8)], art.palette.structure)
    art.area([(x, top - 28), (x + 26, top - 18), (x, top - 8)], art.palette.accent)
    width = 2 * half / 5
    for k in range(5):
        left, colour = x - half + k * width, stripes[k % 2]
        art.box(left + 4 - 2 * k, top + 44, left + width + 2 - 2 * k, 208, darker(colour, 0.15))
        grown = x + (left - x) * 1.2
        art.area([(x, top), (grown, top + 44), (grown + 1.2 * width, top + 44)], colour)
        art.disc(grown + 0.6 * width, top + 44, 0.6 * width, colour)


@scene
def mountain_snowy(art: Painter) -> None:
    p = art.palette
    art.fade(0, 200, p.sky, p.haze)
    for x, top, half, shade in ((36, 84, 84, 0.3), (222, 72, 90, 0.3), (124, 30, 108, 0.0)):
        _peak(art, art.near(x), art.near(top, 12), art.sized(half), mix(p.structure, p.haze, shade))
    snow = lighter(p.haze, 0.8)
    art.area([(0, 184), (70, 172), (150, 186), (256, 170), (256, 256), (0, 256)], mix(snow, p.ground, 0.18))
    for x in (14, 44, 212, 242):
        foot, size = art.near(204, 8), art.sized(26)
        for lift in (0, 0.7):
            tip = foot - (1.5 + lift) * size
            art.area([(x - 0.7 * size, tip + 1.5 * size), (x + 0.7 * size, tip + 1.5 * size), (x, tip)], p.ground)


def _peak(art: Painter, x: float, top: float, half: float, rock: RGB) -> None:
    """A pointed mountain, one flank in shade, with a zigzag cap of snow."""
    foot, shadow = 200.0, darker(rock, 0.3)
    art.area([(x - half, foot), (x, top), (x + half, foot)], rock)
    art.area([(x, top), (x + 0.14 * half, (top + foot) / 2), (x - 0.1 * half, foot), (x + half, foot)], shadow)
    cap = 0.42 * (foot - top)
    edge = [(1.0, 1.0), (0.55, 0.78), (0.25, 1.15), (0.0, 0.8), (-0.3, 1.2), (-0.55, 0.8), (-1.0, 1.0)]
    art.area([(x, top), *((x + 0.42 * half * dx, top + cap * dy) for dx, dy in edge)], WHITE)


@scene
def waterfall(art: Painter) -> None:
    p = art.palette
    art.fade(0, 80, p.sky, p.haze)
    x, half, lip, pool = art.near(128), art.sized(36), art.near(54, 8), art.near(186, 6)
    rock, water = p.structure, lighter(against(p.haze, p.structure, 90), 0.75)
    art.box(0, lip, 256, 220, darker(rock, 0.3))
    art.fade(pool, 256, mix(p.sky, p.haze, 0.5), p.sky)
    art.box(x - half, lip - 4, x + half, pool + 4, water)
    for dx in (-0.5, 0.1, 0.6):
        streak = art.near(lip + 20, 10)
        art.stroke([(x + dx * half, streak), (x + dx * half, pool)], mix(water, p.sky, 0.35), STROKE)
    for side in (-1, 1):
        inner, outer = x + side * half, 128 + side * 132
        steps = [(0, lip - 6), (4, 92), (16, 98), (18, 140), (34, 148), (38, pool), (60, pool + 22)]
        cliff = [(inner + side * (dx - 2), y) for dx, y in steps]
        art.area([(outer, lip - 34), (inner + side * 26, lip - 28), *cliff, (outer, pool + 40)], rock)
        art.stroke([(inner + side * 44, 88), (inner + side * 54, 128)], darker(rock, 0.3), 10)
        art.stroke([(inner + side * 72, 120), (inner + side * 76, 166)], darker(rock, 0.3), 10)
        for k in range(4):
            art.disc(inner + side * (28 + 24 * k), art.near(lip - 32, 6), art.sized(18), p.ground)
    for k in range(-2, 3):
        art.disc(x + k * half * 0.55, pool + 6, art.sized(16), water, 12)
    art.disc(x, pool + 34, 1.5 * half, mix(water, p.haze, 0.5), 5)


@scene
def beach(art: Painter) -> None:
    p = art.palette
    horizon, shore = art.near(104, 8), art.near(172, 6)
    art.fade(0, horizon, p.sky, p.haze)
    art.disc(art.near(92), art.near(56, 12), art.sized(26), against(lighter(p.accent), mix(p.sky, p.haze, 0.5), 40))
    sea = against(p.sky, p.haze, 50)
    art.fade(horizon, 210, darker(sea, 0.2), lighter(sea, 0.15))
    foam = lighter(sea, 0.75)
    for y, left in ((horizon + 20, 20), (horizon + 40, 84)):
        start = art.near(left)
        crests = [(start + 10 * k, y + (4 if k % 2 else -4)) for k in range(10)]
        art.stroke(crests, foam)
    sand = against(lighter(p.ground, 0.45), sea, 45)
    edge = [(x, shore + 9 * math.sin(x / 34)) for x in range(0, 257, 16)]
    art.area([*((x, y - 10) for x, y in edge), (256, 256), (0, 256)], foam)
    art.area([*edge, (256, 256), (0, 256)], sand)
    _palm(art, art.near(214, 10), art.near(64, 10))


def _palm(art: Painter, x: float, top: float) -> None:
    trunk = [(x + 22 * t * t, top + (212 - top) * t) for t in (0, 0.25, 0.5, 0.75, 1)]
    art.stroke(trunk, art.palette.structure, 13)
    leaf, size = darker(art.palette.structure, 0.25), art.sized(58)
    for side in (-1, 1):
        for reach, rise, fall in ((1.0, -0.1, 0.55), (1.0, -0.5, 0.0), (0.5, -0.75, -0.65), (0.6, 0.25, 0.95)):
            bend, tip = (
                (x + side * 0.55 * reach * size, top + rise * size),
                (x + side * reach * size, top + fall * size),
            )
            art.area(
                [(x, top - 7), (bend[0], bend[1] - 8), tip, (bend[0] - side * 8, bend[1] + 9), (x, top + 7)], leaf
            )
    for dx in (-7, 7):
        art.disc(x + dx, top + 10, 8, art.palette.accent)


@scene
def wheat_field(art: Painter) -> None:
    p = art.palette
    horizon, middle = art.near(112, 10), art.near(128)
    gold = against(p.ground, p.haze, 45)
    art.fade(0, horizon, p.sky, p.haze)
    art.box(0, horizon - 1, 256, 256, gold)
    for k in range(-7, 8):
        near_x, far_x = middle + 62 * k, middle + 20 * k
        row = [(far_x - 3, horizon), (far_x + 3, horizon), (near_x + 16, 256), (near_x - 16, 256)]
        art.area(row, darker(gold, 0.28))
    for k in range(5):
        art.disc(64 * k, horizon, art.near(40, 6), darker(p.structure, 0.1), 8)
    ear = against(p.accent, gold, 60)
    for x in (14, 50, 208, 242):
        _wheat_ear(art, art.near(x, 6), art.near(78, 22), ear)


def _wheat_ear(art: Painter, x: float, top: float, colour: RGB) -> None:
    art.stroke([(x, top), (art.near(x, 6), 256)], darker(colour, 0.2), STROKE)
    art.disc(x, top - 6, 6, colour, 14)
    for k in range(4):
        y = top + 8 + 18 * k
        for side in (-1, 1):
            tip = (x + side * 18, y - 14)
            art.area([(x, y + 10), (x + side * 16, y + 4), tip, (x + side * 4, y - 6)], colour)


@scene
def stage(art: Painter) -> None:
    p = art.palette
    floor = art.near(180, 8)
    back = darker(mix(p.sky, p.structure, 0.5), 0.55)
    boards = mix(p.ground, back, 0.2)
    art.box(0, 0, 256, 256, back)
    art.box(0, floor, 256, 256, boards)
    for k in range(-4, 5):
        art.stroke([(128 + 34 * k, floor), (128 + 60 * k, 256)], darker(boards, 0.3))
    beam, aim = lighter(p.haze, 0.4), art.near(128, 12)
    art.area([(70, 20), (90, 20), (aim + 34, floor + 26), (aim - 56, floor + 26)], mix(back, beam, 0.45))
    art.area([(166, 20), (186, 20), (aim + 56, floor + 26), (aim - 34, floor + 26)], mix(back, beam, 0.45))
    art.area([(128, 86), (aim + 34, floor + 26), (aim - 34, floor + 26)], mix(back, beam, 0.75))
    art.disc(aim, floor + 28, 62, mix(boards, beam, 0.75), 17)
    cloth = against(p.accent, back, 60)
    for side in (-1, 1):
        reach = art.sized(66)
        for k in range(4):
            outer, inner = 128 + side * (132 - k * reach / 4), 128 + side * (132 - (k + 1) * reach / 4)
            flare = side * (8 if k == 3 else 0)
            fold = [(outer, 0), (inner - side * 14, 0), (inner + flare, 120), (inner, 214), (outer, 214)]
            art.area(fold, cloth if k % 2 else darker(cloth, 0.3))
    for k in range(6):
        art.disc(21 + 43 * k, 18, 25, darker(cloth, 0.3), 29)
        art.disc(21 + 43 * k, 12, 23, cloth, 26)


@scene
def volcano(art: Painter) -> None:
    p = art.palette
    x, top, foot = art.near(128), art.near(92, 8), 204.0
    art.fade(0, foot, p.sky, p.haze)
    smoke = against(mix(p.structure, p.haze, 0.5), mix(p.sky, p.haze, 0.3), 40)
    drift = art.near(14, 8)
    for k in range(6):
        puff = art.sized(16 + 5 * k)
        art.disc(x + drift * k * 0.9 + art.near(0, 6), top - 8 - 16 * k, puff, lighter(smoke, 0.05 * k), 0.8 * puff)
    rock, mouth, half = darker(p.structure, 0.2), art.sized(28), art.sized(118)
    slope = [(x - half, foot), (x - 0.5 * half, 158), (x - mouth, top), (x + mouth, top), (x + 0.5 * half, 158)]
    art.area([*slope, (x + half, foot)], rock)
    art.area([(x + 4, top), (x + mouth, top), (x + 0.5 * half, 158), (x + half, foot), (x + 20, foot)], darker(rock))
    lava = against(p.accent, rock, 80)
    art.disc(x, top, mouth, lava, 9)
    for dx, low, width in ((-0.7, 150, 11), (0.0, 182, 14), (0.75, 138, 11)):
        start, end = x + 0.7 * dx * mouth, art.near(low, 8)
        art.stroke([(start, top), (start + dx * 14 - 5, (top + end) / 2), (start + dx * 36, end)], lava, width)
    for angle in (-2.4, -1.9, -1.1, -0.7):
        reach = art.near(42, 8)
        art.disc(x + reach * 1.1 * math.cos(angle), top + reach * math.sin(angle), 7, lava)
    art.fade(foot, 256, p.ground, darker(p.ground, 0.3))


@scene
def jail_cell(art: Painter) -> None:
    p = art.palette
    wall = mix(p.haze, p.ground, 0.45)
    art.box(0, 0, 256, 256, darker(wall, 0.35))
    for row in range(7):
        for k in range(-1, 4):
            left = 72 * k + 36 * (row % 2)
            art.box(left, 30 * row, left + 63, 30 * row + 21, darker(wall, 0.06 * ((row + k) % 3)))
    art.box(0, 206, 256, 256, darker(p.ground, 0.45))
    offset, gap = art.near(0, 12), art.near(50, 3)
    x, y, half, frame = 128 + offset, art.near(68, 10), art.sized(38), darker(p.structure, 0.5)
    art.box(x - half - 10, y - 40, x + half + 10, y + 40, frame)
    art.box(x - half, y - 30, x + half, y + 30, lighter(p.sky, 0.6))
    art.box(x - half, y - 4, x + half, y + 4, frame)
    iron = against(p.structure, wall, 95)
    for k in range(-3, 4):
        bar = 128 + offset + gap * k
        art.box(bar - 7, 0, bar + 7, 256, iron)
        art.box(bar - 7, 0, bar - 3, 256, mix(iron, p.haze, 0.35))
    for rail in (12, 238):
        art.box(0, rail - 8, 256, rail + 8, iron)


@scene
def landfill(art: Painter) -> None:
    p = art.palette
    art.landscape(190)
    shades = [
        p.structure,
        p.accent,
        darker(p.ground),
        lighter(p.structure, 0.5),
        darker(p.accent),
        lighter(p.ground, 0.5),
    ]
    for x, top, half in ((188, 96, 120), (52, 66, 110)):
        middle, peak, wide = art.near(x), art.near(top, 10), art.sized(half)
        heap = [(middle - wide, 214), (middle - 0.45 * wide, peak + 30), (middle, peak), (middle + wide, 214)]
        art.area(heap, against(darker(p.ground, 0.5), p.haze, 60))
        for row in range(4):
            y = peak + 14 + (204 - peak) * row / 4
            reach = wide * (y - peak + 6) / (214 - peak)
            for k in range(2 + row):
                _rubbish(art, middle + reach * (2 * (k + 0.5) / (2 + row) - 1), art.near(y, 6), art.pick(shades))
    for x, y in ((150, 34), (206, 56), (188, 20)):
        gx, gy = art.near(x, 10), art.near(y, 8)
        art.stroke([(gx - 18, gy - 8), (gx, gy + 4), (gx + 18, gy - 8)], darker(p.structure))


def _rubbish(art: Painter, x: float, y: float, colour: RGB) -> None:
    """One tyre, box, bag or shard, large enough to be seen on its own."""
    kind, size, turn = int(art.rng.random() * 4), art.sized(19), art.near(0, 0.7)
    if kind == 0:
        art.disc(x, y, size, darker(art.palette.structure, 0.7))
        art.disc(x, y, 0.45 * size, lighter(colour))
    elif kind == 1:
        art.disc(x, y + 4, size, colour, 0.85 * size)
        art.area([(x, y), (x - 9, y - 1.1 * size), (x + 9, y - 1.1 * size)], colour)
    else:
        corners = (0.6, 2.5, 3.7, 5.7) if kind == 2 else (0.0, 2.4, 3.9)
        art.area(
            [(x + 1.25 * size * math.cos(a + turn), y + 1.25 * size * math.sin(a + turn)) for a in corners], colour
        )


@scene
def swamp(art: Painter) -> None:
    p = art.palette
    art.fade(0, 136, mix(p.sky, p.ground, 0.3), p.haze)
    mud, water = darker(p.ground, 0.45), mix(darker(p.sky, 0.45), p.ground, 0.3)
    for k in range(6):
        art.disc(52 * k, 132, art.sized(40), mix(p.ground, p.haze, 0.4), art.sized(24))
    art.fade(136, 256, mud, darker(mud, 0.3))
    for x, y, wide, tall in ((62, 160, 72, 13), (204, 168, 76, 15), (124, 212, 112, 30)):
        px, py, size = art.near(x, 10), art.near(y, 4), art.sized(wide)
        art.disc(px, py, size, water, tall)
        art.disc(px - 8, py - 2, 0.72 * size, lighter(water, 0.22), 0.5 * tall)
    bark = against(darker(p.structure, 0.5), p.haze, 60)
    _bare_tree(art, art.near(40, 12), 190, 1, bark)
    _bare_tree(art, art.near(216, 12), 178, -1, bark)
    for x in (8, 32, 196, 222, 246):
        rx, top = art.near(x, 8), art.near(186, 12)
        art.stroke([(rx, 256), (rx + 4, top)], lighter(p.ground, 0.25))
        art.disc(rx + 4, top, 8, p.accent, 19)


def _bare_tree(art: Painter, x: float, foot: float, side: int, bark: RGB) -> None:
    """A crooked trunk that leans to `side`, with leafless forking branches."""
    lean, crook = side * art.sized(22), side * art.sized(14)
    elbow, crown = (x - crook, foot - 62), (x + 0.5 * lean, foot - 116)
    art.area([(x - 24, foot), (x - 9, foot - 26), (x + 9, foot - 26), (x + 24, foot)], bark)
    art.stroke([(x, foot - 10), elbow, crown], bark, 18)
    art.stroke([crown, (x - lean, foot - 146), (x - 0.6 * lean, foot - 176)], bark, 11)
    art.stroke([crown, (x + 1.6 * lean, foot - 138), (x + 2.2 * lean, foot - 170)], bark, 10)
    art.stroke([(x + 1.6 * lean, foot - 138), (x + 3.0 * lean, foot - 132)], bark, STROKE)
    art.stroke([elbow, (x - crook - 1.2 * lean, foot - 88), (x - crook - 1.4 * lean, foot - 114)], bark, 10)


@scene
def cemetery(art: Painter) -> None:
    p = art.palette
    art.fade(0, 190, p.sky, p.haze)
    art.disc(art.near(60), art.near(40, 10), art.sized(22), against(lighter(p.haze, 0.6), p.sky, 35))
    crest = art.near(122, 6)
    iron = against(darker(p.structure, 0.6), p.haze, 50)
    for k in range(12):
        x = 12 + 22 * k
        art.box(x - 4, crest - 36, x + 4, crest + 30, iron)
        art.area([(x - 9, crest - 34), (x + 9, crest - 34), (x, crest - 52)], iron)
    art.box(0, crest - 24, 256, crest - 16, iron)
    hill = darker(p.ground, 0.1)
    art.disc(128, 330, 250, hill, 330 - crest)
    art.box(0, 190, 256, 256, hill)
    stone = against(lighter(p.structure, 0.3), hill, 65)
    for k, x in enumerate((70, 128, 186)):
        _grave(art, art.near(x, 10), crest + 36, 15, stone, cross=k == 1)
    for x, foot, cross in ((28, 186, True), (228, 188, False), (74, 206, False), (184, 206, True)):
        _grave(art, art.near(x, 8), art.near(foot, 6), art.sized(19), stone, cross)


def _grave(art: Painter, x: float, foot: float, half: float, stone: RGB, cross: bool) -> None:
    """A round-headed tombstone or a cross, with its mound."""
    top, shade = foot - 3 * half, darker(stone, 0.4)
    art.disc(x, foot, 1.5 * half, darker(art.palette.ground, 0.45), 8)
    if cross:
        art.box(x - 0.3 * half, top - 0.3 * half, x + 0.3 * half, foot, stone)
        art.box(x - half, top + 0.5 * half, x + half, top + 1.1 * half, stone)
        return
    art.disc(x, top + half, half, stone)
    art.box(x - half, top + half, x + half, foot, stone)
    art.box(x - 0.5 * half, top + 0.9 * half, x + 0.5 * half, top + 0.9 * half + STROKE, shade)


@scene
def railroad_track(art: Painter) -> None:
    p = art.palette
    horizon, vanish = art.near(92, 10), art.near(128)
    art.landscape(horizon)
    for k in range(5):
        art.disc(64 * k, horizon, art.sized(40), mix(p.ground, p.structure, 0.4), art.sized(15))
    art.fade(horizon, 256, p.ground, darker(p.ground, 0.2))
    gravel = mix(lighter(p.ground, 0.35), p.haze, 0.3)
    art.area([(vanish - 6, horizon), (vanish + 6, horizon), (270, 256), (-14, 256)], gravel)
    sleeper, rail = darker(p.structure, 0.35), against(p.accent, gravel, 80)

    def across(depth: float, side: float) -> Point:
        """The point at a depth (0 far, 1 near) and a side (-1 left rail, 1 right rail)."""
        return vanish + (128 - vanish) * depth + side * (5 + 87 * depth), horizon + (256 - horizon) * depth

    for depth, thick in ((0.13, 0.035), (0.22, 0.04), (0.33, 0.05), (0.47, 0.06), (0.65, 0.08), (0.88, 0.1)):
        corners = [across(depth, -1.4), across(depth, 1.4), across(depth + thick, 1.4), across(depth + thick, -1.4)]
        art.area(corners, against(sleeper, gravel, 60))
    for side in (-1, 1):
        art.area([across(0, 0.7 * side), across(0, 1.2 * side), across(1, 1.1 * side), across(1, 0.92 * side)], rail)
    pole = darker(p.structure, 0.2)
    for x, top, foot, arm in ((226, 22, 196, 26), (174, 54, 128, 14)):
        px = art.near(x, 6)
        art.box(px - 5, top, px + 5, foot, pole)
        art.box(px - arm, top + 8, px + arm, top + 17, pole)


@scene
def street(art: Painter) -> None:
    p = art.palette
    x, y = art.near(128), art.near(124, 6)
    art.fade(0, 150, p.sky, p.haze)
    art.box(0, y, 256, 256, lighter(p.ground, 0.4))
    road = darker(p.ground, 0.45)
    art.area([(x - 8, y), (x + 8, y), (246, 256), (10, 256)], road)
    for near_share, far_share in ((0.1, 0.22), (0.34, 0.52), (0.7, 1.0)):
        ends = [(x + (128 - x) * s, y + (256 - y) * s, 3 + 7 * s) for s in (near_share, far_share)]
        (ax, ay, aw), (bx, by, bw) = ends
        art.area([(ax - aw, ay), (ax + aw, ay), (bx + bw, by), (bx - bw, by)], lighter(p.haze, 0.6))
    for side in (-1, 1):
        edge = 128 + side * 132
        tints = p.structure, mix(p.structure, p.accent, 0.45), darker(p.structure, 0.3)
        for k, (far, near) in enumerate(((0.2, 0.36), (0.36, 0.6), (0.6, 1.0))):
            _facade(art, x, y, edge, (far, near), art.near(122, 14), tints[(k + (side > 0)) % 3])


def _facade(art: Painter, x: float, y: float, edge: float, reach: Point, height: float, wall: RGB) -> None:
    """A house front from reach[0] to reach[1] of the way out from the vanishing point (x, y) to the image's edge."""

    def corner(out: float, level: float) -> Point:
        """The point `out` of the way to the edge, on a level from -0.5 (pavement) to 1 (eaves)."""
        return x + (edge - x) * out, y - level * height * out

    def panel(first: float, last: float, low: float, high: float, colour: RGB) -> None:
        art.area([corner(first, low), corner(first, high), corner(last, high), corner(last, low)], colour)

    far, near = reach
    lit = against(lighter(art.palette.haze, 0.3), wall, 70)
    panel(far, near, -0.5, 1.0, wall)
    panel(far, near, 0.92, 1.04, darker(wall, 0.4))
    columns = 2 if near > 0.5 else 1
    for k in range(columns):
        first, last = (far + (near - far) * (k + share) / columns for share in (0.24, 0.76))
        for low, high in ((0.08, 0.32), (0.52, 0.78)):
            panel(first, last, low, high, lit)
    panel(far + 0.3 * (near - far), far + 0.65 * (near - far), -0.5, -0.1, darker(art.palette.accent))


@scene
def bridge(art: Painter) -> None:
    p = art.palette
    deck, top, shift = art.near(132, 8), art.near(38, 8), art.near(0, 12)
    left, right = shift + art.near(62, 8), shift + art.near(194, 8)
    art.fade(0, 150, p.sky, p.haze)
    for x in (10, 130, 250):
        art.disc(art.near(x), 152, art.sized(76), mix(p.ground, p.haze, 0.55), art.sized(28))
    water = against(mix(p.sky, p.ground, 0.4), p.haze, 40)
    art.fade(150, 256, lighter(water, 0.15), darker(water, 0.2))
    for x, y in ((20, 180), (196, 188), (36, 230), (186, 238)):
        start = art.near(x, 12)
        art.stroke([(start, y), (start + 50, y)], lighter(water, 0.5))
    steel, span = p.structure, right - left

    def cable(x: float) -> float:
        """The main cable's height: a parabola between the towers, falling to the deck outside them."""
        middle = (left + right) / 2
        sag = abs(x - middle) / (span / 2)
        return deck - 16 - (deck - 24 - top) * (sag**2 if sag <= 1 else max(0.0, 1 - (sag - 1) * span / 150))

    for k in range(-3, 10):
        x = left + k * span / 6
        art.stroke([(x, cable(x)), (x, deck)], mix(steel, p.haze, 0.25))
    art.stroke([(x, cable(x)) for x in range(-8, 265, 8)], steel, 9)
    for x in (left, right):
        art.box(x - 11, top, x + 11, 186, darker(steel, 0.2))
        art.box(x - 15, top - 6, x + 15, top + 6, p.accent)
        art.box(x - 20, 176, x + 20, 194, darker(steel, 0.45))
    art.box(0, deck - 5, 256, deck + 9, p.accent)


@scene
def corridor(art: Painter) -> None:
    p = art.palette
    x, y, half = art.near(128), art.near(104, 8), art.sized(38)
    left, right, top, low = x - half, x + half, y - half, y + 1.1 * half
    wall = lighter(p.haze, 0.15)
    art.area([(0, -20), (256, -20), (right, top), (left, top)], darker(mix(p.sky, wall, 0.8), 0.05))
    art.area([(0, 256), (256, 256), (right, low), (left, low)], p.ground)
    art.area([(96, 256), (160, 256), (x + 0.3 * half, low), (x - 0.3 * half, low)], lighter(p.ground, 0.2))
    art.area([(0, -20), (left, top), (left, low), (0, 256)], darker(wall, 0.12))
    art.area([(256, -20), (right, top), (right, low), (256, 256)], darker(wall, 0.25))
    art.box(left, top, right, low, darker(wall, 0.45))
    art.box(x - 0.45 * half, top + 0.5 * half, x + 0.45 * half, low, p.accent)
    for edge, side in ((0, left), (256, right)):
        for first, last in ((0.12, 0.32), (0.5, 0.86)):
            for grow, door in ((0.03, darker(p.structure, 0.45)), (0.0, p.structure)):
                ends = [
                    (side + (edge - side) * s, top - (20 + top) * s, low + (256 - low) * s)
                    for s in (first - grow, last + grow)
                ]
                (ax, at, al), (bx, bt, bl) = ends
                lintel = 0.26 - 1.3 * grow
                art.area([(ax, al), (ax, at + (al - at) * lintel), (bx, bt + (bl - bt) * lintel), (bx, bl)], door)
        art.stroke([(side, low), (edge, 256)], darker(p.structure, 0.3))
    for share in (0.2, 0.6):
        lx, ly, size = x + (128 - x) * share, top - (20 + top) * share, 16 + 36 * share
        art.area(
            [(lx - size, ly - size / 3), (lx + size, ly - size / 3), (lx + 0.8 * size, ly), (lx - 0.8 * size, ly)],
            WHITE,
        )


@scene
def library(art: Painter) -> None:
    p = art.palette
    wood, hollow = p.structure, darker(p.structure, 0.65)
    floor = art.near(204, 6)
    spines = [p.accent, lighter(p.accent, 0.4), p.sky, lighter(p.haze, 0.3), p.ground, lighter(p.ground, 0.4)]
    spines = [against(colour, hollow, 50) for colour in spines]
    art.box(0, 0, 256, 256, hollow)
    shift, rows = art.near(0, 14), 4
    pitch = floor / rows
    for row in range(rows):
        board, x = pitch * (row + 1) - 9, -8.0
        while x < CANVAS:
            width = art.near(14, 3)
            if art.rng.random() > 0.06:
                art.box(x, board - art.near(pitch - 17, 5), x + width - 3, board, art.pick(spines))
            x += width
        art.box(0, board, 256, board + 9, wood)
    for post in (0, 85, 171, 256):
        art.box(post + shift - 7, 0, post + shift + 7, floor, wood)
    art.fade(floor, 256, mix(p.ground, p.haze, 0.3), p.ground)
    lean = art.near(206, 10)
    rail = lighter(p.haze, 0.5)
    for step in range(6):
        y = 24 + 34 * step
        art.stroke([(lean + 0.08 * y - 22, y), (lean + 0.08 * y + 22, y)], rail)
    for side in (-22, 22):
        art.stroke([(lean + side, 0), (lean + side + 18, 222)], rail, 9)


SCENES: tuple[str, ...] = tuple(_SCENES)
