"""Models without the searched module, trained with the recipe and the steps of the whole run."""

from __future__ import annotations

from typing import Literal, get_args

from prefixnas.base.errors import unknown
from prefixnas.run.evaluation import BASELINE, EQUAL_WEIGHTS, Evaluation
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Run
from prefixnas.run.training import fit

Baseline = Literal["none", "alone", "both"]
"""`alone`: the problem without the module; `both`: also resized, to as many trained weights."""


def check_baseline(which: Baseline) -> None:
    """Refuse what is not a `Baseline`.

    Raises:
        UserError: Names those there are.
    """
    if which not in get_args(Baseline):
        raise unknown("baseline", which, get_args(Baseline))


def train_baselines(
    run: Run, recipe: Recipe, which: Baseline, weights: int
) -> dict[str, tuple[str, Evaluation]]:
    """Train the problem without the module, and score it on validation data.

    Args:
        run: The run, whose module is taken away.
        recipe: How weights are trained.
        which: Which models.
        weights: How many weights the child trained; the resized problem has about as many.

    Returns:
        By phase, the label and the scores; empty if the problem needs a module.
    """
    found = dict[str, tuple[str, Evaluation]]()
    if which == "none" or not run.objective.optional:
        return found
    objective = run.objective.undivided()
    with run.working_on(objective):
        found[BASELINE] = _train(run, recipe, BASELINE)
    if which == "both" and (resized := objective.alone(weights)) is not None:
        with run.working_on(resized):
            found[EQUAL_WEIGHTS] = _train(run, recipe, EQUAL_WEIGHTS)
    return found


def _train(run: Run, recipe: Recipe, phase: str) -> tuple[str, Evaluation]:
    run.reset(None)
    fit(run, phase, run.budget.whole, recipe)
    label = run.objective.without_label
    return label, run.evaluate(label, "validation")
