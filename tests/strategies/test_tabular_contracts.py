"""Every shipped strategy and relaxation keeps the contract on the tabular objective."""

from __future__ import annotations

import pytest

from prefixnas.network.relaxations import RELAXATIONS
from prefixnas.run.strategy import STRATEGIES
from prefixnas.space.loading import load_space
from prefixnas.strategies.fixed import Fixed
from prefixnas.testing import check_relaxation, check_strategy
from prefixnas.testing.tabular.objective import TabularObjective
from tests.strategies.searches import SEARCHES


@pytest.mark.parametrize("name", SEARCHES)
def test_strategy_keeps_the_contract(name: str) -> None:
    spaces = [load_space("tabular")]
    check_strategy(SEARCHES[name], spaces=spaces, objective=TabularObjective, other_process=False)


def test_all_shipped_searches_are_here() -> None:
    searches = {type(strategy) for strategy in SEARCHES.values()} | {Fixed}
    assert {STRATEGIES.get(name) for name in STRATEGIES.names()} <= searches


@pytest.mark.parametrize("name", RELAXATIONS.names())
def test_relaxation_keeps_the_contract(name: str) -> None:
    spaces = [load_space("tabular")]
    check_relaxation(RELAXATIONS.get(name)(), spaces=spaces, objective=TabularObjective)
