"""The operations a search space is made of, and how to add one.

An operation is an `nn.Module` from `[..., width]` to `[..., width_out]`. Its constructor takes the
incoming width as a parameter named `width` if it needs it; other parameters come from the space
(`{dropout: 0.1}`, `{linear: {bias: false}}`). An operation that changes the width says so in an
attribute `width_out`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from prefixnas.base.errors import UserError
from prefixnas.base.registry import Registry

M = TypeVar("M", bound=nn.Module)

OPS: Registry[type[nn.Module]] = Registry("operation", "prefixnas.ops")


def register_op(name: str) -> Callable[[type[M]], type[M]]:
    """Offer a module as an operation, under a name that spaces can use.

    Args:
        name: The name. A constructor parameter `width` gets the width of the input; a module that
            changes it says so by an attribute `width_out`.

    Raises:
        ValueError: The name is not lower case, or is another operation's.

    Example:
        >>> import torch
        >>> from prefixnas import Choice, SearchSpace
        >>> @register_op("sine")
        ... class Sine(nn.Module):
        ...     def forward(self, hidden):
        ...         return torch.sin(hidden)
        >>> SearchSpace("waves", Choice("act", ["tanh", "sine"])).size
        2
    """

    def add(operation: type[M]) -> type[M]:
        OPS.register(name)(operation)
        return operation

    return add


def make_op(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], width: int) -> nn.Module:
    """Build one operation for inputs of shape `[..., width]`.

    Raises:
        UserError: Unknown name, or parameters that the operation does not take.
    """
    factory = OPS.get(name)
    wants_width = "width" in inspect.signature(factory).parameters
    try:
        return factory(width, *args, **kwargs) if wants_width else factory(*args, **kwargs)
    except (TypeError, ValueError) as error:
        given = ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())])
        raise UserError(f"operation {name!r} cannot be built with ({given}): {error}") from error


def width_after(module: nn.Module | None, width: int) -> int:
    """Return the width of a module's output for an input of `width`; None passes it on."""
    return int(getattr(module, "width_out", width))


@register_op("linear")
class Linear(nn.Linear):
    """Affine map; `factor` scales the width, for reduction cells (`factor: 0.5`)."""

    def __init__(self, width: int, factor: float = 1.0, bias: bool = True) -> None:
        if factor <= 0:
            raise ValueError(f"factor must be above 0, not {factor}")
        self.width_out = max(1, round(width * factor))
        super().__init__(width, self.width_out, bias=bias)


@register_op("layer_norm")
class LayerNorm(nn.LayerNorm):
    """Normalisation over the features; `affine: false` leaves out its own scale and shift."""

    def __init__(self, width: int, affine: bool = True) -> None:
        super().__init__(width, elementwise_affine=affine)


@register_op("dropout")
class Dropout(nn.Dropout):
    """Dropout with rate `p`."""

    def __init__(self, p: float = 0.1) -> None:
        super().__init__(p)


@register_op("identity")
class Identity(nn.Identity):
    """Passes its input on: the skip connection among candidates."""


@register_op("zero")
class Zero(nn.Module):
    """Gives zeros: as a branch of a sum, it switches the branch off."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return zeros in the shape of `hidden`."""
        return torch.zeros_like(hidden)


register_op("relu")(nn.ReLU)
register_op("tanh")(nn.Tanh)
register_op("leaky_relu")(nn.LeakyReLU)
register_op("gelu")(nn.GELU)
register_op("silu")(nn.SiLU)
register_op("sigmoid")(nn.Sigmoid)
