"""MPT (Wang et al. 2023): one prompt for all tasks, which each task scales by a matrix of low rank.

    P_t = P * (u_t v_t^T)

P ``[l, hidden]`` starts at vectors of the vocabulary, drawn at random, u_t ``[l, rank]`` and v_t
``[hidden, rank]`` near one (their first columns; the others near zero), so that the prompt of every
task starts near P. PEFT starts both near zero, where the prompt vanishes.

With ``distill`` above zero, that share of the steps trains a prompt of each task, which starts in
the same way. In the rest P_t learns from the text and from those:

    L = L_task + distill_weight (KL(p_teacher || p) + |h_teacher - h|^2 / width)

p is what the model predicts at the answer, h what its output layer reads. An encoder's predictions
are made by heads outside the model: there the term has the hidden states alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from peml.methods.distilled import Distilled, TaughtPart
from peml.methods.method import Merges, Setting
from peml.methods.rows import InputRows, RowsMethod, RowsPart
from peml.methods.term import by_task, empty
from prefixnas.base.options import option

if TYPE_CHECKING:
    from peml.model.model import LanguageModel

NOISE = 0.02


@dataclass(frozen=True)
class Mpt(RowsMethod):
    """Virtual tokens in front of the text, common to all tasks, scaled by each task."""

    label: ClassVar[str] = "MPT"
    needs_task: ClassVar[bool] = True
    merges: ClassVar[Merges] = "no"
    starts_at_base: ClassVar[bool] = False
    prompt_rank: int = option(1, "rank of each task's scale", at_least=1, at_most=1000)
    distill: float = option(
        0.0, "share of the steps for prompts of single tasks to learn from", at_least=0, below=1
    )
    distill_weight: float = option(0.9, "of what is learned from those", at_least=0, at_most=100)

    def attach(self, lm: LanguageModel, setting: Setting) -> InputRows:
        """Put the rows in front of what the model reads."""
        if not self.distill:
            return super().attach(lm, setting)
        return Distilled(self, lm, setting, self.distill, self.distill_weight)

    def part(self, embedding: Tensor, tasks: int) -> RowsPart:
        """Return the common prompt and the tasks' factors."""
        return _Prompt(self, embedding, tasks)


class _Prompt(TaughtPart):
    per_task = ("u", "v", "teachers")
    undecayed = ("u", "v")

    def __init__(self, method: Mpt, embedding: Tensor, tasks: int) -> None:
        super().__init__()
        length, width, rank = method.prompt_length, embedding.shape[1], method.prompt_rank
        self.vocabulary = (embedding.detach(),)  # no weight of ours
        self.common = empty(length, width)
        self.u, self.v = by_task(tasks, length, rank), by_task(tasks, width, rank)
        self.teachers = by_task(tasks if method.distill else 0, length, width)

    def reset(self) -> None:
        vectors = self.vocabulary[0]
        for rows in (self.common, *self.teachers):
            rows.copy_(vectors[torch.randint(len(vectors), (len(rows),))])
        for factor in (*self.u, *self.v):
            nn.init.normal_(factor, std=NOISE)
            factor[:, 0] += 1

    def rows(self, task: int) -> Tensor:
        scale: Tensor = self.u[task] @ self.v[task].T
        return self.common * scale
