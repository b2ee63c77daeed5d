"""What the training scripts share: the accelerator, parameter groups and the loop itself."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed, tqdm
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset
from transformers import get_cosine_schedule_with_warmup

from .config import LoopArguments

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters whose names start with one of `prefixes`, their learning rate and weight decay."""

    prefixes: tuple[str, ...]
    learning_rate: float
    weight_decay: float


def make_accelerator(arguments: LoopArguments) -> Accelerator:
    """Seeds everything, and picks device and distribution as `accelerate launch` says."""
    set_seed(arguments.seed)
    order = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=arguments.seed)
    return Accelerator(mixed_precision=arguments.mixed_precision, dataloader_config=order)


def make_loader(dataset: Dataset, arguments: LoopArguments, training: bool = True) -> DataLoader:
    """Shuffled full batches for training; every sample, in order, otherwise."""
    return DataLoader(
        dataset,
        batch_size=min(arguments.batch_size, len(dataset)),
        shuffle=training,
        drop_last=training,
        num_workers=arguments.num_workers,
    )


def make_optimizer(model: nn.Module, groups: Sequence[ParameterGroup]) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; no weight decay on biases and one-dimensional parameters, as published.

    Raises:
        ValueError: a trainable parameter belongs to no group, or a group has no parameters.
    """
    left = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    options = []
    for group in groups:
        mine = [left.pop(name) for name in list(left) if name.startswith(group.prefixes)]
        if not mine:
            raise ValueError(f"No trainable parameter is named {' or '.join(group.prefixes)}...")
        for decayed in (True, False):
            parameters = [parameter for parameter in mine if (parameter.ndim > 1) == decayed]
            decay = group.weight_decay if decayed else 0.0
            options.append({"params": parameters, "lr": group.learning_rate, "weight_decay": decay})
    if left:
        raise ValueError(f"Trainable parameters in no group: {', '.join(left)}.")
    return torch.optim.AdamW([option for option in options if option["params"]])


def train(
    accelerator: Accelerator,
    model: nn.Module,
    dataset: Dataset,
    groups: Sequence[ParameterGroup],
    arguments: LoopArguments,
    losses_of: Callable[[nn.Module, Batch], Mapping[str, Tensor]],
    after_epoch: Callable[[nn.Module], Mapping[str, float]] = lambda model: {},
) -> list[dict[str, float]]:
    """Train with warm-up and one cosine over the run.

    Args:
        model: trained in place, wherever the accelerator puts it.
        dataset: has `set_epoch`, so that an epoch's augmentation is a function of seed and epoch.
        losses_of: the losses of a batch by part; "loss" is the one that is minimised.
        after_epoch: figures to log at the end of an epoch; receives the bare model.

    Returns:
        A record a step with its losses and an additional one an epoch with what `after_epoch` found.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    optimizer = make_optimizer(model, groups)
    model, optimizer, loader = accelerator.prepare(model, optimizer, make_loader(dataset, arguments))
    steps = len(loader) * arguments.epochs
    schedule = get_cosine_schedule_with_warmup(optimizer, round(steps * arguments.warmup_ratio), steps)
    log: list[dict[str, float]] = []
    with tqdm(total=steps, unit="step") as progress:
        for epoch in range(arguments.epochs):
            for step, batch in enumerate(_epoch(loader, dataset, epoch), start=epoch * len(loader)):
                losses = losses_of(model, batch)
                figures = _checked(losses, step)
                accelerator.backward(losses["loss"])
                accelerator.clip_grad_norm_(model.parameters(), arguments.max_grad_norm)
                _update(optimizer, schedule)
                log.append({"step": step, "epoch": epoch, **figures})
                progress.set_postfix_str(_text(figures, digits=3), refresh=False)
                progress.update()
            if figures := after_epoch(accelerator.unwrap_model(model)):
                log.append({"step": step, "epoch": epoch, **figures})
                if accelerator.is_main_process:
                    progress.write(f"epoch {epoch + 1}: {_text(figures, digits=4)}")
    return log


def _epoch(loader: DataLoader, dataset: Dataset, epoch: int) -> Iterator[Batch]:
    loader.set_epoch(epoch)  # the order
    dataset.set_epoch(epoch)  # the augmentation
    return iter(loader)


def _checked(losses: Mapping[str, Tensor], step: int) -> dict[str, float]:
    figures = {name: float(value.detach()) for name, value in losses.items()}
    if not all(map(math.isfinite, figures.values())):
        raise FloatingPointError(f"Step {step}: expected finite losses, found {figures}.")
    return figures


def _update(optimizer: Optimizer, schedule: LRScheduler) -> None:
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()


def _text(figures: Mapping[str, float], digits: int) -> str:
    return ", ".join(f"{name} {value:.{digits}f}" for name, value in figures.items())


def save_log(folder: str | Path, arguments: LoopArguments, log: list[dict[str, float]]) -> None:
    """Write `training_log.json`: the arguments and every record of the run."""
    content: dict[str, Any] = {"arguments": asdict(arguments), "log": log}
    Path(folder, "training_log.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
