"""Optuna's samplers and pruners by name: `tpe`, `median`, `{hyperband: {reduction_factor: 3}}`."""

from __future__ import annotations

import inspect
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from prefixnas.base.errors import UserError, nearest, unknown
from prefixnas.experiments.hyperparameters import Alternatives, Hyperparameter, assign
from prefixnas.experiments.rows import quiet

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial, TrialState

Named = str | Mapping[str, Any]
"""How an engine stands in the file: its name, or a mapping from its name to its options."""

_SHARED = ("qmc", "grid", "brute-force")
"""Samplers whose trials share one sequence, so that all of them need the same seed."""
_ONE_GRID = "grid"
"""A sampler whose parameters share one shuffled list of points as well."""


def make_pruner(named: Named, where: str, epochs: int | None = None) -> BasePruner:
    """Build a pruner; `none` never prunes.

    Args:
        named: Its name, with options or without.
        where: The file, for messages.
        epochs: How many epochs a trial has, which is hyperband's `max_resource`.

    Raises:
        UserError: An unknown name or option, or a value that Optuna refuses.
    """
    import optuna

    if named == "none":
        return optuna.pruners.NopPruner()
    pruner: BasePruner = _build(
        optuna.pruners, "Pruner", named, {"max_resource": epochs or "auto"}, where
    )
    return pruner


def make_sampler(named: Named, seed: int, where: str) -> BaseSampler:
    """Build a sampler whose proposals follow from the seed, the trial's number and the names.

    So processes that share a study propose different trials, and a resumed study none again; a
    trial that was lost between two proposals gets the second one as it would have been.

    Args:
        named: Its name, with options or without.
        seed: The seed.
        where: The file, for messages.

    Raises:
        UserError: An unknown name or option, or a value that Optuna refuses.
    """
    import optuna

    base = optuna.samplers.BaseSampler

    class Seeded(base):  # type: ignore[misc, valid-type]
        """Asks a sampler that is made for each trial anew."""

        def __init__(self) -> None:
            self._inner: BaseSampler = build(0)
            self._number = 0

        def _of(self, trial: FrozenTrial) -> BaseSampler:
            if trial.number != self._number:
                self._inner, self._number = build(trial.number), trial.number
            return self._inner

        def infer_relative_search_space(
            self, study: Study, trial: FrozenTrial
        ) -> dict[str, BaseDistribution]:
            return self._of(trial).infer_relative_search_space(study, trial)

        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> dict[str, Any]:
            return self._of(trial).sample_relative(study, trial, search_space)

        def sample_independent(
            self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
        ) -> Any:
            inner = build(trial.number, name)
            return inner.sample_independent(study, trial, name, distribution)

        def before_trial(self, study: Study, trial: FrozenTrial) -> None:
            self._of(trial).before_trial(study, trial)

        def after_trial(
            self,
            study: Study,
            trial: FrozenTrial,
            state: TrialState,
            values: Sequence[float] | None,
        ) -> None:
            with suppress(RuntimeError):  # grid search ends `optimize`, which is not in use here
                self._of(trial).after_trial(study, trial, state, values)

    def build(number: int, parameter: str = "") -> BaseSampler:
        name = _innermost(named, where)
        shared = name in _SHARED and (not parameter or name == _ONE_GRID)
        own = (seed * 1_000_003 + number + zlib.crc32(parameter.encode())) % 2**32
        given = {"seed": seed if shared else own}
        sampler: BaseSampler = _build(optuna.samplers, "Sampler", named, given, where)
        return sampler

    return Seeded()


def suggest(trial: Trial, parameter: Hyperparameter) -> Any:
    """Return what the trial's sampler proposes for one hyper-parameter."""
    if isinstance(parameter, Alternatives):
        labels = [option.label for option in parameter.options]
        return trial.suggest_categorical(parameter.name, labels)
    low, high = parameter.low, parameter.high
    if parameter.whole:
        return trial.suggest_int(parameter.name, int(low), int(high), log=parameter.log)
    return trial.suggest_float(parameter.name, low, high, log=parameter.log)


