"""DARTS against hand-written steps."""

from __future__ import annotations

import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prefixnas.base.errors import UserError
from prefixnas.network.simplex import Simplex, project
from prefixnas.network.supernet import Supernet, weights_of
from prefixnas.run.evaluation import Split
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.search import search
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.darts import Darts
from prefixnas.testing import ToyObjective

SPACE = SearchSpace("s", Stack(2, Seq("linear", Choice("f", ["relu", "tanh", "gelu"]))))
FLAT = Recipe(warmup=0, decay=0.0, clip=1e9)


class Watching(ToyObjective):
    """Notes the split of every batch with the alphas and weights before it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[torch.Tensor], list[torch.Tensor]]] = []
        self.net: Supernet | None = None

    def replace(self, module: nn.Module | None) -> None:
        super().replace(module)
        if isinstance(module, Supernet):
            self.net = module

    def look(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        assert self.net is not None
        alphas = [alpha.detach().clone() for alpha in self.net.alphas]
        return alphas, [weight.detach().clone() for weight in weights_of(self.net)]

    def backward(self, split: Split = "train") -> dict[str, float]:
        self.seen.append((split, *self.look()))
        return super().backward(split)


def go(
    strategy: Darts, steps: int, seed: int = 0, recipe: Recipe = FLAT
) -> tuple[Watching, Any, list[dict[str, Any]]]:
    folder = Path(tempfile.mkdtemp())
    objective = Watching()
    found = strategy.search(Run(folder, SPACE, objective, Budget(steps, 10), seed), recipe)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return objective, found, [json.loads(line) for line in lines]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_joint_steps_by_hand() -> None:
    """Weights and alphas move at once, by one gradient of one loss (Algorithm 1)."""
    strategy = Darts(alpha_warmup=0.0, entropy_weight=0.5, entropy_scale="loss", prune_below=0.0)
    objective, _, _ = go(strategy, 4)
    moved = objective.look()

    torch.manual_seed(0)
    net = Supernet(SPACE, 8)
    by_hand = ToyObjective()
    by_hand.reset(net, 0)
    weights = torch.optim.AdamW(by_hand.parameters())
    alphas = torch.optim.Adam(net.alphas, lr=0.03, betas=(0.5, 0.999))
    for step in range(4):
        weights.zero_grad()
        alphas.zero_grad()
        by_hand.backward("train")
        entropy = sum(torch.distributions.Categorical(logits=a).entropy() for a in net.alphas)
        (0.5 * step / 4 * entropy).backward()  # type: ignore[union-attr]
        alphas.step()
        weights.step()
    for mine, expected in zip(moved[0], net.alphas, strict=True):
        torch.testing.assert_close(mine, expected.detach())
    for mine, expected in zip(moved[1], weights_of(net), strict=True):
        torch.testing.assert_close(mine, expected.detach())


def test_bilevel_steps_by_hand() -> None:
    """Alphas move by the selection batch's gradient alone, weights by the training batch's."""
    strategy = Darts(level="bilevel", alpha_warmup=0.0, entropy_weight=0.0, prune_below=0.0)
    objective, _, _ = go(strategy, 8)
    moved = objective.look()

    torch.manual_seed(0)
    net = Supernet(SPACE, 8)
    by_hand = ToyObjective()
    by_hand.reset(net, 0)
    weights = torch.optim.AdamW(by_hand.parameters())
    alphas = torch.optim.Adam(net.alphas, lr=0.03, betas=(0.5, 0.999))
    for _ in range(4):
        alphas.zero_grad()
        by_hand.backward("selection")
        alphas.step()
        weights.zero_grad()
        by_hand.backward("train")
        weights.step()
    for mine, expected in zip(moved[0], net.alphas, strict=True):
        torch.testing.assert_close(mine, expected.detach())
    for mine, expected in zip(moved[1], weights_of(net), strict=True):
        torch.testing.assert_close(mine, expected.detach())


def test_bilevel_takes_turns() -> None:
    objective, _, _ = go(Darts(level="bilevel", alpha_warmup=0.0, prune_below=0.0), 8)
    assert [split for split, _, _ in objective.seen] == ["selection", "train"] * 4
    seen = [*objective.seen, ("end", *objective.look())]
    for (split, alphas, weights), (_, later_alphas, later_weights) in pairwise(seen):
        assert same(alphas, later_alphas) == (split == "train")
        assert same(weights, later_weights) == (split == "selection")


@pytest.mark.parametrize(
    ("level", "after"),
    [
        ("joint", ["train"] * 10),
        ("bilevel", ["selection", "train"] * 5),
        ("second-order", ["train", "selection", "train", "train", "train"] * 2),
    ],
)
def test_warm_up_leaves_the_alphas_alone(level: str, after: list[str]) -> None:
    """It passes one batch a step at any level, and the budget is spent on what is passed."""
    objective, _, events = go(Darts(level=level, alpha_warmup=0.5), 20)
    start = objective.seen[0][1]
    assert all(same(start, alphas) for _, alphas, _ in objective.seen[:10])
    assert not same(start, objective.look()[0])
    assert [split for split, _, _ in objective.seen] == ["train"] * 10 + after
    first = next(event for event in events if event["event"] == "alpha")
    assert "gradient_norm" not in first


def test_warm_up_leaves_no_gradient_behind() -> None:
    """The first alpha step uses the gradient of its own batch, not the sum of the warm-up's."""
    objective, _, events = go(Darts(alpha_warmup=0.5, entropy_weight=0.0, log_every=1), 12)
    norms = [e.get("gradient_norm") for e in events if e["event"] == "alpha"]
    replayed = ToyObjective()
    torch.manual_seed(0)
    net = Supernet(SPACE, 8)
    replayed.reset(net, 0)
    replayed._drawn["train"] = 6
    _, alphas, weights = objective.seen[6]
    assert objective.net is not None
    with torch.no_grad():
        for mine, saved in zip([*net.alphas, *weights_of(net)], [*alphas, *weights], strict=True):
            mine.copy_(saved)
    optimizer_head = _head_at(6)
    replayed._head.load_state_dict(optimizer_head)
    replayed.backward("train")
    gradients = [alpha.grad for alpha in net.alphas if alpha.grad is not None]
    assert norms[6] == pytest.approx(torch.nn.utils.get_total_norm(gradients).item(), rel=1e-4)


