"""Own weights and module one after the other: what an objective with an `order` needs of a run."""

from __future__ import annotations

from prefixnas.base.errors import UserError
from prefixnas.run.objective import Objective
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.training import fit

APART = "apart"
"""The phase in which own weights train apart from the module."""


def check_turns(objective: Objective, budget: Budget) -> None:
    """Refuse a budget that does not fit the objective's order.

    Raises:
        UserError: There are no steps for own weights that train apart, or steps and no such order.
    """
    if (objective.order == "together") == (budget.apart > 0):
        raise UserError(
            f"objective {objective.name!r}: its order is {objective.order!r}, and the budget has "
            f"{budget.apart} steps for own weights apart from the module"
        )


def before_search(run: Run, recipe: Recipe) -> None:
    """Train own weights that come first; from then on the module alone trains, if in turn."""
    order = run.objective.order
    if order == "own first":
        run.objective.turn("own")
        fit(run, APART, run.budget.apart, recipe)
    if order != "together":
        run.objective.turn("module")


def after_training(run: Run, recipe: Recipe) -> None:
    """Train own weights that come last, beside the trained module; then nothing is held still."""
    order = run.objective.order
    if order == "module first":
        run.objective.turn("own")
        fit(run, APART, run.budget.apart, recipe)
    if order != "together":
        run.objective.turn("both")
