"""Every shipped strategy and relaxation keeps the contract on a tiny language-model objective."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from peml.objective.config import LanguageModelConfig
from prefixnas.network.relaxations import RELAXATIONS
from prefixnas.run.objective import Objective
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace
from prefixnas.testing import check_relaxation, check_strategy
from tests.strategies.searches import SEARCHES

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
    [Choice("attention", ["parallel", "concat"], "trial")],
)


@pytest.fixture
def make(bench: Path) -> Callable[[], Objective]:
    config = LanguageModelConfig(
        model=str(bench / "llama"),
        tasks=[str(bench / "mood"), str(bench / "order")],
        prefix_length=2,
        lora_rank=2,
        batch_size=2,
        eval_limit=4,
    )
    built = config.build(16, 0)
    return lambda: copy.deepcopy(built)


@pytest.mark.parametrize("name", SEARCHES)
def test_strategy_keeps_the_contract(name: str, make: Callable[[], Objective]) -> None:
    check_strategy(SEARCHES[name], spaces=[SPACE], objective=make, other_process=False)


@pytest.mark.parametrize("name", RELAXATIONS.names())
def test_relaxation_keeps_the_contract(name: str, make: Callable[[], Objective]) -> None:
    check_relaxation(RELAXATIONS.get(name)(), spaces=[SPACE], objective=make)