def _head_at(step: int) -> dict[str, torch.Tensor]:
    """The head's weights after `step` steps of warm-up."""
    torch.manual_seed(0)
    net = Supernet(SPACE, 8)
    objective = ToyObjective()
    objective.reset(net, 0)
    weights = torch.optim.AdamW(objective.parameters())
    for _ in range(step):
        weights.zero_grad()
        objective.backward("train")
        weights.step()
    return objective._head.state_dict()


def test_the_regulariser_drives_the_entropy_down() -> None:
    def final(weight: float) -> float:
        *_, events = go(Darts(entropy_weight=weight, prune_below=0.0, alpha_warmup=0.0), 60)
        values = [event["entropy"] for event in events if event["event"] == "step"]
        return float(values[-1])

    none, some, much = final(0.0), final(0.3), final(3.0)
    assert much < some < none


def test_pruning_is_told_and_bounded() -> None:
    strategy = Darts(alpha_learning_rate=0.3, prune_below=0.3, alpha_warmup=0.25)
    objective, found, events = go(strategy, 40)
    pruned = [event for event in events if event["event"] == "prune"]
    dropped = [tuple(pair) for event in pruned for pair in event["dropped"]]
    assert dropped
    assert len(set(dropped)) == len(dropped)
    assert all(event["step"] >= 10 for event in pruned)
    assert not set(found.architecture.items()) & set(dropped)
    assert objective.net is not None
    assert all(objective.net.alive(index).any() for index in range(2))


