"""Filling a corpus: drawing what it does not have yet, each process its share.

Images are drawn in batches, over processes under `accelerate launch`, and the same command again goes on with a run
that was stopped. Each image comes from a seed of its own in a batch of the same size as any other.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, tqdm
from diffusers import StableDiffusionPipeline

from uniemo_pipelines import embedded

from .generated import (
    MOST_IMAGES,
    MOST_SEED,
    SETTINGS,
    Chunk,
    CorpusSettings,
    chunks_of,
    is_begun,
    read_chunk,
    seed_of,
    write_manifest,
)
from .runs import write_json

PATIENCE = timedelta(days=30)
"""How long a process that has done its share waits for the others: they may have hours to go."""


@dataclass(kw_only=True)
class CorpusArguments:
    """How many images of each emotion, and how they are drawn."""

    base: str = field(metadata={"help": "stock Stable Diffusion, folder or Hub name"})
    output: str = field(metadata={"help": "folder to write, or to go on with"})
    images: int = field(default=1000, metadata={"help": "images of each emotion"})
    guidance: float = field(default=embedded.GUIDANCE, metadata={"help": "guidance scale"})
    steps: int = field(default=25, metadata={"help": "denoising steps"})
    batch_size: int = field(default=25, metadata={"help": "images drawn at once on one process"})
    seed: int = field(default=0, metadata={"help": "decides every image's own seed"})
    dtype: str = field(
        default="float32", metadata={"help": "of the weights", "choices": ["float32", "float16", "bfloat16"]}
    )

    def __post_init__(self) -> None:
        ranges = {
            "images": (1, MOST_IMAGES),
            "steps": (1, 1000),
            "batch_size": (1, MOST_IMAGES),
            "seed": (0, MOST_SEED),
        }
        for name, (least, most) in ranges.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"Expected --{name} from {least} to {most}, found {getattr(self, name)}.")


def open_accelerator() -> Accelerator:
    """This process among the others, and its device."""
    # Processes on the CPU alone know of each other only where accelerate is told that it is the CPU.
    handlers = [InitProcessGroupKwargs(timeout=PATIENCE)]
    return Accelerator(cpu=not torch.accelerator.is_available(), kwargs_handlers=handlers)


def fill(folder: Path, settings: CorpusSettings, draw: Callable[[Chunk], None], accelerator: Accelerator) -> None:
    """Have drawn what the folder does not have yet, and then write the manifest.

    Args:
        folder: of the corpus, new or begun with the same settings.
        settings: its own.
        draw: draws a chunk and writes it.
        accelerator: see `open_accelerator`.
    """
    chunks = chunks_of(settings.images, settings.batch_size)
    missing = [chunk for chunk in chunks if not read_chunk(folder, chunk, settings.kind)]
    accelerator.wait_for_everyone()  # or some would see what others have written since
    if accelerator.is_main_process and not is_begun(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SETTINGS, asdict(settings))
    accelerator.wait_for_everyone()
    mine = missing[accelerator.process_index :: accelerator.num_processes]
    with tqdm(total=sum(chunk.count for chunk in mine), desc="images", unit="image") as bar:
        for chunk in mine:
            draw(chunk)
            bar.update(chunk.count)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_manifest(folder, settings)


def seeds_of(chunk: Chunk, settings: CorpusSettings) -> list[int]:
    """Of a whole batch from the chunk's first image on: a short chunk's images stay as they are if it grows."""
    numbers = range(chunk.first, chunk.first + settings.batch_size)
    return [seed_of(settings.seed, chunk.emotion, number) for number in numbers]


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One an image; on the CPU, so that they are the same on any device."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def size_of(pipeline: StableDiffusionPipeline) -> list[int]:
    """Width and height in pixels of what the base draws by default."""
    edge = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    return [edge, edge]
