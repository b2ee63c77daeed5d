"""One image with UniEmo beside the stock pipeline's, same steps: the time spent in our own code, and peak memory.

    python -m benchmarks.generation
    python -m benchmarks.generation --model sd-1.5 --resolution 256 --repeats 1
    python -m benchmarks.generation --model sd-1.5 --resolution 512 --device cuda --dtype float16

The embedded model, or random weights at Stable Diffusion 1.5's size. Both pipelines share the components, calls are
interleaved. Own time is measured inside the call, for the difference of two calls is noise: it is all that the call
does outside the stock call within it, the stock encodings within ours aside, and the pseudo-tokens' hooks in these.
"""

import argparse
import gc
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel, UniPCMultistepScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import uniemo_pipelines  # imports its parts at first use: the stock process has none of them
from uniemo_pipelines import embedded

HOOKS = ("_swap_ids", "_write_rows")  # of PseudoTokens; all else that is watched is public

STOCK = {"prompt": "a photo of a street"}
CASES: list[dict[str, Any]] = [
    {"emotion": "awe"},
    {"prompt": "a photo of a <awe> street"},
    {"emotion": {"amusement": 0.6, "fear": 0.4}},
    {"emotion": "awe", "emotion_scale": 0.5},
    {"emotion": "awe", "negative_emotion": "fear"},
]

Watched = dict[str, list[float]]


