"""Generate a corpus: N images of each emotion from a trained adapter.

    python -m training.generate --config training/configs/miniemoset.yaml

Images are drawn in batches, over processes under `accelerate launch`, and the same command again goes on with a run
that was stopped; with more `--images` it goes on with one that is finished. Each image comes from a seed of its own in
a batch of the same size as any other: on one machine and device it is the same to the bit, whatever the number of
processes, of images, and of interruptions. (What `--batch_size` does not divide costs as much as the next multiple.)
Other weights or settings in the same folder are refused. The folder's files: see training/generated.py.

`--only image/awe/awe_000012.png` makes that image again alone, in the folder `again/`: see `remake`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

import diffusers
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, tqdm
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from huggingface_hub import snapshot_download
from PIL import Image
from safetensors import SafetensorError

import uniemo_pipelines
from uniemo_pipelines import UniEmoPipeline, embedded
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, find_adapter
from uniemo_pipelines.conditioning_uniemo import UniEmoPipelineOutput
from uniemo_pipelines.fusion_uniemo import EMOTION_SPACES
from uniemo_pipelines.planning_uniemo import EmotionSettings
from uniemo_pipelines.prompting_uniemo import SLOT_TOKEN, tokens_in

from .config import parse
from .files import save_image_whole
from .generated import (
    MOST_IMAGES,
    MOST_SEED,
    SETTINGS,
    Chunk,
    GeneratedImage,
    Settings,
    chunks_of,
    is_begun,
    read_chunk,
    read_manifest,
    refuse_other_settings,
    seed_of,
    write_chunk,
    write_manifest,
)
from .runs import write_json
from .sampling import digest_of
from .scripts import errors_in_one_line

BASE_PARTS = ("text_encoder", "unet", "vae")
AGAIN = "again"
PATIENCE = timedelta(days=30)
"""How long a process that has done its share waits for the others: they may have hours to go."""


@dataclass(kw_only=True)
class GenerationArguments:
    """What generates, how many images, and how."""

    base: str = field(metadata={"help": "stock Stable Diffusion, folder or Hub name"})
    adapter: str = field(
        metadata={"help": "adapter, file, folder or Hub name; LoRA of the base that lies beside it is used too"}
    )
    output: str = field(metadata={"help": "folder to write, or to go on with"})
    images: int = field(default=1000, metadata={"help": "images of each emotion"})
    prompt: str | None = field(
        default=None,
        metadata={"help": "with <emotion> in it, as 'a photo of a <emotion>'; the emotion alone if not given"},
    )
    guidance: float = field(default=embedded.GUIDANCE, metadata={"help": "guidance scale"})
    steps: int = field(default=25, metadata={"help": "denoising steps"})
    emotion_space: str | None = field(
        default=None,
        metadata={"help": "form to sample from; the adapter's own if not given", "choices": EMOTION_SPACES},
    )
    variation: float = field(default=1.0, metadata={"help": "from 0, each emotion's mean, to 1, its full variety"})
    batch_size: int = field(default=25, metadata={"help": "images drawn at once on one process"})
    dtype: str = field(
        default="float32", metadata={"help": "of the weights", "choices": ["float32", "float16", "bfloat16"]}
    )
    seed: int = field(default=0, metadata={"help": "decides every image's own seed"})
    only: str | None = field(
        default=None, metadata={"help": "an image of the manifest, to be made again alone instead of all others"}
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
        folder = _local(base, partial(UniEmoPipeline.download, safety_checker=None))
        files = [ADAPTER_NAME, LORA_WEIGHT_NAME_SAFE]
        file = find_adapter(_local(adapter, partial(snapshot_download, allow_patterns=files)))
        lora = file.with_name(LORA_WEIGHT_NAME_SAFE)
        return cls(folder, file, lora if lora.is_file() else None)

    @property
    def base_digest(self) -> str:
        """Of the weights that draw, and of the scheduler; variants such as `model.fp16.safetensors` are not loaded."""
        files = [file for part in BASE_PARTS for file in sorted(self.base.joinpath(part).iterdir())]
        files = [file for file in files if file.suffixes in ([".safetensors"], [".bin"])]
        return digest_of({}, [*files, *sorted(self.base.joinpath("scheduler").glob("*.json"))])

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
    edge = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    shared = ("prompt", "guidance", "steps", "variation", "seed", "batch_size", "dtype", "images")
    return Settings(
        adapter=_place(arguments.adapter),
        adapter_digest=weights.adapter_digest,
        base=_place(arguments.base),
        base_digest=weights.base_digest,
        emotion_space=arguments.emotion_space or pipeline.fusion.config.emotion_space,
        size=[edge, edge],
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
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],  # on the CPU: the same on any device
    )


def draw_chunk(pipeline: UniEmoPipeline, settings: Settings, chunk: Chunk, folder: Path) -> None:
    """Draw and write a chunk; a short one in a whole batch too, so that its images stay as they are if it grows.

    Raises:
        OSError: the disk is full, or the folder refuses files.
    """
    numbers = range(chunk.first, chunk.first + settings.batch_size)
    seeds = [seed_of(settings.seed, chunk.emotion, number) for number in numbers]
    output = draw(pipeline, settings, chunk.emotion, seeds)
    try:
        write_chunk(folder, chunk, seeds, output)
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"{folder} could not be written ({error}); make room there, then give the same command again to go on."
        ) from error


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


def generate(pipeline: UniEmoPipeline, settings: Settings, folder: Path, accelerator: Accelerator) -> None:
    """Draw what the folder does not have yet, each process its share, and then write the manifest."""
    missing = [chunk for chunk in chunks_of(settings.images, settings.batch_size) if not read_chunk(folder, chunk)]
    accelerator.wait_for_everyone()  # or some would see what others have written since
    if accelerator.is_main_process and not is_begun(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SETTINGS, asdict(settings))
    accelerator.wait_for_everyone()
    mine = missing[accelerator.process_index :: accelerator.num_processes]
    with tqdm(total=sum(chunk.count for chunk in mine), desc="images", unit="image") as bar:
        for chunk in mine:
            draw_chunk(pipeline, settings, chunk, folder)
            bar.update(chunk.count)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_manifest(folder, settings)


def main(arguments: GenerationArguments) -> None:
    """Generate, or go on, or make one image again."""
    # Processes on the CPU alone know of each other only where accelerate is told that it is the CPU.
    handlers = [InitProcessGroupKwargs(timeout=PATIENCE)]
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), kwargs_handlers=handlers)
    folder = Path(arguments.output)
    weights = Weights.find(arguments.base, arguments.adapter)
    pipeline = load_pipeline(weights, arguments.dtype, accelerator.device)
    settings = settings_of(arguments, weights, pipeline)
    refuse_other_settings(folder, settings)
    if arguments.only is None:
        generate(pipeline, settings, folder, accelerator)
    elif accelerator.is_main_process:
        print(remake_only(pipeline, settings, folder, arguments.only))


def _local(place: str, fetch: Callable[[str], str]) -> Path:
    """A path as it is, and of a Hub name the folder that `fetch` gives."""
    if Path(place).exists():
        return Path(place)
    try:
        return Path(fetch(place))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise OSError(f"Expected a folder, or what can be fetched from the Hub, found {place!r}: {reason}") from error


def _place(location: str) -> str:
    """A Hub name as it is; a path by its last part, for where it lies on this machine is nobody else's matter."""
    return Path(location).resolve().name if Path(location).exists() else location


if __name__ == "__main__":
    with errors_in_one_line():
        main(parse(GenerationArguments, "generate"))
