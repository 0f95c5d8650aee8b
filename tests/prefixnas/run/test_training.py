"""Training: the learning rate's shape, one step, the best weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from prefixnas.base.errors import UserError
from prefixnas.network.supernet import build_child
from prefixnas.run import events
from prefixnas.run.evaluation import Evaluation, Split
from prefixnas.run.event_file import read_events
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.search import search
from prefixnas.run.training import Best, WeightOptimizer, fit
from prefixnas.space.loading import load_space
from prefixnas.space.nodes import Choice, Seq
from prefixnas.space.space import SearchSpace
from prefixnas.strategies import RandomSearch
from prefixnas.testing import ToyObjective


def make(folder: Path, objective: ToyObjective | None = None) -> Run:
    run = Run(folder, load_space("default"), objective or ToyObjective(), Budget(10, 40))
    run.reset(build_child(run.space, run.space.first(), 8))
    return run


def steps(folder: Path, phase: str) -> list[dict[str, Any]]:
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [r for r in records if r["event"] == "step" and r["phase"] == phase]


# The learning rate


def test_rate_by_hand() -> None:
    recipe = Recipe(warmup=4, decay=0.5)
    rates = [recipe.rate(step, 10) for step in range(10)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


@given(st.integers(0, 30), st.floats(0, 1), st.integers(1, 100), st.data())
def test_rate_stays_between_zero_and_one(
    warmup: int, decay: float, total: int, data: st.DataObject
) -> None:
    recipe = Recipe(warmup=warmup, decay=decay)
    step = data.draw(st.integers(0, total - 1))
    assert 0 < recipe.rate(step, total) <= 1
    assert recipe.rate(total + step, total) == 0


# One step


def test_a_step_is_clipped_adamw(tmp_path: Path) -> None:
    run = make(tmp_path)
    weights = [w for group in run.objective.parameters() for w in group["params"]]
    recipe = Recipe(warmup=2, clip=0.01)
    optimizer = WeightOptimizer(run, recipe, total=10)
    torch.manual_seed(1)
    optimizer.gradients(0, "train", "p")
    gradients = [w.grad.clone() for w in weights if w.grad is not None]
    before = [w.detach().clone() for w in weights]
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    optimizer.step(0)
    assert norm > 0.01
    for weight, old, gradient in zip(weights, before, gradients, strict=True):
        clipped = gradient * 0.01 / (norm + 1e-6)
        expected = old - 0.01 * 0.5 * clipped / (clipped.abs() + 1e-8)  # Adam's first step
        torch.testing.assert_close(weight.detach(), expected, atol=2e-5, rtol=0)
    assert optimizer.rate == pytest.approx(0.005)


class Sick(ToyObjective):
    """Its loss, or only its gradient, turns NaN at the third batch."""

    def __init__(self, loss: bool) -> None:
        super().__init__()
        self.loss, self.calls = loss, 0

    def backward(self, split: Split = "train") -> dict[str, float]:
        losses = super().backward(split)
        self.calls += 1
        if self.calls == 3 and self.loss:
            return {**losses, "second": math.nan}
        if self.calls == 3:
            weight = self.parameters()[0]["params"][0]
            weight.grad = torch.full_like(weight, math.nan)
        return losses


@pytest.mark.parametrize(
    ("loss", "said"),
    [(True, "loss of task 'second' became nan at step 2 of phase 'p'"), (False, "gradient became")],
)
def test_nan_stops_before_it_reaches_the_weights(loss: bool, said: str, tmp_path: Path) -> None:
    run = make(tmp_path, Sick(loss))
    with pytest.raises(UserError, match=said):
        fit(run, "p", 5, Recipe())
    weights = [w for group in run.objective.parameters() for w in group["params"]]
    assert all(weight.isfinite().all() for weight in weights)


# Training and the best weights


def test_fit_learns(tmp_path: Path) -> None:
    run = make(tmp_path)
    before = run.objective.evaluate("train").score
    fit(run, "p", 40, Recipe(warmup=2))
    assert run.objective.evaluate("train").score > before
    assert [r["step"] for r in steps(tmp_path, "p")] == list(range(40))


class Scripted(ToyObjective):
    """Scores as it is told, in order."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores, self.heads = list(scores), []

    def evaluate(self, split: Split) -> Evaluation:
        assert split == "selection"
        self.heads.append(self._head.weight.detach().clone())
        score = self.scores.pop(0)
        return Evaluation({"t": {"m": score}}, {"t": score})


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([1.0, 3.0, 2.0, 0.0], 1),
        ([1.0, 1.0, 0.0, 0.5], 1),
        ([3.0, 1.0, 2.0, 0.0], 0),
        ([math.nan, -5.0, math.nan, -9.0], 1),
    ],
)
def test_the_best_weights_are_put_back(scores: list[float], kept: int, tmp_path: Path) -> None:
    objective = Scripted(scores)
    run = make(tmp_path, objective)
    fit(run, "p", 8, Recipe(eval_every=2))
    assert torch.equal(objective._head.weight, objective.heads[kept])
    assert not torch.equal(objective.heads[0], objective.heads[3])


def test_patience_ends_training_early(tmp_path: Path) -> None:
    objective = Scripted([5.0, 4.0, 3.0, 2.0])
    fit(make(tmp_path, objective), "p", 100, Recipe(eval_every=3, patience=2))
    assert len(steps(tmp_path, "p")) == 9


def test_best_restores_the_module_too(tmp_path: Path) -> None:
    run = make(tmp_path)
    best = Best(run)
    assert isinstance(run.module, nn.Module)
    before = {k: v.clone() for k, v in run.module.state_dict().items()}
    best.look(1.0, tag="first")
    with torch.no_grad():
        for weight in run.module.parameters():
            weight.add_(1)
    best.look(0.5, tag="second")
    assert (best.score, best.tag, best.waited) == (1.0, "first", 1)
    best.restore()
    for name, value in run.module.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_rate_spans_search_and_training(tmp_path: Path) -> None:
    run = make(tmp_path)
    recipe = Recipe(warmup=4, decay=0.5)
    fit(run, "p", 6, recipe, before=10, total=16)
    rates = [r["lr"] for r in steps(tmp_path, "p")]
    assert rates == pytest.approx([0.01 * recipe.rate(s, 16) for s in range(10, 16)])


def test_a_run_that_goes_on_behind_a_training_that_ended_early_looks_no_more_at_it(
    tmp_path: Path,
) -> None:
    space = SearchSpace("r", Seq("linear", Choice("f", ["tanh", "relu", "gelu", "sigmoid"])))
    recipe = Recipe(eval_every=2, patience=1, warmup=0)

    class Killed(Exception):
        """Stands for the end of the process."""

    def kill(event: events.Event) -> None:
        if isinstance(event, events.Step) and event.phase == "trial 2" and event.step == 2:
            raise Killed

    def epochs(name: str, **more: Any) -> list[tuple[int, str, float]]:
        objective, budget = ToyObjective(learning_rate=0.5), Budget(60, 20)
        run = Run(tmp_path / name, space, objective, budget, checkpoint_every=1, **more)
        search(run, RandomSearch(trials=3), recipe, baseline="none")
        found = [e for e in read_events(run.folder) if isinstance(e, events.Epoch)]
        return [(each.epoch, each.phase, each.score) for each in found]

    whole = epochs("whole")
    assert len([phase for _, phase, _ in whole if phase == "trial 0"]) < 10, "none ended early"
    with pytest.raises(Killed):
        epochs("killed", on_event=kill)
    assert epochs("killed", resume=True) == whole
