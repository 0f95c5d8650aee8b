"""Regret curves, rank agreement and spread of a table, against tables computed by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from prefixnas.multitrial.strategy import Scored, TrialStrategy
from prefixnas.run.strategy import STRATEGIES
from prefixnas.space.architecture import Architecture
from prefixnas.space.loading import load_space
from prefixnas.space.open_space import OpenSpace
from prefixnas.strategies.darts import Darts
from prefixnas.strategies.random import RandomSearch
from prefixnas.testing.tabular.regret import rank_agreement, regrets, run_regrets, spread
from prefixnas.testing.tabular.table import Table, shipped_table

ARCHITECTURES = list(load_space("tabular").enumerate())
SEEDS = 32


@dataclass(frozen=True)
class InOrder(TrialStrategy):
    """Tries the architectures in the table's order."""

    def propose(
        self, space: OpenSpace, history: Sequence[Scored], rng: random.Random
    ) -> Architecture:
        return ARCHITECTURES[len(history)]


def table(
    selection: Sequence[float], validation: Sequence[float], seeds: Sequence[float] = (0.0, 0.0)
) -> Table:
    """A table whose first architectures score as given, the others -9; seeds add to all alike."""

    def rest(scores: Sequence[float]) -> list[float]:
        return [*scores, *[-9.0] * (len(ARCHITECTURES) - len(scores))]

    children = [
        {
            "architecture": index,
            "seed": seed,
            "steps": {
                "60": {"selection": {"loss": -one - add}, "validation": {"loss": -two - add}}
            },
        }
        for index, (one, two) in enumerate(zip(rest(selection), rest(validation), strict=True))
        for seed, add in enumerate(seeds)
    ]
    up = [{"loss": float(index)} for index in range(len(ARCHITECTURES))]
    supernets = [
        {"training": "mixture", "seed": 0, "steps": {"60": up}},
        {"training": "mixture", "seed": 1, "steps": {"60": up[::-1]}},
    ]
    choices = [architecture.choices for architecture in ARCHITECTURES]
    about = {"space": "tabular"}
    return Table.from_json(
        {"about": about, "architectures": choices, "children": children, "supernets": supernets}
    )


def test_regret_is_that_of_the_best_by_selection_so_far() -> None:
    known = table(selection=[-5, -3, -4, -2], validation=[-4, -6, -1, -5])
    found = regrets(InOrder(), 5, [0, 1], known)
    assert found.tolist() == [[3, 5, 5, 4, 4]] * 2


def test_no_more_evaluations_than_architectures() -> None:
    scores = [-float(number) for number in range(1, 65)]
    found = regrets(RandomSearch(), 100, [0, 1], table(scores, scores))
    assert found.shape == (2, 64)
    assert (found[:, -1] == 0).all()
    assert (np.diff(found) <= 0).all()


def test_random_search_has_the_regret_of_draws_without_repetition() -> None:
    """The expected best of k draws of 64, in closed form from order statistics."""
    scores = sorted((shipped_table().score(a, "validation") for a in ARCHITECTURES), reverse=True)
    known = table(
        *[[shipped_table().score(a, "validation") for a in ARCHITECTURES] for _ in range(2)]
    )
    found = regrets(RandomSearch(), 10, range(300), known)
    expected = 0.0
    left = 1.0
    for rank, score in enumerate(scores):
        chance = left * 10 / (64 - rank)  # the best of ten draws is this one, none above drawn
        expected += chance * (scores[0] - score)
        left *= 1 - 10 / (64 - rank)
        if left <= 1e-12:
            break
    error = found[:, -1].std() / len(found) ** 0.5
    assert abs(found[:, -1].mean() - expected) < 4 * error


@pytest.mark.parametrize("name", ["evolution", "surrogate", "tpe"])
def test_search_has_a_lower_regret_than_random_search_after_20_evaluations(name: str) -> None:
    """By more than two standard errors of the difference; docs/benchmark.md has 100 seeds."""
    found = regrets(STRATEGIES.get(name)(), 20, range(SEEDS))[:, -1]
    chance = regrets(RandomSearch(), 20, range(SEEDS))[:, -1]
    error = np.hypot(found.std(), chance.std()) / SEEDS**0.5
    assert found.mean() + 2 * error < chance.mean()


def test_whole_runs_give_the_regret_of_what_they_choose() -> None:
    found = run_regrets(Darts(alpha_warmup=0), 60, [0])
    possible = [shipped_table().regret(architecture) for architecture in ARCHITECTURES]
    assert min(abs(found[0] - one) for one in possible) < 1e-9


def test_agreement_is_kendalls_tau_with_the_trained_children() -> None:
    rising = [float(number) for number in range(64)]
    known = table(rising, rising)
    falling, same = (rank_agreement(net.scores, known) for net in known.supernets)
    assert (falling.tau, same.tau) == (-1, 1)
    assert (falling.regret, same.regret) == (63, 0)


def test_spread_takes_off_what_a_seed_adds_to_all() -> None:
    rising = [float(number) for number in range(64)]
    found = spread(table(rising, rising, seeds=(0.0, 5.0, -2.0)))
    assert found.architectures == pytest.approx(np.std(rising, ddof=1))
    assert found.seeds == pytest.approx(0, abs=1e-9)
