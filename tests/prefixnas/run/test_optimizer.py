"""Every optimiser is torch's own, takes torch's options, and goes on where a checkpoint left it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from prefixnas.base.errors import UserError
from prefixnas.network.supernet import build_child
from prefixnas.run.checkpoint import load_checkpoint, save_checkpoint
from prefixnas.run.optimizer import Optimizer
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.training import WeightOptimizer
from prefixnas.space.loading import load_space
from prefixnas.testing import ToyObjective

OPTIONS: dict[str, list[str]] = {
    "sgd": ["momentum=0.9", "nesterov=true"],
    "adam": ["betas=[0.8, 0.99]", "eps=1e-6"],
    "adamw": ["amsgrad=true"],
    "rmsprop": ["momentum=0.5", "centered=true"],
}
NAMES = [(name, pairs) for name in get_args(Optimizer) for pairs in ([], OPTIONS.get(name))
         if pairs is not None]  # fmt: skip


def make(folder: Path, recipe: Recipe) -> WeightOptimizer:
    torch.manual_seed(0)
    run = Run(folder, load_space("default"), ToyObjective(), Budget(10, 10))
    run.reset(build_child(run.space, run.space.first(), 8))
    return WeightOptimizer(run, recipe, total=20)


def train(optimizer: WeightOptimizer, steps: range) -> list[torch.Tensor]:
    for step in steps:
        torch.manual_seed(step)  # dropout's
        optimizer.gradients(step, "train", "p")
        optimizer.step(step)
    return weights(optimizer)


def weights(optimizer: WeightOptimizer) -> list[torch.Tensor]:
    return [w.detach().clone() for g in optimizer.inner.param_groups for w in g["params"]]


@pytest.mark.parametrize(("name", "pairs"), NAMES, ids=str)
def test_a_checkpoint_goes_on_bit_for_bit(name: Any, pairs: list[str], tmp_path: Path) -> None:
    recipe = Recipe(optimizer=name, optimizer_options=pairs, schedule="cosine", warmup=2)
    whole = make(tmp_path / "whole", recipe)
    began = weights(whole)
    expected = train(whole, range(8))

    first = make(tmp_path / "first", recipe)
    train(first, range(5))
    module, objective = first.run.module, first.run.objective
    assert module is not None
    state = {"optimizer": first.state_dict(), "objective": objective.state_dict()}
    save_checkpoint(tmp_path / "kept", {**state, "module": module.state_dict()})

    second = make(tmp_path / "second", recipe)
    kept = load_checkpoint(tmp_path / "kept")
    assert kept is not None and second.run.module is not None
    second.run.module.load_state_dict(kept["module"])
    second.run.objective.load_state_dict(kept["objective"])
    second.load_state_dict(kept["optimizer"])
    found = train(second, range(5, 8))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert any(not torch.equal(one, other) for one, other in zip(found, began, strict=True))


@pytest.mark.parametrize(("name", "pairs"), NAMES, ids=str)
def test_a_step_is_torchs_own(name: Any, pairs: list[str], tmp_path: Path) -> None:
    ours = make(tmp_path, Recipe(optimizer=name, optimizer_options=pairs, warmup=0, decay=0))
    kind = next(k for k in vars(torch.optim).values() if getattr(k, "__name__", "").lower() == name)
    options: dict[str, Any] = {
        "sgd": {"momentum": 0.9, "nesterov": True},
        "adam": {"betas": (0.8, 0.99), "eps": 1e-6},
        "adamw": {"amsgrad": True},
        "rmsprop": {"momentum": 0.5, "centered": True},
    }[name] if pairs else {}  # fmt: skip
    copies = [
        {**{k: v for k, v in group.items() if k in ("lr", "weight_decay")}, "params": [
            torch.nn.Parameter(weight.detach().clone()) for weight in group["params"]
        ]}
        for group in ours.run.objective.parameters()
    ]  # fmt: skip
    theirs = kind(copies, **options)
    for step in range(3):
        ours.gradients(step, "train", "p")
        ours.step(step)
        pairs_of = zip(ours.inner.param_groups, theirs.param_groups, strict=True)
        for own, other in pairs_of:
            for weight, copy in zip(own["params"], other["params"], strict=True):
                copy.grad = None if weight.grad is None else weight.grad.clone()
        theirs.step()
    expected = [w.detach() for g in theirs.param_groups for w in g["params"]]
    for one, other in zip(weights(ours), expected, strict=True):
        assert torch.equal(one, other)


def test_moments_go_on_in_the_next_training(tmp_path: Path) -> None:
    recipe = Recipe(optimizer="sgd", optimizer_options=["momentum=0.9"])
    first = make(tmp_path, recipe)
    train(first, range(2))
    second = WeightOptimizer(first.run, recipe, 20, first)
    assert second.inner.state == first.inner.state != {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"optimizer": "admw"}, "key 'optimizer': .*'admw': did you mean 'adamw'"),
        (
            {"optimizer": "sgd", "optimizer_options": ["momentun=0.9"]},
            "key 'optimizer_options': unknown option of sgd 'momentun': did you mean 'momentum'",
        ),
        ({"optimizer_options": ["lr=0.1"]}, "unknown option of adamw 'lr'"),
        ({"optimizer_options": ["betas=[2, 0.9]"]}, "adamw does not take 'betas=.*: .*beta"),
        ({"optimizer_options": ["betas=high"]}, "adamw does not take 'betas=high': must be a num"),
        (
            {"optimizer_options": ["betas=[0.9, high]"]},
            "must be a number, true or false, or a list",
        ),
        ({"optimizer_options": ["betas"]}, "key 'optimizer_options': expected NAME=VALUE"),
        (
            {"optimizer": "sgd", "optimizer_options": ["nesterov=true"]},
            "sgd does not take 'nesterov=true'",
        ),
    ],
)
def test_what_torch_does_not_take_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Recipe(**given)
