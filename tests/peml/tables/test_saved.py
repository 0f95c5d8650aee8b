from __future__ import annotations

import torch
from torch.autograd.graph import saved_tensors_hooks

from peml.objective.config import LanguageModelConfig
from peml.objective.objective import JointObjective
from peml.tables.saved import Count, saved_bytes, used

ROWS, WIDTH = 4, 8
EACH = ROWS * WIDTH * 4
"""Bytes of what an exponential keeps: its own result."""


def exponentials(count: Count, times: int) -> torch.Tensor:
    start = torch.zeros(ROWS, WIDTH, requires_grad=True)
    x: torch.Tensor = start
    with saved_tensors_hooks(count.keep, used):
        for _ in range(times):
            x = (x * 0.1).exp()
    return x.sum()


def test_what_is_kept_is_counted_once_and_given_back() -> None:
    count = Count(set())
    first = exponentials(count, 3)
    assert count.most == 3 * EACH
    first.backward()  # type: ignore[no-untyped-call]
    del first
    second = exponentials(count, 2)  # in the place of the first three
    assert count.most == 3 * EACH
    third = exponentials(count, 2)  # beside the second
    assert count.most == 4 * EACH
    del second, third


def test_a_tensor_that_is_kept_twice_counts_once_and_weights_do_not() -> None:
    weight = torch.ones(WIDTH, requires_grad=True)
    x = torch.ones(ROWS, WIDTH, requires_grad=True) * 2
    count = Count({weight.untyped_storage().data_ptr()})
    with saved_tensors_hooks(count.keep, used):
        y = (x * weight).sum() + (x * x).sum()
    assert count.most == EACH
    y.backward()  # type: ignore[no-untyped-call]


def objective(rank: int) -> JointObjective:
    config = LanguageModelConfig(
        tasks=["embedded:sentiment", "embedded:boolean"],
        train_limit=30,
        eval_limit=4,
        batch_size=4,
        lora_rank=rank,
    )
    made = config.build(4, seed=0)
    made.reset(None, 0)
    return made


def test_a_step_is_measured_alike_and_leaves_no_trace() -> None:
    ours = objective(2)
    found = saved_bytes(ours)
    weights = [weight for group in ours.parameters() for weight in group["params"]]
    assert all(weight.grad is None for weight in weights)
    assert saved_bytes(objective(2)) == found
    ours.backward("train")
    kept = [weight.grad for weight in weights]
    saved_bytes(ours)
    assert all(weight.grad is grad for weight, grad in zip(weights, kept, strict=True))


def test_a_larger_rank_keeps_more() -> None:
    """Of each linear layer the product with A, `[b, t, r]` in float32, is kept besides."""
    small, large = objective(2), objective(34)
    assert saved_bytes(large) > saved_bytes(small)
