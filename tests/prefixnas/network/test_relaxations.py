"""Relaxations against formulas; their promises are in test_contracts."""

from __future__ import annotations

import pytest
import torch

from prefixnas.network.relaxations import RELAXATIONS, Gumbel, GumbelHard, Softmax, StraightThrough

ALPHA = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64)


def test_softmax_by_hand() -> None:
    exps = (ALPHA / 0.5).exp()
    weights = Softmax(0.5, 0.5).weights(ALPHA, 0.3)
    torch.testing.assert_close(weights, exps / exps.sum())


def test_straight_through_is_one_hot_forward_and_softmax_backward() -> None:
    alpha = ALPHA.clone().requires_grad_()
    values = torch.tensor([1.0, 2.0, -3.0, 0.5], dtype=torch.float64)
    weights = StraightThrough().weights(alpha, 0.0)
    assert weights.round().tolist() == [0, 0, 1, 0]
    (weights @ values).backward()
    soft = torch.softmax(ALPHA, 0)
    torch.testing.assert_close(alpha.grad, soft * (values - soft @ values))


def test_gumbel_draws_follow_the_softmax() -> None:
    torch.manual_seed(0)
    draws = torch.stack([GumbelHard().weights(ALPHA, 1.0) for _ in range(4000)])
    assert set(draws.unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(draws.mean(0), torch.softmax(ALPHA, 0), atol=0.03, rtol=0)


def test_soft_gumbel_comes_nearer_to_one_hot_as_the_search_goes_on() -> None:
    torch.manual_seed(0)
    sharpness = [
        torch.stack([Gumbel().weights(ALPHA, p) for _ in range(500)]).max(-1).values.mean().item()
        for p in (0.0, 0.5, 1.0)
    ]
    assert sharpness == sorted(sharpness)
    assert sharpness[0] < 0.7 < 0.85 < sharpness[2]


def test_temperature_falls_geometrically() -> None:
    relaxation = Gumbel(4.0, 0.25)
    assert [relaxation.temperature(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([4.0, 1.0, 0.25])


@pytest.mark.parametrize("name", RELAXATIONS.names())
def test_temperatures_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match="above 0"):
        RELAXATIONS.get(name)(0.0, 1.0)
