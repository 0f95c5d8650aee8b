"""The configuration of a run: its own keys, and the file that it is read from and kept in."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, cast, get_type_hints

import yaml

from prefixnas.base.errors import UserError, brief
from prefixnas.base.options import option, read_pairs
from prefixnas.base.yaml import read_yaml
from prefixnas.run.objective import ObjectiveConfig
from prefixnas.run.recipe import Recipe
from prefixnas.space.loading import load_space


@dataclass(frozen=True)
class RunConfig(Recipe):
    """What every run has, whatever its strategy and objective; how weights are trained first."""

    space: str = option("default", "a shipped space or a YAML file")
    strategy: str = option("darts", "how to search")
    objective: str | None = option(None, "the problem; may be left out if only one is installed")
    steps: int = option(
        240, "joint training steps: searching and training on, together", at_least=1, at_most=10**8
    )
    epochs: float | None = option(
        None, "in the place of steps: passes over the training examples", above=0, at_most=10**6
    )
    search_fraction: float = option(
        0.5, "share of the steps that go into searching", at_least=0, below=1
    )
    seed: int = option(0, "seed of everything random", at_least=0, below=2**32)
    set: list[str] = option(
        [], "options of choices, set by hand: activation=tanh (every layer), layer0/activation=relu"
    )
    checkpoint_every: int = option(50, "steps between checkpoints", at_least=1)
    processes: int = option(
        1,
        "processes that train together, one a GPU, each on its share of every batch",
        at_least=1,
        at_most=1024,
    )
    baseline: Literal["none", "alone", "both"] = option(
        "both", "also train without the searched module, at equal steps; both: and at equal weights"
    )
    report_to: list[str] = option(
        [], "trackers that get losses and scores: tensorboard, trackio ..."
    )
    project: str = option("prefixnas", "what trackers call all runs together")
    plugin: list[str] = option([], "modules or .py files that register operations or strategies")

    @property
    def settings(self) -> dict[str, str]:
        """`set` as a mapping from decision to option."""
        return read_pairs(self.set, "key 'set'", "DECISION=OPTION")


@functools.cache
def run_options(objective: type[Any]) -> type[RunConfig]:
    """Return `RunConfig` with an objective's own word for `alone` among the values of `baseline`.

    Args:
        objective: The dataclass of its options; `ObjectiveConfig.alone` is the word.
    """
    word = word_for_alone(objective)
    if word == ObjectiveConfig.alone:
        return RunConfig
    kinds = {**get_type_hints(RunConfig), "baseline": Literal["none", word, "both"]}
    own = inspect.get_annotations(RunConfig)
    fields = [(f.name, kinds[f.name], copy.copy(f)) for f in dataclasses.fields(RunConfig)
              if f.name in own]  # fmt: skip
    made = dataclasses.make_dataclass("RunConfig", fields, bases=(RunConfig,), frozen=True)
    return cast("type[RunConfig]", made)


def word_for_alone(objective: type[Any]) -> str:
    """Return what the key `baseline` calls an objective without the searched module."""
    return str(getattr(objective, "alone", ObjectiveConfig.alone))  # it may have no such base


def read_config(path: Path) -> dict[str, Any]:
    """Read a configuration file: a mapping of keys; the versions that a run noted are left out.

    Raises:
        UserError: Missing, not YAML, or no mapping.
    """
    data = read_yaml(path)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{path}: a configuration is a mapping of keys to values")
    return {str(key): value for key, value in data.items() if key != VERSIONS}


VERSIONS = "versions"


def dump_config(values: Mapping[str, Any]) -> str:
    """Return the YAML text of a resolved configuration, with the versions it ran under."""
    versions = {}
    for package in ("prefixnas", "torch", "transformers", "peft", "accelerate"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return yaml.safe_dump({**values, VERSIONS: versions}, sort_keys=False)


FREE = ("checkpoint_every", "report_to", "project")
"""Keys that may change between a run and its resumption."""


def hash_of_config(values: Mapping[str, Any]) -> str:
    """Return a hash of all values that may not change between a run and its resumption."""
    kept = {name: value for name, value in values.items() if name not in FREE}
    return hashlib.sha256(yaml.safe_dump(kept, sort_keys=True).encode()).hexdigest()


def refuse_former(stored: Mapping[str, Any], keys: Iterable[str], path: Path) -> None:
    """Refuse to resume a run of a version that did not know all keys.

    Raises:
        UserError: Names the first key that it did not know.
    """
    for name in keys:
        if name not in stored and name not in FREE:
            raise UserError(
                f"{path}: was begun by a version without the key {name!r}; go on with the version "
                "that its config.yaml names, or take another --out"
            )


def refuse_change(stored: Mapping[str, Any], values: Mapping[str, Any], path: Path) -> None:
    """Refuse to resume a run under another configuration.

    Raises:
        UserError: Names the first key that differs, or that its version did not know.
    """
    refuse_former(stored, values, path)
    for name, value in values.items():
        if name not in FREE and stored[name] != value:
            raise UserError(
                f"{path}: cannot resume with another configuration: "
                f"{name!r} was {brief(stored[name])} and is now {brief(value)}"
            )


def refuse_other(folder: Path, values: Mapping[str, Any]) -> None:
    """Refuse a run in a folder that was begun as another than the one that is to be there.

    Args:
        folder: The run directory; where none was begun, nothing is refused.
        values: Every key's value.

    Raises:
        UserError: Names the first key that differs, or the space whose file was edited.
    """
    path, kept = folder / "config.yaml", folder / "space.yaml"
    if path.is_file():
        refuse_change(read_config(path), values, folder)
    if path.is_file() and kept.is_file():
        began, now = load_space(str(kept)), load_space(str(values["space"]))
        if began != now.with_sizes(began.sizes):  # those of the objective
            raise UserError(
                f"{folder}: cannot go on: the space {values['space']!r} is not what the run began "
                "with; put it back, or take another --out"
            )
