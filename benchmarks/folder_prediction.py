"""Images per second of `uniemo understand FOLDER`: decoding alone, the model alone, and the two together.

    python -m benchmarks.folder_prediction --runs 5
    python -m benchmarks.folder_prediction --model my-uniemo-understanding --device cuda --batch-size 64

The pictures are JPEGs of 2 to 12 megapixels, drawn from a seed. Without --model it is the embedded model, and where
that is missing one of ViT-B/32's size with random weights.

On an accelerator "together" can be as fast as the slower of the two; on the CPU they share its cores.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor, CLIPImageProcessorPil, CLIPVisionConfig

from uniemo_pipelines import embedded, folder_prediction
from uniemo_pipelines.modeling_uniemo import UniEmoConfig, UniEmoUnderstandingModel
from uniemo_pipelines.understanding_uniemo import understand_pixels

SIZES = ((1632, 1224), (2400, 1600), (2448, 3264), (4032, 3024))
"""Widths and heights of about 2, 4, 8 and 12 megapixels, one of them upright."""

VIT_B_32 = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 32,
    "projection_dim": 512,
}


def photo(width: int, height: int, seed: int) -> Image.Image:
    """Noise of every scale, the coarser the stronger, as in photographs, so that JPEG has as much to decode."""
    random = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.float32)
    cells, strength = 2, 1.0
    while cells < max(width, height):
        noise = random.normal(size=(3, cells, cells)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(noise[channel]).resize((width, height), Image.Resampling.BICUBIC)
            pixels[..., channel] += strength * np.asarray(layer)
        cells, strength = 2 * cells, 0.78 * strength
    pixels = 128 + 50 * (pixels - pixels.mean()) / pixels.std()
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def load(model: str | None, device: str) -> tuple[UniEmoUnderstandingModel, BaseImageProcessor]:
    """The named model, else the embedded one, else random weights of ViT-B/32's size."""
    if model is None and embedded.UNDERSTANDING.is_dir():
        model = str(embedded.UNDERSTANDING)
    if model is not None:
        network = UniEmoUnderstandingModel.from_pretrained(model)
        return network.eval().to(device), CLIPImageProcessorPil.from_pretrained(model)
    config = UniEmoConfig(vision_config=CLIPVisionConfig(**VIT_B_32), projection_dim=VIT_B_32["projection_dim"])
    return UniEmoUnderstandingModel(config).eval().to(device), CLIPImageProcessorPil()


def rate(images: int, work: Callable[[], Iterable[object]]) -> float:
    """Images a second of one run, to the last."""
    start = time.perf_counter()
    for _ in work():
        pass
    return images / (time.perf_counter() - start)


def main() -> None:
    """Time the three in turn, several times, and print medians, best and worst, with the machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--model", help="understanding model: folder or Hub repository")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    model, processor = load(args.model, args.device)
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder)
        for index, (width, height) in enumerate(SIZES):
            photo(width, height, index).save(pictures / f"{index}.jpg", quality=90)
        files = [f"{index % len(SIZES)}.jpg" for index in range(args.images)]
        ahead = 2 * args.batch_size
        seen = torch.cat([pixels for _, pixels in folder_prediction.decoded(processor, pictures, files, ahead)])
        works: dict[str, Callable[[], Iterable[object]]] = {
            "decode only": lambda: folder_prediction.decoded(processor, pictures, files, ahead),
            "model only": lambda: (understand_pixels(model, batch) for batch in seen.split(args.batch_size)),
            "together": lambda: folder_prediction.predict(model, processor, pictures, files, args.batch_size),
        }
        rates = {name: [] for name in works}
        for _ in range(args.runs):
            for name, work in works.items():
                rates[name].append(rate(len(files), work))
    report(rates, args)


def report(rates: dict[str, list[float]], args: argparse.Namespace) -> None:
    """Prints what was measured, on what."""
    threads = f"{torch.get_num_threads()} thread(s) for the model"
    print(f"{platform.machine()}, {os.cpu_count()} cores, {threads} on {args.device}, torch {torch.__version__}")
    print(f"{args.images} images a run, batches of {args.batch_size}, {args.runs} runs; images per second:")
    for name, values in rates.items():
        print(f"{name:<12} median {statistics.median(values):6.1f}, best {max(values):6.1f}, worst {min(values):6.1f}")


if __name__ == "__main__":
    main()
