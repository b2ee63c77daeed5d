"""The loop that trains every mini backbone: AdamW (and Muon), one cosine, an average of the weights, resumable."""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from torch import nn
from torch.optim import Optimizer
from tqdm import trange
from transformers import get_cosine_schedule_with_warmup

from .muon import Muon

CHECKPOINT_EVERY = 250
OUTER_LAYERS = {"conv_in", "conv_out", "patch_embedding", "patch_head"}


def train(
    modules: nn.ModuleDict,
    loss_at: Callable[[int], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    name: str,
    muon_learning_rate: float | None = None,
    checkpoint: Path | None = None,
    weight_decay: float = 1e-2,
    ema_decay: float = 0.999,
    warmup: int = 200,
) -> None:
    """Minimise `loss_at(step)` over the parameters of `modules`, which hold the averaged weights afterwards.

    Args:
        loss_at: Draws the batch of a step, from the step's number alone, and returns its loss.
        name: Shown beside the progress bar.
        muon_learning_rate: Of Muon, which then trains the weights inside the network; None: AdamW trains all.
        checkpoint: Written every 250 steps; a run that finds it goes on from there. None: not resumable.
        ema_decay: Decay of the average of the weights, warmed up.
    """
    parameters = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    optimizers = make_optimizers(modules, learning_rate, muon_learning_rate, weight_decay)
    schedules = {
        f"{kind} schedule": get_cosine_schedule_with_warmup(optimizer, warmup, steps)
        for kind, optimizer in optimizers.items()
    }
    average = EMAModel(parameters, decay=ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
    parts = {"modules": modules, "average": average} | optimizers | schedules
    start = _resume(checkpoint, parts) if checkpoint else 0
    modules.train()
    smoothed = None
    for step in (progress := trange(start, steps, initial=start, total=steps, desc=name, mininterval=10)):
        loss = loss_at(step)
        modules.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for part in (optimizers | schedules).values():
            part.step()
        average.step(parameters)
        smoothed = loss.item() if smoothed is None else 0.98 * smoothed + 0.02 * loss.item()
        progress.set_postfix(loss=f"{smoothed:.4f}", refresh=False)
        if checkpoint and (step + 1) % CHECKPOINT_EVERY == 0:
            _save(checkpoint, parts, step + 1)
    average.copy_to(parameters)
    modules.eval()


def make_optimizers(
    modules: nn.ModuleDict, learning_rate: float, muon_learning_rate: float | None, weight_decay: float
) -> dict[str, Optimizer]:
    """AdamW, and on request Muon for every matrix and convolution that is neither an embedding nor a first or last
    layer."""
    left = {name: parameter for name, parameter in modules.named_parameters() if parameter.requires_grad}
    optimizers = {}
    if muon_learning_rate is not None:
        outer = {id(module.weight) for module in modules.modules() if isinstance(module, nn.Embedding)}
        inner = [
            name
            for name, parameter in left.items()
            if parameter.ndim > 1 and id(parameter) not in outer and not OUTER_LAYERS & {*name.split(".")}
        ]
        optimizers["muon"] = Muon([left.pop(name) for name in inner], muon_learning_rate, weight_decay)
    options = {"betas": (0.9, 0.99), "weight_decay": weight_decay, "fused": True}
    return optimizers | {"adamw": torch.optim.AdamW(left.values(), learning_rate, **options)}


def _save(checkpoint: Path, parts: dict, step: int) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    partial = checkpoint.with_suffix(".partial")
    torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step}, partial)
    partial.replace(checkpoint)


def _resume(checkpoint: Path, parts: dict) -> int:
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["step"]
