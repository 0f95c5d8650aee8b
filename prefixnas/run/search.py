"""The driver: search, discretise, train on, compare with no module at all, write the result."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime

from prefixnas.base.errors import UserError
from prefixnas.base.files import write_text
from prefixnas.run import events
from prefixnas.run.answers import FILE
from prefixnas.run.baselines import (
    Baseline,
    check_baseline,
    score_on_test,
    steps_of_baselines,
    train_baselines,
)
from prefixnas.run.evaluation import ARGMAX, MIXTURE, TRAINED, UNTOUCHED, Evaluation
from prefixnas.run.objective import Objective
from prefixnas.run.recipe import Recipe
from prefixnas.run.result import SearchResult, write_result
from prefixnas.run.run import Run
from prefixnas.run.strategy import STRATEGIES, Strategy, check_module
from prefixnas.run.training import fit
from prefixnas.run.turns import APART, after_training, before_search, check_turns
from prefixnas.space.loading import hash_of_space, space_to_yaml


def search(
    run: Run, strategy: Strategy, recipe: Recipe | None = None, *, baseline: Baseline = "both"
) -> SearchResult:
    """Search with `strategy`, train the found child on, and score everything on validation data.

    Search steps that a strategy leaves over go into training, so that runs of one budget cost
    the same. The baselines without a module get the same number of steps and the same recipe. On
    the space `none` the problem is trained without a module: there is no architecture to score.
    Where nothing was searched there is no argmax child to score before training on.
    Own weights of the problem that train apart (`Objective.order`) do so before the search, or
    after everything else.

    Args:
        run: Space, objective, budget, seed, folder.
        strategy: How to search.
        recipe: How weights are trained.
        baseline: What to train without a module, if the objective can: `none`, the objective
            `alone`, or `both` that and the objective resized to as many trained weights.

    Raises:
        UserError: The strategy refuses the space, the budget or the objective, or the run began
            with other data, or on another space.

    Example:
        >>> from pathlib import Path
        >>> from prefixnas import Budget, Run, load_space
        >>> from prefixnas.strategies import Darts
        >>> from prefixnas.testing import ToyObjective
        >>> run = Run(Path("toy"), load_space("default"), ToyObjective(), Budget(20, 10), seed=0)
        >>> result = search(run, Darts(relaxation="gumbel"))
        >>> result.architecture["layer0/activation"] in ("relu", "gelu", "tanh", "leaky_relu")
        True
        >>> list(result.columns)
        ['untouched', 'linear alone', 'mixture', 'argmax child', 'trained child']
    """
    recipe = recipe or Recipe()
    check_baseline(baseline)
    _check(run, strategy, recipe)
    began = time.monotonic()
    objective = run.objective
    columns: dict[str, Evaluation | None] = {}
    # Without a module the run is its own baseline.
    baseline = "none" if run.space.empty else baseline
    run.once("started", lambda: _start(run, strategy, steps_of_baselines(run, baseline)))
    warned = run.once("warned at the start", lambda: _warn(run, ()))
    if objective.optional:
        run.reset(None)
        columns[UNTOUCHED] = run.report(UNTOUCHED, "validation")

    before_search(run, recipe)
    found = strategy.search(run, recipe)
    spent = run.spent
    if not run.space.empty:
        run.once("announced", lambda: run.emit(events.Architecture(found.architecture.choices)))
        columns[MIXTURE] = found.mixture
    if spent and run.space.size > 1:  # else nothing stands between the start and the result
        columns[ARGMAX] = run.report(ARGMAX, "validation")

    fit(run, "train", run.budget.total - spent, recipe, before=spent, former=found.optimizer)
    after_training(run, recipe)
    columns[TRAINED] = run.report(TRAINED, "validation")
    selected = run.evaluate(TRAINED, "selection")
    tested = score_on_test(run, TRAINED)
    parameters = run.once("trained parameters", lambda: _count(objective))
    every = run.once("parameters", objective.count_weights)
    if found.mixture is not None:
        run.once("discretised", lambda: _say_gap(run, columns))
    if run.ranks.first:
        found.architecture.save(run.folder / "architecture.yaml")
    run.once("saved", lambda: _save(run))

    baselines = train_baselines(run, recipe, baseline, parameters)
    run.once("warned", lambda: _warn(run, warned))

    seconds = run.once("seconds", lambda: round(time.monotonic() - began, 1))
    others = {each.label: each.validation for each in baselines.values()}
    tests = {**{each.label: each.test for each in baselines.values()}, TRAINED: tested}
    result = SearchResult(
        found.architecture,
        _ordered(columns, others),
        selected,
        run.folder,
        {label: each for label, each in tests.items() if each is not None},
    )
    if run.ranks.first:
        labels = {phase: each.label for phase, each in baselines.items()}
        known = {"trained_parameters": parameters, "parameters": every, "baselines": labels}
        write_result(run, result, known, seconds)
    run.once("described", lambda: _describe(run))
    run.once("end", lambda: run.emit(events.End(seconds)))
    return result


def _check(run: Run, strategy: Strategy, recipe: Recipe) -> None:
    """Refuse what does not fit together, before anything is trained."""
    check_module(strategy, run.space, run.objective)
    check_turns(run.objective, run.budget)
    strategy.check(run.space, run.settings, run.budget)
    strategy.check_objective(run.objective)
    strategy.check_recipe(recipe)
    _check_space(run)
    _check_data(run)


def _say_gap(run: Run, columns: Mapping[str, Evaluation | None]) -> None:
    """Emit the scores before and after the choice, where there was a mixture to choose from."""
    scored = [columns.get(name) for name in (MIXTURE, ARGMAX, TRAINED)]
    mixture, argmax, trained = (each.score if each is not None else None for each in scored)
    if mixture is not None and argmax is not None and trained is not None:
        run.emit(events.Discretisation(mixture, argmax, trained, mixture - argmax))


def _ordered(
    columns: Mapping[str, Evaluation | None], baselines: Mapping[str, Evaluation | None]
) -> dict[str, Evaluation | None]:
    """Return the columns of the table: what a result has to beat stands before it."""
    first = {label: column for label, column in columns.items() if label == UNTOUCHED}
    return {**first, **baselines, **columns}


def _check_space(run: Run) -> None:
    """Refuse to go on on another space; a run of an earlier version has no note of its own."""
    now = hash_of_space(run.space)
    if run.once("space", lambda: now) != now:
        raise UserError(
            f"{run.folder}: cannot go on: the space {run.space.name!r} is not what the run began "
            "with; put it back, or begin a new run"
        )


def _check_data(run: Run) -> None:
    """Refuse to go on with other data than the run began with."""
    now = dict(run.objective.data)
    began: dict[str, str] = run.once("data", lambda: now)
    changed = [name for name in {**began, **now} if began.get(name) != now.get(name)]
    if changed:
        raise UserError(
            f"{run.folder}: cannot go on: the data of {changed[0]!r} is not what the run began "
            "with; put it back, or begin a new run"
        )


def _start(run: Run, strategy: Strategy, baselines: Mapping[str, int]) -> None:
    """Note what begins, and keep the space, whose file may change later."""
    if run.ranks.first:
        write_text(run.folder / "space.yaml", space_to_yaml(run.space))
        (run.folder / FILE).unlink(missing_ok=True)  # of a run that was here before
    name = STRATEGIES.name_of(type(strategy)) or type(strategy).__name__
    steps = {"search": run.budget.search, "train": run.budget.train}
    steps |= {APART: run.budget.apart} if run.budget.apart else {}
    began = datetime.now().astimezone().isoformat(timespec="seconds")
    about = dict(run.objective.about)
    noted = (run.space.name, name, run.objective.name, run.seed, steps, baselines, began, about)
    run.emit(events.Start(*noted))


def _warn(run: Run, known: Sequence[str]) -> list[str]:
    """Emit what the objective warns of and is not known yet; return all of it."""
    messages = list(run.objective.warnings())
    for message in messages:
        if message not in known:
            run.emit(events.Warning(message))
    return messages


def _save(run: Run) -> None:
    if not run.ranks.first:
        return
    folder = run.folder / "adapter"
    folder.mkdir(exist_ok=True)
    run.objective.save(folder)


def _describe(run: Run) -> None:
    if run.ranks.first:
        run.objective.finished(run.folder)


def _count(objective: Objective) -> int:
    """Count the numbers that are trained: the module's and all others."""
    return sum(weight.numel() for group in objective.parameters() for weight in group["params"])
