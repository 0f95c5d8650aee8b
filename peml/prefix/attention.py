"""Our attention function: stock attention with a prefix in front of keys and values.

transformers lets a model's attention be replaced by a function of our own
(`AttentionInterface`). Ours reads the prefix from the calling attention module.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from peml.model.model import family_of
from prefixnas.network.modes import evaluation_mode

SDPA, EAGER = "peml-prefix", "peml-prefix-eager"
"""The names of our attention in transformers: on top of SDPA, or of the model's own code."""

PREFIX, SEEN = "_peml_prefix", "_peml_seen"
"""Attributes of an attention module: its prefix, and where `watch` writes its calls down."""

GATE_FLOOR = 1e-30
"""What a gate of 0 that asks for a gradient counts as: no output shows it, its log is finite."""


@dataclass(frozen=True)
class ModulePrefix:
    """The prefix of one attention module.

    Attributes:
        key: ``[1, kv_heads, l, head_dim]``.
        value: As `key`.
        gate: A number in [0, 1] that multiplies the prefix's share of attention; None: 1.
    """

    key: Tensor
    value: Tensor
    gate: Tensor | None = None


@dataclass(frozen=True)
class Call:
    """One call of the attention function, as `watch` saw it.

    Attributes:
        module: The attention module.
        q_length: Number of query positions.
        key: The real tokens' keys, ``[batch, kv_heads, kv, head_dim]``.
        value: Their values, as `key`.
    """

    module: nn.Module
    q_length: int
    key: Tensor
    value: Tensor


def _eager(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """Attention as the model's own file spells it: soft-capping, sinks and all."""
    stock = sys.modules[type(module).__module__].__dict__["eager_attention_forward"]
    result: tuple[Tensor, Tensor | None] = stock(module, *args, **kwargs)
    return result


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    stock: Any,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Stock attention with the module's prefix in front; without a prefix, stock attention.

    Args:
        module: The attention module, which holds its `ModulePrefix`.
        query: ``[batch, heads, q, head_dim]``.
        key: ``[batch, kv_heads, kv, head_dim]``.
        value: As `key`.
        attention_mask: ``[batch or 1, heads or 1, q, kv]``, boolean or additive, or None.
        stock: The attention function that does the work.
        kwargs: What else the model passes to its attention function.
    """
    if (seen := module.__dict__.get(SEEN)) is not None:
        seen.append(Call(module, query.shape[2], key, value))
    prefix: ModulePrefix | None = module.__dict__.get(PREFIX)
    if prefix is None:
        result: tuple[Tensor, Tensor | None] = stock(
            module, query, key, value, attention_mask, **kwargs
        )
        return result
    length = prefix.key.shape[2]
    causal = kwargs.pop("is_causal", None)
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if attention_mask is None and causal and query.shape[2] > 1:
        # SDPA's own causal rule would count the prefix as tokens and cut the keys to q.
        full = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=key.device)
        attention_mask = full.tril()[None, None]
    if attention_mask is not None:
        attention_mask = F.pad(
            attention_mask, (length, 0), value=attention_mask.dtype is torch.bool
        )
    if prefix.gate is not None:
        attention_mask = _gated(attention_mask, prefix.gate, query, length, length + key.shape[2])
    if kwargs.get("position_bias") is not None:
        kwargs["position_bias"] = F.pad(kwargs["position_bias"], (length, 0))
    blocks = (prefix.key, prefix.value)
    front = [block.to(key).expand(key.shape[0], -1, -1, -1) for block in blocks]
    key, value = torch.cat([front[0], key], dim=2), torch.cat([front[1], value], dim=2)
    result = stock(module, query, key, value, attention_mask, is_causal=False, **kwargs)
    return result


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


AttentionInterface.register(SDPA, partial(_attend, stock=sdpa_attention_forward))
AttentionInterface.register(EAGER, partial(_attend, stock=_eager))
AttentionMaskInterface.register(SDPA, sdpa_mask)
AttentionMaskInterface.register(EAGER, eager_mask)


def watch(model: PreTrainedModel, inputs: dict[str, Any]) -> list[Call]:
    """Run a forward pass in eval mode and list the calls of our attention function in order.

    Neither the model, its modes, its attention implementation nor the random stream change.
    """
    seen: list[Call] = []
    if family_of(model.config, type(model).__name__) != "encoder":
        inputs = {**inputs, "use_cache": False}
    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(our_attention(model))
        for module in model.modules():
            module.__dict__[SEEN] = seen
            stack.callback(module.__dict__.pop, SEEN)
        model(**inputs)
    return seen


def implementations(model: PreTrainedModel) -> list[tuple[Any, str]]:
    """List every configuration inside the model with its present attention implementation."""
    configs = {
        id(module.config): module.config
        for module in model.modules()
        if isinstance(module, PreTrainedModel)
    }
    return [(config, config._attn_implementation) for config in configs.values()]


@contextmanager
def our_attention(model: PreTrainedModel) -> Iterator[None]:
    """Our attention function for a while."""
    before = implementations(model)
    use_our_attention(model)
    try:
        yield
    finally:
        restore(before)


def use_our_attention(model: PreTrainedModel) -> None:
    """Let a model call our attention function."""
    current = model.config._attn_implementation
    if current not in (SDPA, EAGER):
        # A model that can't use SDPA (soft-capping, sinks) has "eager" already.
        model.set_attn_implementation(EAGER if current == "eager" else SDPA)


def restore(before: list[tuple[Any, str]]) -> None:
    """Go back to what `implementations` listed."""
    for config, name in before:
        config._attn_implementation = name
