"""The entropy term: the paper's, and the one that the data's gradient scales."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prefixnas.network.relaxations import RELAXATIONS, Relaxation, Softmax
from prefixnas.network.simplex import Simplex, tangent
from prefixnas.network.supernet import Supernet, weights_of
from prefixnas.oneshot.alphas import AlphaOptimizer
from prefixnas.oneshot.entropy import ENTROPY_SCALES, ByGradient, ByLoss, Signal
from prefixnas.oneshot.level import LEVELS
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.training import WeightOptimizer
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.darts import Darts
from prefixnas.testing import ToyObjective

SPACE = SearchSpace("s", Stack(3, Seq("linear", Choice("f", ["relu", "tanh", "gelu"]))))


def net_at(seed: int, relaxation: Relaxation | None = None) -> Supernet:
    """Return a supernet whose alphas have moved from where they start."""
    torch.manual_seed(seed)
    net = Supernet(SPACE, 4, relaxation)
    with torch.no_grad():
        for alpha in net.alphas:
            alpha.add_(torch.randn(3))
            alpha.copy_(net.relaxation.nearest(alpha))
    return net


def drawn(net: Supernet, seed: int) -> list[Tensor]:
    """Return gradients along the simplex, of very different lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = 10.0 ** torch.randint(-4, 3, (len(net.alphas),), generator=generator)
    raw = [torch.randn(alpha.shape, generator=generator) for alpha in net.alphas]
    return [length * (g - g.mean()) for length, g in zip(lengths, raw, strict=True)]


RELAXED = [Softmax(), Simplex(), RELAXATIONS.get("gumbel")(), RELAXATIONS.get("ste")()]


def test_by_loss_is_the_gradient_of_the_papers_term() -> None:
    net = net_at(0)
    pulls = ByLoss(net).pull(drawn(net, 0), 0.3)
    entropy = sum(torch.distributions.Categorical(logits=a).entropy() for a in net.alphas)
    wanted = torch.autograd.grad(0.3 * entropy, [*net.alphas])  # type: ignore[operator]
    for mine, by_hand in zip(pulls, wanted, strict=True):
        torch.testing.assert_close(mine, by_hand)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1), st.sampled_from(RELAXED), st.integers(2, 30))
def test_it_never_outweighs_a_steady_signal(
    seed: int, weight: float, relaxation: Relaxation, steps: int
) -> None:
    """A step down both gradients is a step down the data's, in every decision, at any alpha."""
    net = net_at(seed, relaxation)
    gradients = drawn(net, seed)
    term = ByGradient(net)
    for _ in range(steps):
        pulls = term.pull(gradients, weight)
    for gradient, pull in zip(gradients, pulls, strict=True):
        assert pull.norm() <= weight * gradient.norm() * 1.001
        assert ((gradient + pull) * gradient).sum() >= -1e-3 * gradient.square().sum()


def test_it_drives_towards_the_leader_of_every_decision() -> None:
    net = net_at(3)
    gradients, term = drawn(net, 3), ByGradient(net)
    for _ in range(3):
        pulls = term.pull(gradients, 1.0)
    entropies = net.entropies()
    for index, (name, pull) in enumerate(zip(entropies, pulls, strict=True)):
        assert pull.norm() > 0
        with torch.no_grad():
            net.alphas[index] -= 1e-2 * pull / pull.norm()
        assert net.entropies()[name] < entropies[name]


@pytest.mark.parametrize("factor", [2.0**-12, 2.0**12])
def test_it_scales_with_the_datas_gradient(factor: float) -> None:
    """The same search, whatever unit the loss is in; the paper's term knows one unit alone."""

    def pulls(name: str, by: float) -> list[Tensor]:
        net = net_at(1)
        term = ENTROPY_SCALES[name](net)
        found = [term.pull([by * g for g in drawn(net, step % 3)], 0.7) for step in range(5)]
        return found[-1]

    for one, other in zip(pulls("gradient", 1.0), pulls("gradient", factor), strict=True):
        assert one.any() and torch.equal(one * factor, other)
    for one, other in zip(pulls("loss", 1.0), pulls("loss", factor), strict=True):
        assert torch.equal(one, other)


def test_each_decision_has_its_own_lambda() -> None:
    """What the data say of one decision gives no weight to the entropy of another."""
    net = net_at(2)
    gradients = drawn(net, 2)
    gradients[1] = torch.zeros(3)
    term = ByGradient(net)
    for _ in range(3):
        pulls = term.pull(gradients, 1.0)
    assert pulls[0].any() and pulls[2].any() and not pulls[1].any()


