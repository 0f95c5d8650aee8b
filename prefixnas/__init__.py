"""PrefixNAS: architecture search for small modules inside a bigger training problem."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefixnas.architecture import Architecture as Architecture
    from prefixnas.errors import UserError as UserError
    from prefixnas.objective import Evaluation as Evaluation
    from prefixnas.objective import Objective as Objective
    from prefixnas.ops import register_op as register_op
    from prefixnas.relaxation import Relaxation as Relaxation
    from prefixnas.relaxation import register_relaxation as register_relaxation
    from prefixnas.run import Budget as Budget
    from prefixnas.run import Run as Run
    from prefixnas.search import SearchResult as SearchResult
    from prefixnas.search import search as search
    from prefixnas.space import Choice as Choice
    from prefixnas.space import Op as Op
    from prefixnas.space import SearchSpace as SearchSpace
    from prefixnas.space import Seq as Seq
    from prefixnas.space import Stack as Stack
    from prefixnas.space import Sum as Sum
    from prefixnas.space_yaml import load_space as load_space
    from prefixnas.strategy import Found as Found
    from prefixnas.strategy import Strategy as Strategy
    from prefixnas.strategy import register_strategy as register_strategy
    from prefixnas.supernet import Supernet as Supernet
    from prefixnas.supernet import build_child as build_child
    from prefixnas.supernet import weights_of as weights_of
    from prefixnas.training import Recipe as Recipe
    from prefixnas.training import fit as fit

_PUBLIC = {
    "architecture": ("Architecture",),
    "errors": ("UserError",),
    "objective": ("Evaluation", "Objective"),
    "ops": ("register_op",),
    "relaxation": ("Relaxation", "register_relaxation"),
    "run": ("Budget", "Run"),
    "search": ("SearchResult", "search"),
    "space": ("Choice", "Op", "SearchSpace", "Seq", "Stack", "Sum"),
    "space_yaml": ("load_space",),
    "strategy": ("Found", "Strategy", "register_strategy"),
    "supernet": ("Supernet", "build_child", "weights_of"),
    "training": ("Recipe", "fit"),
}
_MODULES = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    # Importing the package alone must not import torch.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


class _Package(ModuleType):
    """Keeps `prefixnas.search` the function when the submodule of that name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "search" and isinstance(value, ModuleType):
            value = value.search
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
