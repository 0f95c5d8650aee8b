"""Every shipped strategy keeps the contract on the tabular objective."""

from __future__ import annotations

import pytest

from prefixnas.relaxation import RELAXATIONS
from prefixnas.space_yaml import load_space
from prefixnas.strategies.darts import Darts
from prefixnas.strategies.evolution import Evolution
from prefixnas.strategies.fixed import Fixed
from prefixnas.strategies.random import RandomSearch
from prefixnas.strategies.surrogate import Surrogate
from prefixnas.strategies.tpe import Tpe
from prefixnas.strategies.two_stage import TwoStage
from prefixnas.strategy import STRATEGIES, Strategy
from prefixnas.tabular_objective import TabularObjective
from prefixnas.testing import check_strategy

SEARCHES: dict[str, Strategy] = {
    **{f"darts-{name}": Darts(relaxation=name) for name in RELAXATIONS.names()},
    "darts-bilevel": Darts(level="bilevel"),
    "darts-second-order": Darts(level="second-order", prune_below=0),
    "darts-projected": Darts(update="projected"),
    "darts-perturbation": Darts(selection="perturbation"),
    "two-stage": TwoStage(candidates=2),
    "random": RandomSearch(trials=4),
    "evolution": Evolution(trials=6, population=3, sample=2),
    "tpe": Tpe(trials=6, startup=3),
    "surrogate": Surrogate(trials=6, startup=3),
    "evolution-one-shot": Evolution(trials=6, population=3, sample=2, weights="one-shot"),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_strategy_keeps_the_contract(name: str) -> None:
    spaces = [load_space("tabular")]
    check_strategy(SEARCHES[name], spaces=spaces, objective=TabularObjective, other_process=False)


def test_all_shipped_searches_are_here() -> None:
    searches = {type(strategy) for strategy in SEARCHES.values()} | {Fixed}
    assert {STRATEGIES.get(name) for name in STRATEGIES.names()} <= searches
