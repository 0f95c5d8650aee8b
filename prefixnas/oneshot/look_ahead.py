"""One look-ahead step of the real optimiser, as a differentiable function of the gradients.

Second-order DARTS asks how the weights after a step depend on alpha. The step here is AdamW's with
its moments, weight decay, learning-rate schedule and clipping as they stand; nothing is moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prefixnas.run.training import WeightOptimizer


@dataclass(frozen=True)
class LookAhead:
    """Weights after one step, and the way back from them to the gradients.

    Attributes:
        weights: The weights that have a gradient.
        ahead: Their values after the step.
    """

    weights: Sequence[nn.Parameter]
    ahead: Sequence[Tensor]
    _gradients: Sequence[Tensor]
    _graph: Sequence[Tensor]

    def pull_back(self, cotangents: Sequence[Tensor]) -> list[Tensor]:
        """Return `(d ahead / d gradients)^T cotangents`, a tensor per weight."""
        return list(torch.autograd.grad(self._graph, self._gradients, cotangents))


def look_ahead(optimizer: WeightOptimizer, step: int) -> LookAhead:
    """Return what `optimizer.step(step)` would make of the weights, by the gradients they hold.

    Args:
        optimizer: The optimiser; neither it nor the weights change.
        step: Counted from the start of the run; the learning rate depends on it.
    """
    reached = [
        (weight, group, rate)
        for group, rate in zip(optimizer.inner.param_groups, optimizer.rates(step), strict=True)
        for weight in group["params"]
        if weight.grad is not None
    ]
    gradients = [weight.grad.detach().clone().requires_grad_() for weight, _, _ in reached]
    norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
    norm = torch.linalg.vector_norm(torch.stack(norms))  # its derivative at 0 is 0, not infinite
    clipped = (optimizer.recipe.clip / (norm + 1e-6)).clamp_max(1.0)
    known = optimizer.inner.state
    graph = [
        _adamw(weight.detach(), gradient * clipped, known.get(weight, {}), group, rate)
        for (weight, group, rate), gradient in zip(reached, gradients, strict=True)
    ]
    weights = [weight for weight, _, _ in reached]
    return LookAhead(weights, [value.detach() for value in graph], gradients, graph)


def _adamw(
    weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any], rate: float
) -> Tensor:
    """Return AdamW's next weight (Loshchilov and Hutter, ICLR 2019, algorithm 2)."""
    beta1, beta2 = group["betas"]
    step = float(state["step"]) + 1 if state else 1.0
    zero = torch.zeros_like(weight)
    first = beta1 * state.get("exp_avg", zero) + (1 - beta1) * gradient
    second = beta2 * state.get("exp_avg_sq", zero) + (1 - beta2) * gradient.square()
    # Where all gradients so far were 0, the step jumps with the sign of the first one that is not:
    # no derivative is of use there, and it is taken as 0.
    moves = second > 0
    root = (torch.where(moves, second, 1) / (1 - beta2**step)).sqrt()
    update = torch.where(moves, first / (1 - beta1**step) / (root + group["eps"]), 0.0)
    kept: Tensor = weight * (1 - rate * group["weight_decay"])
    return kept - rate * update
