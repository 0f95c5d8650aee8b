"""The contract on every strategy that tries architectures, with either source of weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from prefixnas.multitrial.strategy import TrialStrategy
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.evolution import Evolution
from prefixnas.strategies.random import RandomSearch
from prefixnas.strategies.surrogate import Surrogate
from prefixnas.strategies.tpe import Tpe
from prefixnas.testing import StrategyCheck, check_strategy, shipped_spaces

SPACE = SearchSpace(
    "small",
    Stack(
        2,
        Seq(
            "linear",
            Choice("activation", ["relu", "tanh", "gelu"]),
            Choice("end", ["identity", "layer_norm"], "trial"),
        ),
    ),
)
RANDOM, EVOLUTION = RandomSearch(trials=3), Evolution(trials=4, population=2, sample=2)
TPE, SURROGATE = Tpe(trials=4, startup=2), Surrogate(trials=4, startup=2, pool=20)
WEIGHTS = ["train", "one-shot"]


def label(item: object) -> str:
    return item if isinstance(item, str) else type(item).__name__


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("strategy", [RANDOM, EVOLUTION, TPE, SURROGATE], ids=label)
def test_it_keeps_every_promise(strategy: TrialStrategy, weights: Any) -> None:
    check_strategy(replace(strategy, weights=weights), spaces=[SPACE], other_process=False)


@pytest.mark.parametrize("strategy", [TPE, replace(SURROGATE, weights="one-shot")], ids=label)
def test_another_process_gives_the_same_run(strategy: TrialStrategy) -> None:
    StrategyCheck(strategy, SPACE).other_process()


@pytest.mark.parametrize("space", shipped_spaces(), ids=lambda space: space.name)
@pytest.mark.parametrize("strategy", [EVOLUTION, replace(RANDOM, weights="one-shot")], ids=label)
def test_it_runs_and_resumes_on_shipped_spaces(strategy: TrialStrategy, space: SearchSpace) -> None:
    check = StrategyCheck(strategy, space)
    check.architecture()
    check.budget()
    check.resume()
