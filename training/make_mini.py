"""Make the embedded model again from nothing: world, backbones with their gates, UniEmo, judges, evaluation.

    python -m training.make_mini

Hours on two cores. Every component leaves its result in a folder of its own in `runs/mini`, with the figures of its
gate in `gate.json`. What is there is not made again, so the command goes on where it stopped; to make a component
anew, remove its folder and those of what stands on it. One that misses its gate ends the run. At the end the model is
in `uniemo_pipelines/mini`, with what its model cards are made from, the judges are in `training/judges`, and its
evaluation is in `runs/mini/evaluation`.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil, CLIPModel

from uniemo_pipelines import UniEmoUnderstandingModel, embedded
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, read_adapter, write_adapter
from uniemo_pipelines.training_records_uniemo import (
    CONTACT_SHEET,
    copy_records,
    read_record,
    read_results,
    write_record,
    write_results,
)

from . import choose_sampling, evaluate_mini, train_baseline, train_joint, train_understanding
from .backbones import gates
from .backbones.clip import train_clip, zero_shot
from .backbones.corpus import Corpus, make_corpus, render_chunk
from .backbones.diffusion import Cycle, encode_latents, train_diffusion
from .backbones.reader import Reader, load_reader, train_reader
from .backbones.vae import reconstruct, train_vae
from .config import RunArguments, SelectingRunArguments, parse
from .data import DataArguments
from .fine_tuning import FineTuningArguments
from .miniemoset.attributes import bayes_accuracy
from .miniemoset.dataset import write_dataset
from .miniemoset.streams import Stream
from .train_joint import JointArguments
from .train_understanding import UnderstandingArguments

CONFIG = "training/configs/miniemoset.yaml"
RUNS = Path("runs/mini")
DATA = Path("data/miniemoset")
CARRIED_JUDGES = Path("training/judges")

CORPUS_SIZE, LATENTS = 60_000, 24_000
READER_STEPS, PERCEPTUAL_STEPS = 1_600, 800
VAE_STEPS = {"pixel_steps": 9_000, "detail_steps": 4_000, "decoder_steps": 2_500, "final_steps": 3_000}
CLIP_STEPS = 600  # it reads .17 of the objects after 450, .87 after 600
DIFFUSION_CYCLES = (  # captions first, then detail and compounds
    Cycle(7_000, power=1, compounds=0),
    Cycle(6_000, power=1, compounds=0),
    Cycle(4_500, power=0, compounds=0.3),
)
ONE_TOKEN_STEPS = 600
JUDGES: dict[str, dict[str, Any]] = {  # the final one shares neither architecture nor data with the other
    "development_judge": {"architecture": "small_resnet", "stream": Stream.DEVELOPMENT_JUDGE, "steps": 1_600},
    "final_judge": {"architecture": "regnet", "stream": Stream.FINAL_JUDGE, "steps": 1_800},
}
MEGABYTES = 25


def component(name: str, make: Callable[[Path], None]) -> Path:
    """A component's folder, made under another name first, so that a folder with its name is whole."""
    folder = RUNS / name
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        make(partial)
        for checkpoint in partial.glob("*.ckpt"):
            checkpoint.unlink()
        partial.rename(folder)
    return folder


def gate(
    folder: Path, name: str, measure: Callable[[], dict[str, float]], least: dict[str, float]
) -> dict[str, float]:
    """The scores of a component, measured once and kept in its folder.

    Args:
        least: The score that each part must reach.

    Raises:
        SystemExit: a score below its least.
    """
    path = folder / "gate.json"
    figures = json.loads(path.read_text()) if path.exists() else {}
    scores = figures.get(name) or measure()
    path.write_text(json.dumps({**figures, name: scores}, indent=1) + "\n")
    print(f"{name}: " + ", ".join(f"{part} {score:.3f}" for part, score in scores.items()))
    if missed := {part: score for part, score in least.items() if scores[part] < score}:
        raise SystemExit(f"{folder} missed its gate, {name}: expected at least {missed}, found {scores}.")
    return scores


