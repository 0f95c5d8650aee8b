"""PrefixNAS: architecture search for small modules inside a bigger training problem."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefixnas.base.errors import UserError as UserError
    from prefixnas.base.options import option as option
    from prefixnas.multitrial.strategy import Scored as Scored
    from prefixnas.multitrial.strategy import TrialStrategy as TrialStrategy
    from prefixnas.network.child import knobs_of as knobs_of
    from prefixnas.network.relaxations import Relaxation as Relaxation
    from prefixnas.network.relaxations import register_relaxation as register_relaxation
    from prefixnas.network.supernet import Supernet as Supernet
    from prefixnas.network.supernet import build_child as build_child
    from prefixnas.network.supernet import weights_of as weights_of
    from prefixnas.run.evaluation import Evaluation as Evaluation
    from prefixnas.run.objective import Objective as Objective
    from prefixnas.run.objective import register_objective as register_objective
    from prefixnas.run.run import Budget as Budget
    from prefixnas.run.run import Run as Run
    from prefixnas.run.search import SearchResult as SearchResult
    from prefixnas.run.search import search as search
    from prefixnas.run.strategy import Found as Found
    from prefixnas.run.strategy import Strategy as Strategy
    from prefixnas.run.strategy import register_strategy as register_strategy
    from prefixnas.run.supervised import SupervisedObjective as SupervisedObjective
    from prefixnas.run.training import Best as Best
    from prefixnas.run.training import Recipe as Recipe
    from prefixnas.run.training import fit as fit
    from prefixnas.space.architecture import Architecture as Architecture
    from prefixnas.space.loading import load_space as load_space
    from prefixnas.space.open_space import OpenSpace as OpenSpace
    from prefixnas.space.ops import register_op as register_op
    from prefixnas.space.space import Choice as Choice
    from prefixnas.space.space import Decision as Decision
    from prefixnas.space.space import Op as Op
    from prefixnas.space.space import SearchSpace as SearchSpace
    from prefixnas.space.space import Seq as Seq
    from prefixnas.space.space import Stack as Stack
    from prefixnas.space.space import Sum as Sum

_PUBLIC = {
    "space.architecture": ("Architecture",),
    "network.child": ("knobs_of",),
    "base.options": ("option",),
    "run.search": ("SearchResult", "search"),
    "base.errors": ("UserError",),
    "run.objective": ("Evaluation", "Objective", "register_objective"),
    "space.open_space": ("OpenSpace",),
    "space.ops": ("register_op",),
    "network.relaxations": ("Relaxation", "register_relaxation"),
    "run.run": ("Budget", "Run"),
    "space.space": ("Choice", "Decision", "Op", "SearchSpace", "Seq", "Stack", "Sum"),
    "space.loading": ("load_space",),
    "run.strategy": ("Found", "Strategy", "register_strategy"),
    "network.supernet": ("Supernet", "build_child", "weights_of"),
    "run.supervised": ("SupervisedObjective",),
    "run.training": ("Best", "Recipe", "fit"),
    "multitrial.strategy": ("Scored", "TrialStrategy"),
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
