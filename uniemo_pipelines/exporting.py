"""What is published on the Hub, as folders: whole pipelines, adapters, understanding models.

Each is written whole or not at all, and has the card that lies beside the adapter that it was made of.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from .adapters_uniemo import find_adapter, read_adapter
from .folders import whole_folder
from .loaders_uniemo import LoadedAdapter
from .pipeline_uniemo import UniEmoPipeline
from .pipeline_uniemo_xl import UniEmoXLPipeline
from .saving_uniemo import write_adapter_repository

CARD = "README.md"


def export_pipeline(directory: Path, base: str, adapter: str) -> None:
    """Write a whole pipeline: a Stable Diffusion, the adapter on it, what understands images, and the code for them.

    Args:
        directory: the folder, new or empty.
        base: folder or repository of the Stable Diffusion.
        adapter: file, folder or repository of the adapter.

    Raises:
        ValueError: the adapter is refused, or is for another base.
        OSError: a model is not there, or cannot be fetched.
    """
    path = find_adapter(adapter)
    pipe = pipeline_class(base).from_pretrained(base, dtype=torch.float32)
    pipe.load_uniemo(path)
    with whole_folder(directory) as folder:
        pipe.save_pretrained(folder)
        add_card(folder, path.parent)


def export_adapter(directory: Path, adapter: str) -> None:
    """Write an adapter's file, and the code that makes a pipeline of its base.

    An understanding model that is not in the file is written beside it, unless it is on the Hub. Arguments and errors
    are as above.
    """
    path = find_adapter(adapter)
    loaded = LoadedAdapter(read_adapter(path))
    pipeline = UniEmoPipeline if len(loaded.fusion.config.condition_dims) == 1 else UniEmoXLPipeline
    with whole_folder(directory) as folder:
        write_adapter_repository(folder, loaded, pipeline, loaded.base_model)
        add_card(folder, path.parent)


def export_understanding(directory: Path, adapter: str) -> None:
    """Write what understands images in transformers' layout, with its code for the Auto classes.

    Arguments and errors are as above; ValueError also where the adapter names no understanding model.
    """
    loaded = LoadedAdapter(read_adapter(find_adapter(adapter)))
    with whole_folder(directory) as folder:
        loaded.save_understanding(folder)


def add_card(folder: Path, source: Path) -> None:
    """Put the card that lies beside the adapter into what was made of it; where there is none, there is none."""
    if (source / CARD).is_file():
        shutil.copyfile(source / CARD, folder / CARD)


def pipeline_class(base: str) -> type[DiffusionPipeline]:
    """Our class for a base, by what its folder or repository says it is."""
    config: dict[str, Any] = UniEmoPipeline.load_config(base)
    return UniEmoXLPipeline if "XL" in str(config.get("_class_name")) else UniEmoPipeline
