"""Look-ahead steps against the real optimiser, second order against finite differences."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prefixnas.base.errors import UserError
from prefixnas.network.relaxations import RELAXATIONS, Relaxation, Softmax
from prefixnas.network.simplex import Simplex
from prefixnas.network.supernet import Supernet
from prefixnas.oneshot.alphas import AlphaOptimizer
from prefixnas.oneshot.level import LEVELS, SecondOrder
from prefixnas.oneshot.look_ahead import look_ahead
from prefixnas.oneshot.rewind import Bookmark
from prefixnas.run.evaluation import Split
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.search import search
from prefixnas.run.training import WeightOptimizer
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.darts import Darts
from prefixnas.strategies.two_stage import TwoStage
from prefixnas.testing import ToyObjective

SPACE = SearchSpace("s", Stack(2, Seq("linear", Choice("f", ["sigmoid", "tanh", "gelu"]))))
RECIPE = Recipe(warmup=20, clip=0.2)


class Double(ToyObjective):
    """The toy in float64, with weight decay, noting the splits and inputs of its batches."""

    def __init__(self) -> None:
        super().__init__(learning_rate=0.05)
        self._head.double()
        self._data = {split: (x.double(), y.double()) for split, (x, y) in self._data.items()}
        self.seen: list[tuple[str, int]] = []

    def parameters(self) -> list[dict[str, Any]]:
        return [{**group, "weight_decay": 0.1} for group in super().parameters()]

    def backward(self, split: Split = "train") -> dict[str, float]:
        self.seen.append((split, self._drawn[split]))
        return super().backward(split)


def ready(
    folder: Path, relaxation: Relaxation | None = None, steps: int = 3
) -> tuple[Run, Supernet, WeightOptimizer]:
    """Return a run in the middle of training: moments are filled, clipping is on."""
    run = Run(folder, SPACE, Double(), Budget(1000, 10), 0)
    net = Supernet(SPACE, 8, relaxation).double()
    with torch.no_grad():
        for alpha in net.alphas:
            alpha.add_(0.3 * torch.randn(3, dtype=torch.float64))
            alpha.copy_(net.relaxation.nearest(alpha))
    run.reset(net)
    weights = WeightOptimizer(run, RECIPE, 100)
    for step in range(steps):
        weights.gradients(step, "train", "before")
        weights.step(step)
    return run, net, weights


def values(weights: WeightOptimizer) -> list[torch.Tensor]:
    return [p.detach().clone() for group in weights.inner.param_groups for p in group["params"]]


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_look_ahead_is_the_step_of_the_real_optimiser(tmp_path: Path, steps: int) -> None:
    """Moments, weight decay, warm-up of the rate and clipping: all as they stand."""
    _, _, weights = ready(tmp_path, steps=steps)
    weights.gradients(steps, "train", "p")
    gradients = [p.grad.clone() for g in weights.inner.param_groups for p in g["params"]]
    assert torch.nn.utils.get_total_norm(gradients) > RECIPE.clip
    before, state = values(weights), copy.deepcopy(weights.state_dict())
    look = look_ahead(weights, steps)
    for mine, kept in zip(values(weights), before, strict=True):
        assert torch.equal(mine, kept)
    assert str(state) == str(weights.state_dict())
    weights.step(steps)
    for ahead, real in zip(look.ahead, values(weights), strict=True):
        torch.testing.assert_close(ahead, real, rtol=1e-12, atol=1e-14)


def test_pull_back_is_the_derivative_of_the_step(tmp_path: Path) -> None:
    _, _, weights = ready(tmp_path)
    weights.gradients(3, "train", "p")
    look = look_ahead(weights, 3)
    generator = torch.Generator().manual_seed(0)

    def noise() -> list[torch.Tensor]:
        return [torch.randn(w.shape, dtype=w.dtype, generator=generator) for w in look.weights]

    cotangents, direction = noise(), noise()
    pulled = sum(
        float((a * b).sum()) for a, b in zip(look.pull_back(cotangents), direction, strict=True)
    )
    grads = [weight.grad.clone() for weight in look.weights if weight.grad is not None]
    sides = []
    for sign in (1, -1):
        for weight, gradient, way in zip(look.weights, grads, direction, strict=True):
            weight.grad = gradient + sign * 1e-7 * way
        moved = look_ahead(weights, 3).ahead
        sides.append(sum(float((a * b).sum()) for a, b in zip(cotangents, moved, strict=True)))
    assert pulled == pytest.approx((sides[0] - sides[1]) / 2e-7, rel=1e-5)


def test_weights_that_no_gradient_ever_reached_have_no_derivative(tmp_path: Path) -> None:
    _, _, weights = ready(tmp_path, steps=0)
    weights.gradients(0, "train", "p")
    unreached = weights.inner.param_groups[0]["params"][0]
    unreached.grad.zero_()
    look = look_ahead(weights, 0)
    pulled = look.pull_back([torch.ones_like(weight) for weight in look.weights])
    assert all(bool(value.isfinite().all()) for value in pulled)
    assert not pulled[0].any()
    torch.testing.assert_close(look.ahead[0], unreached * (1 - 0.05 * RECIPE.rate(0, 100) * 0.1))


class Noting(torch.optim.SGD):
    """Notes the gradients that it is given, and moves nothing."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.noted = [p.grad.clone() for p in self.param_groups[0]["params"]]


