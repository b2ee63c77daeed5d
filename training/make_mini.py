"""Make the embedded model again from nothing: world, backbones with their gates, UniEmo, judges, evaluation.

    python -m training.make_mini

Hours on two cores. Every step leaves its result in `runs/mini`, and what is there is not made again, so the command
goes on where it stopped. A component that misses its gate ends the run. The figures are gathered in
`runs/mini/gates.json`, and the model is written to `uniemo_pipelines/mini`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPImageProcessorPil, CLIPModel

from uniemo_pipelines import UniEmoUnderstandingModel, embedded
from uniemo_pipelines.loaders_uniemo import ADAPTER_NAME, read_adapter, write_adapter

from . import evaluate, train_baseline, train_joint, train_understanding
from .config import parse
from .mini import gates
from .mini.clip import train_clip, zero_shot
from .mini.corpus import Corpus, make_corpus, render_chunk
from .mini.diffusion import encode_latents, train_diffusion
from .mini.reader import Reader, load_reader, train_reader
from .mini.vae import train_vae
from .miniemoset.dataset import write_dataset

CONFIG = "training/configs/miniemoset.yaml"
RUNS = Path("runs/mini")
DATA = Path("data/miniemoset")

CORPUS_SIZE, CORPUS_SEED = 60_000, 1
READER_SEED, READER_STEPS = 2, 1_600
EYE_SEED, EYE_STEPS = 5, 800
VAE_STEPS = {"steps": 9_000, "detail_steps": 4_000, "decoder_steps": 2_500}
CLIP_STEPS = 1_500
LATENTS, DIFFUSION_STEPS = 24_000, 8_000
ONE_TOKEN_STEPS, ONE_TOKEN_IMAGES = 600, 200
JUDGES = {  # architecture, seed, steps: the final judge shares neither with the development judge
    "development_judge": ("resnet", 3, 2_500),
    "final_judge": ("convnext", 4, 3_000),
}


@dataclass(frozen=True)
class Gate:
    """What a component must reach: a least score for each part that counts."""

    name: str
    least: dict[str, float]

    def check(self, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Measure once, keep the figures in `gates.json`, and stop the run where one is missed.

        Raises:
            SystemExit: a score below its least.
        """
        path = RUNS / "gates.json"
        figures = json.loads(path.read_text()) if path.exists() else {}
        if self.name not in figures:
            figures[self.name] = measure()
            path.write_text(json.dumps(figures, indent=1) + "\n")
        scores = figures[self.name]
        print(f"{self.name}: " + ", ".join(f"{part} {score:.3f}" for part, score in scores.items()))
        if missed := {part: least for part, least in self.least.items() if scores[part] < least}:
            raise SystemExit(f"{self.name} missed its gate: expected at least {missed}, found {scores}.")
        return scores


def make_reader() -> tuple[Reader, dict[str, float]]:
    """The reader of the gates, and what it reads in fresh renders."""
    reader = train_reader(RUNS / "reader.safetensors", seed=READER_SEED, steps=READER_STEPS)
    least = dict.fromkeys(("scene", "object", "palette", "brightness"), 0.97)
    return reader, Gate("reader", least).check(lambda: gates.reader_gate(reader))


def make_vae(corpus: Corpus, reader: Reader, read_in_renders: dict[str, float]) -> Path:
    """The VAE's folder; on its reconstructions the reader must be within three points."""
    folder = RUNS / "vae"
    if not folder.exists():
        eye = train_reader(RUNS / "eye.safetensors", seed=EYE_SEED, steps=EYE_STEPS)
        train_vae(corpus, folder, eye, **VAE_STEPS)
    least = {part: score - 0.03 for part, score in read_in_renders.items()}
    Gate("vae", least).check(lambda: gates.vae_gate(reader, AutoencoderKL.from_pretrained(folder)))
    return folder


def make_clip(corpus: Corpus) -> None:
    """A CLIP that knows scenes, and objects by half; too much knowledge is no miss, and is reported."""
    folder = RUNS / "clip"
    if not folder.exists():
        train_clip(corpus, folder, steps=CLIP_STEPS)
    fresh = render_chunk(gates.FRESH_SEED, 0, 2000)
    Gate("clip", {"scene": 0.9, "object": 0.5}).check(lambda: zero_shot(CLIPModel.from_pretrained(folder), *fresh))


