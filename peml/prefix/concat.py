"""A prefix in front of the text: its keys and values stand in the softmax before the text's.

The mask, and T5's position bias, get columns for the prefix, so the attention must be one whose
mask is a tensor: PyTorch's SDPA or the model's own eager attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from peml.model.model import Family
from peml.prefix.attention import ModulePrefix, PrefixAttention
from peml.prefix.interception import own_attention, use_dense_masks
from peml.prefix.positions import text_can_move

GATE_FLOOR = 1e-30
"""What a gate of 0 that asks for a gradient counts as: no output shows it, its log is finite."""


class Concat(PrefixAttention):
    """One softmax over prefix and text. A site's gate g adds log(g) to the prefix's logits."""

    name = "concat"
    head_gates = False
    starts = ("text", "random", "zero")

    def start(self, family: Family) -> str:
        """Start from zeros where a text was seen to hurt, in encoder-only models."""
        return "zero" if family == "encoder" else "text"

    def moves_text(self, model: PreTrainedModel) -> bool:
        """Tell whether the model's text can stand behind the prefix."""
        return text_can_move(model)

    def install(self, model: PreTrainedModel, modules: Sequence[nn.Module]) -> Callable[[], None]:
        """Let modules read the prefix that is set on them, through masks that can be widened."""
        masks, modules_read = use_dense_masks(model), super().install(model, modules)
        return partial(_undo, modules_read, masks)

    def read(
        self,
        prefix: ModulePrefix,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to the prefix and the text at once.

        Args:
            prefix: The module's prefix.
            module: The attention module.
            query: ``[batch, heads, q, head_dim]``.
            key: ``[batch, kv_heads, kv, head_dim]``.
            value: As `key`.
            attention_mask: ``[batch or 1, heads or 1, q, kv]``, boolean or additive, or None.
            kwargs: What else the model passes to its attention function.
        """
        length = prefix.key.shape[2]
        mask = _mask(module, query, key, attention_mask, kwargs.pop("is_causal", None))
        if mask is not None:
            mask = F.pad(mask, (length, 0), value=mask.dtype is torch.bool)
        if prefix.gate is not None:
            mask = _gated(mask, prefix.gate, query, length, length + key.shape[2])
        if kwargs.get("position_bias") is not None:
            kwargs["position_bias"] = F.pad(kwargs["position_bias"], (length, 0))
        blocks = (prefix.key, prefix.value)
        front = [block.to(key).expand(key.shape[0], -1, -1, -1) for block in blocks]
        key, value = torch.cat([front[0], key], dim=2), torch.cat([front[1], value], dim=2)
        return own_attention(module)(module, query, key, value, mask, is_causal=False, **kwargs)


def _undo(*steps: Callable[[], None]) -> None:
    for step in steps:
        step()


def _mask(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, causal: bool | None
) -> Tensor | None:
    """Return the mask that the attention function would have made up itself from `is_causal`."""
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if mask is None and causal and query.shape[2] > 1:
        # SDPA's own causal rule would count the prefix as tokens and cut the keys to q.
        full = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=key.device)
        mask = full.tril()[None, None]
    return mask


def _gated(mask: Tensor | None, gate: Tensor, query: Tensor, length: int, total: int) -> Tensor:
    """Return a mask that adds log(gate) to the logits of the prefix, with gradient to the gate.

    Args:
        mask: ``[batch or 1, heads or 1, q, total]``, boolean or additive; None: all is seen.
        gate: A number in [0, 1].
        query: ``[batch, heads, q, head_dim]``.
        length: Number of the prefix's columns, which come first.
        total: Number of all columns.
    """
    if mask is None:
        mask = query.new_zeros(1, 1, query.shape[2], total)
    elif mask.dtype is torch.bool:
        mask = query.new_zeros(mask.shape).masked_fill(~mask, -torch.inf)
    floored = gate + (gate.clamp(min=GATE_FLOOR) - gate).detach()
    front = mask[..., :length] + floored.log().to(mask)
    return torch.cat([front, mask[..., length:]], dim=-1)
