"""From configuration to a run that could start: everything cheap is looked up, built and checked.

`prefixnas search` plans one run with it, `prefixnas compare` all of its runs before the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefixnas.base.errors import UserError, brief, unknown
from prefixnas.base.memory import TRAINED, memory_of_machine, refuse_beyond
from prefixnas.base.options import FLAG, default_of, fields_of, make, renamed, resolve
from prefixnas.base.plugins import load_named, trust
from prefixnas.launch.config import RunConfig, run_options, word_for_alone
from prefixnas.network.supernet import check_operations
from prefixnas.report.trackers import check_names
from prefixnas.run.baselines import Baseline
from prefixnas.run.events import Event
from prefixnas.run.objective import OBJECTIVES, Objective, ObjectiveConfig, fit_space
from prefixnas.run.run import Budget, Run
from prefixnas.run.strategy import STRATEGIES, Strategy, check_module
from prefixnas.space.loading import load_space
from prefixnas.space.space import NO_MODULE, SearchSpace

Layers = Sequence[tuple[str, Mapping[str, Any]]]
"""Pairs of where values come from (a file, `prefixnas.base.options.FLAG`) and the values."""


@dataclass(frozen=True)
class RunPlan:
    """Everything cheap of a run.

    Attributes:
        run: What every run has.
        strategy: How to search.
        objective: The options of the problem.
        space: The search space.
        budget: Steps for searching, for training on, and for own weights apart.
    """

    run: RunConfig
    strategy: Strategy
    objective: ObjectiveConfig
    space: SearchSpace
    budget: Budget

    @property
    def baseline(self) -> Baseline:
        """What is trained without the module, in the driver's word."""
        word = word_for_alone(type(self.objective))
        return "alone" if self.run.baseline == word else self.run.baseline

    def build(self) -> Objective:
        """Load data and models, and try on them what the space needs of them.

        Raises:
            UserError: A model, a task, an operation, a knob or a size is not usable.
        """
        objective = self.objective.build(self.budget.whole, self.run.seed)
        self.fit(objective)
        return objective

    def fit(self, objective: Objective) -> None:
        """Try on a built problem what space and strategy need of it.

        Raises:
            UserError: An operation, a knob, a size or a proxy is not usable.
        """
        space = fit_space(self.space, objective)  # first: the problem knows what is missing
        check_module(self.strategy, space, objective)
        self.strategy.check(space, self.run.settings, self.budget)
        check_operations(space, objective.width)
        self.strategy.check_objective(objective)
        trained = self.strategy.trained_at_most(space, self.run.settings, objective.width)
        refuse_beyond({"the searched module": trained * TRAINED}, memory_of_machine())

    def open(
        self,
        folder: Path,
        objective: Objective,
        on_event: Callable[[Event], None] | None = None,
        *,
        resume: bool = False,
        blind: bool = False,
    ) -> Run:
        """Open the run in its folder; see `Run`."""
        return Run(
            folder,
            self.space,
            objective,
            self.budget,
            self.run.seed,
            settings=self.run.settings,
            checkpoint_every=self.run.checkpoint_every,
            on_event=on_event,
            resume=resume,
            blind=blind,
        )


def find_options(layers: Layers) -> tuple[dict[str, type[Any]], dict[str, str]]:
    """Find the dataclasses whose fields are a run's keys; plugins are loaded on the way.

    Those that a file names are loaded if the user named them by a flag, too.

    Args:
        layers: Where "strategy", "objective" and "plugin" may be named; the last one wins.

    Returns:
        The dataclasses, see `prefixnas.base.options.Sections`, and the names of strategy,
        objective and parts of the objective.

    Raises:
        UserError: A name is unknown, or a plugin cannot be loaded, or only a file names it.
    """
    values: dict[str, Any] = {"strategy": RunConfig.strategy, "objective": None}
    plugins: list[tuple[str, str]] = []
    origin: dict[str, str] = {}
    for where, layer in layers:
        for name in ("strategy", "objective"):
            if layer.get(name) is not None:
                if not isinstance(layer[name], str):
                    raise UserError(
                        f"{where}: key {name!r}: expected a name, not {brief(layer[name])}"
                    )
                values[name], origin[name] = layer[name], where
        given = layer.get("plugin") or []
        given = [given] if isinstance(given, str) else given
        if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
            raise UserError(f"{where}: key 'plugin': must be a list of texts, not {brief(given)}")
        if where == FLAG:
            trust(given)
        plugins += [(plugin, where) for plugin in given]
    for plugin, where in plugins:
        load_named(plugin, where)
    names = {**values, "objective": values["objective"] or _only_objective()}
    with _named(origin.get("objective", FLAG), "objective"):
        objective = OBJECTIVES.get(names["objective"])
        if not issubclass(objective, ObjectiveConfig):
            raise UserError(
                f"objective {names['objective']!r}: its class {objective.__name__} must derive "
                "from prefixnas.ObjectiveConfig"
            )
    with _named(origin.get("strategy", FLAG), "strategy"):
        strategy = STRATEGIES.get(names["strategy"])
    parts = _parts(objective, layers)
    names |= parts
    objective = objective.with_parts(parts) if parts else objective
    options: dict[str, type[Any]] = {
        "run": run_options(objective),
        "strategy": strategy,
        "objective": objective,
    }
    return options, names


