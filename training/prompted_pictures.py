"""Pictures under prompts: everything that a diffusion step needs (design 2.2)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from string import Formatter

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import tqdm
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor
from transformers import CLIPTokenizer

from uniemo_pipelines.prompting_uniemo import SLOT_TOKEN

from .data import NO_LABEL, EmotionDataset, EmotionStream, Picture, Row, SampleFunction, Vocabulary
from .prompted_diffusion import encode


@dataclass(kw_only=True)
class PromptArguments:
    """What a Stable Diffusion learns from: pictures under prompts."""

    base: str = field(metadata={"help": "stock Stable Diffusion: a folder or a Hub name"})
    resolution: int = field(default=512, metadata={"help": "pixels of the edge of what the VAE encodes"})
    latents: str | None = field(
        default=None,
        metadata={"help": "folder where latents are kept, encoded once; without it the VAE encodes at every step"},
    )
    template_share: float = field(default=0.4, metadata={"help": "share of samples with a template as the prompt"})
    templates: list[str] = field(
        default_factory=lambda: [
            "a photo of a <emotion>",
            "a photo of a <emotion> {scene}",
            "a photo of a <emotion> {object}",
            "<emotion> {scene}",
            "<emotion> {object}",
        ],
        metadata={"help": "prompts; {scene} and {object} stand for the picture's own"},
    )

    def __post_init__(self) -> None:
        if not 0 <= self.template_share <= 1:
            raise ValueError(f"Expected --template_share from 0 to 1, found {self.template_share}.")
        for template in self.templates:
            fields = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
            if template.count(SLOT_TOKEN) != 1 or not fields <= {"scene", "object"}:
                raise ValueError(
                    f"Expected --templates with {SLOT_TOKEN} once, and no fields but {{scene}} and {{object}}; found "
                    f"{template!r}."
                )


@dataclass(frozen=True)
class PromptedSample:
    """A picture's sample for a diffusion step; the sample alone decides what is random.

    What `seen` gives, and `noise` (C, h, w), `timesteps` () long, `input_ids` (L,), and either `latents`
    (C, h, w) from the cache or `latent_pixels` (3, H, W) to be encoded.
    """

    seen: SampleFunction
    tokenizer: CLIPTokenizer
    vocabulary: Vocabulary
    templates: Sequence[str]
    template_share: float
    num_timesteps: int
    pixels: "LatentPixels"
    cache: "LatentCache | None" = None

    def __call__(self, row: Row, picture: Picture, source: random.Random) -> dict[str, Tensor]:
        noise = torch.Generator().manual_seed(source.getrandbits(62))
        tokens = self.tokenizer(self.prompt(row, source), padding="max_length", truncation=True, return_tensors="pt")
        latents = {"latents": self.cache[row.index]} if self.cache else {"latent_pixels": self.pixels(picture)}
        return {
            **self.seen(row, picture, source),
            **latents,
            "noise": torch.randn(self.pixels.latent_shape, generator=noise),
            "timesteps": torch.tensor(source.randrange(self.num_timesteps)),
            "input_ids": tokens.input_ids[0],
        }

    def prompt(self, row: Row, source: random.Random) -> str:
        """The bare token, or for a share of the samples a template that the picture's own attributes can fill."""
        if source.random() >= self.template_share:
            return SLOT_TOKEN
        names = {}
        if row.scene != NO_LABEL:
            names["scene"] = self.vocabulary.scenes[row.scene]
        if row.objects:
            names["object"] = self.vocabulary.objects[source.choice(row.objects)]
        lacking = [f"{{{kind}}}" for kind in ("scene", "object") if kind not in names]
        fitting = [template for template in self.templates if not any(slot in template for slot in lacking)]
        return source.choice(fitting).format(**names) if fitting else SLOT_TOKEN


