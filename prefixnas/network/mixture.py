"""The modules between operations: chains, sums, and the mixtures of a relaxed choice (eq. 7)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

Weights = Mapping[str, Tensor]


class Composite(nn.Module, ABC):
    """A module whose parts may hold mixtures, and so are called with the mixtures' weights."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    @abstractmethod
    def mix(self, hidden: Tensor, weights: Weights) -> Tensor:
        """Map `hidden [..., width]`, with `weights[decision]` for every open mixture inside."""


class Chain(Composite):
    """The parts one after the other."""

    def mix(self, hidden: Tensor, weights: Weights) -> Tensor:
        """Apply all parts in order."""
        for part in self.parts:
            hidden = run(part, hidden, weights)
        return hidden


class Branches(Composite):
    """The sum of the parts' outputs."""

    def mix(self, hidden: Tensor, weights: Weights) -> Tensor:
        """Apply all parts to the same input and add."""
        return torch.stack([run(part, hidden, weights) for part in self.parts]).sum(0)


class Mixture(Composite):
    """All candidates of one decision, weighted (eq. 7); a dropped candidate is gone for good.

    Args:
        decision: Name of the decision.
        options: Their labels.
        parts: A module per option.
        one_path: Whether training weights are one-hot, so that only the candidate that was drawn
            is computed. Candidates without a matrix are computed all the same: that costs next to
            nothing, and a LayerNorm behind a single one would undo its weight, with the gradient.
    """

    def __init__(
        self,
        decision: str,
        options: tuple[str, ...],
        parts: Sequence[nn.Module],
        one_path: bool = False,
    ) -> None:
        super().__init__(parts)
        self.decision = decision
        self.options = options
        matrices = any(parameter.dim() > 1 for part in parts for parameter in part.parameters())
        self.one_path = one_path and matrices

    def mix(self, hidden: Tensor, weights: Weights) -> Tensor:
        """Return `sum_j w_j o_j(hidden)` over the candidates that are left."""
        weight = weights[self.decision]
        if self.one_path and self.training:
            drawn = int(weight.argmax())
            return weight[drawn] * run(self.parts[drawn], hidden, weights)
        alive = [index for index, part in enumerate(self.parts) if not isinstance(part, Dropped)]
        if len(alive) == 1:
            return run(self.parts[alive[0]], hidden, weights)
        outputs = (weight[index] * run(self.parts[index], hidden, weights) for index in alive)
        total = next(outputs)
        for output in outputs:
            total = total + output
        return total


class Dropped(nn.Module):
    """What is left in the place of a pruned candidate: nothing to compute, no parameters."""


def run(module: nn.Module, hidden: Tensor, weights: Weights) -> Tensor:
    """Call a module of the tree."""
    if isinstance(module, Composite):
        return module.mix(hidden, weights)
    output: Tensor = module(hidden)
    return output