def _parts(objective: type[Any], layers: Layers) -> dict[str, str]:
    """Return the names of an objective's parts (`ObjectiveConfig.parts`); the last layer wins."""
    keys = getattr(objective, "parts", {})  # it may have no such base
    known = fields_of({"objective": objective}) if keys else {}
    names = {key: str(default_of(known[key])) for key in keys}
    for where, layer in layers:
        given = renamed(layer, known, where)
        for key in keys:
            if given.get(key) is None:
                continue
            if not isinstance(given[key], str):
                raise UserError(f"{where}: key {key!r}: expected a name, not {brief(given[key])}")
            if given[key] not in keys[key]:
                place = f"--{key.replace('_', '-')}" if where == FLAG else f"{where}: key {key!r}"
                raise unknown(keys[key].kind, given[key], keys[key].names(), place)
            names[key] = given[key]
    return names


@contextmanager
def _named(where: str, key: str) -> Iterator[None]:
    """Put the file and the key in front of what is wrong with a name, if it is from a file."""
    try:
        yield
    except UserError as error:
        if where == FLAG:
            raise
        raise UserError(f"{where}: key {key!r}: {error}") from error


def resolve_run(layers: Layers) -> dict[str, Any]:
    """Return every key of a run's configuration; a strategy's own space is taken if none is named.

    Args:
        layers: Where values come from, and the values; later layers win.

    Raises:
        UserError: An unknown name or key, or a value that its type does not allow.
    """
    options, names = find_options(layers)
    values = resolve(options, layers)
    values["objective"] = names["objective"]
    if not any("space" in layer for _, layer in layers):
        strategy: Strategy = make(options["strategy"], values)
        alone = NO_MODULE if strategy.takes_none and _part_alone(options, layers) else None
        values["space"] = strategy.default_space() or alone or values["space"]
    if _by_epochs(layers):
        objective: ObjectiveConfig = make(options["objective"], values)
        values["steps"] = max(1, math.ceil(values["epochs"] * objective.epoch(values["seed"])))
    values["epochs"] = None  # a run is told by its steps
    return values


def _by_epochs(layers: Layers) -> bool:
    """Tell whether epochs are given in the place of steps; the last layer to name either wins.

    Raises:
        UserError: One layer names both.
    """
    named = False
    for where, layer in layers:
        steps, epochs = (layer.get(key) not in (None, "none") for key in ("steps", "epochs"))
        if steps and epochs:
            place = "--steps, --epochs" if where == FLAG else f"{where}: keys 'steps' and 'epochs'"
            raise UserError(f"{place}: say one of them")
        named = epochs or (named and not steps)
    return named


def check_space(layers: Layers) -> None:
    """Look for the spaces that the last layer to name any names, so that what is wrong says where.

    Raises:
        UserError: There is no such space, or a mistake in it.
    """
    named = ((where, layer["space"]) for where, layer in reversed(layers) if layer.get("space"))
    where, spaces = next(named, (FLAG, []))
    for space in [spaces] if isinstance(spaces, str) else spaces:
        with _named(where, "space"):
            load_space(space)


def _part_alone(options: Mapping[str, type[Any]], layers: Layers) -> bool:
    """Tell whether the user names a part of the objective, and nothing of a module.

    Who does, and searches nothing, wants that part alone.
    """
    objective = options["objective"]
    known, parts = fields_of({"objective": objective}), set(getattr(objective, "parts", {}))
    given = {key for where, layer in layers for key in renamed(layer, known, where)}
    return bool(parts & given) and "set" not in given


def plan_run(values: Mapping[str, Any]) -> RunPlan:
    """Build everything cheap, so that mistakes show before anything is loaded or written.

    Args:
        values: Every key of the configuration, see `resolve_run`.

    Raises:
        UserError: A value outside its limits, no such space, or a space that the strategy refuses.
    """
    options, _ = find_options([("configuration", values)])
    run, strategy, objective = (
        make(options[part], values) for part in ("run", "strategy", "objective")
    )
    strategy.check_recipe(run)
    check_names(run.report_to)
    space = load_space(run.space)
    apart = objective.steps_apart(run.steps)
    for_search = round((run.steps - apart) * run.search_fraction)
    budget = Budget(for_search, run.steps - apart - for_search, apart)
    check_module(strategy, space, None)
    if not space.sizes:  # decisions may depend on the objective's sizes: see `RunPlan.build`
        strategy.check(space, run.settings, budget)
    return RunPlan(run, strategy, objective, space, budget)


def _only_objective() -> str:
    names = OBJECTIVES.names()
    problems = [name for name in names if name not in _BENCHMARKS]
    if len(problems) != 1:
        raise UserError(f"name the problem: --objective ({', '.join(names) or 'none installed'})")
    return problems[0]


_BENCHMARKS = ("tabular",)
"""Objectives for trying strategies on: they are named, never taken for a user's problem."""
