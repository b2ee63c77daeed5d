"""One image with UniEmo beside the stock pipeline's, same steps: the time spent in our own code, and peak memory.

    python -m benchmarks.generation
    python -m benchmarks.generation --model sd-1.5 --resolution 256 --repeats 1
    python -m benchmarks.generation --model sd-1.5 --device cuda --dtype float16

The embedded model, or random weights at Stable Diffusion 1.5's size. Both pipelines share the components, calls are
interleaved, ratios are of minima, for whatever else the machine does only adds time.

Own time is measured inside the call, since a difference of two calls is noise: what the call does outside the stock
call within it, and what our encoding of the prompts takes beyond the stock pipeline's least.
"""

import argparse
import gc
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel, UniPCMultistepScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import uniemo_pipelines  # which imports its parts at first use, so that the stock process has none of them
from uniemo_pipelines import embedded

STOCK = {"prompt": "a photo of a street"}
CASES: list[dict[str, Any]] = [
    {"emotion": "awe"},
    {"prompt": "a photo of a <awe> street"},
    {"emotion": {"amusement": 0.6, "fear": 0.4}},
    {"emotion": "awe", "emotion_scale": 0.5},
    {"emotion": "awe", "negative_emotion": "fear"},
]


def embedded_components(device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The embedded model's."""
    return StableDiffusionPipeline.from_pretrained(embedded.STABLE_DIFFUSION, dtype=dtype).to(device).components


def random_components(device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Stable Diffusion 1.5's with random weights, and the embedded model's tokenizer, which is at hand."""
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768)
    blocks = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
    blocks |= {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    torch.set_default_dtype(dtype)  # made in their type: a cast would hold two of them at once
    with torch.device(device):
        models = {
            "vae": AutoencoderKL(sample_size=512, **blocks).eval(),
            "text_encoder": CLIPTextModel(text).eval(),
            "unet": UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval(),
        }
    torch.set_default_dtype(torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(embedded.STABLE_DIFFUSION / "tokenizer", model_max_length=77)
    unused = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
    return models | unused | {"tokenizer": tokenizer, "scheduler": UniPCMultistepScheduler(steps_offset=1)}


def load_random_adapter(pipe: Any) -> None:
    """One of EmoSet's 254 scenes and 409 objects, with a bank of 64."""
    fusion = uniemo_pipelines.UniEmoFusionModel(scenes=["scene"] * 254, objects=["object"] * 409, bank_size=64)
    pipe.load_uniemo(fusion.state_dict(), config=dict(fusion.config))


COMPONENTS: dict[str, Callable[[str, torch.dtype], dict[str, Any]]] = {
    "embedded": embedded_components,
    "sd-1.5": random_components,
}
LOAD_ADAPTER: dict[str, Callable[[Any], None]] = {
    "embedded": lambda pipe: pipe.load_uniemo(embedded.ADAPTER),
    "sd-1.5": load_random_adapter,
}


def stock(components: Mapping[str, Any], model: str) -> StableDiffusionPipeline:
    """The stock pipeline on these components, whichever model's."""
    pipe = StableDiffusionPipeline(**components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def uniemo(components: Mapping[str, Any], model: str) -> StableDiffusionPipeline:
    """Ours on them, with the model's adapter."""
    pipe = uniemo_pipelines.UniEmoPipeline(**components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    LOAD_ADAPTER[model](pipe)
    return pipe


def generate(pipe: Any, arguments: argparse.Namespace, steps: int, case: Mapping[str, Any]) -> None:
    """One call."""
    side, generator = arguments.resolution, torch.Generator().manual_seed(1)
    pipe(**case, num_inference_steps=steps, height=side, width=side, generator=generator)


# -- memory


def peak(name: str, arguments: argparse.Namespace) -> float:
    """MB of this process at its largest, or of the accelerator's memory, after one call of one pipeline."""
    make, case = {"stock": (stock, STOCK), "UniEmo": (uniemo, CASES[0])}[name]
    components = COMPONENTS[arguments.model](arguments.device, getattr(torch, arguments.dtype))
    generate(make(components, arguments.model), arguments, 2, case)  # more steps take no more memory
    if arguments.device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return torch.get_device_module(arguments.device).max_memory_allocated() / 2**20


def peak_of_process(name: str, arguments: argparse.Namespace) -> float:
    """`peak` in a process of its own, which starts from this one's: measure before making models here."""
    code = (
        f"from argparse import Namespace; from benchmarks.generation import peak; print(peak('{name}', {arguments}))"
    )
    return float(subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout)


# -- time


def now(device: str) -> float:
    """Seconds, read when the device has nothing left to do."""
    torch.get_device_module(device).synchronize()
    return time.perf_counter()


def watch(owner: type, method: str, seconds: list[float], device: str) -> None:
    """From now on each call of the method adds its seconds to the list."""
    function: Callable[..., Any] = getattr(owner, method)

    @wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        start = now(device)
        result = function(*args, **kwargs)
        seconds.append(now(device) - start)
        return result

    setattr(owner, method, watched)


class Watches:
    """The seconds that `own` adds up."""

    def __init__(self, device: str) -> None:
        ours, theirs = uniemo_pipelines.UniEmoPipeline, StableDiffusionPipeline
        watched = [(ours, "__call__"), (theirs, "__call__"), (ours, "encode_prompt"), (theirs, "encode_prompt")]
        self.lists: list[list[float]] = [[] for _ in watched]
        for (owner, method), seconds in zip(watched, self.lists, strict=True):
            watch(owner, method, seconds, device)

    def own(self) -> float:
        """Of the last call, its encoding of the prompts included; of a stock call the encoding alone."""
        call, stock_call, encoding, stock_encoding = self.lists
        return call[0] - stock_call[0] + encoding[0] if call else stock_encoding[0]

    def clear(self) -> None:
        """Before the next call."""
        for seconds in self.lists:
            seconds.clear()


def measure(arguments: argparse.Namespace) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of the calls and of our own part in them, by case, the stock call first."""
    watches = Watches(arguments.device)
    components = COMPONENTS[arguments.model](arguments.device, getattr(torch, arguments.dtype))
    theirs, ours = (make(components, arguments.model) for make in (stock, uniemo))
    runs = {f"stock, {label(STOCK)}": (theirs, STOCK)} | {label(case): (ours, case) for case in CASES}
    results: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in runs}
    for turn in range(arguments.repeats + 1):
        for name, (pipe, case) in runs.items():
            watches.clear()
            start = now(arguments.device)
            generate(pipe, arguments, arguments.steps if turn else 2, case)
            if turn:  # the first warms up
                results[name][0].append(now(arguments.device) - start)
                results[name][1].append(watches.own())
    stock_encoding = min(next(iter(results.values()))[1])
    return {name: (calls, [own - stock_encoding for own in owns]) for name, (calls, owns) in results.items()}


def label(case: Mapping[str, Any]) -> str:
    """The call's arguments as they are written."""
    return ", ".join(f"{name}={value!r}" for name, value in case.items())


def report(results: Mapping[str, tuple[list[float], list[float]]]) -> None:
    """Minimum and median of calls and of own time, ratio to the stock call, own time's share."""
    reference = min(next(iter(results.values()))[0])
    print(f"{'seconds, least and median':42} {'call':>16} {'ratio':>7} {'own code':>17} {'share':>8}")
    for name, (calls, own) in results.items():
        times = f"{min(calls):8.3f} {statistics.median(calls):7.3f} {min(calls) / reference:7.3f}"
        print(f"{name:42} {times} {min(own):9.4f} {statistics.median(own):7.4f} {min(own) / min(calls):8.3%}")


def understanding_models() -> int:
    """How many there are in this process."""
    kind = uniemo_pipelines.UniEmoUnderstandingModel
    return sum(issubclass(type(thing), kind) for thing in gc.get_objects())


def main() -> None:
    """Memory, then time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=COMPONENTS, default="embedded")
    parser.add_argument("--resolution", type=int, help="128 for the embedded model, else 512")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=10, help="calls of each, interleaved")
    arguments = parser.parse_args()
    arguments.resolution = arguments.resolution or {"embedded": 128, "sd-1.5": 512}[arguments.model]
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}; {arguments}")
    turns = range(min(3, arguments.repeats))
    peaks = {name: min(peak_of_process(name, arguments) for _ in turns) for name in ("stock", "UniEmo")}
    for name, megabytes in peaks.items():
        print(f"{name:42} {megabytes:7.0f} MB at its peak {megabytes / peaks['stock']:6.3f}x", flush=True)
    report(measure(arguments))
    if count := understanding_models():
        raise SystemExit(f"expected no understanding model, for no image is to be understood; found {count}")
    print("the understanding model was not loaded")


if __name__ == "__main__":
    main()