def make_reader() -> tuple[Reader, dict[str, float]]:
    """The reader of the gates, and what it reads in fresh renders."""

    def load(folder: Path) -> Reader:
        return train_reader(folder / "reader.safetensors", stream=Stream.READER, steps=READER_STEPS)

    folder = component("reader", load)
    reader = load(folder)
    least = dict.fromkeys(("scene", "object", "palette", "brightness"), 0.97)
    return reader, gate(folder, "renders", lambda: gates.render_gate(reader), least)


def make_vae(corpus: Corpus, reader: Reader, read_in_renders: dict[str, float]) -> AutoencoderKL:
    """The VAE; on its reconstructions the reader must be within three points."""

    def make(folder: Path) -> None:
        path = folder / "perceptual_network.safetensors"
        network = train_reader(path, stream=Stream.PERCEPTUAL_NETWORK, steps=PERCEPTUAL_STEPS)
        train_vae(corpus, folder, network, **VAE_STEPS)

    folder = component("vae", make)
    vae = AutoencoderKL.from_pretrained(folder)
    least = {part: score - 0.03 for part, score in read_in_renders.items()}
    gate(folder, "reconstructions", lambda: gates.reconstruction_gate(reader, vae), least)
    return vae


def make_clip(corpus: Corpus) -> None:
    """A CLIP that knows scenes, and objects by half; knowing too much is no miss, and is reported."""
    folder = component("clip", lambda folder: train_clip(corpus, folder, steps=CLIP_STEPS))

    def measure() -> dict[str, float]:
        return zero_shot(CLIPModel.from_pretrained(folder), *render_chunk(Stream.GATES, 0, 2000))

    gate(folder, "zero shot", measure, {"scene": 0.9, "object": 0.5})


def make_stable_diffusion(corpus: Corpus, reader: Reader, vae: AutoencoderKL) -> None:
    """The diffusion model, which must follow captions, single words, and one learnt token."""
    latents = encode_latents(vae, corpus, LATENTS, RUNS / "vae" / "latents.safetensors")
    folder = component(
        "stable-diffusion", lambda folder: train_diffusion(corpus, vae, latents, folder, cycles=DIFFUSION_CYCLES)
    )
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    least = {"scene": 0.95, "object": 0.80}
    mixed, alone = gates.fresh_attributes(500), gates.fresh_attributes(200, alone=True)
    gate(folder, "captions", lambda: gates.caption_gate(reader, pipeline, mixed), least)
    gate(folder, "single words", lambda: gates.word_gate(reader, pipeline), least)
    captions = gate(folder, "captions, one object", lambda: gates.caption_gate(reader, pipeline, alone), {})

    def measure() -> dict[str, float]:
        embed = gates.learn_one_token(pipeline, corpus, latents, steps=ONE_TOKEN_STEPS)
        return gates.one_token_gate(reader, pipeline, embed, alone)

    gate(folder, "one token", measure, {part: 0.9 * score for part, score in captions.items()})


def make_uniemo() -> None:
    """Stage 1 and its rival, then stage 2, by the scripts that any data set is trained with."""
    steps = (
        (train_understanding, (DataArguments, UnderstandingArguments, SelectingRunArguments), "understanding"),
        (train_baseline, (DataArguments, FineTuningArguments, SelectingRunArguments), "baseline"),
        (train_joint, (DataArguments, JointArguments, RunArguments), "joint"),
    )
    for script, arguments, section in steps:

        def make(folder: Path, script: Any = script, arguments: Any = arguments, section: str = section) -> None:
            script.main(*parse(arguments, section, ["--config", CONFIG, "--output_dir", str(folder)]))
            for checkpoint in folder.glob("checkpoint-*"):
                shutil.rmtree(checkpoint)

        component(section, make)


