"""The driver: search, discretise, train on, compare with no module at all, write the result."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

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
from prefixnas.run.evaluation import (
    ARGMAX,
    MIXTURE,
    TRAINED,
    UNTOUCHED,
    Evaluation,
    differences,
)
from prefixnas.run.objective import Objective
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Run
from prefixnas.run.strategy import STRATEGIES, Strategy, check_module
from prefixnas.run.training import fit
from prefixnas.run.turns import APART, after_training, before_search, check_turns
from prefixnas.space.architecture import Architecture
from prefixnas.space.loading import space_to_yaml


@dataclass(frozen=True)
class SearchResult:
    """What a run found and how it scored.

    Attributes:
        architecture: The chosen architecture.
        columns: Validation scores, in the order of the table; None where there is nothing to score.
        selected: The trained child's scores on the split "selection": hyper-parameters are chosen
            by them, as the architecture was.
        folder: The run directory.
        tested: Scores on the split "test", of the trained child and the baselines; empty where the
            objective has none.
    """

    architecture: Architecture
    columns: Mapping[str, Evaluation | None]
    selected: Evaluation
    folder: Path
    tested: Mapping[str, Evaluation] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> SearchResult:
        """Read the result of a finished run."""
        data = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        columns = {
            label: Evaluation.from_json(column) if column is not None else None
            for label, column in data["columns"].items()
        }
        architecture = Architecture.load(folder / "architecture.yaml")
        tested = {label: Evaluation.from_json(c) for label, c in data.get("test", {}).items()}
        return cls(architecture, columns, Evaluation.from_json(data["selection"]), folder, tested)

    def __fspath__(self) -> str:
        """Return the run directory: whatever takes its path takes the result."""
        return str(self.folder)

    @property
    def score(self) -> float:
        """The trained child's average score."""
        trained = self.columns[TRAINED]
        assert trained is not None
        return trained.score

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """The validation score of every task, by column; empty where there is nothing to score."""
        return {
            label: dict(column.task_scores) if column is not None else {}
            for label, column in self.columns.items()
        }

    @property
    def adapter(self) -> Path:
        """The folder of what was trained, as the objective saved it."""
        return self.folder / "adapter"

    @property
    def events(self) -> list[events.Event]:
        """What happened in the run, read from its file."""
        return events.read_events(self.folder)


def search(
    run: Run, strategy: Strategy, recipe: Recipe | None = None, *, baseline: Baseline = "both"
) -> SearchResult:
    """Search with `strategy`, train the found child on, and score everything on validation data.

    Search steps that a strategy leaves over go into training, so that runs of one budget cost
    the same. The baselines without a module get the same number of steps and the same recipe. On
    the space `none` the problem is trained without a module: there is no architecture to score.
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
            with other data.

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
    check_module(strategy, run.space, run.objective)
    check_turns(run.objective, run.budget)
    strategy.check(run.space, run.settings, run.budget)
    strategy.check_objective(run.objective)
    strategy.check_recipe(recipe)
    began = time.monotonic()
    objective, budget = run.objective, run.budget
    columns: dict[str, Evaluation | None] = {}
    _check_data(run)
    # Without a module the run is its own baseline.
    baseline = "none" if run.space.empty else baseline
    run.once("started", lambda: _start(run, strategy, steps_of_baselines(run, baseline)))
    warned = run.once("warned at the start", lambda: _warn(run, ()))
    if objective.optional:
        run.reset(None)
        columns[UNTOUCHED] = run.evaluate(UNTOUCHED, "validation")

    before_search(run, recipe)
    found = strategy.search(run, recipe)
    architecture = found.architecture
    argmax: Evaluation | None = None
    if not run.space.empty:
        run.once("announced", lambda: run.emit(events.Architecture(architecture.choices)))
        columns[MIXTURE] = found.mixture
        columns[ARGMAX] = argmax = run.evaluate(ARGMAX, "validation")

    spent = run.spent
    fit(run, "train", budget.total - spent, recipe, before=spent, former=found.optimizer)
    after_training(run, recipe)
    columns[TRAINED] = trained = run.evaluate(TRAINED, "validation")
    selected = run.evaluate(TRAINED, "selection")
    tested = score_on_test(run, TRAINED)
    parameters = run.once("trained parameters", lambda: _count(objective))
    every = run.once("parameters", objective.count_weights)
    if (mixture := found.mixture) is not None and argmax is not None:
        scores = mixture.score, argmax.score, trained.score
        gap = mixture.score - argmax.score
        run.once("discretised", lambda: run.emit(events.Discretisation(*scores, gap)))
    if run.ranks.first:
        architecture.save(run.folder / "architecture.yaml")
    run.once("saved", lambda: _save(run))

    baselines = train_baselines(run, recipe, baseline, parameters)
    run.once("warned", lambda: _warn(run, warned))

    seconds = run.once("seconds", lambda: round(time.monotonic() - began, 1))
    others = {each.label: each.validation for each in baselines.values()}
    tests = {**{each.label: each.test for each in baselines.values()}, TRAINED: tested}
    result = SearchResult(
        architecture,
        _ordered(columns, others),
        selected,
        run.folder,
        {label: each for label, each in tests.items() if each is not None},
    )
    if run.ranks.first:
        labels = {phase: each.label for phase, each in baselines.items()}
        known = {"trained_parameters": parameters, "parameters": every, "baselines": labels}
        _write_result(run, result, known, seconds)
    run.once("described", lambda: _describe(run))
    run.once("end", lambda: run.emit(events.End(seconds)))
    return result


def _ordered(
    columns: Mapping[str, Evaluation | None], baselines: Mapping[str, Evaluation]
) -> dict[str, Evaluation | None]:
    """Return the columns of the table: what a result has to beat stands before it."""
    first = {label: column for label, column in columns.items() if label == UNTOUCHED}
    return {**first, **baselines, **columns}


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


def _write_result(run: Run, result: SearchResult, more: Mapping[str, Any], seconds: float) -> None:
    columns = {
        label: evaluation.to_json() if evaluation is not None else None
        for label, evaluation in result.columns.items()
    }
    tested = {label: evaluation.to_json() for label, evaluation in result.tested.items()}
    data: dict[str, Any] = {
        "columns": columns,
        "differences": differences(result.columns),
        "selection": result.selected.to_json(),
        **({"test": tested} if tested else {}),
        "architecture": result.architecture.choices,
        "space": run.space.name,
        "steps": {"search": run.spent, "total": run.budget.whole},
        "seed": run.seed,
        "width": run.objective.width,
        **more,
        "seconds": seconds,
    }
    write_text(run.folder / "result.json", json.dumps(data, indent=2) + "\n")
