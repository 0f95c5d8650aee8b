"""How far searches agree, against random architectures."""

from __future__ import annotations

import itertools
import random
import statistics
from pathlib import Path

import numpy as np
import pytest

from prefixnas.compare.agreement import OVERALL, agreement
from prefixnas.compare.results import CellResult
from prefixnas.compare.summary import _agreement
from prefixnas.run.run import Budget, Run
from prefixnas.run.search import search
from prefixnas.space.decisions import Decision
from prefixnas.space.loading import load_space
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace
from prefixnas.strategies import RandomSearch
from prefixnas.testing import ToyObjective


def decisions(**options: str) -> list[Decision]:
    return [Decision(name, tuple(labels), "alpha") for name, labels in options.items()]


def test_agreement_by_hand() -> None:
    choices = [{"a": "x", "b": "x"}, {"a": "x", "b": "y"}, {"a": "y"}]
    first, second, overall = agreement(choices, decisions(a="xy", b="xyz"))
    np.testing.assert_allclose([first.share, second.share, overall.share], [1 / 3, 0, 1 / 6])
    np.testing.assert_allclose(
        [first.chance, second.chance, overall.chance], [1 / 2, 1 / 3, 5 / 12]
    )


def test_the_p_value_is_that_of_all_draws() -> None:
    choices = [{"a": "x", "b": "x"}, {"a": "x", "b": "y"}, {"a": "x", "b": "x"}]
    *_, overall = agreement(choices, decisions(a="xy", b="xyz"))
    assert overall.decision == OVERALL
    every = list(itertools.product("xy", "xyz"))
    shares = []
    for drawn in itertools.product(every, repeat=3):
        pairs = list(itertools.combinations(drawn, 2))
        shares.append(statistics.fmean((p[0] == q[0]) + (p[1] == q[1]) for p, q in pairs) / 2)
    exact = statistics.fmean(share >= overall.share - 1e-9 for share in shares)
    assert overall.p_value is not None
    np.testing.assert_allclose(overall.p_value, exact, atol=0.02)


def test_two_searches_are_needed_to_agree() -> None:
    assert agreement([{"a": "x"}], decisions(a="xy")) == []


def nested() -> SearchSpace:
    inner = Stack(5, Seq("linear", Choice("f", ["tanh", "relu", "gelu", "sigmoid"])))
    return SearchSpace("n", Choice("outer", ["linear", inner]))


@pytest.mark.parametrize("space", [nested(), load_space("wide")], ids=["nested", "wide"])
def test_random_architectures_agree_as_chance_says(space: SearchSpace) -> None:
    drawn = []
    for seed in range(100):
        found = [space.sample(random.Random(f"{seed}/{run}")) for run in range(3)]
        drawn.append(agreement(found, space.decisions, 2_000))
    for rows in zip(*drawn, strict=True):
        shares = [row.share for row in rows]
        close = 4 * statistics.stdev(shares) / len(shares) ** 0.5
        assert statistics.fmean(shares) == pytest.approx(rows[0].chance, abs=close)
    p_values = [rows[-1].p_value for rows in drawn]
    assert sum(p is not None and p <= 0.1 for p in p_values) <= 20, "some ten are expected"


@pytest.mark.parametrize("settings", [{}, {"layer0/activation": "tanh"}])
def test_what_a_supernet_or_a_setting_holds_is_no_agreement(
    settings: dict[str, str], tmp_path: Path
) -> None:
    runs, space = [], load_space("default")
    for seed in range(3):
        objective, folder = ToyObjective(), tmp_path / str(seed)
        run = Run(folder, space, objective, Budget(4, 1), seed, settings=settings)
        chosen = [f"{name}={option}" for name, option in settings.items()]
        (folder / "config.yaml").write_text(f"set: {chosen}\nweights: one-shot\n")
        found = search(run, RandomSearch(trials=2, weights="one-shot"), baseline="none")
        cell = ("default", "random", "search", seed, seed, "finished")
        runs.append(
            CellResult(
                *cell, score=0.0, architecture=found.architecture.choices, folder=str(folder)
            )
        )
    open_names = [
        decision.name
        for decision in space.decisions
        if decision.name.endswith("activation") and decision.name not in settings
    ]
    pairs = list(itertools.combinations([run.architecture or {} for run in runs], 2))
    same = [one[name] == other[name] for one, other in pairs for name in open_names]
    share, chance = _agreement(runs)
    assert len(open_names) == 6 - len(settings)
    assert share == pytest.approx(statistics.fmean(same))
    assert chance == pytest.approx(1 / 4)
