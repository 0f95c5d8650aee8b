"""Contracts that strategies, relaxations and objectives must pass, for their authors' tests.

Each contract comes as a class to subclass under pytest and as a plain function:

    class TestHillClimb(StrategyContract):
        def strategy(self) -> Strategy:
            return HillClimb()

    check_strategy(HillClimb())

A strategy is tried on every shipped space, and so is a relaxation; other spaces may be named. A
component that breaks a promise raises `BrokenPromise`, an `AssertionError` that names it.

For authors' tests, and the tabular benchmark for trying strategies. May import: up to launch.
"""

from prefixnas.testing.objectives import ObjectiveCheck, ObjectiveContract, check_objective
from prefixnas.testing.promise import BrokenPromise
from prefixnas.testing.relaxations import RelaxationCheck, RelaxationContract, check_relaxation
from prefixnas.testing.spaces import shipped_spaces
from prefixnas.testing.strategies import StrategyCheck, StrategyContract, check_strategy
from prefixnas.testing.toy import ToyObjective

__all__ = [
    "BrokenPromise",
    "ObjectiveCheck",
    "ObjectiveContract",
    "RelaxationCheck",
    "RelaxationContract",
    "StrategyCheck",
    "StrategyContract",
    "ToyObjective",
    "check_objective",
    "check_relaxation",
    "check_strategy",
    "shipped_spaces",
]
