"""Which modules call attention, and with what: a forward pass, watched."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from peml.model.model import family_of
from peml.model.probing import probing
from peml.prefix.interception import (
    can_be_intercepted,
    intercept,
    own_attention,
    use_dense_masks,
)
from prefixnas.network.modes import evaluation_mode


@dataclass(frozen=True)
class Call:
    """One call of an attention function.

    Attributes:
        module: The attention module.
        query: The queries, ``[batch, heads, q, head_dim]``.
        key: The text's keys, ``[batch, kv_heads, kv, head_dim]``.
        value: Its values, as `key`.
    """

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor

    @property
    def q_length(self) -> int:
        """Number of query positions."""
        return self.query.shape[2]


def watch(model: PreTrainedModel, inputs: dict[str, Any]) -> list[Call]:
    """Run a forward pass in eval mode and list the calls of attention functions in order.

    Methods stand aside (`peml.model.probing`). Neither the model, its modes, its attention
    implementation nor the random stream change.
    """
    seen: list[Call] = []

    def look(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        seen.append(Call(module, query, key, value))
        return own_attention(module)(module, query, key, value, *args, **kwargs)

    if family_of(model.config, type(model).__name__) != "encoder":
        inputs = {**inputs, "use_cache": False}
    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(probing())
        stack.callback(use_dense_masks(model))
        stack.callback(intercept(filter(can_be_intercepted, model.modules()), look))
        model(**inputs)
    return seen
