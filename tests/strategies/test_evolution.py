"""Regularised evolution."""

from __future__ import annotations

import random

import pytest

from prefixnas import UserError
from prefixnas.multitrial.strategy import Scored
from prefixnas.run.run import Budget
from prefixnas.space.architecture import Architecture
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.open_space import OpenSpace
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.evolution import Evolution

SPACE = SearchSpace("s", Stack(4, Seq("linear", Choice("f", ["relu", "tanh", "gelu", "silu"]))))
REST = OpenSpace(SPACE)


def history(scores: list[float]) -> list[Scored]:
    rng = random.Random(1)
    return [Scored(REST.sample(rng), score) for score in scores]


def differences(one: Architecture, other: Architecture) -> int:
    return sum(one[name] != other[name] for name in one)


def test_the_first_population_is_random() -> None:
    evolution = Evolution(population=5, sample=2)
    drawn = {evolution.propose(REST, history([1.0] * 4), random.Random(i)) for i in range(200)}
    assert len(drawn) > 100


def test_the_child_of_the_best_of_all_differs_from_it_in_one_decision() -> None:
    told = history([0.0, 3.0, 2.0, 1.0])
    evolution = Evolution(population=4, sample=4)
    for seed in range(50):
        child = evolution.propose(REST, told, random.Random(seed))
        assert differences(child, told[1].architecture) == 1


def test_the_oldest_dies_however_good_it_is() -> None:
    told = history([9.0, 0.0, 2.0, 1.0])
    evolution = Evolution(population=3, sample=3)
    for seed in range(50):
        child = evolution.propose(REST, told, random.Random(seed))
        assert differences(child, told[2].architecture) == 1


def test_parents_win_as_often_as_a_tournament_says() -> None:
    """Of 4 alive, with 2 competing, the ranks win 3, 2, 1 and 0 of 6 times."""
    told = history([3.0, 2.0, 1.0, 0.0])
    wins = [0, 0, 0, 0]
    for seed in range(600):
        child = Evolution(population=4, sample=2).propose(REST, told, random.Random(seed))
        parents = [i for i, trial in enumerate(told) if differences(child, trial.architecture) == 1]
        wins[parents[0]] += 1
    assert wins == pytest.approx([300, 200, 100, 0], abs=50)


def test_a_sample_larger_than_the_population() -> None:
    with pytest.raises(UserError, match="'sample': must be at most the population of 3, not 4"):
        Evolution(population=3, sample=4).check(SPACE, {}, Budget(20, 5))
