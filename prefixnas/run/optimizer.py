"""The optimisers of the weights: those of torch, by its names in lower case."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from prefixnas.base.errors import UserError, brief, unknown
from prefixnas.base.options import read_pairs
from prefixnas.base.yaml import load_yaml

if TYPE_CHECKING:
    import torch

Optimizer = Literal[
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "asgd",
    "nadam",
    "radam",
    "rmsprop",
    "sgd",
]
"""Those that take gradients of a batch, weights of any shape, a rate and a decay for each group."""

_NOT_OURS = ("params", "lr", "weight_decay", "maximize")
_HOW = ("foreach", "fused", "capturable", "differentiable")
"""Arguments of torch's that change how a step is computed, and not what it is."""


def read_options(name: Optimizer, pairs: Sequence[str]) -> dict[str, Any]:
    """Read options of an optimiser, `["momentum=0.9", "nesterov=true"]`, by torch's names.

    Raises:
        UserError: No such option, or a value that torch refuses.
    """
    where = "key 'optimizer_options'"
    texts = read_pairs(pairs, where)
    if not texts:
        return {}
    allowed = [option for option in _arguments(name) if option not in (*_NOT_OURS, *_HOW)]
    for option in texts:
        if option not in allowed:
            raise unknown(f"option of {name}", option, allowed, where)
    options = {option: _value(text) for option, text in texts.items()}
    for option, value in options.items():
        if any(isinstance(part, str) for part in (value if isinstance(value, tuple) else [value])):
            raise UserError(
                f"{where}: {name} does not take '{option}={texts[option]}': must be a number, "
                "true or false, or a list of numbers"
            )
    try:
        _try(name, options)
    except (TypeError, ValueError, RuntimeError) as error:
        given = brief(", ".join(pairs))
        raise UserError(f"{where}: {name} does not take {given}: {error}") from error
    return options


def make_optimizer(
    name: Optimizer, groups: Iterable[dict[str, Any]], options: dict[str, Any]
) -> torch.optim.Optimizer:
    """Return an optimiser of parameter groups, each with its own `lr` and `weight_decay`."""
    made: torch.optim.Optimizer = _class(name)(groups, **options)
    return made


def _class(name: Optimizer) -> Any:
    import torch

    kinds = {key.lower(): kind for key, kind in vars(torch.optim).items() if isinstance(kind, type)}
    return kinds[name]


def _arguments(name: Optimizer) -> list[str]:
    return list(inspect.signature(_class(name)).parameters)


def _value(text: str) -> Any:
    """Return what a text stands for: a number, true or false, a list of numbers, or itself."""
    try:
        value = load_yaml(text, "key 'optimizer_options'")
    except UserError:
        return text
    parts = value if isinstance(value, list) else [value]
    numbers = [_number(part) for part in parts]
    return tuple(numbers) if isinstance(value, list) else numbers[0]


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value  # 1e-8 is a text in YAML
    except ValueError:
        return value


def _try(name: Optimizer, options: dict[str, Any]) -> None:
    """Take a step with one number, so that torch says now what it will not do later."""
    import torch

    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    make_optimizer(name, [{"params": [weight]}], options).step()
