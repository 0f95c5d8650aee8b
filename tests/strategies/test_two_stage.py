"""Two stages: a search on a proxy, then successive halving."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from prefixnas.base.errors import UserError
from prefixnas.multitrial.proxy import whole_numbers
from prefixnas.network.supernet import Supernet
from prefixnas.run.evaluation import Split
from prefixnas.run.objective import Objective
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.strategy import Strategy
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.two_stage import TwoStage
from prefixnas.testing import StrategyContract, ToyObjective

CELL = Seq(
    "linear",
    Choice("f", ["relu", "tanh", "gelu"]),
    Choice("end", ["identity", "layer_norm"], "trial"),
)
SPACE = SearchSpace("s", Stack(2, CELL))
DEEP = SearchSpace("deep", Stack(Choice("depth", [1, 3, 2], "trial"), CELL))


class Cheap(ToyObjective):
    """A toy whose proxy has smaller batches, so that a step costs half as much."""

    rows = 8

    def __init__(self, rows: int = 8) -> None:
        super().__init__()
        self.rows = rows
        self.batches: Counter[Split] = Counter()

    def check_proxy(self, settings: Mapping[str, str]) -> None:
        whole_numbers(settings, ["rows"])

    def proxy(self, settings: Mapping[str, str]) -> Objective:
        return Cheap(int(settings["rows"]))

    def backward(self, split: Split = "train") -> dict[str, float]:
        self.batches[split] += 1
        inputs, targets = self._data[split]
        start = 8 * self._drawn[split]
        rows = torch.arange(start, start + self.rows) % len(inputs)
        self._drawn[split] += 1
        errors = (self._predict(inputs[rows]) - targets[rows]).square().mean(0)
        errors.mean().backward()  # type: ignore[no-untyped-call]
        return {"first": errors[0].item(), "second": errors[1].item()}


class TestWithoutProxy(StrategyContract):
    def strategy(self) -> Strategy:
        return TwoStage(shortlist=3)

    def spaces(self) -> list[SearchSpace]:
        return [SPACE, DEEP]


class TestWithProxy(StrategyContract):
    imports = ("tests.strategies.test_two_stage",)

    def strategy(self) -> Strategy:
        return TwoStage(proxy=["rows=4"], proxy_share=0.7, shortlist=2)

    def objective(self) -> Any:
        return Cheap

    def spaces(self) -> list[SearchSpace]:
        return [SPACE]


def go(
    folder: Path,
    strategy: TwoStage,
    budget: int = 40,
    space: SearchSpace = SPACE,
    settings: Mapping[str, str] | None = None,
) -> tuple[Run, Any, list[dict[str, Any]]]:
    strategy.check(space, settings or {}, Budget(budget, 5))
    run = Run(folder, space, Cheap(), Budget(budget, 5), settings=settings)
    found = strategy.search(run, Recipe(warmup=2))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return run, found, [json.loads(line) for line in lines]


def steps(events: list[dict[str, Any]]) -> Counter[str]:
    return Counter(event["phase"] for event in events if event["event"] == "step")


def test_halves_until_one_is_left(tmp_path: Path) -> None:
    run, found, events = go(tmp_path, TwoStage(shortlist=8, proxy_share=0.4), 80)
    taken = steps(events)
    assert taken.pop("search") == 32
    rounds = [[n for phase, n in taken.items() if f"round {r} " in phase] for r in (1, 2, 3)]
    assert rounds == [[2] * 8, [4] * 4, [8] * 2]
    assert run.spent == 80
    scores = {e["name"]: e["score"] for e in events if e["event"] == "evaluation"}
    for number in (1, 2):
        ranked = sorted(
            (name for name in scores if f"round {number} " in name), key=lambda name: -scores[name]
        )
        best = {name.split()[-1] for name in ranked[: len(ranked) // 2]}
        assert best == {n.split()[-1] for n in scores if f"round {number + 1} " in n}
    last = max((n for n in scores if "round 3" in n), key=lambda name: scores[name])
    tried = {e["name"]: e["choices"] for e in events if e["event"] == "trial"}
    assert found.architecture.choices == tried[last]


def test_a_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Two rounds of one candidate are one training: weights, data, moments and rates."""
    run, found, events = go(tmp_path, TwoStage(shortlist=2, proxy_share=0.5), 24)
    assert steps(events) == {"search": 12, "round 1 architecture 1": 6, "round 1 architecture 2": 6}
    weights = found.optimizer.inner.state
    assert {int(state["step"]) for state in weights.values()} == {6}
    assert set(weights) == {w for group in run.objective.parameters() for w in group["params"]}
    three = go(tmp_path / "three", TwoStage(shortlist=4, proxy_share=0.5), 24)
    rates = {
        phase: [e["lr"] for e in three[2] if e["event"] == "step" and e["phase"] == phase]
        for phase in steps(three[2])
    }
    winner = next(phase for phase in rates if phase.startswith("round 2")).split()[-1]
    joined = rates[f"round 1 architecture {winner}"] + rates[f"round 2 architecture {winner}"]
    recipe = Recipe(warmup=2)
    assert joined == pytest.approx([0.01 * recipe.rate(step, 29) for step in range(4)])
    assert {int(s["step"]) for s in three[1].optimizer.inner.state.values()} == {4}


