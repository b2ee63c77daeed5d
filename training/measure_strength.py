"""How strongly the embedded model's images evoke an emotion over `emotion_scale`, and over the weights of a fusion.

    python -m training.measure_strength --config training/configs/miniemoset.yaml

Each curve is the mean probability of an emotion over the same seeds: the development judge's, and the exact posterior
of the attributes that it reads. Writes `strength.json`, `strength.md`, `strength.png`, and a sheet of images for each
prompt. Images are kept, so that a run that was stopped goes on where it was.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from uniemo_pipelines import UniEmoPipeline, drawing, embedded
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME

from .backbones.reader import Reader, load_reader, read
from .config import parse
from .evaluate_mini import SampledArguments
from .judging import bayes_posteriors
from .metrics import mean_interval
from .miniemoset.attributes import EMOTIONS
from .sampling import digest_of, kept_pictures, sample_pictures
from .scripts import errors_in_one_line

SATURATED = 0.02  # a scale has reached the top where no larger one adds more than this probability


@dataclass(kw_only=True)
class StrengthArguments(SampledArguments):
    """The curves to draw."""

    prompts: list[str] = field(metadata={"help": "prompts with the slot <emotion>; the slot alone for no prompt"})
    scales: list[float] = field(metadata={"help": "emotion_scales, ascending from 0"})
    pairs: list[str] = field(metadata={"help": "fusions, such as amusement+fear, of the first prompt"})
    weights: list[float] = field(metadata={"help": "weights of a pair's second emotion, ascending from 0 to 1"})
    guidance: float = field(default=embedded.GUIDANCE, metadata={"help": "guidance scale"})


@dataclass(frozen=True)
class Mean:
    """A mean probability over seeds, by the judge with its 95 % interval and by Bayes.

    `rise` is the judge's difference to the point before, seed by seed, with its interval; None for the first.
    """

    judge: float
    interval: tuple[float, float]
    bayes: float
    rise: tuple[float, tuple[float, float]] | None = None


Curve = list[Mean]


def probabilities(
    pipeline: UniEmoPipeline, judge: Reader, arguments: StrengthArguments, prompt: str, emotion: dict, scale: float
) -> tuple[torch.Tensor, np.ndarray]:
    """Of one point: (2, N, 8), every emotion's probability by the judge and by Bayes, and the images."""
    emotion = {name: weight for name, weight in emotion.items() if weight > 0}
    fused = "+".join(f"{name}={weight:g}" for name, weight in emotion.items()) if scale else "stock"
    name = re.sub(r"\W+", "-", prompt).strip("-") + f" {fused} {scale:g}"

    def draw() -> np.ndarray:
        seeds = range(arguments.seed * 10**6, arguments.seed * 10**6 + arguments.images)
        return sample_pictures(
            pipeline,
            seeds,
            prompt=prompt,
            emotion=emotion,
            emotion_scale=scale,
            batch_size=arguments.batch_size,
            num_inference_steps=arguments.steps,
            guidance_scale=arguments.guidance,
        )

    images = kept_pictures(Path(arguments.output, "images", decisive_digest(arguments), f"{name}.npy"), draw)
    reading = read(judge, images)
    return torch.stack([reading.emotion.double(), bayes_posteriors(reading)]), images


def decisive_digest(arguments: StrengthArguments) -> str:
    """A short name of what decides the images of every point: weights and settings."""
    settings = [arguments.images, arguments.steps, arguments.seed, arguments.guidance]
    weights = [*sorted(Path(arguments.base).rglob("*.safetensors")), Path(arguments.adapter, ADAPTER_NAME)]
    return digest_of(settings, weights)


def curve(points: Sequence[torch.Tensor]) -> Curve:
    """Means along a curve from its points, each (2, N) probabilities of one emotion over the same seeds."""
    rises = [None, *(mean_interval(after[0] - before[0]) for before, after in pairwise(points))]
    return [Mean(*mean_interval(p[0]), p[1].mean().item(), rise) for p, rise in zip(points, rises, strict=True)]


def rises(found: Curve, until: int) -> bool:
    """Whether every one of the first `until` points but the first is above the one before."""
    return all(a.judge < b.judge for a, b in pairwise(found[:until]))


def saturation(scales: Sequence[float], found: Curve) -> float:
    """The smallest scale from which no larger one adds more than `SATURATED`."""
    top = max(point.judge for point in found)
    return next(scale for scale, point in zip(scales, found, strict=True) if point.judge >= top - SATURATED)


def strengths(
    pipeline: UniEmoPipeline, judge: Reader, arguments: StrengthArguments, prompt: str
) -> tuple[dict[str, Curve], Image.Image]:
    """The target's curve over the scale for each emotion, and for their mean; a sheet, one seed, a row a scale."""
    points: dict[str, list[torch.Tensor]] = {emotion: [] for emotion in EMOTIONS}
    rows: dict[str, list[Image.Image]] = {}
    for scale in tqdm(arguments.scales, prompt):
        for label, emotion in enumerate(EMOTIONS):
            found, images = probabilities(pipeline, judge, arguments, prompt, {emotion: 1.0}, scale)
            points[emotion].append(found[:, :, label])
            rows.setdefault(f"{scale:g}", []).append(Image.fromarray(images[0]))
    # All emotions share the seeds, so that a seed's mean over emotions is one observation.
    points["mean"] = [torch.stack(same).mean(0) for same in zip(*points.values(), strict=True)]
    return {name: curve(along) for name, along in points.items()}, drawing.sheet(rows)