def embedded_components(device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The embedded model's."""
    return StableDiffusionPipeline.from_pretrained(embedded.STABLE_DIFFUSION, dtype=dtype).to(device).components


def random_components(device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Stable Diffusion 1.5's with random weights; the embedded model's tokenizer, for there is no other at hand."""
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768)
    blocks = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
    blocks |= {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    torch.set_default_dtype(dtype)  # made in their type, for a cast would hold two of them at once
    with torch.device(device):
        models = {
            "vae": AutoencoderKL(sample_size=512, **blocks).eval(),
            "text_encoder": CLIPTextModel(text).eval(),
            "unet": UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval(),
        }
    torch.set_default_dtype(torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(embedded.STABLE_DIFFUSION / "tokenizer", model_max_length=77)
    unused = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
    return models | unused | {"tokenizer": tokenizer, "scheduler": UniPCMultistepScheduler()}


COMPONENTS = {"embedded": embedded_components, "sd-1.5": random_components}


def stock(components: dict[str, Any]) -> StableDiffusionPipeline:
    """The stock pipeline on these components."""
    pipe = StableDiffusionPipeline(**components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def uniemo(components: dict[str, Any]) -> StableDiffusionPipeline:
    """Ours, with the embedded adapter or a random one of EmoSet's vocabularies (254 scenes, 409 objects)."""
    pipe = uniemo_pipelines.UniEmoPipeline(**components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    if pipe.text_encoder.config.hidden_size == 768:
        fusion = uniemo_pipelines.UniEmoFusionModel(scenes=["scene"] * 254, objects=["object"] * 409)
        pipe.load_uniemo(fusion.state_dict(), config=dict(fusion.config))
    else:
        pipe.load_uniemo(embedded.ADAPTER)
    return pipe


def generate(pipe: StableDiffusionPipeline, arguments: argparse.Namespace, steps: int, **case: Any) -> None:
    """One call."""
    side, generator = arguments.resolution, torch.Generator().manual_seed(1)
    pipe(**case, num_inference_steps=steps, height=side, width=side, generator=generator)


def peak(name: str, arguments: argparse.Namespace) -> float:
    """MB of this process at its largest, or of the accelerator's memory, after one call of one pipeline."""
    make, case = {"stock": (stock, STOCK), "UniEmo": (uniemo, CASES[0])}[name]
    pipe = make(COMPONENTS[arguments.model](arguments.device, getattr(torch, arguments.dtype)))
    generate(pipe, arguments, 2, **case)  # more steps take no more memory
    if arguments.device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return torch.get_device_module(arguments.device).max_memory_allocated() / 2**20


def peak_of_process(name: str, arguments: argparse.Namespace) -> float:
    """`peak` in a process of its own. It starts from this process's own, so measure before making models here."""
    code = f"from argparse import Namespace; from benchmarks import generation; print(generation.peak({name!r}, {arguments}))"
    output = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(output.split()[-1])


def now(device: str) -> float:
    """Seconds on a clock, read when the device has nothing left to do."""
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


def watch_pipelines(device: str) -> Watched:
    """Watches what `own_seconds` reads; hooks are bound when an adapter is loaded, so call it before that."""
    from uniemo_pipelines.prompting_uniemo import PseudoTokens

    ours, theirs = uniemo_pipelines.UniEmoPipeline, StableDiffusionPipeline
    watched: Watched = {name: [] for name in ("call", "stock call", "encoding", "stock encodings", "hooks")}
    watch(ours, "__call__", watched["call"], device)
    watch(theirs, "__call__", watched["stock call"], device)
    watch(ours, "encode_prompt", watched["encoding"], device)
    watch(theirs, "encode_prompt", watched["stock encodings"], device)
    for hook in HOOKS:
        watch(PseudoTokens, hook, watched["hooks"], device)
    return watched


def own_seconds(watched: Watched) -> float:
    """Of one call. The last two encodings, prompt and negative prompt, the stock call has as well, but for our hooks;
    one before them (`emotion_scale`) is ours."""
    around = watched["call"][0] - watched["stock call"][0]
    encoding = watched["encoding"][0] - sum(watched["stock encodings"][-2:])
    return around + encoding + sum(watched["hooks"][-2 * len(HOOKS) :])


def measure(arguments: argparse.Namespace) -> tuple[list[float], list[list[float]], list[list[float]]]:
    """Seconds of each stock call, those of each case's calls, and of their own time."""
    watched = watch_pipelines(arguments.device)
    components = COMPONENTS[arguments.model](arguments.device, getattr(torch, arguments.dtype))
    pipes = [stock(components)] + [uniemo(components)] * len(CASES)
    calls: list[list[float]] = [[] for _ in pipes]
    own: list[list[float]] = [[] for _ in pipes]
    for turn in range(arguments.repeats + 1):
        for pipe, case, wall, ours in zip(pipes, [STOCK, *CASES], calls, own, strict=True):
            for seconds in watched.values():
                seconds.clear()
            generate(pipe, arguments, arguments.steps if turn else 2, **case)  # the first turn warms up
            if turn:
                wall.append((watched["call"] or watched["stock call"])[0])
                ours.append(own_seconds(watched) if watched["call"] else 0.0)
    return calls[0], calls[1:], own[1:]


def understanding_models() -> int:
    """How many there are in this process."""
    kind = uniemo_pipelines.UniEmoUnderstandingModel
    return sum(issubclass(type(found), kind) for found in gc.get_objects())


def report(reference: list[float], calls: list[list[float]], own: list[list[float]]) -> None:
    """A row a case: least and median of the call, ratio of its least to the stock one's, own time and its share."""
    print(f"{'':46} {'least':>9} {'median':>9} {'ratio':>7} {'own':>9} {'share':>8}")
    print(f"{f'stock, {STOCK}':46} {min(reference):7.3f} s {statistics.median(reference):7.3f} s {1:6.3f}x")
    for case, wall, ours in zip(CASES, calls, own, strict=True):
        share = statistics.median(part / whole for part, whole in zip(ours, wall, strict=True))
        name = ", ".join(f"{key}={value!r}" for key, value in case.items())
        print(
            f"{name:46} {min(wall):7.3f} s {statistics.median(wall):7.3f} s {min(wall) / min(reference):6.3f}x "
            f"{1000 * statistics.median(ours):6.1f} ms {share:8.3%}"
        )


def main() -> None:
    """Memory, then time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=COMPONENTS, default="embedded")
    parser.add_argument("--resolution", type=int, default=None, help="128 (embedded) or 512 unless given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=10, help="calls of each, interleaved")
    arguments = parser.parse_args()
    arguments.resolution = arguments.resolution or {"embedded": 128, "sd-1.5": 512}[arguments.model]
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {vars(arguments)}")
    turns = range(min(3, arguments.repeats))
    peaks = [(peak_of_process("stock", arguments), peak_of_process("UniEmo", arguments)) for _ in turns]
    without, with_ours = (min(values) for values in zip(*peaks, strict=True))
    print(f"least peak of a process: stock {without:.0f} MB, UniEmo {with_ours:.0f} MB, {with_ours / without:.3f}x")
    report(*measure(arguments))
    loaded = understanding_models()
    print(f"understanding models in memory: {loaded}")
    if loaded:
        raise SystemExit("the understanding model was loaded, with no image to be understood")


if __name__ == "__main__":
    main()
