"""What a loss must know of the other processes, so that its split over them does not change it."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function


def gather_rows(tensor: Tensor) -> Tensor:
    """All processes' rows (W * B, ...) in the processes' order, the tensor itself on a single one.

    Differentiable: a row's gradient is the sum of those that all processes' losses give it. Where each of them
    computes the same loss of all rows, the mean over processes that DDP takes is then the gradient of that loss.
    """
    if not _distributed():
        return tensor
    if tensor.dtype == torch.bool:
        return gather_rows(tensor.to(torch.uint8)).bool()
    return _GatherRows.apply(tensor)


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a number without gradient, for the denominators of losses that leave pictures out."""
    if not _distributed():
        return value
    total = value.detach().float().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


class _GatherRows(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
