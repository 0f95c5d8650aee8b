"""HyperFormer (Mahabadi et al. 2021): adapters whose weights a network makes of task and place.

    I = LN(W_2 relu(W_1 [z_t; e_layer; b_branch]))
    y <- y + LN_{gamma,beta}(U gelu(D y + d) + u),     D, d, U, u, gamma, beta linear in I

z_t is an embedding of the task, e of the layer, b of the branch: self-attention or feed-forward
(HyperFormer++). Without ``shared_branches`` each of the two has linear maps of its own and no
embedding. Encoder and decoder have networks of their own. Every map starts at N(0, 0.01), gamma
too, so the start is near the base, not at it. The paper trains T5's own layer norms as well; here
the base stays frozen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peml.methods.beside import Beside, Part
from peml.methods.ends import End, at_end, find_ends
from peml.methods.method import Attached, Merges, Method, Setting
from peml.methods.term import by_task, empty
from prefixnas.base.options import option

if TYPE_CHECKING:
    from peml.model.model import LanguageModel

EPS = 1e-6
BRANCHES = ("attention", "feed-forward")


@dataclass(frozen=True)
class HyperFormer(Method):
    """Adapters in every layer, whose weights one network makes of the task, layer and branch."""

    label: ClassVar[str] = "HyperFormer"
    needs_task: ClassVar[bool] = True
    merges: ClassVar[Merges] = "no"
    starts_at_base: ClassVar[bool] = False
    rate: ClassVar[float] = 3e-4
    reduction: int = option(32, "hidden width over the adapters' width", at_least=1)
    task_width: int = option(64, "embeddings of tasks, layers and branches", at_least=1)
    hidden: int = option(128, "hidden width of the network", at_least=1)
    shared_branches: bool = option(True, "one set of maps for both branches (HyperFormer++)")

    def attach(self, lm: LanguageModel, setting: Setting) -> Attached:
        """Put an adapter at the end of each branch."""
        ends = find_ends(lm.model)
        network = _Network(self, ends, len(setting.tasks))
        attached = Beside(self, lm, setting, network)

        def adapt(end: End, y: Tensor) -> Tensor:
            added: Tensor = network(attached.task, end, y.to(network.dtype))
            return y + added.to(y.dtype)

        attached.undo_by(
            at_end(partial(adapt, end), lm.model.get_submodule(end.path)) for end in ends
        )
        return attached

    def size(self, lm: LanguageModel, tasks: int) -> int:
        """Return how many numbers train, from the shapes alone."""
        ends = find_ends(lm.model)
        with torch.device("meta"):
            network = _Network(self, ends, tasks)
        return sum(parameter.numel() for parameter in network.parameters())


class _Network(Part):
    per_task = ("tasks",)

    def __init__(self, method: HyperFormer, ends: list[End], tasks: int) -> None:
        super().__init__()
        self.tasks = by_task(tasks, method.task_width)
        names = sorted({end.stack for end in ends})
        self.stacks = nn.ModuleDict(
            {name: _Stack(method, [end for end in ends if end.stack == name]) for name in names}
        )

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.tasks[0].dtype
        return dtype

    def reset(self) -> None:
        for embedding in self.tasks:
            nn.init.normal_(embedding)

    def forward(self, task: int, end: End, y: Tensor) -> Tensor:
        added: Tensor = self.stacks[end.stack](self.tasks[task], end, y)
        return added


class _Stack(Part):
    undecayed = ("layers", "branches")

    def __init__(self, method: HyperFormer, ends: list[End]) -> None:
        super().__init__()
        e, p, d = method.task_width, method.task_width, ends[0].width
        m = max(1, d // method.reduction)
        shared = method.shared_branches
        self.shapes = ((m, d), (m,), (d, m), (d,), (d,), (d,))
        self.layers = empty(len(ends) // 2, e)
        self.branches = empty(len(BRANCHES), e) if shared else None
        self.first = nn.Linear((3 if shared else 2) * e, method.hidden)
        self.second = nn.Linear(method.hidden, p)
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
