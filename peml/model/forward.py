"""Calls of a language model: what they are given, and those that need the last positions alone."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def accepts(module: nn.Module, argument: str) -> bool:
    """Tell whether a module's forward names an argument."""
    return argument in inspect.signature(module.forward).parameters


def arguments_of(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call of a module by name, as its pre-hooks see them."""
    signature = inspect.signature(module.forward)
    given: dict[str, Any] = dict(signature.bind_partial(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given.update(given.pop(name, {}))
    return given


def decoder_outputs(model: PreTrainedModel, inputs: dict[str, Tensor], **options: Any) -> Any:
    """Call a decoder, without explicit positions where it has none (ALiBi models)."""
    if not accepts(model, "position_ids"):
        inputs = {name: value for name, value in inputs.items() if name != "position_ids"}
    return model(**inputs, **options)


def last_logits(model: PreTrainedModel, inputs: dict[str, Tensor], keep: int) -> Tensor:
    """Return the logits of the last ``keep`` positions, `[b, keep, vocabulary]`.

    Models that know ``logits_to_keep`` compute no others.
    """
    options: dict[str, Any] = {"use_cache": False}
    if accepts(model, "logits_to_keep"):
        options["logits_to_keep"] = keep
    logits: Tensor = decoder_outputs(model, inputs, **options).logits
    return logits[:, -keep:]
