"""Random architectures and random search."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.open_space import OpenSpace
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.random import RandomSearch
from prefixnas.testing import ToyObjective

SPACE = SearchSpace("s", Stack(2, Seq("linear", Choice("f", ["relu", "tanh", "zero"]))))


def make(folder: Path, **more: Any) -> Run:
    return Run(folder, SPACE, ToyObjective(), Budget(12, 5), **more)


def drawn(trials: int, seed: int = 0) -> list[Any]:
    tried = RandomSearch(trials=trials).explore(OpenSpace(SPACE), lambda _: 0.0, seed)
    return [trial.architecture for trial in tried]


def test_one_trial_costs_no_search(tmp_path: Path) -> None:
    run = make(tmp_path)
    found = RandomSearch().search(run, Recipe())
    assert run.spent == 0
    assert (run.folder / "metrics.jsonl").read_text() == ""
    assert found.mixture is None
    assert SPACE.validate(found.architecture)


def test_draws_are_uniform() -> None:
    counts = Counter(drawn(1, seed)[0] for seed in range(450))
    assert set(counts) == set(SPACE.enumerate())
    assert min(counts.values()) > 25  # 50 are expected of each


def test_draws_follow_the_seed() -> None:
    assert drawn(6) == drawn(6)
    assert drawn(6) != drawn(6, seed=1)


def test_draws_do_not_look_at_scores() -> None:
    tried = RandomSearch(trials=5).explore(OpenSpace(SPACE), lambda item: float(-len(str(item))), 0)
    assert [trial.architecture for trial in tried] == drawn(5)
