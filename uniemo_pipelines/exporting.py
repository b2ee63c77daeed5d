"""What is published on the Hub, as folders: whole pipelines, adapters, understanding models.

Each is written whole or not at all, with a card made from what lies beside the adapter that it was made of.
"""

from contextlib import suppress
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from .adapters_uniemo import ADAPTER_NAME, find_adapter, read_adapter
from .cards_uniemo import CARD, add_card
from .folders import whole_folder
from .hub_uniemo import is_repository, snapshot_of
from .loaders_uniemo import LoadedAdapter
from .pipeline_uniemo import UniEmoPipeline
from .pipeline_uniemo_xl import UniEmoXLPipeline
from .saving_uniemo import write_adapter_repository
from .textual_inversion_uniemo import export_textual_inversions
from .training_records_uniemo import CONTACT_SHEET, RECORD, RESULTS


def export_pipeline(directory: Path, base: str, adapter: str, repo_id: str | None = None) -> None:
    """Write a whole pipeline: a Stable Diffusion, the adapter on it, what understands images, and the code for them.

    Args:
        directory: the folder, new or empty.
        base: folder or repository of the Stable Diffusion.
        adapter: file, folder or repository of the adapter.
        repo_id: "owner/name" that it will have on the Hub, for the card; the folder's name unless given.

    Raises:
        ValueError: the adapter is refused, or is for another base.
        OSError: a model is not there, or cannot be fetched.
    """
    pipe = pipeline_class(base).from_pretrained(base, dtype=torch.float32)
    load_as_trained(pipe, adapter)
    if pipe.get_active_adapters():
        pipe.fuse_lora()
        pipe.unload_lora_weights()
    with whole_folder(directory) as folder:
        pipe.save_pretrained(folder)
        pipe._describe(folder, repo_id or directory.name)


def export_adapter(directory: Path, adapter: str, repo_id: str | None = None) -> None:
    """Write an adapter's file, and the code that makes a pipeline of its base.

    An understanding model that is not in the file is written beside it, unless it is on the Hub. Arguments and errors
    are as above.
    """
    path = _found(adapter)
    loaded = LoadedAdapter(read_adapter(path))
    pipeline = UniEmoPipeline if len(loaded.fusion.config.condition_dims) == 1 else UniEmoXLPipeline
    with whole_folder(directory) as folder:
        write_adapter_repository(folder, loaded, pipeline, loaded.base_model)
        add_card(folder, path.parent, repo_id or directory.name)


def export_understanding(directory: Path, adapter: str, repo_id: str | None = None) -> None:
    """Write what understands images in transformers' layout, with its code for the Auto classes.

    Arguments and errors are as above; ValueError also where the adapter names no understanding model.
    """
    path = _found(adapter)
    loaded = LoadedAdapter(read_adapter(path))
    with whole_folder(directory) as folder:
        loaded.save_understanding(folder)
        add_card(folder, path.parent, repo_id or directory.name)


def export_embeddings(directory: Path, adapter: str, vectors: int, repo_id: str | None = None) -> list[Path]:
    """Write the emotions as textual inversions, into a folder that may have other things in it.

    Beside an adapter they are a part of its repository; there, and where there is a card or a record already, nothing
    is written but they. Arguments and errors are as above.
    """
    path = _found(adapter)
    files = export_textual_inversions(read_adapter(path).fusion.float(), directory, vectors)
    if not any((directory / name).exists() for name in (ADAPTER_NAME, CARD, RECORD)):
        add_card(directory, path.parent, repo_id or directory.name)
    return files


def load_as_trained(pipe: DiffusionPipeline, adapter: str) -> None:
    """Load an adapter in the place of any other, with the LoRA weights of its base that it was trained with, if any.

    Arguments and errors are as above.
    """
    path = _found(adapter)
    if pipe.list_uniemo():
        pipe.unload_uniemo()
    pipe.load_uniemo(path)
    if path.with_name(LORA_WEIGHT_NAME_SAFE).is_file():
        pipe.load_lora_weights(path.parent, weight_name=LORA_WEIGHT_NAME_SAFE)


def _found(adapter: str) -> Path:
    """An adapter's file; from the Hub, what is known of it there is fetched to its side."""
    path = find_adapter(adapter)
    if (snapshot := snapshot_of(path.parent)) is not None:
        place = {
            "revision": snapshot.commit,
            "cache_dir": snapshot.cache_dir,
            "subfolder": snapshot.inside.rstrip("/") or None,
        }
        for name in (RECORD, RESULTS, CONTACT_SHEET, LORA_WEIGHT_NAME_SAFE):
            with suppress(EntryNotFoundError):
                hf_hub_download(snapshot.repository, name, **place)
    return path


def pipeline_class(base: str) -> type[DiffusionPipeline]:
    """Our class for a base, by what its folder or repository says it is.

    Raises:
        ValueError: it is for no class of ours.
        FileNotFoundError: nothing is there.
    """
    if not Path(base).exists() and not is_repository(base):
        raise FileNotFoundError(f"Expected a Stable Diffusion's folder or repository, found nothing at '{base}'.")
    name = str(UniEmoPipeline.load_config(base).get("_class_name"))
    if "StableDiffusion" not in name and "UniEmo" not in name:
        raise ValueError(f"Expected a Stable Diffusion 1.x, 2.x or XL, found at '{base}' a {name}.")
    return UniEmoXLPipeline if "XL" in name else UniEmoPipeline
