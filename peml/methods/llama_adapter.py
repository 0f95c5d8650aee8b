"""LLaMA-Adapter (Zhang et al. 2023): prompts that the topmost layers read beside the text.

    o_h = softmax(s q_h K^T) V + tanh(g_h) softmax(s q_h P_k^T) P_v

P_k and P_v are the layer's own, frozen projections of trained rows ``[l, hidden]``, without a
rotation. The gates start at zero, so the first step moves them alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from peml.methods.attention import AttentionMethod, AttentionTerm, Layer
from peml.methods.method import Merges
from peml.prefix.attention import ModulePrefix
from peml.prefix.parallel import attend_to_prefix
from prefixnas.base.errors import UserError
from prefixnas.base.options import option


@dataclass(frozen=True)
class LlamaAdapter(AttentionMethod):
    """Prompts of each of the topmost layers, read beside the text through gates from zero."""

    label: ClassVar[str] = "LLaMA-Adapter"
    merges: ClassVar[Merges] = "no"
    changes_keys: ClassVar[bool] = True
    rate: ClassVar[float] = 9e-3
    prompt_length: int = option(10, "rows of each layer", at_least=1, at_most=10_000)
    adapter_layers: int | None = option(
        None, "topmost layers that read them; none: 30 of each 32, rounded up", at_least=1
    )
    gate: Literal["head", "layer"] = option("head", "a gate of each head, or of each layer")
    tanh: bool = option(True, "open by the gate's tanh; no: by the gate itself")

    def terms(self, layers: Sequence[Layer], tasks: int) -> list[AttentionTerm | None]:
        """Return prompts and gates of the topmost layers."""
        made: list[AttentionTerm | None] = []
        for layer in layers:
            asked = self.adapter_layers
            reading = math.ceil(layer.count * 30 / 32) if asked is None else asked
            if asked is not None and asked > layer.count:
                raise UserError(
                    f"key 'adapter_layers': the model has {layer.count} {layer.site.kind} layers, "
                    f"not {asked}"
                )
            made.append(_Term(self, layer) if layer.number >= layer.count - reading else None)
        return made


class _Term(AttentionTerm):
    undecayed = ("gate",)

    def __init__(self, method: LlamaAdapter, layer: Layer) -> None:
        super().__init__()
        key, value = layer.made_by.key, layer.made_by.value
        if key is None or value is None:
            raise UserError(
                f"method {method.label!r}: the layer {layer.site.path!r} has no projections of "
                "keys and values that a prompt could be read by"
            )
        self.key, self.value = key, value
        self.prompt = nn.Parameter(torch.zeros(method.prompt_length, key.width_in))
        gates = layer.made_by.heads if method.gate == "head" else 1
        self.gate = nn.Parameter(torch.zeros(gates))
        self.opened = torch.tanh if method.tanh else (lambda gate: gate)

    def reset(self) -> None:
        nn.init.normal_(self.prompt)
        nn.init.zeros_(self.gate)

    def beside(self, query: Tensor, scale: float | None) -> Tensor:
        rows = self.prompt.to(query.dtype)[None]
        read = attend_to_prefix(query, ModulePrefix(self.key(rows), self.value(rows)), scale)
        return read * self.opened(self.gate)[:, None].to(read)  # [b, q, heads, head_dim]