def make_stable_diffusion(corpus: Corpus, reader: Reader, vae: Path) -> None:
    """The diffusion model, which must follow captions, single words, and one learnt token."""
    folder = RUNS / "stable-diffusion"
    if not folder.exists():
        train_diffusion(corpus, vae, folder, steps=DIFFUSION_STEPS, size=LATENTS)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    least = {"scene": 0.95, "object": 0.80}
    captions = Gate("captions", least).check(lambda: gates.caption_gate(reader, pipeline))
    Gate("single words", least).check(lambda: gates.word_gate(reader, pipeline))
    latents = encode_latents(pipeline.vae, corpus, LATENTS, RUNS / "latents.safetensors")
    sizes = {"steps": ONE_TOKEN_STEPS, "count": ONE_TOKEN_IMAGES}
    Gate("one token", {part: 0.9 * score for part, score in captions.items()}).check(
        lambda: gates.one_token_gate(reader, pipeline, corpus, latents, **sizes)
    )


def make_uniemo() -> None:
    """Stage 1 and its rival, then stage 2, by the scripts that any data set is trained with."""
    steps = (
        (train_understanding, train_understanding.UnderstandingArguments, "understanding"),
        (train_baseline, train_understanding.FineTuningArguments, "baseline"),
        (train_joint, train_joint.JointArguments, "joint"),
    )
    for script, arguments, section in steps:
        if not (RUNS / section / "training_log.json").exists():
            script.main(parse(arguments, section, ["--config", CONFIG]))


def make_judges(vae: AutoencoderKL) -> None:
    """Both judges, trained on renders and on the VAE's reconstructions of them."""

    @torch.no_grad()
    def reconstruction(pixels: torch.Tensor) -> torch.Tensor:
        return vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)

    for name, (architecture, seed, steps) in JUDGES.items():
        train_reader(
            RUNS / f"{name}.safetensors",
            architecture=architecture,
            seed=seed,
            steps=steps,
            emotional=True,
            augmentation=reconstruction,
        )
        judge = load_reader(RUNS / f"{name}.safetensors", architecture)
        Gate(name, {}).check(lambda judge=judge: gates.reader_gate(judge))
        Gate(f"{name} on reconstructions", {}).check(lambda judge=judge: gates.vae_gate(judge, vae))


def assemble(target: Path = embedded.FOLDER) -> None:
    """Write the embedded model, in half precision, from the parts in `runs/mini`."""
    base = StableDiffusionPipeline.from_pretrained(RUNS / "stable-diffusion", dtype=torch.float16, safety_checker=None)
    base.save_pretrained(target / "stable-diffusion")
    joint = RUNS / "joint"
    understanding = UniEmoUnderstandingModel.from_pretrained(joint / "understanding", dtype=torch.float16)
    understanding.save_pretrained(target / "understanding")
    CLIPImageProcessorPil.from_pretrained(joint / "understanding").save_pretrained(target / "understanding")
    fusion = read_adapter(joint / ADAPTER_NAME).fusion.half()
    write_adapter(target / ADAPTER_NAME, fusion, "the embedded mini Stable Diffusion", target / "understanding")


def main() -> None:
    """Every step, in order."""
    RUNS.mkdir(parents=True, exist_ok=True)
    corpus = make_corpus(RUNS / "corpus", CORPUS_SIZE, CORPUS_SEED)
    reader, read_in_renders = make_reader()
    vae = make_vae(corpus, reader, read_in_renders)
    make_clip(corpus)
    make_stable_diffusion(corpus, reader, vae)
    if not (DATA / "test.json").exists():
        write_dataset(DATA)
    make_uniemo()
    assemble()
    make_judges(AutoencoderKL.from_pretrained(vae))
    evaluate.main(parse(evaluate.EvaluationArguments, "evaluate", ["--config", CONFIG]))


if __name__ == "__main__":
    main()
