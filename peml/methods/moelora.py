"""MOELoRA (Liu et al. 2024): LoRA cut into experts, which a gate weighs by the task.

    y = W x + (alpha / r) sum_e g_e(t) B_e A_e drop(x),   g(t) = softmax(W_g emb_t)

Each of E experts has the rank r / E. As in the official training script one gate serves the whole
model; `gate: layer` gives each layer its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from peml.methods.beside import Part
from peml.methods.linear import ScaledMethod
from peml.methods.method import Merges
from peml.methods.term import Pass, Place, Routed, Term, by_task, empty, kaiming
from prefixnas.base.errors import UserError
from prefixnas.base.options import option


@dataclass(frozen=True)
class MoeLora(ScaledMethod, Routed):
    """LoRA cut into experts of a share of the rank, which a gate weighs by the task."""

    label: ClassVar[str] = "MoELoRA"
    needs_task: ClassVar[bool] = True
    merges: ClassVar[Merges] = "per task"
    experts: int = option(8, "experts; they divide the rank", at_least=1, at_most=64)
    task_width: int = option(64, "numbers of a task's embedding", at_least=1, at_most=10_000)
    gate: Literal["model", "layer"] = option("model", "one gate for the model, or for each layer")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora_rank % self.experts:
            raise UserError(
                f"key 'experts': {self.experts} do not divide the rank, {self.lora_rank}"
            )

    def term(self, place: Place, tasks: int) -> Term:
        """Return the factors with a gate of their own."""
        return _Term(self, place, _Gate(self, tasks))

    def terms(self, places: Sequence[Place], tasks: int) -> list[Term]:
        """Return the factors of all layers."""
        if self.gate == "layer":
            return super().terms(places, tasks)
        gate = _Gate(self, tasks)
        return [_Term(self, place, gate) for place in places]


class _Gate(Part):
    per_task = ("embedding",)

    def __init__(self, method: MoeLora, tasks: int) -> None:
        super().__init__()
        self.embedding = by_task(tasks, method.task_width)
        self.weight = empty(method.experts, method.task_width)

    def reset(self) -> None:
        for row in self.embedding:
            nn.init.normal_(row)
        kaiming(self.weight)

    def forward(self, task: int) -> Tensor:
        return torch.softmax(self.weight @ self.embedding[task], dim=0)


class _Term(Term):
    routers = ("gate",)

    def __init__(self, method: MoeLora, place: Place, gate: _Gate) -> None:
        super().__init__()
        r, self.each = method.lora_rank, method.lora_rank // method.experts
        self.scale = method.scale
        self.a = empty(r, place.width_in)
        self.b = empty(place.width_out, r)
        self.gate = gate

    def reset(self) -> None:
        nn.init.normal_(self.a, std=0.01)
        nn.init.zeros_(self.b)

    def factors(self, now: Pass) -> tuple[Tensor, Tensor]:
        weights = self.gate(now.task).repeat_interleave(self.each)  # [r]
        return self.a, self.scale * self.b * weights