@dataclass(frozen=True)
class LatentPixels:
    """What a VAE encodes of a picture: the centre crop of `resolution` pixels, in [-1, 1]."""

    resolution: int
    factor: int
    channels: int

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w)."""
        return self.channels, self.resolution // self.factor, self.resolution // self.factor

    def __call__(self, picture: Picture) -> Tensor:
        processor, image = VaeImageProcessor(vae_scale_factor=self.factor), picture.open(self.resolution)
        return processor.preprocess(image, self.resolution, self.resolution, resize_mode="crop")[0]

    @classmethod
    def of(cls, vae: AutoencoderKL, resolution: int) -> "LatentPixels":
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        return cls(resolution, factor, vae.config.latent_channels)


class LatentCache:
    """A data set's latents on disk, (N, C, h, w) float16, read as they are needed.

    Half precision costs a thousandth of a deviation, far below the noise that training adds, and half the disk:
    32 KiB a picture at 512 px, 3 GiB for EmoSet-118K's training split.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._latents: np.ndarray | None = None

    def __getitem__(self, index: int) -> Tensor:
        if self._latents is None:
            self._latents = np.load(self.path, mmap_mode="r")
        return torch.from_numpy(self._latents[index].astype(np.float32))

    def __getstate__(self) -> dict[str, Path | None]:
        return {"path": self.path, "_latents": None}  # a worker opens the file itself


def cache_latents(
    vae: AutoencoderKL, pictures: EmotionDataset, resolution: int, folder: Path, batch_size: int = 16
) -> LatentCache:
    """The latents of every picture, encoded now where the folder does not have them; goes on where it was stopped.

    The file's name has a digest of the pictures' stamps, the VAE's weights and the resolution, so that a folder may
    serve several data sets and bases. Each process encodes its share.

    Args:
        vae: on the device that shall encode.
        pictures: read as they are, whatever their sample function.
        resolution: pixels of the centre crop's edge.
        folder: where the file is kept.
        batch_size: pictures encoded at once.

    Raises:
        OSError: no room for all of them, said before the first is encoded.
    """
    state, pixels = PartialState(), LatentPixels.of(vae, resolution)
    path = folder / f"latents-{_digest(vae, pictures, resolution)}.npy"
    partial, marks = path.with_suffix(".partial.npy"), path.with_suffix(".done.npy")
    if not path.exists():
        shape = (len(pictures), *pixels.latent_shape)
        if state.is_main_process and not marks.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _reserve(partial, shape)
            np.save(marks, np.zeros(shape[:1], bool))
        state.wait_for_everyone()
        latents, done = (np.load(file, mmap_mode="r+") for file in (partial, marks))
        mine = [index for index in range(state.process_index, len(pictures), state.num_processes) if not done[index]]
        for start in tqdm(range(0, len(mine), batch_size), desc="latents"):
            batch = mine[start : start + batch_size]
            stacked = torch.stack([pixels(pictures.picture(index)) for index in batch])
            latents[batch] = encode(vae, stacked.to(vae.device)).cpu().numpy()
            latents.flush()
            done[batch] = True
        state.wait_for_everyone()
        if state.is_main_process:
            partial.rename(path)
            marks.unlink()
        state.wait_for_everyone()
    return LatentCache(path)


def in_prompts(
    pictures: EmotionDataset | EmotionStream,
    base: StableDiffusionPipeline,
    arguments: PromptArguments,
    device: torch.device,
) -> EmotionDataset | EmotionStream:
    """Pictures with what a diffusion step needs beside their own samples; latents are encoded now if they are kept."""
    cache = None
    if arguments.latents is not None:
        base.vae.to(device)
        cache = cache_latents(base.vae, pictures, arguments.resolution, Path(arguments.latents))
    sample = PromptedSample(
        seen=pictures.sample,
        tokenizer=base.tokenizer,
        vocabulary=pictures.vocabulary,
        templates=arguments.templates,
        template_share=arguments.template_share,
        num_timesteps=base.scheduler.config.num_train_timesteps,
        pixels=LatentPixels.of(base.vae, arguments.resolution),
        cache=cache,
    )
    return pictures.with_sample(sample)


def _reserve(path: Path, shape: tuple[int, ...]) -> None:
    """Write zeros, for a disk found full later, through a memory map, would kill the process without a word."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False, "shape": shape}
    row = np.zeros(shape[1:], np.float16).tobytes()
    try:
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(shape[0]):
                file.write(row)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(
            f"{path.parent}: expected room for the latents of {shape[0]} pictures, {shape[0] * len(row) / 1e9:.3g} GB "
            f"({error}); make room, or give another folder as --latents."
        ) from error


def _digest(vae: AutoencoderKL, pictures: EmotionDataset, resolution: int) -> str:
    digest = sha256(f"{resolution}".encode())
    for index in range(len(pictures)):
        digest.update(pictures.stamp(index).encode())
    for name, value in sorted(vae.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().half().numpy().tobytes())
    return digest.hexdigest()[:12]
