"""Generate a corpus: N images of each emotion from a trained adapter.

    python -m training.generate --config training/configs/miniemoset.yaml

Images are drawn in batches, over processes under `accelerate launch`, and the same command again goes on with a run
that was stopped; with more `--images` it goes on with one that is finished. Each image comes from a seed of its own in
a batch of the same size as any other: on one machine and device it is the same to the bit, whatever the number of
processes, of images, and of interruptions. (What `--batch_size` does not divide costs as much as the next multiple.)
Other weights or settings in the same folder are refused. The folder's files: see training/generated.py. Where the
adapter's understanding model is at hand, generation.json names its emotion head by a digest, by which
training.filter_generated tells who filters.

`--only image/awe/awe_000012.png` makes that image again alone, in the folder `again/`: see `remake`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import diffusers
import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from huggingface_hub import snapshot_download
from PIL import Image

import uniemo_pipelines
from uniemo_pipelines import UniEmoPipeline
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, find_adapter
from uniemo_pipelines.conditioning_uniemo import UniEmoPipelineOutput
from uniemo_pipelines.fusion_uniemo import EMOTION_SPACES
from uniemo_pipelines.planning_uniemo import EmotionSettings
from uniemo_pipelines.prompting_uniemo import SLOT_TOKEN, tokens_in

from .config import parse
from .emotion_heads import head_of_adapter
from .files import save_image_whole
from .filling import CorpusArguments, fill, generators, open_accelerator, seeds_of, size_of
from .generated import (
    Chunk,
    GeneratedImage,
    Settings,
    read_manifest,
    refuse_other_settings,
    saying_what_is_full,
    write_generated,
)
from .sampling import digest_of
from .scripts import errors_in_one_line
from .weights import at_hand, digest_of_base, find_base, name_of

AGAIN = "again"


@dataclass(kw_only=True)
class GenerationArguments(CorpusArguments):
    """What generates, how many images, and how."""

    adapter: str = field(
        metadata={"help": "adapter, file, folder or Hub name; LoRA of the base that lies beside it is used too"}
    )
    prompt: str | None = field(
        default=None,
        metadata={"help": "with <emotion> in it, as 'a photo of a <emotion>'; the emotion alone if not given"},
    )
    emotion_space: str | None = field(
        default=None,
        metadata={"help": "form to sample from; the adapter's own if not given", "choices": EMOTION_SPACES},
    )
    variation: float = field(default=1.0, metadata={"help": "from 0, each emotion's mean, to 1, its full variety"})
    only: str | None = field(
        default=None, metadata={"help": "an image of the manifest, to be made again alone instead of all others"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        EmotionSettings(emotion_variation=self.variation)  # which checks it
        if self.prompt is not None and SLOT_TOKEN not in tokens_in(self.prompt):
            raise ValueError(f"Expected a --prompt with {SLOT_TOKEN} in it, found {self.prompt!r}.")


@dataclass(frozen=True)
class Weights:
    """Where what is loaded lies: the base's folder, the adapter's file, and beside it LoRA of the base, or None."""

    base: Path
    adapter: Path
    lora: Path | None

    @classmethod
    def find(cls, base: str, adapter: str) -> "Weights":
        """On this machine, fetched from the Hub if need be.

        Raises:
            OSError: one of them is neither there nor on the Hub, or the Hub cannot be reached.
        """
        folder = find_base(base)
        files = [ADAPTER_NAME, LORA_WEIGHT_NAME_SAFE]
        file = find_adapter(at_hand(adapter, partial(snapshot_download, allow_patterns=files)))
        lora = file.with_name(LORA_WEIGHT_NAME_SAFE)
        return cls(folder, file, lora if lora.is_file() else None)

    @property
    def adapter_digest(self) -> str:
        """Of adapter and LoRA."""
        return digest_of({}, [self.adapter, *([self.lora] if self.lora else [])])


def load_pipeline(weights: Weights, dtype: str, device: torch.device) -> UniEmoPipeline:
    """Base, LoRA and adapter; without a safety checker, which would blacken images of fear and disgust."""
    pipeline = UniEmoPipeline.from_pretrained(weights.base, dtype=getattr(torch, dtype), safety_checker=None)
    if weights.lora:
        pipeline.load_lora_weights(weights.lora.parent, weight_name=weights.lora.name)
    pipeline.load_uniemo(weights.adapter)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def settings_of(arguments: GenerationArguments, weights: Weights, pipeline: UniEmoPipeline) -> Settings:
    """What the arguments, the weights and the packages here decide."""
    shared = ("prompt", "guidance", "steps", "variation", "seed", "batch_size", "dtype", "images")
    return Settings(
        adapter=name_of(arguments.adapter),
        adapter_digest=weights.adapter_digest,
        emotion_head=head_of_adapter(weights.adapter),
        base=name_of(arguments.base),
        base_digest=digest_of_base(weights.base),
        emotion_space=arguments.emotion_space or pipeline.fusion.config.emotion_space,
        size=size_of(pipeline),
        versions={module.__name__: module.__version__ for module in (uniemo_pipelines, torch, diffusers)},
        **{name: getattr(arguments, name) for name in shared},
    )


def draw(pipeline: UniEmoPipeline, settings: Settings, emotion: str, seeds: Sequence[int]) -> UniEmoPipelineOutput:
    """An image a seed, with its condition and attributes."""
    pipeline.fusion.register_to_config(emotion_space=settings.emotion_space)
    width, height = settings.size
    return pipeline(
        settings.prompt,
        emotion=emotion,
        emotion_variation=settings.variation,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        width=width,
        height=height,
        num_images_per_prompt=len(seeds),
        generator=generators(seeds),
    )


def draw_chunk(pipeline: UniEmoPipeline, settings: Settings, chunk: Chunk, folder: Path) -> None:
    """Draw and write a chunk; a short one in a whole batch too, so that its images stay as they are if it grows.

    Raises:
        OSError: the disk is full, or the folder refuses files.
    """
    seeds = seeds_of(chunk, settings)
    output = draw(pipeline, settings, chunk.emotion, seeds)
    with saying_what_is_full(folder):
        write_generated(folder, chunk, seeds, output)


def remake(pipeline: UniEmoPipeline, settings: Settings, image: GeneratedImage) -> Image.Image:
    """An image of a corpus again, alone.

    Sums are rounded otherwise in a batch of one than in the corpus' batches: of the embedded model's images in float32
    on a CPU a few in 100,000 numbers differ, by one grey level. Only `main` makes a lost file again to the bit.

    Args:
        pipeline: with the weights that the settings' digests are of.
        settings: the corpus'.
        image: of its manifest.
    """
    return draw(pipeline, settings, image.emotion, [image.seed]).images[0]


def remake_only(pipeline: UniEmoPipeline, settings: Settings, folder: Path, name: str) -> Path:
    """Write the image of this name in the manifest, made again, beside the corpus' own.

    Raises:
        FileNotFoundError: there is no manifest yet.
        ValueError: the manifest has no image of this name.
    """
    found = next((image for image in read_manifest(folder) if image.image == name), None)
    if found is None:
        raise ValueError(
            f"{folder}: expected an image of the manifest, such as image/awe/awe_000000.png, found {name!r}."
        )
    path = folder / AGAIN / Path(name).name
    path.parent.mkdir(exist_ok=True)
    save_image_whole(path, remake(pipeline, settings, found))
    return path


def main(arguments: GenerationArguments) -> None:
    """Generate, or go on, or make one image again."""
    accelerator = open_accelerator()
    folder = Path(arguments.output)
    weights = Weights.find(arguments.base, arguments.adapter)
    pipeline = load_pipeline(weights, arguments.dtype, accelerator.device)
    settings = settings_of(arguments, weights, pipeline)
    refuse_other_settings(folder, settings)
    if arguments.only is None:
        fill(folder, settings, lambda chunk: draw_chunk(pipeline, settings, chunk, folder), accelerator)
    elif accelerator.is_main_process:
        print(remake_only(pipeline, settings, folder, arguments.only))


if __name__ == "__main__":
    with errors_in_one_line():
        main(parse(GenerationArguments, "generate"))
