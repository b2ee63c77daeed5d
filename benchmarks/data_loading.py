"""Pictures per second of training's data side, from files to batches, and whether a training step has to wait.

    python -m benchmarks.data_loading --runs 5
    python -m benchmarks.data_loading --workers 0 2 8 --images 2000

The photographs are JPEGs of EmoSet's usual sizes, 500x375 to 1000x800, drawn from a seed, for a model of 224 px. The
small pictures have MiniEmoSet's size, 128 px, and stay in memory. First no model runs beside it; then steps of stage 1
at the mini size do, and how long each waits for its batch is measured.
"""

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from transformers import CLIPImageProcessorPil

from training.data import DataArguments, EvaluationTransform, PictureSample, TrainingTransform, open_split
from uniemo_pipelines.fusion_uniemo import EMOTIONS

from .folder_prediction import photo, rate
from .training import mini as mini_models
from .training import our_step

SIZES = ((500, 375), (375, 500), (640, 480), (800, 600), (1000, 667), (1000, 800))
DISTINCT = 36


def write_pictures(folder: Path, sizes: Iterable[tuple[int, int]], count: int) -> DataArguments:
    """A folder of pictures for each emotion; every one of the sizes, and files of the same content further on."""
    sizes = list(sizes)
    for number in range(count):
        path = folder / "train" / EMOTIONS[number % len(EMOTIONS)] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < DISTINCT:
            photo(*sizes[number % len(sizes)], number).save(path, quality=90)
        else:
            first = number % DISTINCT
            shutil.copy(folder / "train" / EMOTIONS[first % len(EMOTIONS)] / f"{first}.jpg", path)
    return DataArguments(data=str(folder))


def works(args: argparse.Namespace, folder: Path) -> dict[str, Callable[[], Iterable[object]]]:
    """A pass over all pictures, by its name."""
    large = CLIPImageProcessorPil()
    small = CLIPImageProcessorPil(size={"shortest_edge": 128}, crop_size={"height": 128, "width": 128})
    photographs = write_pictures(folder / "photographs", SIZES, args.images)
    mini = replace(write_pictures(folder / "mini", [(128, 128)], args.images), keep_images=True)
    seen = {
        "evaluation, 224 px": (photographs, EvaluationTransform(large)),
        "training, 224 px": (photographs, TrainingTransform(large)),
        "training with colour, 224 px": (photographs, TrainingTransform(large, color_jitter=0.3)),
        "training, 128 px, kept": (mini, TrainingTransform(small, scale=(0.6, 1.0))),
    }
    passes = {}
    for name, (arguments, transform) in seen.items():
        dataset = open_split(arguments, "train", PictureSample(transform))
        for workers in [0] if arguments.keep_images else args.workers:
            loader = DataLoader(dataset, args.batch_size, num_workers=workers)
            passes[f"{name}, {workers} workers"] = lambda loader=loader: loader
    return passes


def waits(mini: DataArguments, batch_size: int, steps: int, workers: int) -> tuple[float, float]:
    """Medians of the seconds that a training step at the mini size waits for its batch, and that it takes then."""
    models = mini_models()
    small = CLIPImageProcessorPil(size={"shortest_edge": 128}, crop_size={"height": 128, "width": 128})
    dataset = open_split(mini, "train", PictureSample(TrainingTransform(small, scale=(0.6, 1.0))))
    # its pictures have no attributes: the objective is then the emotion's alone, a little quicker than in training
    loader = DataLoader(dataset, batch_size, num_workers=workers, persistent_workers=workers > 0, drop_last=True)
    model = models.understanding.train()
    step = our_step(model, lambda batch: model(batch["pixel_values"], labels=batch["labels"]).loss)
    waited, took = [], []
    batches = chain.from_iterable(loader for _ in count())
    for number in range(steps + 2):  # the first starts the workers
        start = time.perf_counter()
        batch = next(batches)
        fetched = time.perf_counter()
        step(batch)
        if number >= 2:
            waited.append(fetched - start)
            took.append(time.perf_counter() - fetched)
    return statistics.median(waited), statistics.median(took)


def main() -> None:
    """Time the passes in turn, several times, and print medians, best and worst, with the machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--steps", type=int, default=30, help="training steps that are watched for waiting")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        passes = works(args, Path(folder))
        rates: dict[str, list[float]] = {name: [] for name in passes}
        for timed in (False, *[True] * args.runs):  # the first round fills caches
            for name, work in passes.items():
                found = rate(args.images, work)
                if timed:
                    rates[name].append(found)
        report(rates, args)
        mini = replace(DataArguments(data=str(Path(folder) / "mini")), keep_images=True)
        for workers in (0, 1):
            waited, took = waits(mini, args.batch_size, args.steps, workers)
            print(f"A mini stage-1 step, {workers} workers: waits {1000 * waited:.1f} ms, takes {1000 * took:.0f} ms.")


def report(rates: dict[str, list[float]], args: argparse.Namespace) -> None:
    """Prints what was measured, on what."""
    threads = f"{torch.get_num_threads()} thread(s) in the main process"
    print(f"{platform.machine()}, {os.cpu_count()} cores, {threads}, torch {torch.__version__}")
    print(f"{args.images} pictures a run, batches of {args.batch_size}, {args.runs} runs; pictures per second:")
    for name, values in rates.items():
        median, best, worst = statistics.median(values), max(values), min(values)
        print(f"{name:<42} median {median:6.1f}, best {best:6.1f}, worst {worst:6.1f}")


if __name__ == "__main__":
    main()
