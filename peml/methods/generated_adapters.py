"""Adapters whose weights a network makes of the task, the layer and the branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peml.methods.beside import Part
from peml.methods.ends import End
from peml.methods.term import by_task, empty

EPS = 1e-6
BRANCHES = ("attention", "feed-forward")


@dataclass(frozen=True)
class Sizes:
    """Sizes of the network and of what it makes.

    Attributes:
        reduction: The model's width over the adapters' hidden width.
        task_width: Numbers of an embedding, of a task, layer or branch.
        hidden: Hidden width of the network.
        shared_branches: Whether both branches share the last maps, and have an embedding each.
    """

    reduction: int
    task_width: int
    hidden: int
    shared_branches: bool


class AdapterNetwork(Part):
    """Makes the adapters at the ends of a model's branches; one network for each stack."""

    per_task = ("tasks",)

    def __init__(self, sizes: Sizes, ends: Sequence[End], tasks: int) -> None:
        super().__init__()
        self.tasks = by_task(tasks, sizes.task_width)
        names = sorted({end.stack for end in ends})
        self.stacks = nn.ModuleDict(
            {name: _Stack(sizes, [end for end in ends if end.stack == name]) for name in names}
        )

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights."""
        dtype: torch.dtype = self.tasks[0].dtype
        return dtype

    def reset(self) -> None:
        """Draw the tasks' embeddings from N(0, 1)."""
        for embedding in self.tasks:
            nn.init.normal_(embedding)

    def forward(self, task: int, end: End, y: Tensor) -> Tensor:
        """Return what the adapter of a task at the end of a branch adds to y `[b, t, width]`."""
        added: Tensor = self.stacks[end.stack](self.tasks[task], end, y)
        return added


class _Stack(Part):
    undecayed = ("layers", "branches")

    def __init__(self, sizes: Sizes, ends: Sequence[End]) -> None:
        super().__init__()
        e, p, d = sizes.task_width, sizes.task_width, ends[0].width
        m, shared = max(1, d // sizes.reduction), sizes.shared_branches
        self.shapes = ((m, d), (m,), (d, m), (d,), (d,), (d,))
        self.layers = empty(len(ends) // 2, e)
        self.branches = empty(len(BRANCHES), e) if shared else None
        self.first = nn.Linear((3 if shared else 2) * e, sizes.hidden)
        self.second = nn.Linear(sizes.hidden, p)
        self.norm = nn.LayerNorm(p, eps=EPS)
        numbers = sum(torch.Size(shape).numel() for shape in self.shapes)
        self.maps = nn.ModuleList(nn.Linear(p, numbers) for _ in range(1 if shared else 2))

    def reset(self) -> None:
        for embedding in (self.layers, self.branches):
            if embedding is not None:
                nn.init.normal_(embedding)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        self.norm.reset_parameters()

    def forward(self, task: Tensor, end: End, y: Tensor) -> Tensor:
        down, d, up, u, gamma, beta = self.weights_of(task, end)
        made = F.linear(F.gelu(F.linear(y, down, d), approximate="tanh"), up, u)
        return F.layer_norm(made, made.shape[-1:], gamma, beta, EPS)

    def weights_of(self, task: Tensor, end: End) -> list[Tensor]:
        """Return the weights of the adapter of a task at the end of a branch."""
        branch = BRANCHES.index(end.branch)
        seen = [task, self.layers[end.layer]]
        if self.branches is not None:
            seen.append(self.branches[branch])
        made = self.norm(self.second(F.relu(self.first(torch.cat(seen)))))
        flat = self.maps[branch if len(self.maps) > 1 else 0](made)
        sizes = [torch.Size(shape).numel() for shape in self.shapes]
        parts = torch.split(flat, sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]
