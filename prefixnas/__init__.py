"""PrefixNAS: architecture search for small modules inside a bigger training problem."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefixnas.architecture import Architecture as Architecture
    from prefixnas.child import knobs_of as knobs_of
    from prefixnas.config import option as option
    from prefixnas.driver import SearchResult as SearchResult
    from prefixnas.driver import search as search
    from prefixnas.errors import UserError as UserError
    from prefixnas.objective import Evaluation as Evaluation
    from prefixnas.objective import Objective as Objective
    from prefixnas.objective import register_objective as register_objective
    from prefixnas.open_space import OpenSpace as OpenSpace
    from prefixnas.ops import register_op as register_op
    from prefixnas.relaxation import Relaxation as Relaxation
    from prefixnas.relaxation import register_relaxation as register_relaxation
    from prefixnas.run import Budget as Budget
    from prefixnas.run import Run as Run
    from prefixnas.space import Choice as Choice
    from prefixnas.space import Decision as Decision
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
    from prefixnas.supervised import SupervisedObjective as SupervisedObjective
    from prefixnas.training import Best as Best
    from prefixnas.training import Recipe as Recipe
    from prefixnas.training import fit as fit
    from prefixnas.trials import Scored as Scored
    from prefixnas.trials import TrialStrategy as TrialStrategy

_PUBLIC = {
    "architecture": ("Architecture",),
    "child": ("knobs_of",),
    "config": ("option",),
    "driver": ("SearchResult", "search"),
    "errors": ("UserError",),
    "objective": ("Evaluation", "Objective", "register_objective"),
    "open_space": ("OpenSpace",),
    "ops": ("register_op",),
    "relaxation": ("Relaxation", "register_relaxation"),
    "run": ("Budget", "Run"),
    "space": ("Choice", "Decision", "Op", "SearchSpace", "Seq", "Stack", "Sum"),
    "space_yaml": ("load_space",),
    "strategy": ("Found", "Strategy", "register_strategy"),
    "supernet": ("Supernet", "build_child", "weights_of"),
    "supervised": ("SupervisedObjective",),
    "training": ("Best", "Recipe", "fit"),
    "trials": ("Scored", "TrialStrategy"),
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
