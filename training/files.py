"""Files that are whole or not there."""

import os
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import save_file
from torch import Tensor


def write_whole(path: Path, text: str) -> None:
    """Write a text under another name first; of several processes that write the same at once the last one counts."""
    partial = _partial(path)
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def save_whole(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors under another name first."""
    partial = _partial(path)
    save_file(tensors, partial, metadata)
    os.replace(partial, path)


def save_image_whole(path: Path, image: Image.Image, **options: Any) -> None:
    """Write an image under another name first, in the format of its own name; `options` are of that format."""
    partial = _partial(path)
    image.save(partial, Image.registered_extensions()[path.suffix], **options)
    os.replace(partial, path)


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.partial")
