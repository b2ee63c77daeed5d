"""What several commands of the command line do: one-line errors, quiet libraries, progress, loading models."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from typer.core import TyperGroup
from typer.exceptions import TyperException

from . import embedded

if TYPE_CHECKING:
    import torch
    from transformers import CLIPImageProcessorPil

    from .modeling_uniemo import UniEmoUnderstandingModel
    from .pipeline_uniemo import UniEmoPipeline
    from .pipeline_uniemo_xl import UniEmoXLPipeline

    Understanding = tuple[UniEmoUnderstandingModel, CLIPImageProcessorPil]

errors = Console(stderr=True)


class OneLineErrors(TyperGroup):
    """What goes wrong with a user's input is one line on stderr and exit code 2, never a traceback."""

    def invoke(self, ctx: typer.Context) -> Any:
        """Run a command; see the class for what it may end with."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of our output left; typer ends quietly
            raise
        except TyperException as error:  # an unknown option, a value out of range
            message = f"{error.format_message().rstrip('.')}; --help tells more."
        except (ValueError, OSError) as error:
            message = _message(error)
        typer.echo(f"Error: {' '.join(message.split())}", err=True)
        raise typer.Exit(2)


def _message(error: Exception) -> str:
    """What it says; of what the Hub's client refused its own words, and a line on what to do."""
    from .hub_uniemo import client_error

    notes = getattr(error, "__notes__", [])
    said = client_error(error) if notes else None
    return " ".join([str(said or error), *notes])


@contextmanager
def whole_weights(where: str) -> Iterator[None]:
    """Raises ValueError where a weight file was cut short; safetensors' own error names neither file nor folder."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise ValueError(
            f"{where}: expected whole safetensors files, found one cut short or damaged ({error}); fetch it again."
        ) from None


def load_pipeline(model: str | None, adapter: str | None, device: str) -> "UniEmoPipeline | UniEmoXLPipeline":
    """A base with an adapter on a device, the embedded ones where None is given.

    A base that came with an adapter keeps it, unless another is given.

    Raises:
        ValueError: the base or the adapter is refused, or there is no such device.
        OSError: one of them is not there, or cannot be fetched.
    """
    import torch

    from .exporting import load_as_trained, pipeline_class

    where = find_device(device)
    dtype = torch.float16 if where.type == "cuda" else torch.float32
    base = model or embedded.existing(embedded.STABLE_DIFFUSION)
    with whole_weights(base):
        pipe = pipeline_class(base).from_pretrained(base, dtype=dtype)
    if adapter is not None or not pipe.list_uniemo():  # a pipeline may come with one
        load_as_trained(pipe, adapter or embedded.existing(embedded.ADAPTER))
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(where)


def load_understanding(model: str | None, device: str) -> "Understanding":
    """An understanding model on a device with its image processor, the embedded one where None is given.

    Errors are as above.
    """
    import torch
    from transformers import CLIPImageProcessorPil

    from .understanding_uniemo import load_understanding

    where = model or embedded.existing(embedded.UNDERSTANDING)
    with whole_weights(where):
        network = load_understanding(where, dtype=torch.float32)
    return network.eval().to(find_device(device)), CLIPImageProcessorPil.from_pretrained(where)


def find_device(name: str) -> "torch.device":
    """Raises ValueError where this machine has no such device."""
    import torch

    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"expected a device that this machine has (cpu, cuda, ...), found '{name}'.") from None
    return device


def quiet() -> None:
    """Keeps the libraries' notices off the user's screen; errors still come through."""
    warnings.simplefilter("ignore")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    for library in ("torchao", "torch.utils._pytree"):  # diffusers and transformers import torchao where it is
        logging.getLogger(library).setLevel(logging.ERROR)
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    from diffusers.utils import logging as diffusers_logging
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # of reading files; this hides downloads too,
    enable_progress_bars()  # which a user wants to see
    diffusers_logging.disable_progress_bar()


@contextmanager
def progress(total: int, completed: int = 0) -> Iterator[Callable[..., None]]:
    """A bar on stderr that goes when it is done; yields `advance(steps, new_description)`."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("", total=total, completed=completed)

        def advance(steps: int, text: str | None = None) -> None:
            bar.update(task, advance=steps, description=text)

        yield advance
