"""Numbers of options: whatever is beyond all measure is refused in one line with its key."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, get_args

import pytest

from peml.objective.options import LanguageModelOptions
from prefixnas.base.errors import LINE, UserError
from prefixnas.base.options import LEAST, MOST, Options, default_of, option, resolve, types_of
from prefixnas.compare.variants import CompareConfig
from prefixnas.experiments.experiment import ExperimentFile
from prefixnas.experiments.hyperparameters import read_hyperparameters
from prefixnas.experiments.nni.settings import NniSettings
from prefixnas.launch.config import RunConfig
from prefixnas.run.strategy import STRATEGIES

ABSURD = (10**400, -(10**400), 10**12, -(10**12), 1e300, -1e300, 1e-300, math.inf, math.nan)
SECTIONS = [
    RunConfig,
    LanguageModelOptions,
    CompareConfig,
    ExperimentFile,
    NniSettings,
    *(STRATEGIES.get(name) for name in STRATEGIES.names()),
]


def numbers(section: type[Any]) -> list[tuple[str, bool, dict[str, float]]]:
    """List an options class's numeric keys, whether they are whole, and their limits."""
    found = []
    for name, kind in types_of({"": section}).items():
        kinds = {kind, *get_args(kind)}
        if kinds & {int, float}:
            entry = next(e for e in dataclasses.fields(section) if e.name == name)
            found.append((name, float not in kinds, dict(entry.metadata.get("limits", {}))))
    return found


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_no_option_takes_an_absurd_number(section: type[Any]) -> None:
    defaults = {entry.name: default_of(entry) for entry in dataclasses.fields(section)}
    for name, whole, limits in numbers(section):
        for value in ABSURD:
            positive = "above" in limits or limits.get("at least", 0) > 0
            if value == 1e-300 and not positive and not whole:
                continue
            given = [value] if isinstance(defaults[name], list) else value
            with pytest.raises(UserError, match=f"key '{name}': must be") as refused:
                section(**{**defaults, name: given})
            assert len(str(refused.value)) <= LINE


def test_limits_of_a_number_that_has_none_of_its_own() -> None:
    @dataclass(frozen=True)
    class Free(Options):
        whole: int = option(3, "")
        rate: float = option(0.5, "", above=0)
        several: list[int] = option([], "")

    Free(whole=-MOST, rate=LEAST, several=[MOST])
    for wrong in ({"whole": MOST + 1}, {"rate": LEAST / 2}, {"several": [0, -MOST - 1]}):
        with pytest.raises(UserError, match="must be at"):
            Free(**wrong)


@pytest.mark.parametrize("kind", ["int", "logint", "uniform", "loguniform"])
@pytest.mark.parametrize("bound", [10**400, 1e300, math.inf, math.nan, "9" * 400, "1e400"])
def test_no_bound_is_absurd(kind: str, bound: object) -> None:
    with pytest.raises(
        UserError, match=r"f\.yaml: hyper-parameter 'steps': a bound must be"
    ) as said:
        read_hyperparameters({"steps": {kind: [1, bound]}}, "f.yaml")
    assert len(str(said.value)) <= LINE


def test_a_number_out_of_its_limits_is_named_with_its_file() -> None:
    with pytest.raises(UserError, match=r"^study\.yaml: key 'steps': must be at least 1"):
        resolve({"run": RunConfig}, [("study.yaml", {"steps": 0})])
