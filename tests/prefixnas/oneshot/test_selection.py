"""DARTS-PT by hand on an objective whose scores are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prefixnas.network.supernet import Supernet
from prefixnas.oneshot.selection import SELECTIONS, Perturbation, Selection
from prefixnas.run.evaluation import Evaluation, Split
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.training import WeightOptimizer
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace
from prefixnas.testing import ToyObjective

SPACE = SearchSpace("s", Stack(2, Seq("linear", Choice("f", ["relu", "tanh", "gelu"]))))
WORTH = {"relu": 0.1, "tanh": 0.5, "gelu": 0.3}


class Known(ToyObjective):
    """Scores a supernet by what its options that are left are worth, added up."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[tuple[Split, list[tuple[str, ...]]]] = []
        self.drawn: list[str] = []

    def replace(self, module: nn.Module | None) -> None:
        super().replace(module)
        self.module = module

    def left(self) -> list[tuple[str, ...]]:
        assert isinstance(self.module, Supernet)
        return [
            tuple(
                option
                for option, alive in zip(d.options, self.module.alive(i), strict=True)
                if alive
            )
            for i, d in enumerate(self.module.decisions)
        ]

    def evaluate(self, split: Split) -> Evaluation:
        if not isinstance(self.module, Supernet):
            return super().evaluate(split)
        self.looks.append((split, self.left()))
        score = sum(WORTH[option] for options in self.left() for option in options)
        return Evaluation({"t": {"worth": score}}, {"t": score})

    def backward(self, split: Split = "train") -> dict[str, float]:
        self.drawn.append(split)
        return super().backward(split)


def select(
    folder: Path, selection: Selection, steps: int = 20, resume: bool = False, seed: int = 0
) -> tuple[Known, Supernet, Any, Run]:
    objective = Known()
    run = Run(folder, SPACE, objective, Budget(steps, 5), seed, resume=resume)
    net = Supernet(SPACE, 8)
    with torch.no_grad():
        for alpha in net.alphas:
            alpha.copy_(torch.tensor([2.0, 0.0, 1.0]))  # the alphas say relu
    run.reset(net)
    weights = WeightOptimizer(run, Recipe(), 25)
    return objective, net, selection.choose(run, net, weights), run


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_argmax_reads_the_alphas(tmp_path: Path) -> None:
    objective, _, found, run = select(tmp_path, SELECTIONS.get("argmax")())
    assert set(found.values()) == {"relu"}
    assert run.spent == 0 and not objective.looks


def test_perturbation_keeps_what_is_missed_most(tmp_path: Path) -> None:
    objective, net, found, run = select(tmp_path, Perturbation(tune_steps=3))
    assert set(found.values()) == {"tanh"}
    whole = ("relu", "tanh", "gelu")
    without = [("tanh", "gelu"), ("relu", "gelu"), ("relu", "tanh")]
    assert objective.looks == [
        *(("selection", [out, whole]) for out in without),
        *(("selection", [("tanh",), out]) for out in without),
    ]
    assert run.spent == 3 == Perturbation(tune_steps=3).cost(2)
    assert objective.drawn == ["train"] * 3
    assert net.cut(found)(torch.randn(2, 8)).shape == (2, 8)
    first, second = events(tmp_path, "perturbation")
    assert (first["decision"], second["decision"]) == ("layer0/f", "layer1/f")
    assert first["score_without"] == pytest.approx({"relu": 1.7, "tanh": 1.3, "gelu": 1.5})


def test_equal_scores_leave_the_likelier_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WORTH, "relu", 0.5)
    *_, found, _ = select(tmp_path, Perturbation())
    assert set(found.values()) == {"relu"}


def test_the_random_order_follows_the_seed(tmp_path: Path) -> None:
    orders = set()
    for seed in range(6):
        folder = tmp_path / str(seed)
        select(folder, Perturbation(random_order=True), seed=seed)
        orders.add(tuple(event["decision"] for event in events(folder, "perturbation")))
    assert orders == {("layer0/f", "layer1/f"), ("layer1/f", "layer0/f")}


