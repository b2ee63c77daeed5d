"""What an emotion keeps when it is exported as a textual inversion, against the live adapter.

    python -m training.measure_export --config training/configs/miniemoset.yaml

The stock pipeline draws by the exported files, which it loads as anyone would; every row has the same seeds. Writes
`export.json`, `export.md` and a sheet of images for each row. Images are kept, so that a run that was stopped goes on
where it was.
"""

import json
import tempfile
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from tqdm import tqdm

from uniemo_pipelines import UniEmoPipeline, drawing, embedded
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME
from uniemo_pipelines.textual_inversion_uniemo import export_textual_inversions

from .backbones.reader import load_reader, read
from .choose_sampling import FIGURES
from .config import parse
from .evaluate_mini import JudgedArguments, real_readings
from .judging import figures_of, judged
from .metrics import Estimate
from .miniemoset.attributes import EMOTIONS
from .sampling import digest_of, kept_pictures, sample_pictures
from .scripts import errors_in_one_line

ROWS = {
    "live": "live adapter",
    "mean": "one vector, the mean",
    "drawn": "{} vectors, each image by one of `<awe>_1` ... in turn",
    "all": "{} vectors, `<awe>` for all at once",
}


Row = dict[str, Estimate]


@dataclass(kw_only=True)
class ExportArguments(JudgedArguments):
    """How much is exported."""

    vectors: int = field(default=8, metadata={"help": "vectors of each emotion, in the rows with several"})
    guidance: float = field(default=embedded.GUIDANCE, metadata={"help": "guidance scale"})


def pipelines(arguments: ExportArguments) -> dict[str, StableDiffusionPipeline]:
    """By row, the live adapter's pipeline, and stock ones with the exported files."""
    load = {"pretrained_model_name_or_path": arguments.base, "dtype": torch.float32, "safety_checker": None}
    live = UniEmoPipeline.from_pretrained(**load)
    live.load_uniemo(arguments.adapter)
    stock = {}
    for count in (1, arguments.vectors):
        stock[count] = StableDiffusionPipeline.from_pretrained(**load)
        with tempfile.TemporaryDirectory() as folder:
            for file in export_textual_inversions(live.fusion, folder, count):
                stock[count].load_textual_inversion(folder, weight_name=file.name)
    several = stock[arguments.vectors]
    return {"live": live, "mean": stock[1], "drawn": several, "all": several}


def prompts(row: str, emotion: str, arguments: ExportArguments) -> list[str]:
    """One an image."""
    if row == "drawn":
        return [f"<{emotion}>_{1 + image % (arguments.vectors - 1)}" for image in range(arguments.images)]
    return [f"<{emotion}>"] * arguments.images


def measure(arguments: ExportArguments) -> dict[str, Row]:
    """The figures of real images and of each row."""
    judge = load_reader(arguments.judge)
    first, reference = real_readings(arguments, judge)
    readings = {"real": first}
    weights = [*sorted(Path(arguments.base).rglob("*.safetensors")), Path(arguments.adapter, ADAPTER_NAME)]
    settings = [getattr(arguments, name) for name in ("images", "steps", "seed", "guidance", "vectors")]
    folder = Path(arguments.output, "images", digest_of(settings, weights))
    seeds = range(arguments.seed * 10**6, arguments.seed * 10**6 + arguments.images)
    options = {"num_inference_steps": arguments.steps, "guidance_scale": arguments.guidance}
    options["batch_size"] = arguments.batch_size
    for row, pipeline in pipelines(arguments).items():
        images = []
        for emotion in tqdm(EMOTIONS, row):
            asked = prompts(row, emotion, arguments)
            draw = partial(sample_pictures, pipeline, seeds, prompts=asked, **options)
            images.append(kept_pictures(folder / f"{row}-{emotion}.npy", draw))
        readings[row] = [read(judge, pictures) for pictures in images]
        sheet = {name: [Image.fromarray(p) for p in some[:8]] for name, some in zip(EMOTIONS, images, strict=True)}
        drawing.sheet(sheet).save(Path(arguments.output, f"sheet_{row}.jpg"), quality=92)
    every = {row: figures_of(judged(found, reference)) for row, found in readings.items()}
    return {row: {name: figures[name] for name in FIGURES} for row, figures in every.items()}


def table(arguments: ExportArguments, figures: dict[str, Row]) -> str:
    """The rows as Markdown, Emo-A with its interval."""
    lines = ["| images | " + " | ".join(FIGURES.values()) + " |", "|---" * (1 + len(FIGURES)) + "|"]
    for row, found in figures.items():
        cells = [f"{found[name].value:.3f}" for name in FIGURES]
        cells[0] += " ({:.3f}-{:.3f})".format(*found["emotion_accuracy"].interval)
        label = ROWS[row].format(arguments.vectors) if row in ROWS else "real images"
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: ExportArguments) -> None:
    """Measure, print the table, and write it beside the arguments that it came from."""
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    figures = measure(arguments)
    content = {"arguments": asdict(arguments), "figures": figures}
    (output / "export.json").write_text(json.dumps(content, indent=1, default=asdict) + "\n", encoding="utf-8")
    (output / "export.md").write_text(table(arguments, figures), encoding="utf-8")
    print(table(arguments, figures))


if __name__ == "__main__":
    with errors_in_one_line():
        main(parse(ExportArguments, "measure_export"))
