"""Training steps of both stages beside a stand-in for the released recipe, in one process.

    python -m benchmarks.training
    python -m benchmarks.training --size large --batch_sizes 1 2 4 --repeats 2
    OMP_NUM_THREADS=1 python -m benchmarks.training --clock processor

Random weights at the embedded model's size, or at ViT-L/14's and Stable Diffusion 1.5's. A step is all from a batch of
tensors (and, in the released recipe, texts) to updated weights; reading pictures is not part of it. Steps are taken in
turns. `benchmarks.released_recipe` says what the stand-in does; its stage 2 can take but one picture. Ours is measured
with the latents at hand, as `training.train_joint` has them, and with the VAE encoding them in the step.
"""

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel, UniPCMultistepScheduler
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, HfArgumentParser

from training.engine import ParameterGroup, grouped_parameters
from training.joint_model import JointModel, ObjectiveArguments
from uniemo_pipelines import UniEmoConfig, UniEmoFusionModel, UniEmoUnderstandingModel, embedded
from uniemo_pipelines.fusion_uniemo import EMOTIONS
from uniemo_pipelines.prompting_uniemo import SLOT_TOKEN

from .generation import random_components
from .released_recipe import Batch, ReleasedStage1, ReleasedStage2, with_texts
from .timing import interleaved

ALL_ALIKE = [ParameterGroup(("",), 1e-5, 1e-2)]  # for speed no rate matters
MAX_GRAD_NORM = 1.0
RELEASED = "released recipe"
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}

Step = Callable[[Batch], object]
Run = tuple[str, int]


@dataclass(kw_only=True)
class TrainingBenchmark:
    """What is measured."""

    size: str = field(default="mini", metadata={"choices": ["mini", "large"], "help": "of the models"})
    stages: list[int] = field(default_factory=lambda: [1, 2], metadata={"help": "1, 2 or both"})
    batch_sizes: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16, 32, 64], metadata={"help": "all tried"})
    repeats: int = field(default=10, metadata={"help": "steps of each, taken in turns"})
    clock: str = field(
        default="wall",
        metadata={
            "choices": ["wall", "processor"],
            "help": "processor time is for one thread on a machine that others use, where wall time measures them",
        },
    )


# ------------------------------------------------------------------------------------------------------------ models


class Models(NamedTuple):
    """Random weights for both sides.

    Attributes:
        understanding: with its vocabulary.
        text, tokenizer: CLIP's text tower, which the released recipe runs at every step.
        components: of a Stable Diffusion.
        resolution: of the pictures that it learns from, in pixels.
    """

    understanding: UniEmoUnderstandingModel
    text: CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer
    components: Callable[[], dict[str, Any]]
    resolution: int


def mini() -> Models:
    """The embedded model's size; its CLIP has the text encoder's size but for two heads."""
    tokenizer = CLIPTokenizer.from_pretrained(embedded.STABLE_DIFFUSION / "tokenizer")
    words = CLIPTextConfig.from_pretrained(embedded.STABLE_DIFFUSION / "text_encoder", num_attention_heads=2)
    config = UniEmoConfig.from_pretrained(embedded.UNDERSTANDING)
    return Models(*understanding_models(config, words, tokenizer), tokenizer, mini_components, 128)


def large() -> Models:
    """ViT-L/14 with EmoSet's numbers of scenes and objects, and Stable Diffusion 1.5 at half its resolution."""
    tokenizer = CLIPTokenizer.from_pretrained(embedded.STABLE_DIFFUSION / "tokenizer", model_max_length=77)
    words = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768)
    scenes, objects = (
        [f"{kind} {number}" for number in range(size)] for kind, size in (("place", 254), ("thing", 409))
    )
    config = UniEmoConfig(scenes=scenes, objects=objects)
    components = partial(random_components, "cpu", torch.float32)
    return Models(*understanding_models(config, words, tokenizer), tokenizer, components, 256)


SIZES: dict[str, Callable[[], Models]] = {"mini": mini, "large": large}


