"""How alphas move: as logits by Adam, or as a distribution by projected SGD."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch

from prefixnas.base.registry import Registry
from prefixnas.network.relaxations import RELAXATIONS, Relaxation
from prefixnas.network.simplex import Simplex
from prefixnas.network.supernet import Supernet


class Update(ABC):
    """What alpha is, and the optimiser that moves it.

    Attributes:
        learning_rate: The default.
    """

    learning_rate: ClassVar[float]

    def relaxation(self, relaxation: Relaxation) -> Relaxation:
        """Return `relaxation`, made to read this kind of alpha."""
        return relaxation

    @abstractmethod
    def optimizer(self, net: Supernet, learning_rate: float) -> torch.optim.Optimizer:
        """Return the optimiser of `net.alphas`."""


UPDATES: Registry[type[Update]] = Registry("update", "prefixnas.updates")
"""Updates by the name that `--update` takes."""
register_update = UPDATES.register
"""Offer an update under a name: `@register_update("logits")`."""


def make_relaxation(
    name: str, update: str, start: float | None = None, end: float | None = None
) -> Relaxation:
    """Return a relaxation by its name, which reads what an update makes of alpha.

    Args:
        name: The relaxation.
        update: The update.
        start: Its temperature at first; None: its own.
        end: The same at the end.

    Raises:
        UserError: An unknown name.
    """
    relaxation = RELAXATIONS.get(name, "key 'relaxation'")().tempered(start, end)
    return UPDATES.get(update, "key 'update'")().relaxation(relaxation)


@register_update("logits")
class Logits(Update):
    """Alpha is free, probabilities are its softmax; Adam moves it (DARTS, Liu et al. 2019)."""

    learning_rate: ClassVar[float] = 0.03

    def optimizer(self, net: Supernet, learning_rate: float) -> torch.optim.Optimizer:
        """Return Adam with the moments of DARTS."""
        return torch.optim.Adam(net.alphas.parameters(), learning_rate, (0.5, 0.999))


@register_update("projected")
class Projected(Update):
    """Alpha is a distribution: `alpha <- project(alpha - eta g)` (PEML, section 7.2)."""

    learning_rate: ClassVar[float] = 1.0

    def relaxation(self, relaxation: Relaxation) -> Relaxation:
        """Return a relaxation whose weights are made of alpha itself."""
        return Simplex(inner=relaxation)

    def optimizer(self, net: Supernet, learning_rate: float) -> torch.optim.Optimizer:
        """Return projected SGD."""
        return ProjectedSGD(net, learning_rate)


class ProjectedSGD(torch.optim.SGD):
    """A gradient step, then the nearest alpha among the candidates that are left.

    Args:
        net: The supernet, whose relaxation says what the nearest alpha is.
        learning_rate: eta.
    """

    def __init__(self, net: Supernet, learning_rate: float) -> None:
        super().__init__(net.alphas.parameters(), learning_rate)
        self.net = net

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every alpha and project it; what was pruned stays at 0."""
        super().step(closure)
        for index, alpha in enumerate(self.net.alphas):
            alive = self.net.alive(index)
            nearest = self.net.relaxation.nearest(alpha[alive])
            alpha.zero_()[alive] = nearest
