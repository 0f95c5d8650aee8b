"""What a low-rank method adds to one linear layer, and the tools to write it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from peml.methods.beside import Part
from peml.methods.method import Method
from prefixnas.base.options import option


@dataclass(frozen=True)
class Place:
    """A linear layer that gets a term.

    Attributes:
        name: The module's name in the model.
        width_in: Numbers that it reads of a position.
        width_out: Numbers that it writes.
    """

    name: str
    width_in: int
    width_out: int


@dataclass(frozen=True)
class Pass:
    """What a term knows of the forward pass that it is in.

    Attributes:
        task: Place of the task in the list of tasks; 0 for methods that need none.
        training: Whether the layer is in training mode.
        mask: 1 for real tokens `[b, t]`; None where all are, or none is known for the layer.
    """

    task: int
    training: bool
    mask: Tensor | None = None


class Term(Part):
    """What a method adds to one linear layer.

    Attributes:
        routers: Names of the weights that learn at the router's rate, without weight decay.
    """

    routers: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def factors(self, now: Pass) -> tuple[Tensor, Tensor]:
        """Return A `[k, in]` and B `[out, k]`, with gradient."""

    def mix(self, now: Pass, x: Tensor, h: Tensor) -> Tensor:
        """Weigh ``h = drop(x) A^T`` by what the layer reads.

        Args:
            now: The pass.
            x: The layer's input `[b, t, in]`.
            h: `[b, t, k]`; k may grow here to what B takes.
        """
        return h


def kaiming(weight: Tensor) -> None:
    """Draw as `nn.Linear` does: U(-1/sqrt(n), 1/sqrt(n)) for matrices `[..., m, n]`."""
    if weight.ndim == 2:
        nn.init.kaiming_uniform_(weight, a=5**0.5)
        return
    for part in weight:  # torch takes more axes for those of a convolution
        kaiming(part)


def empty(*shape: int) -> nn.Parameter:
    """Return a weight that `reset` is to fill."""
    return nn.Parameter(torch.zeros(shape))


def by_task(tasks: int, *shape: int) -> nn.ParameterList:
    """Return a weight for each task."""
    return nn.ParameterList([empty(*shape) for _ in range(tasks)])


def skill_shares(logits: Tensor, *, drawn: bool) -> Tensor:
    """Return the parts of the skills, which sum to one over the last axis.

    Args:
        logits: Of a task, `[..., skills]`.
        drawn: Take a relaxed Bernoulli variable at temperature 1 in the place of the sigmoid.
    """
    if drawn:
        uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
        logits = logits + torch.logit(uniform)
    z = torch.sigmoid(logits)
    return z / (z.sum(dim=-1, keepdim=True) + 1e-12)


@dataclass(frozen=True)
class Routed(Method):
    """The option that methods with routers share."""

    router_learning_rate: float | None = option(
        None, "of what decides between parts; none: learning_rate", above=0, at_most=10
    )
