"""Models without the module: which ones, how many steps, and what they leave alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from prefixnas.base.errors import UserError
from prefixnas.run.evaluation import BASELINE, EQUAL_WEIGHTS
from prefixnas.run.recipe import Recipe
from prefixnas.run.result import SearchResult
from prefixnas.run.run import Budget, Run
from prefixnas.run.search import search
from prefixnas.space.loading import load_space
from prefixnas.strategies.fixed import Fixed
from prefixnas.strategies.random import RandomSearch
from prefixnas.testing import ToyObjective

BUDGET = Budget(6, 4)


class Wide(ToyObjective):
    """The toy behind a linear layer, which stands in for the module and can be of any width."""

    def __init__(self, between: int) -> None:
        super().__init__()
        self.without_label = f"linear r={between}"
        self._between = nn.Sequential(nn.Linear(8, between), nn.Linear(between, 8))

    def reset(self, module: nn.Module | None, seed: int) -> None:
        assert module is None
        super().reset(self._between, seed)
        for weight in self._between.parameters():
            nn.init.constant_(weight, 0.1)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "between": self._between.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._between.load_state_dict(state["between"])


class Resizable(ToyObjective):
    """The toy, which can be made larger: 17 weights a unit of rank, and 26."""

    asked: list[int]

    def __init__(self) -> None:
        super().__init__()
        self.asked = []

    def alone(self, weights: int) -> ToyObjective | None:
        self.asked.append(weights)
        return Wide(max(1, round((weights - 26) / 17)))


def go(
    folder: Path, objective: ToyObjective, resume: bool = False, **options: Any
) -> tuple[SearchResult, list[dict[str, Any]]]:
    space = load_space("mlp")
    run = Run(folder, space, objective, BUDGET, checkpoint_every=2, resume=resume)
    result = search(run, Fixed(), Recipe(), **options)
    assert run.objective is objective and run.spent == 0
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return result, [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("asked", "phases", "labels"),
    [
        ("none", [], []),
        ("alone", [BASELINE], ["linear alone"]),
        ("both", [BASELINE, EQUAL_WEIGHTS], ["linear alone", "linear r=4"]),
    ],
)
def test_each_is_trained_for_all_steps_and_has_a_column(
    asked: str, phases: list[str], labels: list[str], tmp_path: Path
) -> None:
    result, events = go(tmp_path, Resizable(), baseline=asked)
    steps = Counter(event["phase"] for event in events if event["event"] == "step")
    assert dict(steps) == {"train": 10, **dict.fromkeys(phases, 10)}
    assert list(result.columns) == ["untouched", *labels, "mixture", "trained child"]
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["baselines"] == dict(zip(phases, labels, strict=True))
    assert list(written["columns"]) == list(result.columns)


def test_it_is_asked_for_as_many_weights_as_the_child_trained(tmp_path: Path) -> None:
    objective = Resizable()
    go(tmp_path, objective)
    (asked,) = objective.asked
    assert asked == json.loads((tmp_path / "result.json").read_text())["trained_parameters"]


@pytest.mark.parametrize("objective", [ToyObjective, Resizable])
def test_what_cannot_be_resized_is_trained_alone(
    objective: type[ToyObjective], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "alone", lambda *_: None)
    result, _ = go(tmp_path, objective())
    assert [label for label in result.columns if "linear" in label] == ["linear alone"]


def test_the_search_does_not_depend_on_them(tmp_path: Path) -> None:
    found = [go(tmp_path / asked, Resizable(), baseline=asked) for asked in ("none", "both")]
    bare, both = (result.columns for result, _ in found)
    assert {label: both[label] for label in bare} == bare
    tracks = [[e["losses"] for e in events if e.get("phase") == "train"] for _, events in found]
    assert tracks[0] == tracks[1]


@pytest.mark.parametrize("wrong", [True, False, "lora"])
def test_another_word_is_refused_before_anything_happens(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown baseline .*\(allowed: alone, both, none\)"):
        go(tmp_path, Resizable(), baseline=wrong)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


class Dying(Wide):
    """Stops in the middle."""

    left = 5

    def backward(self, *args: Any) -> dict[str, float]:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return super().backward(*args)


def test_one_that_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, events = go(tmp_path / "whole", Resizable())
    with monkeypatch.context() as patch:
        patch.setattr(Resizable, "alone", lambda self, weights: Dying(4))
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "run", Resizable())
    result, again = go(tmp_path / "run", Resizable(), resume=True)
    assert result.columns == whole.columns
    for event in (*events, *again):
        event.pop("time"), event.pop("seconds", None), event.pop("began", None)
    assert again == events


def test_a_search_counts_the_same_steps_with_them(tmp_path: Path) -> None:
    run = Run(tmp_path, load_space("default"), Resizable(), BUDGET)
    search(run, RandomSearch(trials=3), Recipe())
    assert run.spent == BUDGET.search