def test_records_of_the_search() -> None:
    strategy = Darts(log_every=4, alpha_warmup=0.0, prune_below=0.0)
    _, found, events = go(strategy, 10)
    steps = [event for event in events if event["event"] == "step"]
    assert [event["step"] for event in steps] == list(range(10))
    for event in steps:
        assert event["loss"] == pytest.approx(sum(event["losses"].values()) / 2)
    records = [event for event in events if event["event"] == "alpha"]
    assert [event["step"] for event in records] == [0, 4, 8, 9]
    for record in records:
        assert record["gradient_norm"] > 0
        assert record["variance"] >= 0
        for table in record["probabilities"].values():
            assert set(table) == {"relu", "tanh", "gelu"}
            assert sum(table.values()) == pytest.approx(1)
    last = records[-1]["probabilities"]
    assert dict(found.architecture) == {name: max(t, key=t.get) for name, t in last.items()}


def test_the_child_inherits_the_weights_of_the_supernet() -> None:
    objective, found, _ = go(Darts(prune_below=0.0), 10)
    assert objective.net is not None
    child = objective._module
    assert isinstance(child, nn.Module)
    expected = objective.net.child(found.architecture)
    for mine, theirs in zip(child.parameters(), expected.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_search_finds_what_is_plainly_better() -> None:
    """Tanh of a linear map is what the data were made with; switching the branch off is not."""
    space = SearchSpace("s", Seq("linear", Choice("f", ["zero", "tanh"])))
    for level in ("joint", "bilevel"):
        folder = Path(tempfile.mkdtemp())
        run = Run(folder, space, ToyObjective(), Budget(80, 0), 1)
        assert Darts(level=level).search(run, FLAT).architecture["f"] == "tanh"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"alpha_learning_rate": 0.0},
        {"alpha_warmup": 1.5},
        {"prune_below": 1.0},
        {"entropy_weight": -1.0},
        {"log_every": 0},
    ],
)
def test_options_outside_their_limits_are_refused(options: dict[str, Any]) -> None:
    from prefixnas.base.options import make

    (name,) = options
    with pytest.raises(UserError, match=name):
        make(Darts, options)


def test_projected_search_keeps_alphas_on_the_simplex() -> None:
    strategy = Darts(update="projected", alpha_warmup=0.0, prune_below=0.1, log_every=1)
    objective, found, events = go(strategy, 60)
    assert objective.net is not None
    for alpha in objective.net.alphas:
        assert bool((alpha >= 0).all()) and alpha.sum().item() == pytest.approx(1)
    records = [event["probabilities"] for event in events if event["event"] == "alpha"]
    for name, alpha in zip(records[-1], objective.net.alphas, strict=True):
        assert list(records[-1][name].values()) == pytest.approx(alpha.tolist(), abs=1e-5)
        assert found.architecture[name] == max(records[-1][name], key=records[-1][name].get)
    start, end = (
        sum(max(table.values()) for table in records[index].values()) for index in (0, -1)
    )
    assert end > start


def test_projected_joint_steps_by_hand() -> None:
    """Equation 17 of the paper: both updates from one gradient, alpha projected."""
    strategy = Darts(
        update="projected",
        alpha_learning_rate=0.5,
        alpha_warmup=0.0,
        entropy_weight=0.0,
        prune_below=0.0,
    )
    objective, _, _ = go(strategy, 5)
    torch.manual_seed(0)
    net = Supernet(SPACE, 8, Simplex())
    by_hand = ToyObjective()
    by_hand.reset(net, 0)
    weights = torch.optim.AdamW(by_hand.parameters())
    for _ in range(5):
        weights.zero_grad()
        net.zero_grad()
        by_hand.backward("train")
        weights.step()
        with torch.no_grad():
            for alpha in net.alphas:
                assert alpha.grad is not None
                alpha.copy_(project(alpha - 0.5 * alpha.grad))
    for mine, expected in zip(objective.look()[0], net.alphas, strict=True):
        torch.testing.assert_close(mine, expected.detach())


