"""The projection against a general solver, and alphas that are distributions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefixnas.network.relaxations import RELAXATIONS
from prefixnas.network.simplex import Simplex, project
from prefixnas.network.supernet import Supernet
from prefixnas.oneshot.update import ProjectedSGD
from prefixnas.space.nodes import Choice, Seq
from prefixnas.space.space import SearchSpace
from prefixnas.testing import check_relaxation, shipped_spaces

SPACE = SearchSpace("s", Seq("linear", Choice("f", ["relu", "tanh", "gelu", "silu"])))
NUMBERS = st.floats(-1e3, 1e3, allow_nan=False, width=32)
POINTS = st.lists(NUMBERS, min_size=1, max_size=12)


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("point", "nearest"),
    [
        ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5]),
        ([1.0, 1.0], [0.5, 0.5]),
        ([3.0, 0.0, 0.0], [1.0, 0.0, 0.0]),
        ([0.6, 0.6, -1.0], [0.5, 0.5, 0.0]),
        ([-5.0], [1.0]),
        ([0.9, 0.5, 0.3], [2 / 3, 4 / 15, 1 / 15]),  # each less (0.9 + 0.5 + 0.3 - 1) / 3
    ],
)
def test_projection_by_hand(point: list[float], nearest: list[float]) -> None:
    torch.testing.assert_close(project(tensor(point)), tensor(nearest))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-2, 2, width=32), min_size=2, max_size=6))
def test_projection_solves_the_quadratic_programme(point: list[float]) -> None:
    target = np.array(point)
    solved = scipy.optimize.minimize(
        lambda x: 0.5 * ((x - target) ** 2).sum(),
        np.full(len(point), 1 / len(point)),
        jac=lambda x: x - target,
        method="SLSQP",
        bounds=[(0, None)] * len(point),
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-14, "maxiter": 200},
    )
    np.testing.assert_allclose(project(tensor(point)).numpy(), solved.x, atol=1e-5)


@given(POINTS)
def test_projection_is_a_distribution_and_stays_where_it_is(point: list[float]) -> None:
    once = project(tensor(point))
    assert bool((once >= 0).all())
    assert once.sum().item() == pytest.approx(1)
    torch.testing.assert_close(project(once), once)


@given(POINTS, NUMBERS)
def test_projection_ignores_a_common_shift(point: list[float], shift: float) -> None:
    torch.testing.assert_close(project(tensor(point) + shift), project(tensor(point)))


@given(
    st.integers(1, 12).flatmap(
        lambda k: st.tuples(*[st.lists(NUMBERS, min_size=k, max_size=k)] * 2)
    )
)
def test_projection_brings_points_no_further_apart(pair: tuple[list[float], list[float]]) -> None:
    """Non-expansive, as section 7.2.1 of the paper uses it."""
    one, other = map(tensor, pair)
    assert (project(one) - project(other)).norm() <= (one - other).norm() + 1e-9


@given(POINTS)
def test_projection_in_single_precision_is_near_the_double_one(point: list[float]) -> None:
    near = project(torch.tensor(point, dtype=torch.float32))
    torch.testing.assert_close(near.double(), project(tensor(point)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", RELAXATIONS.names())
def test_every_relaxation_on_the_simplex(name: str) -> None:
    spaces = [space for space in shipped_spaces() if space.name != "paper"]
    check_relaxation(Simplex(inner=RELAXATIONS.get(name)()), spaces=spaces)


def test_mixture_weights_are_alpha_itself() -> None:
    alpha = torch.tensor([0.5, 0.5, 0.0], requires_grad=True)
    weights = Simplex().weights(alpha, 0.3)
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(Simplex().expected(alpha), weights)
    values = torch.tensor([1.0, 4.0, -2.0])
    (weights @ values).backward()
    assert alpha.grad is not None
    torch.testing.assert_close(alpha.grad - alpha.grad.mean(), values - values.mean())


def test_a_step_is_taken_on_the_simplex() -> None:
    """`alpha <- Proj(alpha - eta g)`, by hand, with one candidate that leaves and comes back."""
    net = Supernet(SPACE, 4, Simplex())
    with torch.no_grad():
        net.alphas[0].copy_(torch.tensor([0.4, 0.3, 0.2, 0.1]))
    optimizer = ProjectedSGD(net, 0.1)
    for gradient, expected in [
        ([0.0, 0.0, 0.0, 4.0], [0.5, 0.4, 0.1, 0.0]),  # (0.4, 0.3, 0.2, -0.3): 0.1 short of 1
        ([0.0, 0.0, 0.0, -3.0], None),
    ]:
        before = net.alphas[0].detach().clone()
        net.alphas[0].grad = torch.tensor(gradient)
        optimizer.step()
        by_hand = project((before - 0.1 * torch.tensor(gradient)).double()).float()
        torch.testing.assert_close(net.alphas[0].detach(), by_hand)
        if expected is None:
            assert net.alphas[0][3] > 0
    assert net.alphas[0].sum().item() == pytest.approx(1)


def test_probabilities_entropy_and_choice_read_alpha_as_it_is() -> None:
    net = Supernet(SPACE, 4, Simplex())
    with torch.no_grad():
        net.alphas[0].copy_(torch.tensor([0.1, 0.6, 0.3, 0.0]))
    torch.testing.assert_close(net.probabilities()["f"], torch.tensor([0.1, 0.6, 0.3, 0.0]))
    entropy = -sum(p * np.log(p) for p in (0.1, 0.6, 0.3))
    assert net.entropy().item() == pytest.approx(entropy, rel=1e-5)
    net.entropy().backward()
    assert net.alphas[0].grad is not None and bool(net.alphas[0].grad.isfinite().all())
    assert net.architecture()["f"] == "tanh"
    assert net.prune(0.2) == [("f", "relu"), ("f", "silu")]
    torch.testing.assert_close(net.probabilities()["f"], torch.tensor([0, 2 / 3, 1 / 3, 0]))


def test_what_was_pruned_stays_at_zero() -> None:
    net = Supernet(SPACE, 4, Simplex())
    with torch.no_grad():
        net.alphas[0].copy_(torch.tensor([0.05, 0.55, 0.3, 0.1]))
    net.prune(0.2)
    optimizer = ProjectedSGD(net, 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()
    alpha = net.alphas[0].detach()
    assert alpha[0] == alpha[3] == 0
    assert alpha.sum().item() == pytest.approx(1)
