"""What the embedded model can do: understanding on the test split, and generated images before a judge.

`training.evaluate`'s figures, of the rows that the model card has; `evaluate` itself is for folders of any images.

    python -m training.evaluate_mini --config training/configs/miniemoset.yaml

Writes `evaluation.json`, `evaluation.md`, a contact sheet of each row, and `results.json` for model cards. The test
split and the final judge, which took no part in training or tuning, are read once; settings are chosen before, by
`choose_sampling`.

Beside UniEmo stand real images, the base model prompted with the emotion's word (a floor), and prompted with captions
drawn from P(attributes | emotion) (a rival that knows the truth).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from uniemo_pipelines import UniEmoPipeline, embedded
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME
from uniemo_pipelines.training_records_uniemo import Result, write_results

from .backbones.reader import Reading, load_reader, read
from .config import parse
from .data import DataArguments, Row, read_rows
from .evaluate import evaluate_understanding
from .evaluating.scoring import Scores
from .evaluating.tables import generation_tables, understanding_tables
from .files import write_whole
from .judging import JUDGE, PARTS, bayes_emotions, figures_of, judged
from .metrics import Estimate, share_estimate
from .metrics.understanding import UnderstandingScores, draw_confusion
from .miniemoset.attributes import EMOTIONS, bayes_accuracy
from .miniemoset.captions import truthful_caption
from .observing import Observer
from .runs import write_json
from .sampling import digest_of, kept_pictures, sample_pictures
from .scripts import errors_in_one_line

LEAST_SHARE, MOST_EXCESS = 0.8, 0.10
ROWS = {
    "real": "real images",
    "uniemo": "UniEmo",
    "word": "base model, the emotion's word",
    "captions": "base model, captions from P(attributes given emotion)",
}


@dataclass(kw_only=True)
class SampledArguments:
    """What generates, who judges, and how many images."""

    base: str = field(metadata={"help": "stock Stable Diffusion folder"})
    adapter: str = field(metadata={"help": "folder with uniemo_adapter.safetensors and understanding/"})
    judge: str = field(metadata={"help": "weights of the judge"})
    output: str = field(metadata={"help": "folder to write"})
    images: int = field(default=250, metadata={"help": "images of each emotion and row"})
    steps: int = field(default=25, metadata={"help": "denoising steps"})
    batch_size: int = 25
    seed: int = 0


@dataclass(kw_only=True)
class JudgedArguments(SampledArguments):
    """The real images to compare with."""

    data: str = field(metadata={"help": "MiniEmoSet's folder"})
    split: str = field(metadata={"help": "test, or calibration to choose settings"})


@dataclass(kw_only=True)
class EvaluationArguments(JudgedArguments):
    """The settings chosen, and the rival in understanding."""

    baseline: str = field(metadata={"help": "folder of the backbone fine-tuned without expert queries"})
    guidance: float = field(default=embedded.GUIDANCE, metadata={"help": "guidance scale"})
    variation: float = field(default=1.0, metadata={"help": "emotion_variation of UniEmo"})


@dataclass(frozen=True)
class RowScores:
    """The general scores of a row of images, with the judge's features as the space `JUDGE`, and Emo-A by the exact
    posterior of the emotion given the attributes read."""

    scores: Scores
    bayes_emotion_accuracy: Estimate


def understanding(arguments: EvaluationArguments, observer: Observer) -> dict[str, UnderstandingScores]:
    """The figures of UniEmo and of the plain backbone on the whole split."""
    rows = read_rows(DataArguments(data=arguments.data), arguments.split)
    locations = {"uniemo": f"{arguments.adapter}/understanding", "baseline": arguments.baseline}
    scores = evaluate_understanding(list(locations.values()), rows, observer)
    return {name: scores[location] for name, location in locations.items()}


def real_readings(arguments: JudgedArguments, judge: torch.nn.Module) -> tuple[list[Reading], list[Reading]]:
    """The judge's readings of real images by emotion: the first `images` of each, and all others.

    Raises:
        ValueError: too few others to hold the first against.
    """
    chosen: dict[int, list[Row]] = {label: [] for label in range(len(EMOTIONS))}
    for row in read_rows(DataArguments(data=arguments.data), arguments.split):
        chosen[row.label].append(row)
    fewest = min(map(len, chosen.values()))
    if fewest < 2 * arguments.images:
        raise ValueError(
            f"Expected at least {2 * arguments.images} images of each emotion in the {arguments.split} split, half of "
            f"them to hold the others against; found {fewest}. Lower --images or draw more."
        )
    first, others = [], []
    for rows in tqdm(chosen.values(), "real images"):
        pictures = np.stack([np.asarray(row.picture.open()) for row in rows])
        first.append(read(judge, pictures[: arguments.images]))
        others.append(read(judge, pictures[arguments.images :]))
    return first, others


def generate(pipeline: UniEmoPipeline, row: str, emotion: str, arguments: EvaluationArguments) -> np.ndarray:
    """Images (N, 128, 128, 3) uint8 of one emotion; image k of an emotion has the same seed in every row."""
    first = arguments.seed * 10**6 + EMOTIONS.index(emotion) * 10**4
    seeds = range(first, first + arguments.images)
    asked = {
        "uniemo": {"emotion": emotion, "emotion_variation": arguments.variation},
        "word": {"prompt": emotion},
        "captions": {"prompts": [truthful_caption(emotion, seed) for seed in seeds]},
    }[row]
    return sample_pictures(
        pipeline,
        seeds,
        batch_size=arguments.batch_size,
        num_inference_steps=arguments.steps,
        guidance_scale=arguments.guidance,
        **asked,
    )


def kept_images(pipeline: UniEmoPipeline, row: str, arguments: EvaluationArguments, folder: Path) -> list[np.ndarray]:
    """Images of a row by emotion. They are kept, so that a run that was stopped goes on where it was."""
    images = []
    for emotion in tqdm(EMOTIONS, ROWS[row]):
        path = folder / f"{row}-{decisive_digest(row, arguments)}" / f"{emotion}.npy"
        images.append(kept_pictures(path, partial(generate, pipeline, row, emotion, arguments)))
    return images


def decisive_digest(row: str, arguments: EvaluationArguments) -> str:
    """A short name of all that decides a row's images: weights and settings."""
    weights, settings = sorted(Path(arguments.base).rglob("*.safetensors")), ["images", "steps", "seed", "guidance"]
    if row == "uniemo":
        weights.append(Path(arguments.adapter, ADAPTER_NAME))
        settings.append("variation")
    return digest_of([getattr(arguments, name) for name in settings], weights)


