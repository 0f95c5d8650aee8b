"""HyperLoRA by task: a small network makes the LoRA of each task and layer from two embeddings.

    A = f_a([z_t; e_l]),   B = f_b([z_t; e_l]),   y = W x + (alpha / r) B A drop(x)

HyperLoRA (Lv et al. 2024) reads a task's instruction and demonstrations; here a task is a trained
embedding z_t, as in HyperFormer, which is a definition of this project's own. Layers of like shape
share the networks f, of two layers each. The last one of f_b starts at zero, so the start is the
base; f_a starts as LoRA's A, by its bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from peml.methods.beside import Part
from peml.methods.linear import ScaledMethod
from peml.methods.method import Merges
from peml.methods.term import Pass, Place, Term, by_task, empty, kaiming
from prefixnas.base.options import option


@dataclass(frozen=True)
class HyperLoraId(ScaledMethod):
    """A small network makes the LoRA of each task and layer from two trained embeddings."""

    label: ClassVar[str] = "HyperLoRA-id"
    needs_task: ClassVar[bool] = True
    merges: ClassVar[Merges] = "per task"
    lora_rank: int = option(4, "rank r", at_least=1, at_most=10_000)
    lora_alpha: int = option(8, "scale of the update, divided by r", at_least=1, at_most=10**6)
    task_width: int = option(64, "numbers of an embedding", at_least=1, at_most=10_000)
    hyper_width: int = option(32, "width of the networks", at_least=1, at_most=10_000)

    def term(self, place: Place, tasks: int) -> Term:
        """Return a layer's term with networks of its own."""
        return _Term(self, _Tasks(self, tasks), _Maker(self, place))

    def terms(self, places: Sequence[Place], tasks: int) -> list[Term]:
        """Return the terms, which share the tasks' embeddings and, by shape, the networks."""
        embeddings, makers = _Tasks(self, tasks), dict[tuple[int, int], _Maker]()
        made: list[Term] = []
        for place in places:
            shape = place.width_in, place.width_out
            if shape not in makers:
                makers[shape] = _Maker(self, place)
            made.append(_Term(self, embeddings, makers[shape]))
        return made


class _Tasks(Part):
    per_task = ("embedding",)

    def __init__(self, method: HyperLoraId, tasks: int) -> None:
        super().__init__()
        self.embedding = by_task(tasks, method.task_width)

    def reset(self) -> None:
        for row in self.embedding:
            nn.init.normal_(row)


class _Maker(Part):
    """The networks of one shape of layers."""

    def __init__(self, method: HyperLoraId, place: Place) -> None:
        super().__init__()
        r, width = method.lora_rank, method.hyper_width
        self.shape_a, self.shape_b = (r, place.width_in), (place.width_out, r)
        self.first = empty(width, 2 * method.task_width)
        self.to_a = empty(r * place.width_in, width)
        self.start_a = empty(r, place.width_in)
        self.to_b = empty(place.width_out * r, width)

    def reset(self) -> None:
        kaiming(self.first)
        nn.init.normal_(self.to_a, std=0.01 / self.to_a.shape[1])
        kaiming(self.start_a)
        nn.init.zeros_(self.to_b)

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.first @ embedding)
        a = self.start_a + (self.to_a @ hidden).view(self.shape_a)
        return a, (self.to_b @ hidden).view(self.shape_b)


class _Term(Term):
    def __init__(self, method: HyperLoraId, embeddings: _Tasks, maker: _Maker) -> None:
        super().__init__()
        self.scale, self.embeddings, self.maker = method.scale, embeddings, maker
        self.layer = empty(method.task_width)

    def reset(self) -> None:
        nn.init.normal_(self.layer)

    def factors(self, now: Pass) -> tuple[Tensor, Tensor]:
        a, b = self.maker(torch.cat([self.embeddings.embedding[now.task], self.layer]))
        return a, self.scale * b
