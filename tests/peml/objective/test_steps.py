"""Which examples a step sees, by the way to sample and by split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from peml.objective.objective import JointObjective
from tests.peml.objective.built import (
    example_loss,
    gradients,
    off,
    ready,
)


def names(objective: JointObjective, steps: int) -> list[tuple[str, ...]]:
    return [tuple(objective.backward("train")) for _ in range(steps)]


def test_gamma_takes_every_task_in_each_step(bench: Path) -> None:
    objective, _ = ready(bench)
    assert names(objective, 3) == [("mood", "order")] * 3


def test_round_robin_takes_turns(bench: Path) -> None:
    objective, _ = ready(bench, sampling="round-robin")
    assert names(objective, 4) == [("mood",), ("order",)] * 2


def test_temperature_draws_by_size(bench: Path) -> None:
    objective, _ = ready(bench, sampling="temperature", temperature=0.2)
    drawn = names(objective, 40)
    assert set(drawn) == {("mood",), ("order",)}
    # 36 and 22 training examples: their ratio to the fifth power is 12.
    assert drawn.count(("order",)) > 30


@pytest.mark.parametrize("split", ["train", "selection"])
def test_a_step_of_one_task_has_its_whole_gradient(split: Any, bench: Path) -> None:
    objective, net = ready(bench, double=True, sampling="round-robin")
    off(objective.lm.model)
    objective.backward(split)
    joint = gradients(objective, net)
    objective.batches.samplers[split] = objective.batches.sampler(split, 0)
    ((task, examples),) = next(objective.draws(split))
    torch.stack([example_loss(objective, task, e) for e in examples]).mean().backward()
    for one, other in zip(joint, gradients(objective, net), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)


def test_selection_batches_hold_no_training_example(bench: Path) -> None:
    objective, _ = ready(bench)
    drawn: dict[str, set[tuple[str, str]]] = {}
    for split in ("train", "selection"):
        draws = objective.draws(split)  # type: ignore[arg-type]
        drawn[split] = {
            (task.name, example.id)
            for _ in range(60)
            for task, examples in next(draws)
            for example in examples
        }
    assert len(drawn["train"]) == 22 + 36 and len(drawn["selection"]) == 2 + 4
    assert not drawn["train"] & drawn["selection"]
