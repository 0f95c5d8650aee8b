"""A prefix beside the text: a softmax of its own, whose result is added.

    o_h = softmax(s q_h K^T) V + softmax(s q_h P_k^T) tanh(g_h) P_v

q is the query as the model's attention function gets it, rotated where the model has rotary
positions; the keys of the prefix are used as they are. s is the model's scale. What else the model
does to its logits (masks, position biases, soft-capping, sinks) and dropout concern the first term
alone, which the model's own function computes from the model's own arguments.

The gate g_h of a head starts at zero (`peml.prefix.head_gates`): a fresh prefix adds exact zeros.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from peml.model.model import Family
from peml.prefix.attention import ModulePrefix, PrefixAttention
from peml.prefix.interception import own_attention


class Parallel(PrefixAttention):
    """Attention to the prefix is added to attention to the text."""

    name = "parallel"
    head_gates = True
    starts = ("text", "random")  # from zeros, neither values nor gates would get a gradient

    def start(self, family: Family) -> str:
        """Start from a text, whose keys and values have the size of the model's own."""
        return "text"

    def adds_nothing(self, block: Tensor) -> bool:
        """Tell whether the values of a block are zeros, as where no head gate has opened."""
        return not bool(block[1].any())

    def read(
        self,
        prefix: ModulePrefix,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to the text and to the prefix apart; return the sum."""
        stock = own_attention(module)
        output, weights = stock(module, query, key, value, attention_mask, **kwargs)
        addend = attend_to_prefix(query, prefix, kwargs.get("scaling"))
        return output + addend.to(output.dtype), weights


def attend_to_prefix(query: Tensor, prefix: ModulePrefix, scale: float | None) -> Tensor:
    """Attend to a prefix alone.

    Args:
        query: ``[batch, heads, q, head_dim]``.
        prefix: Its heads divide `heads`.
        scale: What the products are multiplied with; None: 1 / sqrt(head_dim).

    Returns:
        ``[batch, q, heads, head_dim]``.
    """
    batch, heads, length, width = query.shape
    kv_heads = prefix.key.shape[1]
    key, value = prefix.key.to(query), prefix.value.to(query)
    if prefix.gate is not None:
        value = value * prefix.gate.to(value)  # fewer numbers than what is read
    # All queries that share a head's keys stand in one row: nothing is repeated. A prefix is so
    # short that plain products are faster than SDPA here.
    grouped = query.reshape(batch, kv_heads, heads // kv_heads * length, width)
    scaled = key.transpose(-1, -2) * (width**-0.5 if scale is None else scale)
    read = torch.softmax(grouped @ scaled, dim=-1) @ value
    return read.reshape(batch, heads, length, width).transpose(1, 2)