def test_progressive_pruning_leaves_the_share_that_was_asked_for() -> None:
    strategy = Darts(prune_to=0.34, prune_below=0.0, alpha_warmup=0.2)
    objective, _, events = go(strategy, 50)
    assert objective.net is not None
    assert [int(objective.net.alive(index).sum()) for index in range(2)] == [2, 2]  # ceil(1.02)
    pruned = [event["step"] for event in events if event["event"] == "prune"]
    assert pruned and min(pruned) >= 10


def test_temperatures_can_be_set() -> None:
    objective, _, _ = go(Darts(relaxation="gumbel", temperature_start=5.0, temperature_end=0.5), 4)
    assert objective.net is not None
    relaxation = objective.net.relaxation
    assert [relaxation.temperature(p) for p in (0.0, 1.0)] == pytest.approx([5.0, 0.5])


def test_entropy_schedules_differ_as_they_say() -> None:
    def entropies(schedule: str) -> list[float]:
        strategy = Darts(
            entropy_schedule=schedule, entropy_weight=3.0, prune_below=0.0, alpha_warmup=0.0
        )
        *_, events = go(strategy, 30)
        return [event["entropy"] for event in events if event["event"] == "step"]

    constant, linear, cosine = map(entropies, ("constant", "linear", "cosine"))
    assert constant[8] < linear[8] < cosine[8]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"settled_records": 2, "settled_within": 1.0, "alpha_learning_rate": 1e-6}, "settled"),
        ({"collapse_above": 0.0, "alpha_learning_rate": 1e-6}, "collapsed"),
    ],
)
def test_an_early_stop_leaves_its_budget_to_training(
    options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    space = SearchSpace("s", Stack(4, Seq("linear", Choice("f", ["identity", "tanh"]))))
    run = Run(tmp_path, space, ToyObjective(), Budget(60, 10), 0)
    strategy = Darts(level="bilevel", log_every=2, **options)
    search(run, strategy, FLAT, baseline="none")
    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (stop,) = [event for event in events if event["event"] == "stop"]
    assert stop["reason"].startswith(reason)
    assert stop["step"] >= 12
    steps = [event for event in events if event["event"] == "step"]
    searched = [event["step"] for event in steps if event["phase"] == "search"]
    trained = [event["step"] for event in steps if event["phase"] == "train"]
    assert searched[-1] == stop["step"]
    assert run.spent == 12 + 2 * (stop["step"] - 11) < 60
    assert len(trained) == 70 - run.spent


def test_perturbation_reserves_its_tuning_steps() -> None:
    strategy = Darts(selection="perturbation", tune_steps=4, alpha_warmup=0.0)
    objective, found, events = go(strategy, 20)
    assert len(objective.seen) == 20
    phases = [event["phase"] for event in events if event["event"] == "step"]
    assert phases.count("search") == 16 and len(phases) == 20
    assert set(found.architecture) == {"layer0/f", "layer1/f"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "trilevel"}, "level 'trilevel'.*bilevel"),
        ({"update": "project"}, "update 'project'.*projected"),
        ({"relaxation": "onepath"}, "relaxation 'onepath'.*one-path"),
        ({"selection": "max"}, "selection 'max'.*argmax"),
        ({"entropy_schedule": "quadratic"}, "'entropy_schedule': unknown value 'quadratic'"),
        ({"level": "second-order"}, "4 search steps are too few, at least 5"),
        ({"selection": "perturbation", "tune_steps": 4}, "4 search steps are too few, at least 5"),
    ],
)
def test_what_cannot_be_searched_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Darts(**options).check(SPACE, {}, Budget(4, 4))
