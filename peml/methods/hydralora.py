"""HydraLoRA (Tian et al. 2024): one A, several B, which a router weighs at each position.

y = W x + (alpha / r) sum_i g_i(x) B_i A drop(x),   g(x) = softmax(W_r x)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from peml.methods.linear import ScaledMethod
from peml.methods.method import Merges
from peml.methods.term import Pass, Place, Routed, Term, empty, kaiming
from prefixnas.base.options import option


@dataclass(frozen=True)
class HydraLora(ScaledMethod, Routed):
    """One A and several B, which a router weighs at each position."""

    label: ClassVar[str] = "HydraLoRA"
    merges: ClassVar[Merges] = "no"
    lora_rank: int = option(8, "rank r", at_least=1, at_most=10_000)
    ups: int = option(4, "matrices B", at_least=1, at_most=64)

    def term(self, place: Place, tasks: int) -> Term:
        """Return the factors and the router."""
        return _Term(self, place)


class _Term(Term):
    routers = ("router",)

    def __init__(self, method: HydraLora, place: Place) -> None:
        super().__init__()
        r, self.scale = method.lora_rank, method.scale
        self.a = empty(r, place.width_in)
        self.b = empty(method.ups, place.width_out, r)
        self.router = empty(method.ups, place.width_in)

    def reset(self) -> None:
        kaiming(self.a)
        kaiming(self.router)
        nn.init.zeros_(self.b)

    def factors(self, now: Pass) -> tuple[Tensor, Tensor]:
        return self.a, self.scale * torch.cat(list(self.b), dim=1)

    def mix(self, now: Pass, x: Tensor, h: Tensor) -> Tensor:
        gates = torch.softmax((x @ self.router.T).float(), dim=-1).to(h.dtype)
        return (gates.unsqueeze(-1) * h.unsqueeze(-2)).flatten(-2)  # [b, t, ups * r]