def make_judge(name: str, vae: AutoencoderKL) -> None:
    """A judge, trained on renders and on the VAE's reconstructions of them, and carried in half precision.

    On both it must name emotions within four points of the Bayes optimum.
    """

    def make(folder: Path) -> None:
        path = folder / "judge.safetensors"
        augmentation = partial(reconstruct, vae)
        train_reader(path, emotional=True, augmentation=augmentation, **JUDGES[name])
        weights = load_file(path)
        save_file({key: value.half() if value.is_floating_point() else value for key, value in weights.items()}, path)

    folder = component(name, make)
    weights = folder / "judge.safetensors"
    least = dict.fromkeys(("renders", "reconstructions"), bayes_accuracy() - 0.04)
    gate(folder, "emotion", lambda: gates.judge_gate(load_reader(weights), vae), least)
    CARRIED_JUDGES.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, CARRIED_JUDGES / f"{name}.safetensors")


def assemble(target: Path = embedded.FOLDER) -> None:
    """Write the embedded model, in half precision, from the parts in `runs/mini`.

    Raises:
        SystemExit: it is larger than 25 MB; what was there before stays.
    """
    partial, joint = target.with_suffix(".partial"), RUNS / "joint"
    shutil.rmtree(partial, ignore_errors=True)
    base = StableDiffusionPipeline.from_pretrained(RUNS / "stable-diffusion", dtype=torch.float16, safety_checker=None)
    base.save_pretrained(partial / "stable-diffusion")
    understanding = UniEmoUnderstandingModel.from_pretrained(joint / "understanding", dtype=torch.float16)
    understanding.save_pretrained(partial / "understanding")
    CLIPImageProcessorPil.from_pretrained(joint / "understanding").save_pretrained(partial / "understanding")
    fusion = read_adapter(joint / ADAPTER_NAME).fusion.half()
    write_adapter(partial / ADAPTER_NAME, fusion, "the embedded mini Stable Diffusion", partial / "understanding")
    for code in partial.rglob("*.py"):
        code.unlink()
    for config in (*partial.rglob("config.json"), *partial.rglob("model_index.json")):
        tidy_config(config)
    for folder in (".", "understanding"):
        copy_records(target / folder, partial / folder)  # in which its author's words stay
    size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file()) / 1e6
    if size > MEGABYTES:
        raise SystemExit(f"Expected an embedded model of at most {MEGABYTES} MB, found {size:.1f} MB in {partial}.")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def document(target: Path = embedded.FOLDER) -> None:
    """Write what model cards are made from beside the embedded model: arguments, figures, contact sheet."""
    evaluation = RUNS / "evaluation"
    stages = {**read_record(RUNS / "understanding").arguments, **read_record(RUNS / "joint").arguments}
    for folder in (target, target / "understanding"):
        write_record(folder, replace(read_record(folder), arguments=stages))
    results = read_results(evaluation)
    write_results(target, results)
    write_results(target / "understanding", [result for result in results if result.task == "image-classification"])
    shutil.copyfile(evaluation / "contact_sheet_uniemo.jpg", target / CONTACT_SHEET)


def tidy_config(config: Path) -> None:
    """Drop where the part was made and its copy of our code; weights in half precision are computed with in single.

    diffusers' models do the last by themselves; transformers would take the precision from the file, and the
    pipeline's parts would not fit together.
    """
    content = json.loads(config.read_text())
    for key in ("_name_or_path", "auto_map"):
        content.pop(key, None)
    if "dtype" in content:
        content["dtype"] = "float32"
    config.write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    """Every step, in order."""
    corpus = make_corpus(RUNS / "corpus", CORPUS_SIZE, Stream.CORPUS)
    reader, read_in_renders = make_reader()
    vae = make_vae(corpus, reader, read_in_renders)
    make_clip(corpus)
    make_stable_diffusion(corpus, reader, vae)
    if not (DATA / "test.json").exists():
        write_dataset(DATA)
    make_uniemo()
    assemble()
    for name in JUDGES:
        make_judge(name, vae)
    if not (RUNS / "sampling" / "sampling.json").exists():  # what `embedded.GUIDANCE` was chosen by
        choose_sampling.main(parse(choose_sampling.SamplingArguments, "choose_sampling", ["--config", CONFIG]))
    if not (RUNS / "evaluation" / "evaluation.json").exists():  # the test split and the final judge are read once
        evaluate_mini.main(parse(evaluate_mini.EvaluationArguments, "evaluate_mini", ["--config", CONFIG]))
    document()


if __name__ == "__main__":
    main()