def understanding_models(
    config: UniEmoConfig, words: CLIPTextConfig, tokenizer: CLIPTokenizer
) -> tuple[UniEmoUnderstandingModel, CLIPTextModelWithProjection]:
    """A model whose vocabulary is encoded by the text tower that comes with it."""
    understanding = UniEmoUnderstandingModel(config).float()
    words.eos_token_id = 2  # at which transformers pools as the released code does, at the highest id
    text = CLIPTextModelWithProjection(words).eval()
    names = [*config.scenes, *config.objects, "scene", "object"]
    with torch.no_grad():
        features = [text(tokenizer(name, return_tensors="pt").input_ids).text_embeds for name in names]
    counts = [len(config.scenes), len(config.objects), 2]
    scenes, objects, missing = torch.cat(features).split(counts)
    understanding.set_vocabulary(config.scenes, config.objects, scenes, objects, *missing)
    return understanding, text


def mini_components() -> dict[str, Any]:
    """The embedded Stable Diffusion with random weights."""
    folder = embedded.STABLE_DIFFUSION
    unused = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
    return unused | {
        "vae": AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae")).eval(),
        "unet": UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet")).eval(),
        "text_encoder": CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder")).eval(),
        "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        "scheduler": UniPCMultistepScheduler.from_pretrained(folder / "scheduler"),
    }


def random_fusion(understanding: UniEmoUnderstandingModel, base: StableDiffusionPipeline) -> UniEmoFusionModel:
    """With random statistics of the understanding model's attributes."""
    config = understanding.config
    sizes = (config.hidden_size, [base.text_encoder.config.hidden_size], config.projection_dim)
    fusion = UniEmoFusionModel(*sizes, emotion_space="gaussian", bank_size=0, rank=0)
    fusion.set_attribute_bases(
        config.scenes,
        config.objects,
        understanding.scene_text_features,
        understanding.object_text_features,
        understanding.scene_projection.weight,
        understanding.object_projection.weight,
        torch.rand(len(config.scenes), len(EMOTIONS)),
        torch.rand(len(config.objects), len(EMOTIONS)),
    )
    return fusion


def joint_model(
    understanding: UniEmoUnderstandingModel, fusion: UniEmoFusionModel, base: StableDiffusionPipeline
) -> JointModel:
    """Of stage 2, with the released weights of its losses."""
    return JointModel(understanding, fusion, base, ObjectiveArguments(norm_weight=0.0))


# ----------------------------------------------------------------------------------------------------------- batches


def stage1_batch(understanding: UniEmoUnderstandingModel, size: int) -> Batch:
    """Noise, each picture with a random emotion, scene and two objects, as both sides take it."""
    config = understanding.config
    side = config.vision_config.image_size
    batch = {
        "pixel_values": torch.randn(size, 3, side, side),
        "labels": torch.randint(len(EMOTIONS), (size,)),
        "scene_labels": torch.randint(len(config.scenes), (size,)),
        "object_labels": torch.rand(size, len(config.objects)).argsort().lt(2).float(),
    }
    return with_texts(batch, config.scenes, config.objects)


def stage2_batch(model: JointModel, base: StableDiffusionPipeline, resolution: int, size: int) -> Batch:
    """A stage-1 batch, and for each picture the larger one, its latents, noise, a timestep and the slot as prompt."""
    side = resolution // 2 ** (len(base.vae.config.block_out_channels) - 1)
    latents = (size, base.vae.config.latent_channels, side, side)
    prompt = model.pseudo_tokens.tokenizer(SLOT_TOKEN, padding="max_length", return_tensors="pt").input_ids
    return stage1_batch(model.understanding, size) | {
        "pictures": torch.rand(size, 3, resolution, resolution) * 2 - 1,
        "latents": torch.randn(latents),
        "noise": torch.randn(latents),
        "timesteps": torch.randint(model.scheduler.config.num_train_timesteps, (size,)),
        "input_ids": prompt.expand(size, -1),
    }


# ------------------------------------------------------------------------------------------------------------- steps


