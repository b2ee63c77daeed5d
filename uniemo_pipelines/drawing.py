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
HEAT = np.array([255, 60, 0], dtype=np.float32)


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


def middle_square(image: Image.Image, share: float = 1.0) -> Image.Image:
    """The square in the middle of a picture, its side the given share of the shorter one: what a CLIP model sees."""
    side = max(1, round(min(image.size) * share))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def overlay(image: Image.Image, attention: np.ndarray, side: int = 384) -> Image.Image:
    """Tints an image where attention is high and darkens it where it is low.

    Args:
        image: what the model saw, see `middle_square`.
        attention: (rows, columns), of any positive scale; shown relative to its own largest value.
        side: of the result in pixels.
    """
    share = Image.fromarray((attention / attention.max()).astype(np.float32))
    heat = np.asarray(share.resize((side, side), Image.Resampling.BICUBIC)).clip(0, 1)[..., None]
    pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
    tinted = pixels * (0.35 + 0.65 * heat) * (1 - 0.4 * heat) + HEAT * 0.4 * heat
    return Image.fromarray(tinted.round().clip(0, 255).astype(np.uint8))


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
