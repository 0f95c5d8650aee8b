"""Poly (Ponti et al. 2023) and MHR (Caccia et al. 2023): skills, of which each task takes its mix.

    y = W x + (1 / r) B_t A_t x,   A_t = sum_s z_ts A_s,   B_t = sum_s z_ts B_s

z_t is drawn in training, a relaxed Bernoulli variable of the task's logits, and their sigmoid in
evaluation; it is divided by its sum. MHR cuts inputs and outputs into splits, each with a mix of
its own; Poly has one. The two factors are mixed apart, so that B_i A_j of different skills meet.
The update has neither an alpha nor a dropout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from peml.methods.linear import LinearMethod
from peml.methods.method import Merges
from peml.methods.term import Pass, Place, Routed, Term, by_task, empty, kaiming, skill_shares
from prefixnas.base.errors import UserError
from prefixnas.base.options import option


@dataclass(frozen=True)
class Poly(LinearMethod, Routed):
    """Skills, each a LoRA, of which every task learns its own mix; the factors are mixed apart."""

    label: ClassVar[str] = "Poly"
    needs_task: ClassVar[bool] = True
    merges: ClassVar[Merges] = "per task"
    lora_rank: int = option(8, "rank r", at_least=1, at_most=10_000)
    skills: int = option(4, "skills", at_least=1, at_most=256)
    router_learning_rate: float | None = option(
        0.1, "of the tasks' logits; none: learning_rate", above=0, at_most=10
    )
    relaxed: bool = option(True, "draw the mix in training; no: its expectation")

    @property
    def parts(self) -> int:
        """Splits of inputs and outputs."""
        return 1

    def term(self, place: Place, tasks: int) -> Term:
        """Return the skills and the logits of each task."""
        return _Term(self, place, tasks)


@dataclass(frozen=True)
class Mhr(Poly):
    """Poly with several splits of inputs and outputs, each with a mix of its own."""

    label: ClassVar[str] = "MHR"
    splits: int = option(4, "splits of inputs and outputs", at_least=1, at_most=256)

    @property
    def parts(self) -> int:
        """Splits of inputs and outputs."""
        return self.splits


class _Term(Term):
    routers = ("logits",)
    per_task = ("logits",)

    def __init__(self, method: Poly, place: Place, tasks: int) -> None:
        super().__init__()
        q, skills, r = method.parts, method.skills, method.lora_rank
        for width in (place.width_in, place.width_out):
            if width % q:
                raise UserError(
                    f"key 'splits': {q} do not divide the {width} numbers of {place.name!r}"
                )
        self.relaxed = method.relaxed
        self.a = empty(q, skills, r, place.width_in // q)
        self.b = empty(q, skills, place.width_out // q, r)
        self.logits = by_task(tasks, q, skills)

    def reset(self) -> None:
        for factor in self.a.flatten(0, 1):
            kaiming(factor)
        nn.init.zeros_(self.b)
        for logits in self.logits:
            nn.init.uniform_(logits, -1e-3, 1e-3)

    def factors(self, now: Pass) -> tuple[Tensor, Tensor]:
        z = skill_shares(self.logits[now.task], drawn=self.relaxed and now.training)  # [q, skills]
        a = torch.einsum("qs,qsri->rqi", z, self.a).flatten(1)
        b = torch.einsum("qs,qsor->qor", z, self.b).flatten(0, 1)
        return a, b / a.shape[0]
