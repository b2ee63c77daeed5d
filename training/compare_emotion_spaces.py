"""Which form of the emotion space to sample from, before the development judge (design 2.4 and 8).

    python -m training.compare_emotion_spaces --config training/configs/miniemoset.yaml

The forms that the adapter holds, and the mean alone, draw images by the same seeds. Writes `emotion_spaces.json`,
`emotion_spaces.md` and a sheet of images for each form. Images are kept, so that a run that was stopped goes on where
it was.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from uniemo_pipelines import UniEmoPipeline, drawing, embedded
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME

from .backbones.reader import Reading, load_reader, read
from .config import parse
from .evaluate_mini import EvaluationArguments, JudgedArguments, generate, real_readings
from .judging import figures_of, judged
from .metrics import Estimate
from .miniemoset.attributes import EMOTIONS
from .sampling import digest_of, kept_pictures
from .scripts import errors_in_one_line

FORMS = {
    "gaussian": "gaussian: each number by itself, as released",
    "low_rank": "low_rank: one Gaussian of the three features",
    "bank": "bank: medoids of real images",
    "mean": "the mean alone, as variation 0",
}
FIGURES = {"emotion_accuracy": "Emo-A", "total_variation": "total variation", "coverage": "coverage"}


@dataclass(kw_only=True)
class ComparisonArguments(JudgedArguments):
    """The settings that all forms share."""

    guidance: float = field(default=embedded.GUIDANCE, metadata={"help": "guidance scale"})


Row = dict[str, Estimate]


def estimates(readings: Sequence[Reading], reference: Sequence[Reading]) -> Row:
    """The figures of a set of images by emotion.

    The intervals of Emo-A and total variation are over the images, that of coverage over the real ones to be covered.
    """
    figures = figures_of(judged(readings, reference))
    return {name: figures[name] for name in FIGURES}


def draw_form(pipeline: UniEmoPipeline, form: str, arguments: ComparisonArguments) -> list[np.ndarray]:
    """Images of one form by emotion; image k of an emotion has the same seed in every form."""
    settings = {name: getattr(arguments, name) for name in ComparisonArguments.__dataclass_fields__}
    call = EvaluationArguments(**settings, baseline="")
    if form == "mean":
        call = replace(call, variation=0.0)
    else:
        pipeline.fusion.register_to_config(emotion_space=form)
    weights = [*sorted(Path(arguments.base).rglob("*.safetensors")), Path(arguments.adapter, ADAPTER_NAME)]
    decisive = [getattr(arguments, name) for name in ("images", "steps", "seed", "guidance")]
    folder = Path(arguments.output, "images", digest_of(decisive, weights))
    return [
        kept_pictures(folder / f"{form}-{emotion}.npy", partial(generate, pipeline, "uniemo", emotion, call))
        for emotion in tqdm(EMOTIONS, form, unit="emotion")
    ]


def compare(arguments: ComparisonArguments) -> dict[str, Row]:
    """The figures of real images, which are the floor, and of each form."""
    judge = load_reader(arguments.judge)
    first, reference = real_readings(arguments, judge)
    rows = {"real": estimates(first, reference)}
    pipeline = UniEmoPipeline.from_pretrained(arguments.base, dtype=torch.float32, safety_checker=None)
    pipeline.load_uniemo(arguments.adapter)
    for form in FORMS:
        images = draw_form(pipeline, form, arguments)
        rows[form] = estimates([read(judge, pictures) for pictures in images], reference)
        sheet = {name: [Image.fromarray(p) for p in some[:8]] for name, some in zip(EMOTIONS, images, strict=True)}
        drawing.sheet(sheet).save(Path(arguments.output, f"sheet_{form}.jpg"), quality=80)
    return rows


def best(rows: dict[str, Row]) -> str:
    """The form with the least total variation, of those that evoke the emotion as well as real images do.

    As well is: Emo-A not below the interval of the real images'. Above is no fault by itself, for what is gained by
    collapse is paid for in total variation.
    """
    least, _ = rows["real"]["emotion_accuracy"].interval
    faithful = [form for form in FORMS if rows[form]["emotion_accuracy"].value >= least]
    return min(faithful or FORMS, key=lambda form: rows[form]["total_variation"].value)


def table(rows: dict[str, Row]) -> str:
    """The rows as Markdown, each figure with its interval; the best form in bold."""
    lines = ["| images | " + " | ".join(FIGURES.values()) + " |", "|---" * (1 + len(FIGURES)) + "|"]
    for name, row in rows.items():
        found = [row[figure] for figure in FIGURES]
        cells = [FORMS.get(name, "real images")]
        cells += [f"{one.value:.3f} ({one.interval[0]:.3f}-{one.interval[1]:.3f})" for one in found]
        cells = [f"**{cell}**" for cell in cells] if name == best(rows) else cells
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: ComparisonArguments) -> None:
    """Compare, print the table, and write it beside the arguments that it came from."""
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    rows = compare(arguments)
    content = {"arguments": asdict(arguments), "rows": rows, "best": best(rows)}
    (output / "emotion_spaces.json").write_text(json.dumps(content, indent=1, default=asdict) + "\n", encoding="utf-8")
    (output / "emotion_spaces.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    with errors_in_one_line():
        main(parse(ComparisonArguments, "compare_emotion_spaces"))
