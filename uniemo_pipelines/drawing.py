"""Grids, labelled sheets and attention overlays of images, and writing them without half-written files."""

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 4
BACKGROUND = "white"
HEAT = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (255, 215, 70)], dtype=np.float32)
"""From no attention to the most, dark to light as well as in hue; as matplotlib's "inferno", ending in yellow."""


def grid(images: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """Puts images of one size side by side, row by row; as near to a square as their number allows unless told."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    width, height = images[0].size
    canvas = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), BACKGROUND)
    for index, image in enumerate(images):
        canvas.paste(image, (index % columns * (width + GAP), index // columns * (height + GAP)))
    return canvas


def sheet(rows: Mapping[str, Sequence[Image.Image]]) -> Image.Image:
    """Puts one row of images under another, each with its name in front."""
    strips = {name: grid(images, len(images)) for name, images in rows.items()}
    font = ImageFont.load_default(max(10, next(iter(strips.values())).height // 8))
    margin = math.ceil(max(font.getlength(name) for name in strips)) + 4 * GAP
    width = margin + max(strip.width for strip in strips.values())
    canvas = Image.new("RGB", (width, sum(strip.height + GAP for strip in strips.values()) - GAP), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    top = 0
    for name, strip in strips.items():
        draw.text((margin - 2 * GAP, top + strip.height // 2), name, fill="black", font=font, anchor="rm")
        canvas.paste(strip, (margin, top))
        top += strip.height + GAP
    return canvas


def middle_square(size: tuple[int, int], share: float = 1.0) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what a CLIP model sees of a picture of this width and height.

    That is the square in its middle, with the given share of the shorter edge.
    """
    side = max(1, round(min(size) * share))
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return left, top, left + side, top + side


def overlay(image: Image.Image, attention: np.ndarray, share: float = 1.0, edge: int = 384) -> list[Image.Image]:
    """Shows attention over a picture, and alone, at the same place.

    Args:
        image: all of it; what the model does not see is faded.
        attention: (rows, columns) over `middle_square`, of any positive scale; shown relative to its largest value.
        share: see `middle_square`.
        edge: the shorter one of the results in pixels, or less where the other would be more than four times that.

    Returns:
        The picture in grey under the smoothed attention, and the attention patch by patch.
    """
    scale = min(edge / min(image.size), 4 * edge / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    left, top, right, bottom = box = middle_square(size, share)
    grey = image.resize(size, Image.Resampling.BICUBIC).convert("L").convert("RGB")
    over = Image.blend(grey, Image.new("RGB", size, BACKGROUND), 0.7)
    alone = Image.new("RGB", size, BACKGROUND)
    values = Image.fromarray((attention / attention.max()).astype(np.float32))
    square = (right - left, bottom - top)
    over.paste(Image.blend(grey.crop(box), _coloured(values.resize(square, Image.Resampling.BICUBIC)), 0.5), box)
    alone.paste(_coloured(values.resize(square, Image.Resampling.NEAREST)), box)
    return [over, alone]


def _coloured(values: Image.Image) -> Image.Image:
    """Numbers from 0 to 1 in the colours of `HEAT`."""
    steps = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(np.asarray(values), steps, HEAT[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def numbered(path: Path, label: int | str) -> Path:
    """`awe.png` and 1 give `awe-1.png`."""
    return path.parent / f"{path.stem}-{label}{path.suffix}"


def check_writable(path: Path, option: str, suffixes: Sequence[str] = ()) -> None:
    """Tries out whether a file can be written at `path`, before the long work that makes it.

    Args:
        path: the very file that will be written.
        option: what the user gave it with, to be named in the message.
        suffixes: those allowed; of the picture formats unless given.

    Raises:
        ValueError: the suffix is not allowed, the folder is missing or refuses files, `path` is a folder.
    """
    if path.is_dir():
        raise ValueError(f"{path}: expected a file to write, found a folder.")
    if path.suffix.lower() not in (suffixes or _written_suffixes()):
        *some, last = suffixes or (".png", ".jpg", ".webp")
        expected = f"{', '.join(some)} or {last}"
        raise ValueError(f"{path}: expected a name that ends in {expected}, found {path.suffix or 'none'!r}.")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}; make it first.")
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".uniemo-"):
            pass
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(None, "the file is write-protected")
    except OSError as error:
        raise ValueError(f"{path}: cannot be written there ({error.strerror}); choose another {option}.") from None


def write_image(image: Image.Image, path: Path) -> None:
    """Writes an image whole or not at all: an interrupted or failed run leaves what was there before.

    Raises:
        OSError: the disk is full or the folder refuses the file.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        image.save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _written_suffixes() -> set[str]:
    writers = Image.SAVE if Image.registered_extensions() else {}  # the call makes Pillow register its formats
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in writers}