def test_noise_gives_it_hardly_any_weight() -> None:
    """A running mean of noise has a norm of 0.16 of the noise's; that part is taken off."""
    torch.manual_seed(0)
    signal, found, plain = Signal([torch.zeros(4)]), [], []
    mean = torch.zeros(4)
    for step in range(2000):
        gradient = torch.randn(4)
        signal.take([gradient])
        mean = 0.95 * mean + 0.05 * gradient
        if step > 100:
            found.append(float(signal.norms()[0]) ** 2)
            plain.append(float(mean.square().sum()))
    assert np.mean(found) < 0.5 * np.mean(plain)
    assert np.mean(found) < 0.015 * 4


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_a_signal_is_found_in_noise(noise: float) -> None:
    torch.manual_seed(1)
    true = torch.tensor([1.0, -2.0, 1.0])
    squares = []
    for _ in range(200):
        signal = Signal([true])
        for _ in range(15):
            signal.take([true + noise * torch.randn(3)])
        squares.append(float(signal.norms()[0]) ** 2)
    assert np.mean(squares) == pytest.approx(6.0, rel=0.05)


def test_one_step_tells_no_signal_from_noise() -> None:
    signal = Signal([torch.zeros(2)])
    assert signal.norms()[0] == 0
    signal.take([torch.tensor([3.0, 4.0])])
    assert signal.norms()[0] == 0
    signal.take([torch.tensor([3.0, 4.0])])
    assert float(signal.norms()[0]) == pytest.approx(5.0, rel=1e-3)


def test_pruned_options_take_no_part() -> None:
    net = net_at(4)
    net.keep("layer0/f", "tanh")
    with torch.no_grad():
        net.alive(1)[2] = False
    gradients, term = drawn(net, 4), ByGradient(net)
    gradients[1][2] = 0.0
    for _ in range(3):
        pulls = term.pull(gradients, 1.0)
    assert not pulls[0].any()
    assert pulls[1][2] == 0 and pulls[1].any()
    assert float(pulls[1].sum()) == pytest.approx(0, abs=1e-6 * float(pulls[1].norm()))


def test_along_the_simplex() -> None:
    gradient, alive = torch.tensor([1.0, 5.0, 3.0]), torch.tensor([True, False, True])
    assert tangent(gradient, alive).tolist() == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize("level", ["joint", "bilevel", "second-order"])
@pytest.mark.parametrize("scale", ["gradient", "loss"])
def test_the_entropy_moves_alphas_alone(level: str, scale: str, tmp_path: Path) -> None:
    """The weights' step and the data's gradient of the alphas are those of a step without it."""
    found = []
    for weight in (0.0, 0.8):
        run = Run(tmp_path / str(weight), SPACE, ToyObjective(width=4), Budget(100, 10), 0)
        net = net_at(5)
        run.reset(net)
        weights = WeightOptimizer(run, Recipe(), 100)
        still = torch.optim.SGD(net.alphas.parameters(), 0.0)
        alphas = AlphaOptimizer(net, still, ENTROPY_SCALES[scale](net))
        step = LEVELS.get(level)(run, net, weights, alphas)
        told = [step.step(number, weight) for number in range(3)]
        moved = [parameter.detach().clone() for parameter in weights_of(net)]
        found.append((told, moved, alphas.gradients))
    (told, moved, gradients), (told_with, moved_with, gradients_with) = found
    assert [losses for losses, _ in told] == [losses for losses, _ in told_with]
    assert told[-1][1] != told_with[-1][1]  # the norm is that of both parts
    for one, other in zip([*moved, *gradients], [*moved_with, *gradients_with], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("scale", ["gradient", "loss"])
def test_it_goes_on_where_it_stopped(scale: str) -> None:
    net = net_at(6)
    whole = ENTROPY_SCALES[scale](net)
    for step in range(4):
        whole.pull(drawn(net, step), 0.5)
    resumed = ENTROPY_SCALES[scale](net)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for step in range(4, 8):
        pairs = [term.pull(drawn(net, step), 0.5) for term in (whole, resumed)]
        assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))


def sharpness(folder: Path, **options: Any) -> float:
    """Return how sure a search of the toy ends: the mean of its decisions' largest probability."""
    run = Run(folder, SPACE, ToyObjective(), Budget(80, 0), 0)
    Darts(prune_below=0.0, alpha_warmup=0.0, **options).search(run, Recipe())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["event"] == "alpha"][-1]["probabilities"]
    return float(np.mean([max(options.values()) for options in last.values()]))


def test_searches_end_surer_with_it(tmp_path: Path) -> None:
    none, default, much = (
        sharpness(tmp_path / str(weight), entropy_weight=weight) for weight in (0.0, 1.0, 4.0)
    )
    assert none < default < much


def test_one_lambda_of_the_paper_decides_whatever_the_data_say(tmp_path: Path) -> None:
    """Why the scale is the data's by default: lambda has to be chosen anew for every loss."""
    decided = sharpness(tmp_path / "loss", entropy_scale="loss", entropy_weight=3.0)
    assert decided > sharpness(tmp_path / "gradient", entropy_weight=1.0) + 0.1
