"""Images of each emotion by a stock Stable Diffusion alone, prompted: UniEmo's rivals in generation.

    python -m training.generate_prompted --config training/configs/miniemoset.yaml

--prompts   what the prompt of an image is:
words       the emotion's word.
captions    a caption of attributes drawn from their true distribution given the emotion, as MiniEmoSet's images have
            them: a rival that knows the truth of that world, and of no other.
embeddings  `<awe>` and so on, the textual inversions that train_textual_inversion left in --embeddings.

Image k of an emotion has the seed that training.generate gives it, so that rows of images can be compared in pairs. As
there, images are drawn in whole batches, over processes under `accelerate launch`, and the same command goes on with a
run that was stopped, or with more --images; on one machine and device they are the same to the bit however they came
about. Other weights or settings in the same folder are refused.

Writes `image/awe/awe_000012.png` and so on, `manifest.jsonl` with image, emotion, seed and prompt, `generation.json`
with the settings, and `sheet.jpg`; the manifest last. See training/generated.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import diffusers
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from .config import parse
from .filling import CorpusArguments, fill, generators, open_accelerator, seeds_of, size_of
from .generated import (
    Chunk,
    CorpusImage,
    CorpusSettings,
    refuse_other_settings,
    saying_what_is_full,
    write_chunk,
)
from .miniemoset.captions import truthful_caption
from .sampling import digest_of
from .scripts import errors_in_one_line
from .weights import digest_of_base, find_base, name_of

PROMPTS: dict[str, Callable[[str, int], str]] = {
    "words": lambda emotion, seed: emotion,
    "captions": truthful_caption,
    "embeddings": lambda emotion, seed: f"<{emotion}>",
}
"""By what --prompts names: the prompt of an emotion's image with that seed."""


@dataclass(kw_only=True)
class PromptedArguments(CorpusArguments):
    """What is asked of the base."""

    prompts: str = field(metadata={"help": "what prompts are", "choices": list(PROMPTS)})
    embeddings: str | None = field(
        default=None, metadata={"help": "folder of train_textual_inversion, with awe.safetensors and the others"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.prompts == "embeddings") != (self.embeddings is not None):
            found = "none" if self.embeddings is None else f"--prompts {self.prompts}"
            raise ValueError(
                f"Expected --embeddings FOLDER with --prompts embeddings, and with no other; found {found}."
            )


@dataclass(frozen=True)
class PromptedImage(CorpusImage):
    """An image that the base drew under this prompt."""

    prompt: str


@dataclass(frozen=True, kw_only=True)
class PromptedSettings(CorpusSettings):
    """Of prompted images.

    Attributes:
        prompts: what they are, of PROMPTS.
        embeddings: the last part of their folder's path; None without them.
        embeddings_digest: of their files.
    """

    script: ClassVar[str] = "training.generate_prompted"
    kind: ClassVar[type[CorpusImage]] = PromptedImage
    free: ClassVar[tuple[str, ...]] = (*CorpusSettings.free, "embeddings")

    prompts: str
    embeddings: str | None
    embeddings_digest: str | None


def embedding_files(folder: Path) -> list[Path]:
    """The eight files, in EmoSet's order.

    Raises:
        FileNotFoundError: some are not there.
    """
    files = [folder / f"{emotion}.safetensors" for emotion in EMOTIONS]
    if missing := [file.name for file in files if not file.is_file()]:
        raise FileNotFoundError(
            f"{folder}: expected an embedding of each emotion, found no {', '.join(missing)}; name a finished folder "
            "of training.train_textual_inversion."
        )
    return files


def load_pipeline(base: Path, embeddings: Sequence[Path], dtype: str, device: torch.device) -> StableDiffusionPipeline:
    """The base with these embeddings; without a safety checker, which would blacken images of fear and disgust.

    Raises:
        ValueError: embeddings of a base of another width.
    """
    pipeline = StableDiffusionPipeline.from_pretrained(base, dtype=getattr(torch, dtype), safety_checker=None)
    width = pipeline.text_encoder.get_input_embeddings().embedding_dim
    for file in embeddings:
        shapes = [tuple(tensor.shape) for tensor in load_file(file).values()]
        if shapes != [(1, width)]:
            raise ValueError(
                f"{file}: expected one embedding, {(1, width)}, as the base has them, found {shapes}; name embeddings "
                "that were trained on this base."
            )
        pipeline.load_textual_inversion(file.parent, weight_name=file.name, token=f"<{file.stem}>")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def settings_of(
    arguments: PromptedArguments, base: Path, embeddings: Sequence[Path], pipeline: StableDiffusionPipeline
) -> PromptedSettings:
    """What the arguments, the weights and the packages here decide."""
    shared = ("prompts", "guidance", "steps", "seed", "batch_size", "dtype", "images")
    return PromptedSettings(
        base=name_of(arguments.base),
        base_digest=digest_of_base(base),
        embeddings=name_of(arguments.embeddings) if arguments.embeddings else None,
        embeddings_digest=digest_of({}, embeddings) if embeddings else None,
        size=size_of(pipeline),
        versions={module.__name__: module.__version__ for module in (torch, diffusers)},
        **{name: getattr(arguments, name) for name in shared},
    )


def draw(
    pipeline: StableDiffusionPipeline, settings: PromptedSettings, prompts: Sequence[str], seeds: Sequence[int]
) -> list[Image.Image]:
    """An image a prompt and seed."""
    width, height = settings.size
    output = pipeline(
        list(prompts),
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        width=width,
        height=height,
        generator=generators(seeds),
    )
    return output.images


def draw_chunk(pipeline: StableDiffusionPipeline, settings: PromptedSettings, folder: Path, chunk: Chunk) -> None:
    """Draw and write a chunk; a short one in a whole batch too, so that its images stay as they are if it grows.

    Raises:
        OSError: the disk is full, or the folder refuses files.
    """
    seeds = seeds_of(chunk, settings)
    prompts = [PROMPTS[settings.prompts](chunk.emotion, seed) for seed in seeds]
    images = draw(pipeline, settings, prompts, seeds)
    found = [PromptedImage(chunk.image(row), chunk.emotion, seeds[row], prompts[row]) for row in range(chunk.count)]
    with saying_what_is_full(folder):
        write_chunk(folder, chunk, found, images)


def main(arguments: PromptedArguments) -> None:
    """Generate, or go on."""
    accelerator = open_accelerator()
    folder = Path(arguments.output)
    embeddings = embedding_files(Path(arguments.embeddings)) if arguments.embeddings else []
    base = find_base(arguments.base)
    pipeline = load_pipeline(base, embeddings, arguments.dtype, accelerator.device)
    settings = settings_of(arguments, base, embeddings, pipeline)
    refuse_other_settings(folder, settings)
    fill(folder, settings, partial(draw_chunk, pipeline, settings, folder), accelerator)


if __name__ == "__main__":
    with errors_in_one_line():
        main(parse(PromptedArguments, "generate_prompted"))
