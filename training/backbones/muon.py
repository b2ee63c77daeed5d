"""Muon (Jordan et al. 2024): momentum whose update is made orthogonal, for the weights inside a network.

torch.optim.Muon takes matrices only and iterates in bfloat16, which CPUs like these compute slower than single
precision; here convolutions are matrices with a row for each output channel, and the iteration runs on the smaller
Gram matrix, at about a third of the cost.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan's: singular values end within about 0.7 and 1.2
STEPS = 5


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay.

    Updates are scaled to the size of AdamW's (Liu et al. 2025), so that learning rates are alike.

    Args:
        parameters: of two dimensions or more; embeddings, first and last layers belong to AdamW.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": learning_rate, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter by its orthogonal update."""
        for group in self.param_groups:
            for parameter in (p for p in group["params"] if p.grad is not None):
                state = self.state[parameter]
                average = state.setdefault("momentum", torch.zeros_like(parameter))
                average.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonal(parameter.grad.lerp(average, group["momentum"]).flatten(1))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                scale = 0.2 * max(update.shape) ** 0.5
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * scale)


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix with all singular values 1, roughly: a quintic Newton-Schulz iteration, (M, N) to (M, N)."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    matrix = matrix / matrix.norm().clamp_min(1e-7)
    gram = matrix @ matrix.T
    one = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor = one
    for _ in range(STEPS):
        a, b, c = COEFFICIENTS
        polynomial = a * one + b * gram + c * gram @ gram
        factor = polynomial @ factor
        gram = polynomial @ gram @ polynomial
    return factor @ matrix
