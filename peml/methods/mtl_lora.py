"""MTL-LoRA (Yang et al. 2024): one A, a matrix of each task behind it, several B mixed by task.

    y = W x + (alpha / r) (sum_i softmax(w_t / tau)_i B_i) L_t A drop(x)

With tau = 0.1 the mixture starts as an almost hard choice, drawn at random; at tau = 1 it starts
near uniform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from peml.methods.linear import ScaledMethod
from peml.methods.method import Merges
from peml.methods.term import Pass, Place, Routed, Term, by_task, empty, kaiming
from prefixnas.base.options import option


@dataclass(frozen=True)
class MtlLora(ScaledMethod, Routed):
    """One A, a matrix of each task behind it, and several B that each task mixes in its way."""

    label: ClassVar[str] = "MTL-LoRA"
    needs_task: ClassVar[bool] = True
    merges: ClassVar[Merges] = "per task"
    lora_rank: int = option(8, "rank r", at_least=1, at_most=10_000)
    lora_alpha: int = option(16, "scale of the update, divided by r", at_least=1, at_most=10**6)
    ups: int = option(3, "matrices B that tasks mix", at_least=1, at_most=64)
    mixture_temperature: float = option(0.1, "tau of the mixture", at_least=1e-3, at_most=1000)
    diagonal: bool = option(False, "keep a task's matrix diagonal")

    def term(self, place: Place, tasks: int) -> Term:
        """Return the factors, and a matrix and mixture weights of each task."""
        return _Term(self, place, tasks)


class _Term(Term):
    routers = ("mixture",)
    undecayed = ("middle",)
    per_task = ("mixture", "middle")

    def __init__(self, method: MtlLora, place: Place, tasks: int) -> None:
        super().__init__()
        r, self.temperature = method.lora_rank, method.mixture_temperature
        self.scale = method.scale
        self.a = empty(r, place.width_in)
        self.b = empty(method.ups, place.width_out, r)
        self.middle = by_task(tasks, r) if method.diagonal else by_task(tasks, r, r)
        self.mixture = by_task(tasks, method.ups)

    def reset(self) -> None:
        kaiming(self.a)
        nn.init.zeros_(self.b)
        for middle in self.middle:
            middle.copy_(torch.ones_like(middle) if middle.ndim == 1 else torch.eye(len(middle)))
        drawn = torch.empty(len(self.mixture), self.b.shape[0])
        kaiming(drawn)
        for weights, row in zip(self.mixture, drawn, strict=True):
            weights.copy_(row)

    def factors(self, now: Pass) -> tuple[Tensor, Tensor]:
        shares = torch.softmax(self.mixture[now.task] / self.temperature, dim=0)
        mixed = torch.einsum("n,nor->or", shares, self.b)
        middle = self.middle[now.task]
        behind = mixed * middle if middle.ndim == 1 else mixed @ middle
        return self.a, self.scale * behind