def contact_sheet(images: list[np.ndarray], columns: int = 8) -> Image.Image:
    """A row per emotion of the first images of each."""
    return Image.fromarray(np.concatenate([np.concatenate(list(row[:columns]), axis=1) for row in images]))


def generation(arguments: EvaluationArguments, output: Path) -> dict[str, RowScores]:
    """Scores of every row by the judge."""
    judge = load_reader(arguments.judge)
    real, reference = real_readings(arguments, judge)
    scores = {"real": score_row(real, reference)}
    pipeline = UniEmoPipeline.from_pretrained(arguments.base, dtype=torch.float32, safety_checker=None)
    pipeline.load_uniemo(arguments.adapter)
    for row in ("uniemo", "word", "captions"):
        images = kept_images(pipeline, row, arguments, output / "images")
        scores[row] = score_row([read(judge, pictures) for pictures in images], reference)
        contact_sheet(images).save(output / f"contact_sheet_{row}.jpg", quality=92)
    return scores


def score_row(readings: Sequence[Reading], reference: Sequence[Reading]) -> RowScores:
    """The scores of readings by emotion, as many of each, against those of other, real images."""
    by_bayes = torch.cat([bayes_emotions(reading) == label for label, reading in enumerate(readings)])
    return RowScores(judged(readings, reference), share_estimate(by_bayes))


