"""The contract of a search strategy: one method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from prefixnas.base.errors import UserError
from prefixnas.base.options import Options
from prefixnas.base.registry import Registry
from prefixnas.network.supernet import count_at_most
from prefixnas.run.evaluation import Evaluation
from prefixnas.run.objective import Objective
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.training import WeightOptimizer
from prefixnas.space.architecture import Architecture
from prefixnas.space.space import SearchSpace


@dataclass(frozen=True)
class Found:
    """What a strategy hands over.

    Attributes:
        architecture: The architecture that it chose.
        mixture: Validation scores of the mixture it was cut out of, where there is one.
        optimizer: What moved the attached weights last, so that training goes on with its
            moments; None: with fresh ones.
    """

    architecture: Architecture
    mixture: Evaluation | None = None
    optimizer: WeightOptimizer | None = None


class Strategy(Options, ABC):
    """A way to search. Subclasses are dataclasses, whose fields are their options.

    Every field is a key of the configuration and a flag of the command line, with the help text
    of `prefixnas.base.options.option(default, "help")`.

    Example:
        >>> from prefixnas import Architecture, build_child, option
        >>> @dataclass(frozen=True)
        ... class Named(Strategy):
        ...     activation: str = option("tanh", "the activation of every layer")
        ...
        ...     def search(self, run, recipe):
        ...         choices = {d.name: self.activation for d in run.space.decisions}
        ...         architecture = Architecture(choices, run.space.name)
        ...         run.reset(build_child(run.space, architecture, run.objective.width))
        ...         return Found(architecture)
        >>> Named(activation=3)
        Traceback (most recent call last):
        prefixnas.base.errors.UserError: key 'activation': must be a text, not 3
    """

    takes_none: ClassVar[bool] = False
    """Whether it can train a problem without a module: on the space `none`."""

    def check(self, space: SearchSpace, settings: Mapping[str, str], budget: Budget) -> None:
        """Refuse what cannot be searched, before anything is loaded, written or trained.

        Args:
            space: The search space.
            settings: Options of choices that are set by hand.
            budget: Steps for searching and for training on.

        Raises:
            UserError: An option or the space does not fit this strategy.
        """
        space.settle(settings)

    def check_objective(self, objective: Objective) -> None:
        """Refuse an objective that lacks what this strategy needs, before anything is trained.

        Args:
            objective: The problem, loaded.

        Raises:
            UserError: Names what is missing.
        """

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse a way to train weights that this strategy cannot search with.

        Args:
            recipe: How weights are trained.

        Raises:
            UserError: Names the key.
        """

    def trained_at_most(self, space: SearchSpace, settings: Mapping[str, str], width: int) -> int:
        """Return how many parameters of the searched module train at a time, at most.

        A run that memory does not suffice for is refused by it. Unless a strategy knows better,
        all candidates of the choices by alpha do, as in a supernet.

        Args:
            space: The search space.
            settings: Options of choices that are set by hand.
            width: Width of the module's input.
        """
        return count_at_most(space, settings, width, together=True)

    def default_space(self) -> str | None:
        """Return the space to search where the user names none; None: the usual default."""
        return None

    @abstractmethod
    def search(self, run: Run, recipe: Recipe) -> Found:
        """Find an architecture within `run.budget.search` steps.

        When it returns, a module of that architecture is attached to the run (`run.reset` or
        `run.replace`), with the weights that training goes on from. Loops go through `run.steps`
        or `fit(..., counted=True)`, everything else that must not be repeated on resume through
        `run.once` and `run.evaluate`. Choices are made on the split "selection".

        Args:
            run: Space, objective, budget and seed, and the loops.
            recipe: How weights are trained.
        """


def check_module(strategy: Strategy, space: SearchSpace, objective: Objective | None) -> None:
    """Refuse the space without a module where something needs one.

    Args:
        strategy: How to search.
        space: The space.
        objective: The problem; None: not built yet.

    Raises:
        UserError: Says what needs it.
    """
    if not space.empty:
        return
    if not strategy.takes_none:
        name = STRATEGIES.name_of(type(strategy)) or type(strategy).__name__
        raise UserError(
            f"space {space.name!r} leaves the strategy {name!r} nothing to search: take the "
            "strategy 'fixed'"
        )
    if objective is not None and not objective.optional:
        raise UserError(
            f"space {space.name!r}: the objective {objective.name!r} cannot be trained without a "
            "module"
        )


STRATEGIES: Registry[type[Strategy]] = Registry("strategy", "prefixnas.strategies")
register_strategy = STRATEGIES.register
"""Offer a strategy under a name: `@register_strategy("darts")`, for `--strategy`."""
