"""Guidance and emotion_variation of the embedded model, as curves before the development judge.

    python -m training.choose_sampling --config training/configs/miniemoset.yaml

First guidance at full variation, then variation at the guidance with the least kernel distance. Writes
`sampling.json`, `sampling.md` and `sampling.png`. Only the calibration split is read.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from uniemo_pipelines import UniEmoPipeline

from .backbones.reader import Reader, Reading, load_reader, read
from .config import parse
from .evaluate_mini import EvaluationArguments, JudgedArguments, generate, real_readings
from .judging import figures_of, judged
from .miniemoset.attributes import EMOTIONS
from .scripts import errors_in_one_line

DISTANCE = "kernel_distance_within"
FIGURES = {
    "emotion_accuracy": "Emo-A",
    "total_variation": "total variation",
    "coverage": "coverage",
    DISTANCE: "kernel distance",
}
Point = dict[str, float]


@dataclass(kw_only=True)
class SamplingArguments(JudgedArguments):
    """The points of both curves."""

    guidances: list[float] = field(metadata={"help": "guidance scales to try"})
    variations: list[float] = field(metadata={"help": "emotion_variations to try"})


def score(readings: Sequence[Reading], reference: Sequence[Reading]) -> Point:
    """The figures of one set of images by emotion."""
    figures = figures_of(judged(readings, reference))
    return {name: figures[name].value for name in FIGURES}


def curves(arguments: SamplingArguments, judge: Reader) -> tuple[Point, list[Point]]:
    """The figures of real images, and those of each point tried."""
    first, reference = real_readings(arguments, judge)
    pipeline = UniEmoPipeline.from_pretrained(arguments.base, dtype=torch.float32, safety_checker=None)
    pipeline.load_uniemo(arguments.adapter)
    settings = {field: getattr(arguments, field) for field in JudgedArguments.__dataclass_fields__}
    call = EvaluationArguments(**settings, baseline="", guidance=1.0)

    def point(guidance: float, variation: float) -> Point:
        asked = replace(call, guidance=guidance, variation=variation)
        readings = [read(judge, generate(pipeline, "uniemo", emotion, asked)) for emotion in EMOTIONS]
        return {"guidance": guidance, "variation": variation, **score(readings, reference)}

    points = [point(guidance, 1.0) for guidance in tqdm(arguments.guidances, "guidance")]
    guidance = best(points)["guidance"]
    points += [point(guidance, variation) for variation in tqdm(arguments.variations, "variation")]
    return score(first, reference), points


def best(points: Sequence[Point]) -> Point:
    """The point with the least kernel distance."""
    return min(points, key=lambda point: point[DISTANCE])


def table(real: Point, points: Sequence[Point]) -> str:
    """The points as Markdown; the best one in bold."""
    lines = ["| guidance | variation | " + " | ".join(FIGURES.values()) + " |", "|---" * (2 + len(FIGURES)) + "|"]
    lines.append("| real images | | " + " | ".join(f"{real[name]:.3f}" for name in FIGURES) + " |")
    for point in points:
        cells = [f"{point['guidance']:g}", f"{point['variation']:g}", *(f"{point[name]:.3f}" for name in FIGURES)]
        cells = [f"**{cell}**" for cell in cells] if point is best(points) else cells
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(real: Point, points: Sequence[Point], swept: int) -> Figure:
    """A row of curves over guidance, the first `swept` points, and one over variation, the others and the best."""
    figure = Figure(figsize=(13, 6), layout="constrained")
    rows = (("guidance", points[:swept]), ("variation", [*points[swept:], best(points[:swept])]))
    for axes, (over, shown) in zip(figure.subplots(2, len(FIGURES)), rows, strict=True):
        shown = sorted(shown, key=lambda point, over=over: point[over])
        for axis, (name, label) in zip(axes, FIGURES.items(), strict=True):
            axis.plot([point[over] for point in shown], [point[name] for point in shown], marker="o", label="UniEmo")
            axis.axhline(real[name], color="grey", linestyle="--", label="real images")
            axis.set(xlabel=over, title=label)
    axes[0].legend()
    return figure


def main(arguments: SamplingArguments) -> None:
    """Measure, print the table, and write it beside the arguments that it came from."""
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    real, points = curves(arguments, load_reader(arguments.judge))
    content = {"arguments": asdict(arguments), "real": real, "points": points, "best": best(points)}
    (output / "sampling.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (output / "sampling.md").write_text(table(real, points), encoding="utf-8")
    plot(real, points, len(arguments.guidances)).savefig(output / "sampling.png", dpi=100)
    print(table(real, points))


if __name__ == "__main__":
    with errors_in_one_line():
        main(parse(SamplingArguments, "choose_sampling"))
