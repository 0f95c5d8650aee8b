"""LoRAHub (Huang et al. 2023): a LoRA of each task, then a sum of all of them, without gradients.

    A_t = sum_i w_ti A_i,   B_t = sum_i w_ti B_i,   y = W x + (alpha / r) B_t A_t drop(x)

In the first part of the steps w_t is the task's own LoRA, and all of them train. In the rest they
are held, and each step tries other weights w_t for each task: drawn around the best so far, within
the bound, and kept if the step's loss and `penalty` times the mean of |w_t| are lower together. A
task's first try is the start, its own LoRA alone, whichever step it first comes up in. The
authors start at zero, for tasks that have no LoRA of their own, take nevergrad's search and five
fixed examples; here it is a (1+1) evolution strategy on the step's own batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from peml.methods.linear import LinearTerms, ScaledMethod
from peml.methods.method import Merges, Setting
from peml.methods.summed import UNTRIED, Hub, SummedTerm
from peml.methods.term import Place, Term
from prefixnas.base.errors import UserError
from prefixnas.base.options import option

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


@dataclass(frozen=True)
class LoraHub(ScaledMethod):
    """A LoRA of each task, then for each task a weighted sum of all, found without gradients."""

    label: ClassVar[str] = "LoRAHub"
    needs_task: ClassVar[bool] = True
    merges: ClassVar[Merges] = "per task"
    evaluations: int = option(40, "steps that try weights; at most half", at_least=1)
    bound: float = option(1.5, "largest weight", above=0, at_most=100)
    penalty: float = option(0.05, "of the mean size of the weights", at_least=0, at_most=100)
    spread: float = option(0.2, "deviation of what is tried", above=0, at_most=10)

    def term(self, place: Place, tasks: int) -> Term:
        """Return a term with weights of its own."""
        return SummedTerm(place, self.lora_rank, self.scale, Hub(tasks))

    def terms(self, places: Sequence[Place], tasks: int) -> list[Term]:
        """Return the terms of all layers, which share the weights of the tasks."""
        hub = Hub(tasks)
        return [SummedTerm(place, self.lora_rank, self.scale, hub) for place in places]

    def attach(self, lm: LanguageModel, setting: Setting) -> LinearTerms:
        """Put a term on each layer."""
        if setting.trains and not setting.total_steps:
            raise UserError(f"method {self.label!r}: needs the number of training steps")
        return _Searched(self, lm, setting)


class _Searched(LinearTerms):
    method: LoraHub
    rewrites_weights = True

    def __init__(self, method: LoraHub, lm: LanguageModel, setting: Setting) -> None:
        super().__init__(method, lm, setting)
        self._total, self._seed = int(setting.total_steps or 0), setting.seed
        self._begin = self._total - min(method.evaluations, self._total // 2)
        self._held: list[Tensor] = []

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self._seed, self._held = seed, []

    def observed(self, losses: Mapping[str, float]) -> None:
        """Keep the weights that were tried where they are better than the best so far."""
        if not self._held:
            return
        hub = self._hub
        with torch.no_grad():
            for task, loss in losses.items():
                index = self.tasks.index(task)
                tried = hub.tried[index]
                score = loss + self.method.penalty * float(tried.abs().mean())
                if score <= float(hub.scores[index]):
                    hub.scores[index] = score
                    hub.best[index] = tried

    @torch.no_grad()
    def stepped(self, step: int) -> None:
        """Hold the LoRAs once they are trained, and draw the weights that are tried next."""
        if step + 1 < self._begin:
            return
        weights = self.parameters()
        if not self._held:
            self._held = [weight.detach().clone() for weight in weights]
        for weight, held in zip(weights, self._held, strict=True):
            weight.copy_(held)
        hub, bound = self._hub, self.method.bound
        drawn = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        noise = torch.randn(hub.best.shape, generator=drawn).to(hub.best) * self.method.spread
        others = (hub.best + noise).clamp(-bound, bound)
        # A task's first try is its start; behind the last step nothing is tried.
        best = (hub.scores >= UNTRIED) | (step + 1 == self._total)
        hub.tried.copy_(torch.where(best[:, None], hub.best, others))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "held": list(self._held)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        weights = dict(state)
        held = weights.pop("held", [])
        super().load_state_dict(weights)
        self._held = [tensor.clone() for tensor in held]

    @property
    def _hub(self) -> Any:
        term: Any = self.terms[0]
        return term.hub
