"""How the attention layers of a model make their queries, keys and values, seen in a trial pass.

Names and layouts differ from model to model (``q_proj``, ``Wqkv``, ``c_attn``, a norm behind the
projection). So a pass at position zero, where a rotation changes nothing, is watched for the module
inside the layer whose output, or a slice of it, is what attention gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from peml.methods.targets import widths_of
from peml.prefix.positions import rotary_modules
from peml.prefix.sites import Site, trial_inputs
from peml.prefix.watch import Call, watch

_Output = tuple[nn.Module, Tensor, Tensor]  # a module, what it read and what it made


@dataclass(frozen=True)
class Projection:
    """The modules that make queries, keys or values of a layer's input.

    Attributes:
        linear: A linear module, its output `[b, t, n]`.
        start: Where in its n numbers those of the heads begin.
        shape: ``(heads, head_dim)``.
        norm: What follows on `[b, t, heads, head_dim]`; None: nothing.
    """

    linear: nn.Module
    start: int
    shape: tuple[int, int]
    norm: nn.Module | None = None

    @property
    def last(self) -> nn.Module:
        """The module whose output holds the result."""
        return self.linear if self.norm is None else self.norm

    @property
    def width_in(self) -> int:
        """Numbers that it reads of a position."""
        return widths_of(self.linear)[0]

    def heads(self, output: Tensor) -> Tensor:
        """Cut the result `[b, heads, t, head_dim]` out of the output of `last`."""
        if output.ndim == 3:
            heads, width = self.shape
            output = output[..., self.start : self.start + heads * width]
            output = output.reshape(*output.shape[:2], heads, width)
        return output.transpose(1, 2)

    def __call__(self, x: Tensor) -> Tensor:
        """Project `[b, t, width_in]` to `[b, heads, t, head_dim]`, without a rotation."""
        made = self.heads(self.linear(x))
        return made if self.norm is None else self.norm(made.transpose(1, 2)).transpose(1, 2)


@dataclass(frozen=True)
class Projections:
    """The projections of one attention layer; None: not found.

    Attributes:
        heads: Number of query heads.
        query: Makes the queries before any rotation.
        key: Makes the keys before any rotation.
        value: Makes the values.
    """

    heads: int
    query: Projection | None
    key: Projection | None
    value: Projection | None


def find_projections(model: PreTrainedModel, sites: Sequence[Site]) -> list[Projections]:
    """Find the projections of attention layers."""
    inputs = trial_inputs(model)
    if rotary_modules(model):
        inputs["position_ids"] = torch.zeros_like(inputs["input_ids"])
    outputs: dict[nn.Module, _Output] = {}

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            outputs.setdefault(module, (module, args[0], output))

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        calls: dict[nn.Module, Call] = {}
        for call in watch(model, inputs):
            calls.setdefault(call.module, call)
    finally:
        for hook in hooks:
            hook.remove()
    found = []
    for site in sites:
        layer = model.get_submodule(site.path)
        inside = [outputs[module] for module in layer.modules() if module in outputs]
        call = calls[layer]
        made = [_made_by(each, inside) for each in (call.query, call.key, call.value)]
        found.append(Projections(call.query.shape[1], *made))
    return found


def _made_by(target: Tensor, outputs: Sequence[_Output]) -> Projection | None:
    """Return what makes `target` ``[b, heads, t, head_dim]``."""
    shape = (target.shape[1], target.shape[3])
    flat = target.transpose(1, 2)
    for module, given, made in outputs:
        if isinstance(module, nn.Linear | Conv1D):
            if (start := _place(flat.flatten(2), made)) is not None:
                return Projection(module, start, shape)
        elif made.shape == flat.shape == given.shape and torch.allclose(made, flat):
            linears = [each for each in outputs if isinstance(each[0], nn.Linear | Conv1D)]
            before = _made_by(given.transpose(1, 2), linears)
            return before and Projection(before.linear, before.start, shape, module)
    return None


def _place(wanted: Tensor, made: Tensor) -> int | None:
    """Return where the numbers of `wanted` stand in the last axis of `made`."""
    width = wanted.shape[-1]
    if made.shape[:-1] != wanted.shape[:-1]:
        return None
    for start in range(0, made.shape[-1] - width + 1, width):
        if torch.allclose(made[..., start : start + width], wanted):
            return start
    return None
