"""Opening any picture file as RGB."""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

# Pillow's 16- and 32-bit grayscale modes; its own conversion to 8 bits clips instead of scaling.
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")

# EXIF orientations that swap width and height.
_LYING = (5, 6, 7, 8)


def open_image(file: str | os.PathLike[str] | BinaryIO, edge: int | None = None) -> Image.Image:
    """Reads a picture of any mode and size as an upright RGB image.

    The EXIF orientation is applied, deep grayscale is scaled to 8 bits, transparency is laid over white, of an
    animation the first frame is taken.

    Args:
        file: a path, or a file opened for reading bytes.
        edge: what the shorter edge will be scaled down to afterwards. A JPEG is then decoded at the half, quarter or
            eighth of its size that is still at least twice that: after scaling, a grey level's difference at most
            edges, for a quarter of the time.

    Raises:
        ValueError: the file cannot be read, is no picture, is cut short, or unpacks to more pixels than Pillow's
            `Image.MAX_IMAGE_PIXELS` allows; one line that names the file.
    """
    with _header(file) as image:
        if edge is not None:
            image.draft(None, (2 * edge, 2 * edge))
        image.load()
        return as_rgb(image)


def image_size(file: str | os.PathLike[str] | BinaryIO) -> tuple[int, int]:
    """Width and height that `open_image` gives a picture, from its header alone where the format has one.

    Raises:
        ValueError: as `open_image`, as far as the header shows.
    """
    with _header(file) as image:
        if image.format == "TIFF":  # Pillow turns these by itself, and says so before it does
            return image.size
        return image.size[::-1] if _orientation(image) in _LYING else image.size


@contextmanager
def _header(file: str | os.PathLike[str] | BinaryIO) -> Iterator[Image.Image]:
    """A picture that is not decoded yet; whatever fails until it is closed becomes one line that names the file."""
    name = _name(file)
    try:
        with warnings.catch_warnings():
            # Of harmless oddities such as corrupt EXIF blocks, and of pictures that are refused below.
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                # Pillow only warns up to twice its limit; a picture of that size would already take gigabytes here.
                # Turning its warning into an error is no way: filters are shared by threads.
                if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                    raise Image.DecompressionBombError
                yield image
    except Image.DecompressionBombError:
        limit = Image.MAX_IMAGE_PIXELS or 0
        raise ValueError(f"{name}: the picture has more than {limit:,} pixels; scale it down first.") from None
    except UnidentifiedImageError:
        raise ValueError(f"{name}: expected a picture (JPEG, PNG, WebP, ...), found {_content(file)}.") from None
    except OSError as error:
        raise ValueError(f"{name}: {_reason(error)}.") from None
    except Exception as error:  # what Pillow's decoders raise on damaged data depends on the format
        raise ValueError(f"{name}: the picture is damaged ({_first_line(error)}).") from None


def as_rgb(image: Image.Image) -> Image.Image:
    """What `open_image` does with an image that is open already; the image itself where there is nothing to do."""
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in _DEEP_MODES:
        return _deep_to_rgb(image)
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        white = Image.new("RGBA", pixels.size, "white")
        return Image.alpha_composite(white, pixels).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _deep_to_rgb(image: Image.Image) -> Image.Image:
    """Scales grayscale of more than 8 bits: integers by 16 bits' range, wider values by their own."""
    values = np.asarray(image, dtype=np.float64)
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    low, high = 0.0, 65535.0
    if image.mode == "F" or values.min() < low or values.max() > high:
        low, high = values.min(), values.max()
    scaled = (values - low) / max(high - low, np.finfo(np.float64).tiny) * 255.0
    return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")


def _name(file: str | os.PathLike[str] | BinaryIO) -> str:
    return str(getattr(file, "name", "the file")) if hasattr(file, "read") else os.fspath(file)


def _content(file: str | os.PathLike[str] | BinaryIO) -> str:
    if not hasattr(file, "read") and Path(file).stat().st_size == 0:
        return "an empty file"
    return "something else"


def _reason(error: OSError) -> str:
    if error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return f"the picture is damaged or cut short ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
