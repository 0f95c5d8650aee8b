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

from prefixnas.base.errors import UserError, brief
from prefixnas.base.registry import Registry

M = TypeVar("M", bound=nn.Module)

MOST_FACTOR = 64
"""How many times wider than its input an operation's output may be."""

_TRIED = 8

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
    except (TypeError, ValueError, ArithmeticError) as error:
        raise _not_built(name, args, kwargs, error) from error


def try_op(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Try the parameters of an operation before there is a problem to build it for, and a width.

    The operations of this file take any width, and are built and called once, without memory; of
    others the names of the parameters are compared alone.

    Raises:
        UserError: Unknown name, or parameters that the operation does not take.
    """
    factory = OPS.get(name)
    if factory not in _SHIPPED:
        signature = inspect.signature(factory)
        width = (1,) if "width" in signature.parameters else ()
        try:
            signature.bind(*width, *args, **kwargs)
        except TypeError as error:
            raise _not_built(name, args, kwargs, error) from error
        return
    with torch.device("meta"):
        module = make_op(name, args, kwargs, _TRIED)
        try:
            module(torch.ones(1, _TRIED))
        except Exception as error:
            raise _not_built(name, args, kwargs, error) from error


def _not_built(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception
) -> UserError:
    given = ", ".join([*map(brief, args), *(f"{k}={brief(v)}" for k, v in kwargs.items())])
    return UserError(f"operation {name!r} cannot be built with ({given}): {error}")


def width_after(module: nn.Module | None, width: int) -> int:
    """Return the width of a module's output for an input of `width`; None passes it on."""
    return int(getattr(module, "width_out", width))


@register_op("linear")
class Linear(nn.Linear):
    """Affine map; `factor` scales the width, for reduction cells (`factor: 0.5`)."""

    def __init__(self, width: int, factor: float = 1.0, bias: bool = True) -> None:
        if not 0 < factor <= MOST_FACTOR:
            raise ValueError(f"factor must be above 0 and at most {MOST_FACTOR}, not {factor}")
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


_ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}
for _name, _activation in _ACTIVATIONS.items():
    register_op(_name)(_activation)

_SHIPPED = (Linear, LayerNorm, Dropout, Identity, Zero, *_ACTIVATIONS.values())
