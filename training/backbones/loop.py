"""The loop that trains every mini backbone: AdamW, warm-up and one cosine, an average of the weights, resumable."""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from torch import nn
from tqdm import trange
from transformers import get_cosine_schedule_with_warmup

CHECKPOINT_EVERY = 250


def train(
    modules: nn.ModuleDict,
    loss_at: Callable[[int], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    name: str,
    checkpoint: Path | None = None,
    weight_decay: float = 1e-2,
    ema_decay: float = 0.999,
    warmup: int = 200,
) -> None:
    """Minimise `loss_at(step)` over the parameters of `modules`, which hold the averaged weights afterwards.

    Args:
        loss_at: Draws the batch of a step, from the step's number alone, and returns its loss.
        name: Shown beside the progress bar.
        checkpoint: Written every 250 steps; a run that finds it goes on from there. None: not resumable.
        ema_decay: Decay of the average of the weights, warmed up.
    """
    parameters = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, steps)
    average = EMAModel(parameters, decay=ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
    parts = {"modules": modules, "optimizer": optimizer, "schedule": schedule, "average": average}
    start = _resume(checkpoint, parts) if checkpoint else 0
    modules.train()
    smoothed = None
    for step in (progress := trange(start, steps, initial=start, total=steps, desc=name, mininterval=10)):
        loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        average.step(parameters)
        smoothed = loss.item() if smoothed is None else 0.98 * smoothed + 0.02 * loss.item()
        progress.set_postfix(loss=f"{smoothed:.4f}", refresh=False)
        if checkpoint and (step + 1) % CHECKPOINT_EVERY == 0:
            _save(checkpoint, parts, step + 1)
    average.copy_to(parameters)
    modules.eval()


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
