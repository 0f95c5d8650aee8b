"""PrefixMemory-Tuning (Wang et al. 2025): a prefix out of the softmax, as a matrix.

    o_h = softmax(q_h K^T) V + phi(q_h) M_h

phi is elu or gelu, q the query before any rotation. The matrices start at zero. The paper leaves
open whether a layer has a matrix for each head or one over all of them, and where the term enters;
here it is a matrix for each head, before the output projection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peml.methods.attention import AttentionMethod, AttentionTerm, Layer
from peml.methods.method import Merges
from prefixnas.base.options import option

_FEATURES: Mapping[str, Callable[[Tensor], Tensor]] = {"elu": F.elu, "gelu": F.gelu}


@dataclass(frozen=True)
class PrefixMemory(AttentionMethod):
    """A matrix of each head that a feature of the query is multiplied with, beside attention."""

    label: ClassVar[str] = "PrefixMemory-Tuning"
    merges: ClassVar[Merges] = "no"
    feature: Literal["elu", "gelu"] = option("elu", "of the query")
    memory: Literal["head", "full"] = option("head", "a matrix of each head, or one over all")
    rotated: bool = option(False, "take the query as attention gets it, rotated")

    def terms(self, layers: Sequence[Layer], tasks: int) -> list[AttentionTerm | None]:
        """Return the matrices of each layer."""
        return [_Term(self, layer) for layer in layers]


class _Term(AttentionTerm):
    def __init__(self, method: PrefixMemory, layer: Layer) -> None:
        super().__init__()
        heads, width = layer.made_by.heads, layer.site.head_dim
        groups = heads if method.memory == "head" else 1
        numbers = heads * width // groups
        self.memory = nn.Parameter(torch.zeros(groups, numbers, numbers))
        self.feature, self.reads_plain = _FEATURES[method.feature], not method.rotated

    def reset(self) -> None:
        nn.init.zeros_(self.memory)

    def beside(self, query: Tensor, scale: float | None) -> Tensor:
        read = self.feature(query.to(self.memory.dtype)).transpose(1, 2)  # [b, q, heads, head_dim]
        grouped = read.reshape(*read.shape[:2], len(self.memory), -1)
        return torch.einsum("bqgd,gde->bqge", grouped, self.memory).reshape(read.shape)
