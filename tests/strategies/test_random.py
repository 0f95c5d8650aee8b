"""Random architectures and random search."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from prefixnas.errors import UserError
from prefixnas.run import Budget, Run
from prefixnas.space import Choice, SearchSpace, Seq, Stack
from prefixnas.space_yaml import load_space
from prefixnas.strategies.random import RandomSearch
from prefixnas.testing import ToyObjective
from prefixnas.training import Recipe

SPACE = SearchSpace("s", Stack(2, Seq("linear", Choice("f", ["relu", "tanh", "zero"]))))


def make(
    folder: Path, search: int = 12, seed: int = 0, space: SearchSpace = SPACE, **more: Any
) -> Run:
    return Run(folder, space, ToyObjective(), Budget(search, 5), seed, **more)


def events(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def test_one_sample_costs_no_search(tmp_path: Path) -> None:
    run = make(tmp_path)
    found = RandomSearch().search(run, Recipe())
    assert run.spent == 0
    assert events(run) == []
    assert found.mixture is None
    assert SPACE.validate(found.architecture)


def test_samples_are_different_and_follow_the_seed(tmp_path: Path) -> None:
    drawn = RandomSearch(samples=6).draw(make(tmp_path))
    assert len(set(drawn)) == 6
    assert drawn == RandomSearch(samples=6).draw(make(tmp_path))
    assert drawn != RandomSearch(samples=6).draw(make(tmp_path, seed=1))


def test_draws_are_uniform(tmp_path: Path) -> None:
    counts = Counter(RandomSearch().draw(make(tmp_path, seed=seed))[0] for seed in range(450))
    assert set(counts) == set(SPACE.enumerate())
    assert min(counts.values()) > 25  # 50 are expected of each


def test_a_small_space_is_drawn_whole(tmp_path: Path) -> None:
    assert set(RandomSearch(samples=9).draw(make(tmp_path))) == set(SPACE.enumerate())
    assert len(RandomSearch(samples=12).draw(make(tmp_path))) == 9


def test_what_is_set_stays_set(tmp_path: Path) -> None:
    run = make(tmp_path, settings={"layer0/f": "zero"})
    drawn = RandomSearch(samples=9).draw(run)
    assert {architecture["layer0/f"] for architecture in drawn} == {"zero"}
    assert len(drawn) == 3


def test_every_candidate_gets_an_equal_share_from_the_same_start(tmp_path: Path) -> None:
    run = make(tmp_path, search=13)
    RandomSearch(samples=3).search(run, Recipe())
    steps = Counter(event["phase"] for event in events(run) if event["event"] == "step")
    assert steps == {"candidate 0": 4, "candidate 1": 4, "candidate 2": 4}
    assert run.spent == 12


def test_the_best_on_the_selection_split_wins_with_its_weights(tmp_path: Path) -> None:
    run = make(tmp_path, search=40)
    strategy = RandomSearch(samples=4)
    found = strategy.search(run, Recipe())
    looks = [event for event in events(run) if event["event"] == "evaluation"]
    assert {look["split"] for look in looks} == {"selection"}
    scores = {look["name"]: look["score"] for look in looks}
    best = max(range(4), key=lambda index: scores[f"candidate {index}"])
    assert found.architecture == strategy.draw(run)[best]
    assert run.objective.evaluate("selection").score == scores[f"candidate {best}"]


@pytest.mark.parametrize("samples", [0, 13])
def test_a_number_of_samples_that_cannot_be(samples: int, tmp_path: Path) -> None:
    run = make(tmp_path)
    with pytest.raises(UserError, match=f"samples.*not {samples}"):
        RandomSearch(samples=samples).check(run.space, run.settings, run.budget)


def test_conditions_are_respected(tmp_path: Path) -> None:
    inner = Seq("linear", Choice("inner", ["relu", "tanh"]))
    space = SearchSpace("nested", Choice("outer", ["identity", inner]))
    drawn = RandomSearch(samples=3).draw(make(tmp_path, space=space))
    assert set(drawn) == set(space.enumerate())


def test_it_runs_on_the_default_space(tmp_path: Path) -> None:
    run = make(tmp_path, space=load_space("default"))
    assert len(RandomSearch(samples=2).search(run, Recipe()).architecture) == 12
