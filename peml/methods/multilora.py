"""MultiLoRA (Wang et al. 2023): several LoRAs side by side, each output scaled by a trained vector.

    y = W x + (alpha / r) sum_i s_i * (B_i A_i drop(x))

A_i and B_i start as drawn, s_i at zero, so the first step moves the scales alone. Folded into one
pair of factors of rank n r, it keeps no more for the backward pass than LoRA of that rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from peml.methods.linear import ScaledMethod
from peml.methods.term import Pass, Place, Term, empty, kaiming
from prefixnas.base.options import option


@dataclass(frozen=True)
class MultiLora(ScaledMethod):
    """Several LoRAs side by side, each output scaled by a trained vector that starts at zero."""

    label: ClassVar[str] = "MultiLoRA"
    modules: int = option(3, "LoRAs side by side", at_least=1, at_most=64)

    def term(self, place: Place, tasks: int) -> Term:
        """Return n pairs of factors with their scales."""
        return _Term(self, place)


class _Term(Term):
    undecayed = ("scales",)

    def __init__(self, method: MultiLora, place: Place) -> None:
        super().__init__()
        n, r = method.modules, method.lora_rank
        self.scale = method.scale
        self.a = empty(n, r, place.width_in)
        self.b = empty(n, place.width_out, r)
        self.scales = empty(n, place.width_out)

    def reset(self) -> None:
        for factor in (*self.a, *self.b):
            kaiming(factor)
        nn.init.zeros_(self.scales)

    def factors(self, now: Pass) -> tuple[Tensor, Tensor]:
        scaled = self.scale * self.scales.unsqueeze(-1) * self.b  # [n, out, r]
        return self.a.flatten(0, 1), torch.cat(list(scaled), dim=1)
