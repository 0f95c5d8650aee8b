"""LoRAHub's two parts: each task's LoRA trains alone, then weights of all of them are tried."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from peml.methods.lorahub import LoraHub
from peml.methods.method import Setting, attach_method
from peml.testing.models import output, some_inputs, tiny_model

TASKS = ("first", "second", "third")


def test_loras_are_held_while_weights_are_tried_and_the_best_are_kept() -> None:
    lm = tiny_model("llama")
    hub: Any = attach_method(LoraHub(lora_rank=2, evaluations=4), lm, Setting(TASKS, 10, 0))
    optimizer = torch.optim.AdamW(hub.parameters(), 0.05)
    best, trained = [], []
    for step in range(10):
        optimizer.zero_grad()
        lm.model.train()
        losses = {}
        for number, task in enumerate(TASKS):
            with lm.on(task):
                found = output(lm, some_inputs(lm, seed=number))
                loss = (found * torch.linspace(-1, number, found.shape[-1])).mean()
                torch.autograd.backward(loss)
                losses[task] = loss.item()
        hub.observed(losses)
        optimizer.step()
        hub.stepped(step)
        trained.append([parameter.detach().clone() for parameter in hub.parameters()])
        best.append((hub._hub.best.clone(), hub._hub.scores.clone()))
    for before, after in pairwise(trained[5:]):
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(trained[3], trained[4], strict=True))
    assert all(torch.equal(weights, torch.eye(3).double()) for weights, _ in best[:6])
    scores = torch.stack([scores for _, scores in best[6:]])
    assert bool((scores.diff(dim=0) <= 0).all()) and bool((scores[-1] < 1e30).all())
    assert bool((best[-1][0].abs() <= 1.5).all())
    assert torch.equal(hub._hub.tried, hub._hub.best)  # as which it is held, if more trains


def test_every_task_tries_its_start_first_where_a_step_has_one_task() -> None:
    lm = tiny_model("llama")
    hub: Any = attach_method(LoraHub(lora_rank=2, evaluations=6), lm, Setting(TASKS, 12, 0))
    for step in range(12):
        place = step % 3
        away = float((hub._hub.tried[place] - torch.eye(3)[place]).abs().sum())
        hub.observed({TASKS[place]: 1 + 100 * away})  # nothing is as good as the start
        hub.stepped(step)
    assert torch.equal(hub._hub.best, torch.eye(3).double())
    assert bool((hub._hub.scores < 1.1).all())


def test_a_pass_takes_all_loras() -> None:
    hub: Any = attach_method(LoraHub(lora_rank=2), tiny_model("llama"), Setting(TASKS, 10, 0))
    assert hub.weights_in_use() == sum(weight.numel() for weight in hub.parameters())


def test_a_task_trains_its_own_lora_alone() -> None:
    lm = tiny_model("llama")
    hub: Any = attach_method(LoraHub(lora_rank=2), lm, Setting(TASKS, 10, 0))
    lm.model.train()
    with lm.on("second"):
        output(lm, some_inputs(lm)).sum().backward()
    term = hub.terms[0]
    assert term.b[1].grad is not None
    assert term.b[0].grad is None and term.a[2].grad is None
