"""Models without the searched module, trained with the recipe and the steps of the whole run."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from prefixnas.base.errors import unknown
from prefixnas.run.evaluation import BASELINE, EQUAL_WEIGHTS, Evaluation
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Run
from prefixnas.run.training import fit

Baseline = Literal["none", "alone", "both"]
"""`alone`: the problem without the module; `both`: also resized, to as many trained weights."""


class Scored(NamedTuple):
    """A trained baseline: its name in tables and its scores; None: see `Run.report`."""

    label: str
    validation: Evaluation | None
    test: Evaluation | None


def check_baseline(which: Baseline) -> None:
    """Refuse what is not a `Baseline`.

    Raises:
        UserError: Names those there are.
    """
    if which not in get_args(Baseline):
        raise unknown("baseline", which, get_args(Baseline))


def steps_of_baselines(run: Run, which: Baseline) -> dict[str, int]:
    """Return by phase how many steps `train_baselines` takes; a resized problem may be left out."""
    if which == "none" or not run.objective.optional:
        return {}
    phases = [BASELINE, EQUAL_WEIGHTS] if which == "both" else [BASELINE]
    return dict.fromkeys(phases, run.budget.whole)


def train_baselines(run: Run, recipe: Recipe, which: Baseline, weights: int) -> dict[str, Scored]:
    """Train the problem without the module, and score it on validation and test data.

    Args:
        run: The run, whose module is taken away.
        recipe: How weights are trained.
        which: Which models.
        weights: How many weights the child trained; the resized problem has about as many.

    Returns:
        By phase, what was scored; empty if the problem needs a module.
    """
    found = dict[str, Scored]()
    if which == "none" or not run.objective.optional:
        return found
    objective = run.objective.undivided()
    with run.working_on(objective):
        found[BASELINE] = _train(run, recipe, BASELINE)
    if which == "both" and (resized := objective.alone(weights)) is not None:
        with run.working_on(resized):
            found[EQUAL_WEIGHTS] = _train(run, recipe, EQUAL_WEIGHTS)
    return found


def _train(run: Run, recipe: Recipe, phase: str) -> Scored:
    run.reset(None)
    fit(run, phase, run.budget.whole, recipe)
    label = run.objective.without_label
    validation = run.report(label, "validation")
    return Scored(label, validation, score_on_test(run, label))


def score_on_test(run: Run, name: str) -> Evaluation | None:
    """Score a trained model on the split "test", once; None: there is no such split."""
    return run.report(name, "test") if run.objective.tested else None
