"""MPT (Wang et al. 2023): one prompt for all tasks, which each task scales by a matrix of low rank.

    P_t = P * (u_t v_t^T)

P ``[l, hidden]`` starts at vectors of the vocabulary, drawn at random, u_t ``[l, rank]`` and v_t
``[hidden, rank]`` near one (their first columns; the others near zero), so that the prompt of every
task starts near P. PEFT starts both near zero, where the prompt vanishes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from peml.methods.method import Merges
from peml.methods.rows import RowsMethod, RowsPart
from peml.methods.term import by_task, empty
from prefixnas.base.options import option

NOISE = 0.02


@dataclass(frozen=True)
class Mpt(RowsMethod):
    """Virtual tokens in front of the text, common to all tasks, scaled by each task."""

    label: ClassVar[str] = "MPT"
    needs_task: ClassVar[bool] = True
    merges: ClassVar[Merges] = "no"
    starts_at_base: ClassVar[bool] = False
    prompt_rank: int = option(1, "rank of each task's scale", at_least=1, at_most=1000)

    def part(self, embedding: Tensor, tasks: int) -> RowsPart:
        """Return the common prompt and the tasks' factors."""
        return _Prompt(self, embedding, tasks)


class _Prompt(RowsPart):
    per_task = ("u", "v")
    undecayed = ("u", "v")

    def __init__(self, method: Mpt, embedding: Tensor, tasks: int) -> None:
        super().__init__()
        length, width, rank = method.prompt_length, embedding.shape[1], method.prompt_rank
        self.vocabulary = (embedding.detach(),)  # no weight of ours
        self.common = empty(length, width)
        self.u, self.v = by_task(tasks, length, rank), by_task(tasks, width, rank)

    def reset(self) -> None:
        vectors = self.vocabulary[0]
        self.common.copy_(vectors[torch.randint(len(vectors), (len(self.common),))])
        for factor in (*self.u, *self.v):
            nn.init.normal_(factor, std=NOISE)
            factor[:, 0] += 1

    def rows(self, task: int) -> Tensor:
        scale: Tensor = self.u[task] @ self.v[task].T
        return self.common * scale
