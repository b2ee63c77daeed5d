"""Pictures from a pipeline as arrays, each with a seed of its own."""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from tqdm import tqdm


def sample_pictures(
    pipeline: StableDiffusionPipeline,
    seeds: Sequence[int],
    *,
    prompts: Sequence[str] | None = None,
    batch_size: int = 25,
    description: str | None = None,
    **options: Any,
) -> np.ndarray:
    """One picture a seed, (N, H, W, 3) uint8.

    Args:
        prompts: one for each seed; None where `options` say what to draw (an emotion, one prompt for all).
        description: of the progress bar; None for none.
        options: go to the pipeline's call.
    """
    pipeline.set_progress_bar_config(disable=True)
    pictures = []
    for start in tqdm(range(0, len(seeds), batch_size), description, disable=description is None, mininterval=5):
        batch = seeds[start : start + batch_size]
        asked = {"num_images_per_prompt": len(batch)}
        if prompts is not None:
            asked = {"prompt": list(prompts[start : start + batch_size])}
        generators = [torch.Generator().manual_seed(seed) for seed in batch]
        pictures += pipeline(**asked, **options, generator=generators).images
    return np.stack([np.asarray(picture) for picture in pictures])


def kept_pictures(path: Path, draw: Callable[[], np.ndarray]) -> np.ndarray:
    """The pictures at `path`; drawn and kept there first, whole or not at all, where there are none.

    A run that was stopped so goes on where it was.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, draw())
        partial.rename(path)
    return np.load(path)


def digest_of(settings: object, weights: Iterable[Path]) -> str:
    """A short name of all that decides pictures: settings, by their repr, and the bytes of weights."""
    digest = sha256(repr(settings).encode())
    for path in weights:
        with path.open("rb") as file:
            while block := file.read(2**20):  # a base's weights are several GB
                digest.update(block)
    return digest.hexdigest()[:12]