def test_the_proxy_is_paid_by_operations(tmp_path: Path) -> None:
    """A step with half of the rows has half of the matrix products."""
    strategy = TwoStage(proxy=["rows=4"], shortlist=2, proxy_share=0.5)
    run, _, events = go(tmp_path, strategy, 44)
    taken = steps(events)
    assert taken["search"] == (22 - 4) * 2
    assert run.spent == 44
    told = next(event for event in events if event["event"] == "proxy")
    assert told["price"] == pytest.approx(0.5)
    assert set(told["seconds"]) == {"proxy", "whole"}
    assert isinstance(run.objective, Cheap)
    assert run.objective.batches == {"train": 2 + 22}


def test_a_price_by_hand_needs_no_counting(tmp_path: Path) -> None:
    strategy = TwoStage(proxy=["rows=4"], proxy_cost=0.25, shortlist=2)
    run, _, events = go(tmp_path, strategy, 40)
    assert steps(events)["search"] == 80
    assert run.spent == 40
    assert isinstance(run.objective, Cheap)
    assert run.objective.batches == {"train": 20}


def test_the_second_stage_decides_the_choices_by_trial(tmp_path: Path) -> None:
    _, found, events = go(tmp_path, TwoStage(shortlist=6, proxy_share=0.4), 60, DEEP)
    tried = [event["choices"] for event in events if event["event"] == "trial"]
    first = tried[:6]
    assert {choices["depth"] for choices in first} == {"1", "2", "3"}
    assert {choices["layer0/end"] for choices in first} == {"identity", "layer_norm"}
    assert DEEP.validate(found.architecture)
    searched = next(event for event in events if event["event"] == "alpha")
    assert len(searched["probabilities"]) == 3  # the deepest stack: an alpha for every layer


def test_what_is_set_by_hand_stays(tmp_path: Path) -> None:
    settings = {"depth": "2", "layer1/f": "gelu"}
    _, _, events = go(tmp_path, TwoStage(shortlist=4), 40, DEEP, settings)
    tried = [event["choices"] for event in events if event["event"] == "trial"]
    assert tried
    for choices in tried:
        assert {name: choices[name] for name in settings} == settings


def test_candidates_follow_the_alphas(tmp_path: Path) -> None:
    """The first candidate is what the supernet says, where it was held."""
    run, _, events = go(tmp_path, TwoStage(shortlist=4, alpha_learning_rate=0.5), 60)
    last = [e for e in events if e["event"] == "alpha"][-1]["probabilities"]
    first = next(event for event in events if event["event"] == "trial")["choices"]
    for name, table in last.items():
        assert first[name] == max(table, key=table.get)
    assert not isinstance(run.module, Supernet)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shortlist": 9}, "9 architectures need at least 36 steps, the second stage has 20"),
        ({"proxy": ["rows"]}, "expected NAME=VALUE, not 'rows'"),
        ({"proxy": ["rows=4", "rows=5"]}, "'rows' is given twice"),
        ({"proxy_cost": 0.5}, "there is no proxy"),
        ({"proxy_share": 0.05, "shortlist": 2, "proxy": ["rows=4"]}, "search steps are too few"),
        ({"shortlist": 0}, "'shortlist': must be at least 1"),
        ({"level": "bilvel"}, "did you mean 'bilevel'"),
    ],
)
def test_mistakes_show_before_anything_is_trained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TwoStage(**options).check(SPACE, {}, Budget(40, 5))


@pytest.mark.parametrize(
    ("objective", "proxy", "message"),
    [
        (ToyObjective(), "rows=4", "the objective 'toy' has no proxy"),
        (Cheap(), "row=4", "unknown setting 'row': did you mean 'rows'"),
        (Cheap(), "rows=0", "'rows' must be a whole number of at least 1, not '0'"),
    ],
)
def test_a_proxy_that_is_not_there_is_refused(
    objective: Objective, proxy: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        TwoStage(proxy=[proxy]).check_objective(objective)
    TwoStage().check_objective(objective)