def fusions(pipeline: UniEmoPipeline, judge: Reader, arguments: StrengthArguments) -> dict[str, dict[str, Curve]]:
    """By pair, both emotions' curves over the weight of the second."""
    found = {}
    for pair in tqdm(arguments.pairs, "fusions"):
        first, second = pair.split("+")
        points = [
            probabilities(pipeline, judge, arguments, arguments.prompts[0], {first: 1 - weight, second: weight}, 1.0)
            for weight in arguments.weights
        ]
        labels = {name: EMOTIONS.index(name) for name in (first, second)}
        found[pair] = {name: curve([p[:, :, label] for p, _ in points]) for name, label in labels.items()}
    return found


def table(arguments: StrengthArguments, by_prompt: dict[str, dict[str, Curve]], by_pair: dict) -> str:
    """Both sweeps as Markdown."""
    head = "| " + " | ".join(f"{scale:g}" for scale in arguments.scales) + " | saturates at |"
    lines = []
    for prompt, curves in by_prompt.items():
        lines += [f"| `{prompt}`, scale {head}", "|---" * (2 + len(arguments.scales)) + "|"]
        for name, found in curves.items():
            cells = " | ".join(_cell(point, with_interval=name == "mean") for point in found)
            lines.append(f"| {name} | {cells} | {saturation(arguments.scales, found):g} |")
        until = sum(scale <= 1 for scale in arguments.scales)
        falling = [name for name, found in curves.items() if not rises(found, until)]
        lines += ["", f"Not rising all the way from 0 to 1: {', '.join(falling) or 'none'}.", ""]
    lines += [
        "| fusion, weight of the second | " + " | ".join(f"{weight:g}" for weight in arguments.weights) + " |",
        "|---" * (1 + len(arguments.weights)) + "|",
    ]
    for pair, curves in by_pair.items():
        for name, found in curves.items():
            lines.append(f"| {pair}: {name} | " + " | ".join(_cell(p, with_interval=True) for p in found) + " |")
    return "\n".join(lines) + "\n"


def _cell(point: Mean, with_interval: bool) -> str:
    low, high = point.interval
    return f"{point.judge:.3f} ± {(high - low) / 2:.3f}" if with_interval else f"{point.judge:.3f}"


def plot(arguments: StrengthArguments, by_prompt: dict[str, dict[str, Curve]], by_pair: dict) -> Figure:
    """A panel of eight curves and their mean for each prompt, and one of two curves for each pair; 95 % shaded."""
    figure = Figure(figsize=(3.6 * max(len(by_prompt), len(by_pair)), 6.4), layout="constrained")
    above, below = (
        np.atleast_1d(part.subplots(1, len(panels)))
        for part, panels in zip(figure.subfigures(2, 1), (by_prompt, by_pair), strict=True)
    )
    for axis, (prompt, curves) in zip(above, by_prompt.items(), strict=True):
        for name, found in curves.items():
            if name == "mean":
                _line(axis, arguments.scales, found, label=name, color="black", linewidth=2.5)
            else:
                axis.plot(arguments.scales, [point.judge for point in found], label=name, linewidth=1)
        axis.set(xlabel="emotion_scale", ylabel="P(target)", title=prompt, ylim=(0, 1))
    axis.legend(fontsize=6, loc="lower right")
    for axis, (pair, curves) in zip(below, by_pair.items(), strict=True):
        for name, found in curves.items():
            _line(axis, arguments.weights, found, label=name)
        axis.set(xlabel=f"weight of {pair.split('+')[1]}", ylabel="P(emotion)", ylim=(0, 1))
        axis.legend(fontsize=6)
    return figure


def _line(axis: Axes, places: Sequence[float], found: Curve, **style: object) -> None:
    [line] = axis.plot(places, [point.judge for point in found], marker=".", **style)
    low, high = zip(*(point.interval for point in found), strict=True)
    axis.fill_between(places, low, high, color=line.get_color(), alpha=0.15, linewidth=0)


def main(arguments: StrengthArguments) -> None:
    """Measure, print the tables, and write them beside the arguments that they came from."""
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    judge = load_reader(arguments.judge)
    pipeline = UniEmoPipeline.from_pretrained(arguments.base, dtype=torch.float32, safety_checker=None)
    pipeline.load_uniemo(arguments.adapter)
    by_prompt = {}
    for number, prompt in enumerate(arguments.prompts):
        by_prompt[prompt], sheet = strengths(pipeline, judge, arguments, prompt)
        sheet.save(output / f"sheet_{number}.jpg", quality=92)
    by_pair = fusions(pipeline, judge, arguments)
    content = {"arguments": asdict(arguments), "strength": by_prompt, "fusion": by_pair}
    (output / "strength.json").write_text(json.dumps(content, indent=1, default=asdict) + "\n", encoding="utf-8")
    (output / "strength.md").write_text(table(arguments, by_prompt, by_pair), encoding="utf-8")
    plot(arguments, by_prompt, by_pair).savefig(output / "strength.png", dpi=90)
    print(table(arguments, by_prompt, by_pair))


if __name__ == "__main__":
    with errors_in_one_line():
        main(parse(StrengthArguments, "measure_strength"))
