"""Weights that scripts load: where they lie, what they are called, and a digest that tells others apart."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from diffusers import StableDiffusionPipeline

from .sampling import digest_of

BASE_PARTS = ("text_encoder", "unet", "vae")


def find_base(base: str) -> Path:
    """The folder of a stock Stable Diffusion, fetched from the Hub if need be.

    Raises:
        OSError: it is neither there nor on the Hub, or the Hub cannot be reached.
    """
    return at_hand(base, partial(StableDiffusionPipeline.download, safety_checker=None))


def digest_of_base(folder: Path) -> str:
    """Of the weights that draw, and of the scheduler; variants such as `model.fp16.safetensors` are not loaded."""
    files = [file for part in BASE_PARTS for file in sorted(folder.joinpath(part).iterdir())]
    files = [file for file in files if file.suffixes in ([".safetensors"], [".bin"])]
    return digest_of({}, [*files, *sorted(folder.joinpath("scheduler").glob("*.json"))])


def at_hand(place: str, fetch: Callable[[str], str]) -> Path:
    """A path as it is, and of a Hub name the folder that `fetch` gives.

    Raises:
        OSError: neither, or the Hub cannot be reached.
    """
    if Path(place).exists():
        return Path(place)
    try:
        return Path(fetch(place))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise OSError(f"Expected a folder, or what can be fetched from the Hub, found {place!r}: {reason}") from error


def name_of(location: str) -> str:
    """A Hub name as it is; a path by its last part, for where it lies on this machine is nobody else's matter."""
    return Path(location).resolve().name if Path(location).exists() else location