def our_step(model: nn.Module, loss_of: Callable[[Batch], Tensor]) -> Step:
    """A step of either stage."""
    optimizer = torch.optim.AdamW(grouped_parameters(model, ALL_ALIKE), fused=True)  # as the Trainer has it

    def step(batch: Batch) -> None:
        loss_of(batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_stage1(understanding: UniEmoUnderstandingModel) -> Step:
    """Stage 1, ours."""
    names = ("pixel_values", "labels", "scene_labels", "object_labels")
    model = understanding.train()
    return our_step(model, lambda batch: model(**{name: batch[name] for name in names}).loss)


def our_stage2(model: JointModel) -> Step:
    """Stage 2, ours, with the latents at hand."""
    return our_step(model, lambda batch: model(batch)["loss"])


def with_encoding(step: Step, vae: AutoencoderKL) -> Step:
    """The step after the VAE has encoded the batch's pictures."""

    def encode_and_step(batch: Batch) -> None:
        with torch.no_grad():
            latents = vae.encode(batch["pictures"]).latent_dist.mode() * vae.config.scaling_factor
        step({**batch, "latents": latents})

    return encode_and_step


def stage1(models: Models, batch_sizes: Sequence[int]) -> dict[Run, Callable[[], object]]:
    """The steps to measure, by side and batch size; the released recipe's come first."""
    understanding, text, tokenizer, *_ = models
    steps = {RELEASED: ReleasedStage1(understanding, text, tokenizer), "ours": our_stage1(understanding)}
    batches = {size: stage1_batch(understanding, size) for size in batch_sizes}
    return {(name, size): partial(step, batches[size]) for name, step in steps.items() for size in batch_sizes}


def stage2(models: Models, batch_sizes: Sequence[int]) -> dict[Run, Callable[[], object]]:
    """As `stage1`."""
    base = StableDiffusionPipeline(**models.components(), requires_safety_checker=False)
    model = joint_model(models.understanding, random_fusion(models.understanding, base), base)
    released = ReleasedStage2(model, models.text, models.tokenizer, base)
    batches = {size: stage2_batch(model, base, models.resolution, size) for size in {1, *batch_sizes}}
    step = our_stage2(model)
    ours = {"ours, latents at hand": step, "ours, latents encoded": with_encoding(step, base.vae)}
    runs = {(name, size): partial(step, batches[size]) for name, step in ours.items() for size in batch_sizes}
    return {(RELEASED, 1): partial(released, batches[1])} | runs


# ------------------------------------------------------------------------------------------------------------ report


class Speed(NamedTuple):
    """Images a second of one side at one batch size, by the shortest step and by the median one."""

    best: float
    median: float


def speeds(seconds: Mapping[Run, Sequence[float]]) -> dict[Run, Speed]:
    """Of measured steps."""
    return {run: Speed(run[1] / min(times), run[1] / statistics.median(times)) for run, times in seconds.items()}


def report(seconds: Mapping[Run, Sequence[float]]) -> None:
    """Every step, then each of our sides against the released recipe, at batch 1 and at the best batch of both."""
    found = speeds(seconds)
    print(f"{'':24}{'batch':>6}{'s, least':>11}{'median':>9}{'images/s':>12}{'median':>9}")
    for (name, size), speed in found.items():
        times = f"{min(seconds[name, size]):11.4f}{statistics.median(seconds[name, size]):9.4f}"
        print(f"{name:24}{size:6}{times}{speed.best:12.3f}{speed.median:9.3f}")
    for name in dict.fromkeys(name for name, _ in found if name != RELEASED):
        single = ratio(found[name, 1], found[RELEASED, 1]) if (name, 1) in found else None
        ours, theirs = (best_batch(found, side) for side in (name, RELEASED))
        print(f"{name} / {RELEASED}, images a second by least and median:")
        if single:
            print(f"  batch 1 both {single.best:33.2f}x{single.median:8.2f}x")
        best = ratio(found[ours], found[theirs])
        print(f"  best batch, ours {ours[1]}, released {theirs[1]:<3}{best.best:18.2f}x{best.median:8.2f}x")


def best_batch(found: Mapping[Run, Speed], name: str) -> Run:
    """The run of a side with most images a second."""
    return max((run for run in found if run[0] == name), key=lambda run: found[run].best)


def ratio(ours: Speed, theirs: Speed) -> Speed:
    """Ours in units of theirs."""
    return Speed(ours.best / theirs.best, ours.median / theirs.median)


def main() -> None:
    """Both stages."""
    (arguments,) = HfArgumentParser(
        TrainingBenchmark, description=__doc__.splitlines()[0]
    ).parse_args_into_dataclasses()
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}; {arguments}")
    torch.manual_seed(0)
    for stage in arguments.stages:
        print(f"\nstage {stage}", flush=True)
        runs = {1: stage1, 2: stage2}[stage](SIZES[arguments.size](), arguments.batch_sizes)
        report(interleaved(runs, arguments.repeats, CLOCKS[arguments.clock]))


if __name__ == "__main__":
    main()