@pytest.mark.parametrize(
    "relaxation",
    [Softmax(), Simplex(), RELAXATIONS.get("gumbel")()],
    ids=["softmax", "p", "gumbel"],
)
def test_second_order_gradient_is_the_total_derivative(
    tmp_path: Path, relaxation: Relaxation
) -> None:
    """d L_selection(w'(alpha), alpha) / d alpha, w' by a copy of the real optimiser's step."""
    run, net, weights = ready(tmp_path, relaxation)
    objective = run.objective
    assert isinstance(objective, Double)
    mark, optimizer = Bookmark(objective), copy.deepcopy(weights.state_dict())
    module = copy.deepcopy(net.state_dict())

    def reset() -> None:
        net.load_state_dict(module)
        weights.load_state_dict(copy.deepcopy(optimizer))
        mark.back()

    def outer(index: int, option: int, by: float) -> float:
        reset()
        with torch.no_grad():
            net.alphas[index][option] += by
        weights.gradients(0, "train", "p")
        weights.step(run.spent)
        return sum(objective.backward("selection").values()) / 2

    expected = [
        [(outer(i, o, 1e-6) - outer(i, o, -1e-6)) / 2e-6 for o in range(3)] for i in range(2)
    ]
    reset()
    noting = Noting(net.alphas.parameters(), 0.1)
    SecondOrder(run, net, weights, AlphaOptimizer(net, noting)).step(0, 0.0)
    for mine, by_hand in zip(noting.noted, expected, strict=True):
        torch.testing.assert_close(mine, torch.tensor(by_hand).double(), rtol=1e-4, atol=1e-8)
    reset()
    bilevel = Noting(net.alphas.parameters(), 0.1)
    LEVELS.get("bilevel")(run, net, weights, AlphaOptimizer(net, bilevel)).step(0, 0.0)
    far = (torch.stack(bilevel.noted) - torch.tensor(expected)).norm()
    assert far > 0.02 * torch.tensor(expected).norm()  # the second term matters in this case


def test_second_order_passes_one_training_batch_four_times(tmp_path: Path) -> None:
    run, net, weights = ready(tmp_path)
    objective = run.objective
    assert isinstance(objective, Double)
    objective.seen.clear()
    alphas = AlphaOptimizer(net, torch.optim.Adam(net.alphas.parameters(), 0.1))
    level = SecondOrder(run, net, weights, alphas)
    for step in range(2):
        level.step(step, 0.1)
    assert objective.seen == [
        *(("train", 3), ("selection", 0), *[("train", 3)] * 3),
        *(("train", 4), ("selection", 1), *[("train", 4)] * 3),
    ]
    assert len(objective.seen) == 2 * SecondOrder.passes


def test_second_order_moves_weights_as_bilevel_does(tmp_path: Path) -> None:
    """Looking ahead leaves no trace in the weights, the optimiser or the data."""
    moved = []
    for name in ("bilevel", "second-order"):
        run, net, weights = ready(tmp_path / name)
        still = AlphaOptimizer(net, Noting(net.alphas.parameters(), 0.1))
        level = LEVELS.get(name)(run, net, weights, still)
        losses = [level.step(step, 0.1)[0] for step in range(3)]
        moved.append((losses, values(weights)))
    assert moved[0][0] == moved[1][0]
    for one, other in zip(moved[0][1], moved[1][1], strict=True):
        assert torch.equal(one, other)


def test_sampled_draws_are_the_same_in_every_pass_of_a_batch(tmp_path: Path) -> None:
    run, net, weights = ready(tmp_path, RELAXATIONS.get("gumbel")())
    drawn: list[list[float]] = []
    inner = net.forward

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        output = inner(hidden)
        drawn.append(output.flatten()[:4].tolist())
        return output

    net.forward = forward  # type: ignore[method-assign]
    frozen = nn.ParameterList(net.alphas)
    still = AlphaOptimizer(net, Noting(frozen.parameters(), 0.1))
    SecondOrder(run, net, weights, still).step(0, 0.0)
    train = [drawn[index] for index in (0, 2, 3, 4)]
    assert train[0] == train[3]  # at the same weights, with the same draw
    for near in train[1:3]:
        assert near == pytest.approx(train[0], abs=1e-3)


@pytest.mark.parametrize(
    "recipe", [Recipe(optimizer="sgd"), Recipe(optimizer_options=["amsgrad=true"])], ids=str
)
def test_second_order_refuses_a_step_that_it_does_not_know(recipe: Recipe, tmp_path: Path) -> None:
    """Before anything is evaluated or trained; other levels take any optimiser."""
    for strategy in (Darts(level="second-order"), TwoStage(level="second-order")):
        run = Run(tmp_path, SPACE, ToyObjective(), Budget(100, 10), 0)
        with pytest.raises(UserError, match=r"'optimizer': level 'second-order' looks ahead"):
            search(run, strategy, recipe)
        assert not (tmp_path / "metrics.jsonl").read_text()
    Darts(level="bilevel").check_recipe(recipe)


def test_second_order_refuses_weights_that_change_behind_the_step(tmp_path: Path) -> None:
    """Before anything is evaluated or trained, also where the search is a part of another."""
    objective = ToyObjective()
    for strategy in (Darts(level="second-order"), TwoStage(level="second-order")):
        run = Run(tmp_path, SPACE, objective, Budget(100, 10), 0)
        objective.rewrites_weights = True  # type: ignore[attr-defined]
        with pytest.raises(UserError, match=r"second-order.*toy.*bilevel"):
            search(run, strategy)
        assert not (tmp_path / "metrics.jsonl").read_text()
