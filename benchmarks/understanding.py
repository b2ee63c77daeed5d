"""The understanding model's forward pass beside a plain CLIP vision tower of the same size, in one process.

    python -m benchmarks.understanding

Random weights at ViT-L/14's size (--model: a folder instead, for agreement at trained weights). Runs are interleaved;
ratios are of minima, for whatever else the machine does only adds time.
"""

import argparse
import gc
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from uniemo_pipelines import UniEmoConfig, UniEmoUnderstandingModel
from uniemo_pipelines.modeling_uniemo import VIT_L_14


def plain_clip() -> CLIPVisionModel:
    """CLIP's vision tower at ViT-L/14's size."""
    return CLIPVisionModel(CLIPVisionConfig(**VIT_L_14)).eval()


def uniemo() -> UniEmoUnderstandingModel:
    """UniEmo on such a tower, 32 + 32 queries."""
    return UniEmoUnderstandingModel(UniEmoConfig()).eval()


@torch.inference_mode()
def interleaved(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each of several calls, taken in turns, after one turn to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def report(seconds: Mapping[str, list[float]]) -> None:
    """Minimum and median of each, and its ratio to the first one's minimum."""
    reference = min(next(iter(seconds.values())))
    for name, values in seconds.items():
        median = sorted(values)[len(values) // 2]
        print(f"{name:32} {min(values):7.3f} s  median {median:7.3f} s  {min(values) / reference:5.3f}x")


def peak_memory(which: str, batch_size: int) -> float:
    """Peak resident MB of a process of its own that makes the model and runs it once."""
    code = (
        f"import torch; from benchmarks.understanding import {which} as make, resident_peak\n"
        f"model = make()\nwith torch.inference_mode(): model(torch.randn({batch_size}, 3, 224, 224))\n"
        "print(resident_peak())"
    )
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def resident_peak() -> float:
    """MB of this process at its largest so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Time, then memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=12, help="runs of each, interleaved")
    parser.add_argument("--batch-size", type=int, default=4)
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, fp32")
    models = {"plain CLIP vision tower": plain_clip(), "UniEmo": uniemo()}
    pixels = torch.randn(arguments.batch_size, 3, 224, 224)
    runs = {name: (lambda model=model: model(pixels)) for name, model in models.items()}
    runs["UniEmo, attention maps"] = lambda: models["UniEmo"](pixels, output_attentions=True)
    report(interleaved(runs, arguments.repeats))
    models.clear()
    gc.collect()
    for which in ("plain_clip", "uniemo"):
        print(f"peak memory, batch 32, {which:12} {peak_memory(which, 32):7.0f} MB")


if __name__ == "__main__":
    main()
