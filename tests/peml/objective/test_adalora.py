"""AdaLoRA inside the joint loss: ranks fall, and its orthogonality term is in the gradient."""

from __future__ import annotations

from pathlib import Path

import torch

from peml.objective.objective import JointObjective
from prefixnas.network.supernet import Supernet
from tests.peml.objective.built import (
    SPACE,
    config,
    off,
)


def adalora(bench: Path, steps: int) -> tuple[JointObjective, Supernet]:
    objective = JointObjective(config(bench, method="adalora", lora_rank=4), steps, seed=0)
    torch.manual_seed(0)
    net = Supernet(SPACE, objective.width)
    objective.reset(net, 0)
    return objective, net


def ranks(objective: JointObjective) -> int:
    """Return how many singular values of all layers are left."""
    values = [p for n, p in objective.lm.model.named_parameters() if "lora_E" in n]
    return sum(int((value != 0).sum()) for value in values)


def test_adalora_really_drops_ranks_at_its_allocation_steps(bench: Path) -> None:
    steps = 20
    objective, _ = adalora(bench, steps)
    layers = sum("lora_E" in n for n, _ in objective.lm.model.named_parameters())
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    left = []
    for step in range(steps):
        optimizer.zero_grad()
        objective.backward("train")
        optimizer.step()
        objective.stepped(step)
        left.append(ranks(objective))
    full, target = 6 * layers, 4 * layers  # one and a half times the rank at first
    assert left[: steps // 10] == [full] * (steps // 10)
    assert target < left[steps // 4] < full
    assert left[steps // 2 :] == [target] * (steps - steps // 2)


def test_the_orthogonality_term_is_in_the_gradient(bench: Path) -> None:
    objective, _ = adalora(bench, 20)
    off(objective.lm.model)
    state = objective.state_dict()["samplers"]["train"]
    objective.backward("train")
    factors = [
        (name, parameter)
        for name, parameter in objective.lm.model.named_parameters()
        if "lora_A" in name or "lora_B" in name
    ]
    # E starts at zero, so nothing but the term reaches A and B in the first step.
    term = torch.zeros(())
    for name, factor in factors:
        gram = factor @ factor.T if "lora_A" in name else factor.T @ factor
        term = term + (gram - torch.eye(len(gram))).square().sum().sqrt() / len(factors)
    wanted = torch.autograd.grad(0.5 * term, [factor for _, factor in factors])
    for (_, factor), gradient in zip(factors, wanted, strict=True):
        assert factor.grad is not None and gradient.abs().max() > 0
        torch.testing.assert_close(factor.grad, gradient, rtol=1e-4, atol=1e-7)
    assert state != objective.state_dict()["samplers"]["train"]
