"""A LoRA of each task on every layer, and for each task a weighted sum of all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from peml.methods.beside import Part
from peml.methods.term import Pass, Place, Term, by_task, kaiming

UNTRIED = 1e30
"""Score of a task whose weights were not tried yet."""


class Hub(Part):
    """Weights of each task, `[tasks, tasks]`: the best so far, and what is being tried."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.best = nn.Parameter(torch.eye(tasks), requires_grad=False)
        self.tried = nn.Parameter(torch.eye(tasks), requires_grad=False)
        self.scores = nn.Parameter(torch.full((tasks,), UNTRIED), requires_grad=False)

    def reset(self) -> None:
        """Give each task its own LoRA alone."""
        nn.init.eye_(self.best)
        nn.init.eye_(self.tried)
        nn.init.constant_(self.scores, UNTRIED)


class SummedTerm(Term):
    """A LoRA of each task on one layer, of which a pass of any task takes a sum.

    Args:
        place: The layer.
        rank: Rank of a LoRA.
        scale: What the sum is multiplied by.
        hub: The weights of the sums; in training those that are tried.
    """

    def __init__(self, place: Place, rank: int, scale: float, hub: Hub) -> None:
        super().__init__()
        tasks, r, self.scale = len(hub.best), rank, scale
        self.a = by_task(tasks, r, place.width_in)
        self.b = by_task(tasks, place.width_out, r)
        self.hub = hub

    def reset(self) -> None:
        """Start each LoRA at zero."""
        for a, b in zip(self.a, self.b, strict=True):
            kaiming(a)
            nn.init.zeros_(b)

    def factors(self, now: Pass) -> tuple[Tensor, Tensor]:
        """Return the sums of the factors."""
        weights = (self.hub.tried if now.training else self.hub.best)[now.task]
        # What has the weight zero is left out: a task's own LoRA trains alone.
        used = [index for index, weight in enumerate(weights.tolist()) if weight] or [now.task]
        a = torch.stack([weights[index] * self.a[index] for index in used]).sum(0)
        b = torch.stack([weights[index] * self.b[index] for index in used]).sum(0)
        return a, self.scale * b
