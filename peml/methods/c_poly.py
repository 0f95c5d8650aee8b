"""C-Poly (Wang et al. 2023): skills that all tasks share, and private ones; outputs are mixed.

    y = W x + (1 / r) (sum_i w_ti B_i A_i x + sum_j v_tj D_j C_j x)

w_t is drawn and normalised as in Poly. The weights v of the private skills start at one for a
task's own and at zero for those of others; all of them train. That w is normalised, and that
evaluation takes the sigmoid, is not said in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from peml.methods.linear import LinearMethod
from peml.methods.method import Merges
from peml.methods.term import Pass, Place, Routed, Term, by_task, empty, kaiming, skill_shares
from prefixnas.base.options import option


@dataclass(frozen=True)
class CPoly(LinearMethod, Routed):
    """Skills that all tasks share and mix, and private skills of each task; outputs are mixed."""

    label: ClassVar[str] = "C-Poly"
    needs_task: ClassVar[bool] = True
    merges: ClassVar[Merges] = "per task"
    lora_rank: int = option(4, "rank r", at_least=1, at_most=10_000)
    shared_skills: int = option(3, "skills that all tasks mix", at_least=1, at_most=256)
    private_skills: int = option(1, "skills of each task", at_least=1, at_most=64)
    router_learning_rate: float | None = option(
        0.1, "of the tasks' weights; none: learning_rate", above=0, at_most=10
    )
    relaxed: bool = option(True, "draw the mix in training; no: its expectation")

    def term(self, place: Place, tasks: int) -> Term:
        """Return the skills and the weights of each task."""
        return _Term(self, place, tasks)


class _Term(Term):
    routers = ("logits", "private")
    per_task = ("logits", "private")

    def __init__(self, method: CPoly, place: Place, tasks: int) -> None:
        super().__init__()
        own, r = method.private_skills, method.lora_rank
        skills = method.shared_skills + tasks * own
        self.relaxed, self.own = method.relaxed, own
        self.a = empty(skills, r, place.width_in)
        self.b = empty(skills, place.width_out, r)
        self.logits = by_task(tasks, method.shared_skills)
        self.private = by_task(tasks, tasks * own)

    def reset(self) -> None:
        for factor in self.a:
            kaiming(factor)
        nn.init.zeros_(self.b)
        for task, (logits, private) in enumerate(zip(self.logits, self.private, strict=True)):
            nn.init.uniform_(logits, -1e-3, 1e-3)
            nn.init.zeros_(private)
            private[task * self.own : (task + 1) * self.own] = 1.0

    def factors(self, now: Pass) -> tuple[Tensor, Tensor]:
        shared = skill_shares(self.logits[now.task], drawn=self.relaxed and now.training)
        weights = torch.cat([shared, self.private[now.task]])
        b = weights[:, None, None] * self.b / self.a.shape[1]  # [skills, out, r]
        return self.a.flatten(0, 1), torch.cat(list(b), dim=1)
