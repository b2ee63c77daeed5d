"""Files that are whole or not there."""

import os
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import save_file
from torch import Tensor


def write_whole(path: Path, text: str) -> None:
    """Write a text under another name first."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def save_whole(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors under another name first."""
    partial = path.with_name(f"{path.name}.partial")
    save_file(tensors, partial, metadata)
    os.replace(partial, path)


def save_shared(path: Path, tensors: dict[str, Tensor]) -> None:
    """As `save_whole`, of a file that several processes may write at once; the last one counts."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    save_file(tensors, partial)
    os.replace(partial, path)


def save_image_whole(path: Path, image: Image.Image, **options: Any) -> None:
    """Write an image under another name first, in the format of its own name; `options` are of that format."""
    partial = path.with_name(f"{path.name}.partial")
    image.save(partial, Image.registered_extensions()[path.suffix], **options)
    os.replace(partial, path)
