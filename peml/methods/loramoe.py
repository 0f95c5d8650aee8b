"""LoRAMoE (Dou et al. 2024): LoRAs as experts, weighed at each position, with a balance loss.

    y = W x + (alpha / r) sum_e g_e(x) B_e A_e drop(x),   g(x) = softmax(W_r x)

Summed over layers, the balance loss is `balance` * cv^2(Q * I), where cv^2 is variance over squared
mean. Q_be is what expert e gets of the real tokens of row b; I_be is 1 - delta for the half of the
experts that the row's task is pushed to, the second one for tasks of `second_kind`, else 1 + delta.
With `balance` 0, as in the authors' own script, there is no such loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from peml.methods.linear import LinearTerms, ScaledMethod
from peml.methods.method import Merges, Setting
from peml.methods.term import Pass, Place, Routed, Term, empty, kaiming
from prefixnas.base.errors import unknown
from prefixnas.base.options import option

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


@dataclass(frozen=True)
class LoraMoe(ScaledMethod, Routed):
    """LoRAs as experts that a router weighs at each position, with a balance loss."""

    label: ClassVar[str] = "LoRAMoE"
    merges: ClassVar[Merges] = "no"
    lora_rank: int = option(4, "rank r of an expert", at_least=1, at_most=10_000)
    experts: int = option(8, "experts", at_least=2, at_most=64)
    balance: float = option(0.0, "weight of the balance loss; 0: none", at_least=0, at_most=100)
    balance_delta: float = option(0.1, "delta of the balance loss", at_least=0, below=1)
    second_kind: list[str] = option([], "tasks that are pushed to the second half of the experts")

    def term(self, place: Place, tasks: int) -> Term:
        """Return experts and router."""
        return _Term(self, place)

    def attach(self, lm: LanguageModel, setting: Setting) -> LinearTerms:
        """Put a term on each layer; with a balance loss, watch what experts get."""
        for task in self.second_kind:
            if task not in setting.tasks:
                raise unknown("task", task, setting.tasks, "key 'second_kind'")
        attached = _Balanced(self, lm, setting)
        attached.splits_batches = not self.balance
        return attached


class _Term(Term):
    routers = ("router",)

    def __init__(self, method: LoraMoe, place: Place) -> None:
        super().__init__()
        experts, r = method.experts, method.lora_rank
        self.scale, self.watched = method.scale, method.balance > 0
        self.a = empty(experts, r, place.width_in)
        self.b = empty(experts, place.width_out, r)
        self.router = empty(experts, place.width_in)
        self.masses: list[Tensor] = []

    def reset(self) -> None:
        for factor in self.a:
            kaiming(factor)
        kaiming(self.router)
        nn.init.zeros_(self.b)
        self.masses.clear()

    def factors(self, now: Pass) -> tuple[Tensor, Tensor]:
        return self.a.flatten(0, 1), self.scale * torch.cat(list(self.b), dim=1)

    def mix(self, now: Pass, x: Tensor, h: Tensor) -> Tensor:
        gates = torch.softmax((x @ self.router.T).float(), dim=-1).to(h.dtype)
        if self.watched and now.training:
            real = gates if now.mask is None else gates * now.mask.unsqueeze(-1)
            self.masses.append(real.sum(dim=1))  # [b, experts]
        return (gates.unsqueeze(-1) * h.view(*gates.shape, -1)).flatten(-2)  # [b, t, experts * r]


class _Balanced(LinearTerms):
    """The terms with their balance loss, which is no mean over rows: one process takes a batch."""

    method: LoraMoe

    @contextmanager
    def on(self, task: str) -> Iterator[None]:
        """Let passes be of a task; what a recomputed pass left behind is forgotten."""
        with super().on(task):
            self._collect()
            yield
            self._collect()

    def _collect(self) -> list[Tensor]:
        terms: Any = self.terms
        masses = [mass for term in terms for mass in term.masses]
        for term in terms:
            term.masses.clear()
        return masses

    def batch_loss(self) -> Tensor | None:
        """Return the balance loss of the passes since the last call."""
        masses = self._collect()
        if not masses:
            return None
        second = self.current is not None and self.current in self.method.second_kind
        return self.method.balance * torch.stack([self._spread(m, second) for m in masses]).sum()

    def _spread(self, mass: Tensor, second: bool) -> Tensor:
        """Return cv^2 of what the experts get, `[b, experts]`, weighed against their half."""
        delta, half = self.method.balance_delta, mass.shape[1] // 2
        weights = mass.new_full((mass.shape[1],), 1 - delta)
        weights[slice(0, half) if second else slice(half, None)] = 1 + delta
        weighed = mass * weights
        return weighed.var() / (weighed.mean().square() + 1e-10)
