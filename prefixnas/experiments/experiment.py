"""The experiment file: which searches to try, and how good is measured. Every engine reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from prefixnas.base.errors import UserError, brief, unknown
from prefixnas.base.options import FLAG, Options, make, option, resolve, types_of
from prefixnas.base.plugins import trust, trusted
from prefixnas.base.yaml import load_yaml
from prefixnas.experiments.hyperparameters import (
    Alternatives,
    Hyperparameter,
    Range,
    corners,
    read_hyperparameters,
    refuse_doubles,
)
from prefixnas.experiments.samplers import try_samplers
from prefixnas.experiments.storage import without_password
from prefixnas.launch.config import read_config
from prefixnas.run.evaluation import AVERAGE


@dataclass(frozen=True)
class Target:
    """What is to be as good as possible.

    Attributes:
        metric: `average`, or a task's name: the score of the trained child on the split
            "selection".
        direction: Scores are higher for better models, so there is little reason for `minimize`.
    """

    metric: str = AVERAGE
    direction: Literal["maximize", "minimize"] = "maximize"


@dataclass(frozen=True)
class ExperimentFile(Options):
    """The keys of an experiment file, as they are written in it."""

    name: str = option("experiment", "letters, digits, dots, dashes: names the study")
    base: dict[str, Any] = option({}, "keys of `prefixnas search`, the same for every trial")
    hyperparameters: dict[str, Any] = option({}, "keys that differ, with their bounds or options")
    objective: dict[str, Any] = option({}, "metric and direction")
    trials: int = option(100, "trials of the study", at_least=1, at_most=10**6)
    early_stopping: dict[str, Any] = option({}, "patience: epochs without a better score")
    sampler: str | dict[str, Any] = option("tpe", "Optuna's sampler: a name, or name: options")
    pruner: str | dict[str, Any] = option("none", "Optuna's pruner: a name, or name: options")
    storage: str | None = option(None, "a file, or the URL of a database; none: in the folder")
    seed: int = option(0, "seed of the sampler", at_least=0, below=2**32)
    workers: int = option(1, "trials that run side by side", at_least=1, at_most=1024)
    nni: dict[str, Any] = option({}, "settings of NNI")


FREE = ("trials", "workers", "nni")
"""Keys that may change between a study and its resumption."""


@dataclass(frozen=True)
class Experiment:
    """A checked experiment.

    Attributes:
        file: All keys as they were written, defaults filled in.
        where: The file's name, for messages.
        hyperparameters: What differs between trials.
        target: What counts.
    """

    file: ExperimentFile
    where: str
    hyperparameters: tuple[Hyperparameter, ...]
    target: Target

    @property
    def name(self) -> str:
        """The study's name."""
        return self.file.name

    @property
    def trials(self) -> int:
        """How many trials there are to be."""
        return self.file.trials

    def base(self) -> dict[str, Any]:
        """Return the keys that are the same for every trial.

        The baseline without a module is left out, unless the file asks for it: it costs as much as
        the trial, and doesn't count.
        """
        patience = self.file.early_stopping.get("patience")
        stopping = {} if patience is None else {"patience": patience}
        return {"baseline": "none", **self.file.base, **stopping}

    def resolve(self, assigned: Mapping[str, Any]) -> dict[str, Any]:
        """Return the complete configuration of `prefixnas search` for one trial.

        Args:
            assigned: The keys that the hyper-parameters set.

        Raises:
            UserError: A key or a value that the search does not allow.
        """
        from prefixnas.launch.plan import check_space, plan_run, resolve_run

        layers = [
            (f"{self.where}: base", self.base()),
            (f"{self.where}: hyperparameters", assigned),
        ]
        values = resolve_run(layers)
        check_space(layers)
        plan_run(values)
        return values

    @cached_property
    def searches(self) -> Sequence[Mapping[str, Any]]:
        """Complete configurations in which each bound and each option occurs."""
        return [self.resolve(corner) for corner in corners(self.hyperparameters)]

    def example(self) -> dict[str, Any]:
        """Return the complete configuration of some trial."""
        return self.resolve(next(corners(self.hyperparameters)))

    def epochs(self) -> int | None:
        """Return how many epochs a trial has at most; None: nothing is looked at."""
        every = [
            int(values["steps"]) // int(values["eval_every"])
            for values in self.searches
            if values["eval_every"]
        ]
        return max(every, default=None)

    def processes(self) -> int:
        """Return how many processes a trial takes at most."""
        return max(int(values["processes"]) for values in self.searches)

    def spaces(self) -> dict[str, str]:
        """Return a hash of every space that a trial may search, by its name or file."""
        from prefixnas.space.loading import hash_of_space, load_space

        found = {values["space"] for values in self.searches}
        return {name: hash_of_space(load_space(name)) for name in sorted(found)}

    def to_json(self) -> dict[str, Any]:
        """Return all keys of the file, as plain values."""
        return {entry.name: getattr(self.file, entry.name) for entry in fields(self.file)}

    def order(self) -> dict[str, Any]:
        """Return what another process reads it from, see `read_order`; YAML keeps numeric keys."""
        text = yaml.safe_dump(self.to_json(), sort_keys=False)
        return {"where": self.where, "experiment": text, "plugins": trusted()}

    def shown(self) -> dict[str, Any]:
        """Return `to_json` without the password of a database: as it may be shown and kept."""
        storage = self.file.storage
        return {**self.to_json(), "storage": storage and without_password(storage)}

    def resolved(self) -> dict[str, Any]:
        """Return every key of the experiment, every key of its base.

        The password of a database is left out.
        """
        varied = {key for corner in corners(self.hyperparameters) for key in corner}
        varied |= {"patience"} if self.file.early_stopping else set()
        kept = {key: value for key, value in self.example().items() if key not in varied}
        return {**self.shown(), "base": kept, "objective": asdict(self.target)}

    def dump(self) -> str:
        """Return what is resolved as the text of a file."""
        return yaml.safe_dump(self.resolved(), sort_keys=False)

    def refuse_change(self, stored: Mapping[str, Any], where: str) -> None:
        """Refuse to go on with a study under another experiment.

        Args:
            stored: What `shown` gave when the study began, as JSON.
            where: The study, for the message.

        Raises:
            UserError: Names the first key that differs.
        """
        former = stored.get("storage")
        if isinstance(former, str):  # some versions kept a password that stands behind the "?"
            stored = {**stored, "storage": without_password(former)}
        for key, value in json.loads(json.dumps(self.shown())).items():
            if key not in FREE and stored.get(key) != value:
                path, was, is_ = _first_difference(stored.get(key), value)
                raise UserError(
                    f"{where}: cannot go on with another experiment: {key + path!r} was "
                    f"{brief(was)} and is now {brief(is_)}"
                )


