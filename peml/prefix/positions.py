"""Rotary positions: a prefix in front of the text takes the first ones, the text stands behind it.

Rotary attention sees differences of positions alone. So in decoder-only models with rotary
positions the text may as well stand at l, l + 1, ... behind a prefix of l keys at 0 .. l-1, where
a KV cache and stock PEFT put it: then an exported adapter computes the very same numbers. In all
other models the text keeps its positions.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from peml.model.forward import accepts, arguments_of
from peml.model.model import family_of


def rotary_modules(model: PreTrainedModel) -> list[nn.Module]:
    """List the modules that turn positions into rotations."""
    return [m for m in model.modules() if "RotaryEmbedding" in type(m).__name__]


def text_can_move(model: PreTrainedModel) -> bool:
    """Tell whether a model's attention sees differences of positions alone."""
    rotary = rotary_modules(model)
    return (
        family_of(model.config, type(model).__name__) == "decoder"
        and bool(rotary)
        and all(accepts(m, "position_ids") for m in rotary)
    )


def count_text(model: PreTrainedModel) -> list[RemovableHandle]:
    """Let padding take no positions in plain calls of a decoder, until the handles are removed.

    Rows that are padded on the left would otherwise stand further behind the prefix than others.
    """
    family = family_of(model.config, type(model).__name__)
    if family != "decoder" or not accepts(model, "position_ids"):
        return []

    def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = arguments_of(module, args, kwargs)
        mask, ids = given.get("attention_mask"), given.get("input_ids")
        if given.get("position_ids") is not None or mask is None or mask.ndim != 2:
            return None
        tokens = given.get("inputs_embeds") if ids is None else ids
        if tokens is None or bool(mask.all()):
            return None
        positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
        return (), {**given, "position_ids": positions[:, -tokens.shape[1] :]}

    return [model.register_forward_pre_hook(count, with_kwargs=True)]


def move_text(model: PreTrainedModel, length: int) -> list[RemovableHandle]:
    """Move the text by `length` positions until the handles are removed."""

    def behind(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if "position_ids" in kwargs:
            return args, {**kwargs, "position_ids": kwargs["position_ids"] + length}
        return (args[0], args[1] + length, *args[2:]), kwargs

    return [m.register_forward_pre_hook(behind, with_kwargs=True) for m in rotary_modules(model)]