def test_decisions_inside_a_dropped_option_are_not_taken(tmp_path: Path) -> None:
    inner = Seq(Choice("inner", ["gelu", "relu"]), "linear")
    space = SearchSpace("n", Seq("linear", Choice("outer", ["tanh", inner])))

    class Flat(ToyObjective):
        def evaluate(self, split: Split) -> Evaluation:
            assert isinstance(self._module, Supernet)
            kept = float(self._module.probabilities()["outer"][0] > 0)
            return Evaluation({"t": {"s": kept}}, {"t": kept})

    run = Run(tmp_path, space, Flat(), Budget(9, 0), 0)
    net = Supernet(space, 8)
    run.reset(net)
    found = Perturbation(tune_steps=1).choose(run, net, WeightOptimizer(run, Recipe(), 9))
    assert dict(found) == {"outer": "tanh"}
    assert [event["decision"] for event in events(tmp_path, "perturbation")] == ["outer"]


def test_nothing_is_scored_again_on_resume(tmp_path: Path) -> None:
    """After a kill between the decisions, what was decided stands and the tuned weights too."""
    whole = select(tmp_path / "whole", Perturbation(tune_steps=3))

    class Killed(Exception):
        pass

    real = Run.once

    def once(self: Run, name: str, make: Any) -> Any:
        if name == "kept of layer1/f" and not hasattr(Killed, "done"):
            Killed.done = True  # type: ignore[attr-defined]
            raise Killed
        return real(self, name, make)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "once", once)
        with pytest.raises(Killed):
            select(tmp_path / "killed", Perturbation(tune_steps=3))
        objective, net, found, run = select(
            tmp_path / "killed", Perturbation(tune_steps=3), resume=True
        )
    assert len(objective.looks) == 3  # the second decision alone
    assert found == whole[2] and run.spent == 3
    for mine, expected in zip(net.parameters(), whole[1].parameters(), strict=True):
        assert torch.equal(mine, expected)


def test_decisions_inside_the_kept_option_are_taken_by_their_scores(tmp_path: Path) -> None:
    inner = Seq("linear", Choice("inner", ["gelu", "relu"]))
    space = SearchSpace("n", Choice("outer", [inner, "tanh"]))
    held = space.decisions[1].name

    class Nested(ToyObjective):
        def evaluate(self, split: Split) -> Evaluation:
            assert isinstance(self._module, Supernet)
            shares = self._module.probabilities()
            score = float(shares["outer"][0] > 0) + float(shares[held][1] > 0)  # needs relu
            return Evaluation({"t": {"s": score}}, {"t": score})

    run = Run(tmp_path, space, Nested(), Budget(9, 0), 0)
    net = Supernet(space, 8)
    with torch.no_grad():
        net.alphas[1].copy_(torch.tensor([5.0, 0.0]))  # the alphas say gelu
    run.reset(net)
    found = Perturbation(tune_steps=1).choose(run, net, WeightOptimizer(run, Recipe(), 9))
    assert found[held] == "relu"
    assert [each["decision"] for each in events(tmp_path, "perturbation")] == ["outer", held]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_option_without_which_nothing_can_be_scored_stays(place: int, tmp_path: Path) -> None:
    option = ["relu", "tanh", "gelu"][place]

    class Lost(Known):
        def evaluate(self, split: Split) -> Evaluation:
            score = 1.0 if all(option in options for options in self.left()) else float("nan")
            return Evaluation({"t": {"worth": score}}, {"t": score})

    run = Run(tmp_path, SPACE, Lost(), Budget(9, 0), 0)
    net = Supernet(SPACE, 8)
    run.reset(net)
    found = Perturbation().choose(run, net, WeightOptimizer(run, Recipe(), 9))
    assert set(found.values()) == {option}