def load_experiment(path: Path, changes: Mapping[str, Any] | None = None) -> Experiment:
    """Read and check an experiment file; nothing is built or loaded.

    Args:
        path: The YAML file.
        changes: Keys of the file that are typed as flags instead.

    Raises:
        UserError: Any mistake in the file: an unknown key (with the nearest one), bounds upside
            down, a value that the search does not allow.
    """
    layers = [(str(path), read_config(path)), (FLAG, dict(changes or {}))]
    return read_experiment(layers, str(path))


def read_experiment(layers: Any, where: str) -> Experiment:
    """Check an experiment that is given as layers of keys; see `prefixnas.base.options.resolve`.

    Raises:
        UserError: As `load_experiment`.
    """
    file: ExperimentFile = make(ExperimentFile, resolve({"experiment": ExperimentFile}, layers))
    if not re.fullmatch(r"[\w][\w.-]*", file.name):
        raise UserError(
            f"{where}: key 'name': letters, digits, dots, dashes, not {brief(file.name)}"
        )
    _check_patience(file, where)
    objective = resolve({"objective": Target}, [(f"{where}: objective", file.objective)])
    parameters = read_hyperparameters(file.hyperparameters, f"{where}: hyperparameters")
    if not parameters and file.trials > 1:
        raise UserError(
            f"{where}: without hyperparameters all {file.trials} trials would be the same: "
            "name some, or set 'trials' to 1"
        )
    experiment = Experiment(file, where, parameters, make(Target, objective))
    _check_keys(experiment)
    try_samplers(file.sampler, file.pruner, parameters, file.seed, where)
    return experiment


def read_order(order: Mapping[str, Any]) -> Experiment:
    """Check the experiment that another process was given; see `Experiment.order`."""
    where = order["where"]
    trust(order.get("plugins", ()))
    return read_experiment([(where, load_yaml(order["experiment"], where))], where)


def _check_patience(file: ExperimentFile, where: str) -> None:
    for key, value in file.early_stopping.items():
        if key != "patience":
            raise unknown("key", key, ["patience"], f"{where}: early_stopping")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(
                f"{where}: early_stopping: patience must be a whole number of epochs, "
                f"at least 1, not {brief(value)}"
            )
        if "patience" in file.base:
            raise UserError(f"{where}: patience stands in base and in early_stopping")


def _check_keys(experiment: Experiment) -> None:
    """Try every bound and every option in the search that it is for."""
    where, file = f"{experiment.where}: hyperparameters", experiment.file
    taken = dict.fromkeys(file.base, "base") | dict.fromkeys(file.early_stopping, "early_stopping")
    refuse_doubles(experiment.hyperparameters, taken, where)
    from prefixnas.launch.plan import find_options

    for assigned in corners(experiment.hyperparameters):
        layers = [(f"{experiment.where}: base", experiment.base()), (where, assigned)]
        kinds = types_of(find_options(layers)[0])
        _check_kinds(experiment.hyperparameters, assigned, kinds, where)
        values = experiment.resolve(assigned)
        needs = "early_stopping counts epochs" if file.early_stopping else ""
        needs = needs or ("pruner looks at every epoch" if file.pruner != "none" else "")
        if needs and not values["eval_every"]:
            raise UserError(
                f"{experiment.where}: {needs}: set 'eval_every' in base, the steps of an epoch"
            )


def _check_kinds(
    hyperparameters: tuple[Hyperparameter, ...],
    assigned: Mapping[str, Any],
    kinds: Mapping[str, Any],
    where: str,
) -> None:
    """Refuse a range for a key that takes no such numbers."""
    for parameter in hyperparameters:
        kind = kinds.get(parameter.key)
        if isinstance(parameter, Range) and kind is not None:
            takes = {kind, *getattr(kind, "__args__", ())}
            if not takes & {int, float}:
                raise UserError(f"{where}: {parameter.name!r} takes no numbers: use choice")
            if not parameter.whole and float not in takes:
                raise UserError(
                    f"{where}: {parameter.name!r} takes whole numbers: use int or logint"
                )
        elif isinstance(parameter, Alternatives):
            for each in parameter.options:
                if assigned.get(parameter.key) == each.value:
                    _check_kinds(each.within, assigned, kinds, where)


def _first_difference(before: Any, now: Any) -> tuple[str, Any, Any]:
    """Return the path to the first key that differs, and what it was and is."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in [*before, *(key for key in now if key not in before)]:
            if before.get(key) != now.get(key):
                path, *values = _first_difference(before.get(key), now.get(key))
                return f".{key}{path}", values[0], values[1]
    return "", before, now
