"""Pictures from a pipeline as arrays, each with a seed of its own."""

from collections.abc import Sequence
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