def table(understood: dict[str, UnderstandingScores], scores: dict[str, RowScores]) -> str:
    """Both results as Markdown: the model card's tables, then all figures."""
    lines = ["| understanding | accuracy | 95 % interval |", "|---|---|---|"]
    for name, model in understood.items():
        accuracy = model.figures["accuracy"]
        lines.append("| {} | {:.4f} | {:.4f}-{:.4f} |".format(name, accuracy.value, *accuracy.interval))
    lines += [f"| best possible | {bayes_accuracy():.4f} | exact |", ""]
    lines += ["| images | Emo-A | 95 % interval | Emo-A by Bayes | total variation | scene / object / palette |"]
    lines[-1] += " coverage |"
    lines.append("|---|---|---|---|---|---|---|")
    for row, found in scores.items():
        figures = {name: figure.value for name, figure in found.scores.figures.items()}
        parts = " / ".join(f"{figures[f'total_variation_{part}']:.3f}" for part in PARTS)
        interval = "{:.3f}-{:.3f}".format(*found.scores.figures["emotion_accuracy"].interval)
        coverage = found.scores.spaces[JUDGE]["coverage"].value
        cells = [
            ROWS[row],
            f"{figures['emotion_accuracy']:.3f}",
            interval,
            f"{found.bayes_emotion_accuracy.value:.3f}",
        ]
        cells += [f"{figures['total_variation']:.3f}", parts, f"{coverage:.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    general = generation_tables({ROWS[row]: found.scores for row, found in scores.items()}, {}, {})
    return "\n".join([*lines, "", verdict(scores), "", understanding_tables(understood, {}), general]) + "\n"


def verdict(scores: dict[str, RowScores]) -> str:
    """What is asked of UniEmo: Emo-A of at least 0.8 of real images', total variation within 0.10 of theirs."""
    real, uniemo = (
        {name: figure.value for name, figure in scores[row].scores.figures.items()} for row in ("real", "uniemo")
    )
    share = uniemo["emotion_accuracy"] / real["emotion_accuracy"]
    excess = uniemo["total_variation"] - real["total_variation"]
    met = share >= LEAST_SHARE and excess <= MOST_EXCESS
    return (
        f"Emo-A is {share:.3f} of the real images' (asked: {LEAST_SHARE}), total variation {excess:+.3f} above their "
        f"floor (asked: at most {MOST_EXCESS}): {'met' if met else 'missed'}."
    )


def card_results(understood: dict[str, UnderstandingScores], scores: dict[str, RowScores], split: str) -> list[Result]:
    """The figures of model cards, and beside them those of what they are to be compared with."""
    seen = {"split": split, "task": "image-classification"}
    results = [
        Result(metric="accuracy", **asdict(model.figures["accuracy"]), pictures=model.images, of=of, **seen)
        for model, of in ((understood["uniemo"], None), (understood["baseline"], "the tower without expert queries"))
    ]
    results.append(Result(metric="accuracy", value=bayes_accuracy(), of="the best possible", **seen))
    for metric in ("emotion_accuracy", "total_variation", "coverage"):
        for row, of in (("uniemo", None), ("real", "real pictures")):
            found = scores[row].scores
            estimate = figures_of(found)[metric]
            given = {"split": split, "pictures": found.images, "task": "text-to-image"}
            results.append(Result(metric=metric, **asdict(estimate), of=of, **given))
    return results


def main(arguments: EvaluationArguments) -> None:
    """Evaluate, print the tables, and write them beside the arguments that they came from."""
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    understood = understanding(arguments, Observer(output / "observed", arguments.batch_size))
    scores = generation(arguments, output)
    content = {
        "arguments": asdict(arguments),
        "understanding": {name: asdict(found) for name, found in understood.items()} | {"bayes": bayes_accuracy()},
        "generation": {row: asdict(found) for row, found in scores.items()},
    }
    text = table(understood, scores)
    write_whole(output / "evaluation.md", text)
    draw_confusion({name: found.confusion for name, found in understood.items()}).savefig(output / "confusion.png")
    write_results(output, card_results(understood, scores, arguments.split))
    write_json(output / "evaluation.json", content)
    print(text)


if __name__ == "__main__":
    with errors_in_one_line():
        main(parse(EvaluationArguments, "evaluate_mini"))
