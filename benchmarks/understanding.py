"""The understanding model's forward pass beside a plain CLIP vision tower of the same size, in one process.

    pip install torchao
    python -m benchmarks.understanding

Time and memory with random weights at ViT-L/14's size, runs interleaved; ratios are of minima, for whatever else the
machine does only adds time. Then lower precisions: their time at that size, and how often the embedded model names
the same emotion in them.
"""

import argparse
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping

import torch
from PIL import Image
from torchao.quantization import Int8DynamicActivationInt8WeightConfig
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel, PreTrainedModel, TorchAoConfig

from training.backbones.reader import draw_batch
from training.miniemoset.streams import Stream
from uniemo_pipelines import UniEmoConfig, UniEmoUnderstandingModel, embedded
from uniemo_pipelines.modeling_uniemo import VIT_L_14

from .timing import interleaved

SIDE = 224
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "plain CLIP": lambda: CLIPVisionModel(CLIPVisionConfig(**VIT_L_14)).eval(),
    "UniEmo": lambda: UniEmoUnderstandingModel(UniEmoConfig()).eval(),
}


def resident_peak() -> float:
    """MB of this process at its largest so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_memory(name: str, batch_size: int) -> float:
    """Peak MB of a process of its own that makes the model and runs it once.

    It starts from this process's own peak, so measure before making models here.
    """
    code = (
        f"import torch; from benchmarks.understanding import MODELS, SIDE, resident_peak; model = MODELS[{name!r}]()\n"
        f"with torch.inference_mode(): model(torch.randn({batch_size}, 3, SIDE, SIDE))\nprint(resident_peak())"
    )
    return float(subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout)


def report(seconds: Mapping[str, list[float]]) -> None:
    """Minimum and median of each, and the ratio of its minimum to the first one's."""
    reference = min(next(iter(seconds.values())))
    for name, values in seconds.items():
        median = sorted(values)[len(values) // 2]
        print(f"{name:28} {min(values):7.3f} s  median {median:7.3f} s  {min(values) / reference:6.3f}x")


def in_precisions(folder: str) -> dict[str, UniEmoUnderstandingModel]:
    """A saved model in fp32, bf16 and with int8 weights, as transformers loads them."""
    int8 = TorchAoConfig(Int8DynamicActivationInt8WeightConfig())
    options = {
        "fp32": {"dtype": torch.float32},
        "bf16": {"dtype": torch.bfloat16},
        "int8 weights (torchao)": {"dtype": torch.float32, "quantization_config": int8},
    }
    return {name: UniEmoUnderstandingModel.from_pretrained(folder, **kw).eval() for name, kw in options.items()}


@torch.inference_mode()
def agreement(folder: str, pictures: int) -> dict[str, float]:
    """Share of fresh pictures of which a precision names the emotion that fp32 names."""
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    images, *_ = draw_batch(Stream.GATES, 1, pictures, emotional=True)
    pixels = processor([Image.fromarray(image) for image in images], return_tensors="pt").pixel_values
    labels = {
        name: torch.cat([model(part.to(model.dtype)).logits.argmax(-1) for part in pixels.split(50)])
        for name, model in in_precisions(folder).items()
    }
    return {name: (found == labels["fp32"]).float().mean().item() for name, found in labels.items()}


def main() -> None:
    """Memory, time, precisions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=12, help="runs of each, interleaved")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--pictures", type=int, default=2000, help="for the agreement of precisions")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, random ViT-L/14")
    for name in MODELS:
        print(f"{name:28} {peak_memory(name, 32):7.0f} MB at its peak, batch 32")
    models = {name: make() for name, make in MODELS.items()}
    pixels = torch.randn(arguments.batch_size, 3, SIDE, SIDE)
    runs = {name: (lambda model=model: model(pixels)) for name, model in models.items()}
    runs["UniEmo, attention maps"] = lambda: models["UniEmo"](pixels, output_attentions=True)
    with torch.inference_mode():
        report(interleaved(runs, arguments.repeats))
    with tempfile.TemporaryDirectory() as folder:
        models.pop("UniEmo").save_pretrained(folder)
        loaded = in_precisions(folder)
        runs = {name: (lambda model=model: model(pixels.to(model.dtype))) for name, model in loaded.items()}
        with torch.inference_mode():
            report(interleaved(runs, max(3, arguments.repeats // 4)))
    for name, share in agreement(str(embedded.UNDERSTANDING), arguments.pictures).items():
        print(f"{name:28} names fp32's emotion in {share:.2%} of {arguments.pictures} pictures (embedded model)")


if __name__ == "__main__":
    main()