def try_samplers(
    sampler: Named, pruner: Named, parameters: Sequence[Hyperparameter], seed: int, where: str
) -> None:
    """Let sampler and pruner handle a few trials that nobody runs: some fail only in their work.

    Args:
        sampler: The sampler, by name.
        pruner: The pruner, by name.
        parameters: What the sampler is to propose.
        seed: The sampler's seed.
        where: The file, for messages.

    Raises:
        UserError: An unknown name or option, or a sampler or a pruner that cannot do it.
    """
    import optuna

    makers = {"sampler": make_sampler(sampler, seed, where), "pruner": make_pruner(pruner, where)}
    at_work = "sampler"
    try:
        with quiet():
            study = optuna.create_study(**makers)  # type: ignore[arg-type]
            for number in range(3):
                at_work, trial = "sampler", study.ask()
                assign(parameters, partial(suggest, trial))
                trial.report(0.0, 1)
                at_work = "pruner"
                trial.should_prune()
                study.tell(trial, float(number))
    except Exception as error:
        name = _split({"sampler": sampler, "pruner": pruner}[at_work], at_work, where)[0]
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{where}: {at_work} {name!r} fails here: {said}") from error


def names(module: ModuleType, kind: str) -> dict[str, type[Any]]:
    """Return the classes of a module of Optuna by their short names: `TPESampler` is `tpe`."""
    found = {name: getattr(module, name) for name in dir(module) if name.endswith(kind)}
    return {
        _short(name, kind): cls
        for name, cls in found.items()
        if inspect.isclass(cls) and not name.startswith("Base")
    }


def _short(name: str, kind: str) -> str:
    stem = name.removesuffix(kind).replace("CmaEs", "Cmaes")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", stem).lower()


def _split(named: Named, kind: str, where: str) -> tuple[str, Mapping[str, Any]]:
    if isinstance(named, str):
        return named, {}
    if isinstance(named, Mapping) and len(named) == 1:
        ((name, options),) = named.items()
        if options is None:
            return str(name), {}
        if isinstance(options, Mapping):
            return str(name), options
    raise UserError(f"{where}: {kind.lower()}: expected a name, or NAME: {{OPTION: VALUE}}")


def _innermost(named: Named, where: str) -> str:
    """Return the name of the sampler that does the work: that inside `partial-fixed`, say."""
    name, options = _split(named, "Sampler", where)
    inner = options.get("base_sampler")
    return _short(name, "Sampler") if inner is None else _innermost(inner, where)


def _build(
    module: ModuleType, kind: str, named: Named, given: Mapping[str, Any], where: str
) -> Any:
    name, options = _split(named, kind, where)
    known = names(module, kind)
    label = kind.lower()
    short = _short(name, kind)
    if short not in known:
        raise unknown(label, name, known, where)
    place = f"{where}: {label} {short!r}"
    parameters = inspect.signature(known[short]).parameters
    for key in options:
        if key not in parameters:
            raise UserError(
                f"{place}: unknown option {key!r}{nearest(key, parameters)} "
                f"(allowed: {', '.join(parameters) or 'none'})"
            )
    values = {key: value for key, value in given.items() if key in parameters}
    for key, value in options.items():
        inner = key.rpartition("_")[2]  # wrapped_pruner, independent_sampler, base_sampler
        nested = inner in ("pruner", "sampler") and value is not None
        values[key] = _build(module, inner.capitalize(), value, given, place) if nested else value
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in values:
            raise UserError(f"{place}: option {key!r} is missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # options that Optuna calls experimental
            return known[short](**values)
    except ImportError as error:
        raise UserError(f"{place}: needs a package that is not installed: {error.name}") from error
    except (TypeError, ValueError, AssertionError, AttributeError) as error:
        raise UserError(f"{place}: {' '.join(str(error).split()) or 'refused'}") from error
