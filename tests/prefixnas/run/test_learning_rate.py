"""Schedules by transformers' names have transformers' rates; unknown names do not pass."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from transformers import get_scheduler

from prefixnas.base.errors import UserError
from prefixnas.run.learning_rate import SCHEDULES, Name
from prefixnas.run.recipe import Recipe

TRANSFORMERS: list[tuple[str, dict[str, Any]]] = [
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("linear", {}),
    ("cosine", {}),
    ("cosine", {"num_cycles": 1.5}),
    ("cosine_with_restarts", {}),
    ("cosine_with_restarts", {"num_cycles": 3}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.2}),
    ("polynomial", {}),
    ("polynomial", {"power": 2.0, "lr_end": 1e-3}),
    ("inverse_sqrt", {}),
    ("inverse_sqrt", {"timescale": 7}),
    ("warmup_stable_decay", {}),
    ("warmup_stable_decay", {"decay_type": "1-sqrt", "warmup_type": "cosine"}),
    ("warmup_stable_decay", {"decay_type": "linear", "min_lr_ratio": 0.1}),
    ("warmup_stable_decay", {"warmup_type": "1-sqrt", "num_cycles": 1.5}),
]


def theirs(name: str, warmup: int, total: int, rate: float, options: dict[str, Any]) -> list[float]:
    """Return the rate of every step as transformers' scheduler sets it in an optimiser."""
    if name == "warmup_stable_decay":
        options = {**options, "num_decay_steps": round(0.3 * total)}
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=rate)
    scheduler = get_scheduler(name, optimizer, warmup, total, scheduler_specific_kwargs=options)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("warmup", [0, 1, 6, 35])
@pytest.mark.parametrize(("name", "options"), TRANSFORMERS, ids=str)
def test_rates_are_those_of_transformers(name: Any, options: dict[str, Any], warmup: int) -> None:
    pairs = [f"{key}={value}" for key, value in options.items()]
    recipe = Recipe(schedule=name, schedule_options=pairs, warmup=warmup, decay=0.3)
    ours = [recipe.rate(step, 40, 0.02) for step in range(40)]
    assert ours == pytest.approx(theirs(name, warmup, 40, 0.02, options), abs=1e-15)
    assert len({*ours}) > 1 or name.startswith("constant")


def test_every_name_is_compared() -> None:
    assert set(get_args(Name)) == set(SCHEDULES)
    assert {name for name, _ in TRANSFORMERS} == set(SCHEDULES) - {"trapezoid"}


def test_the_default_is_a_trapezoid() -> None:
    assert Recipe().schedule == "trapezoid"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"schedule": "cosin"}, "key 'schedule': .*'cosin': did you mean 'cosine'"),
        ({"schedule_options": ["power=2"]}, "key 'schedule_options': unknown key 'power'"),
        (
            {"schedule": "cosine", "schedule_options": ["num_cycle=2"]},
            "'schedule_options': unknown key 'num_cycle': did you mean 'num_cycles'",
        ),
        (
            {"schedule": "cosine_with_restarts", "schedule_options": ["num_cycles=1.5"]},
            "'num_cycles': must be a whole number",
        ),
        (
            {"schedule": "warmup_stable_decay", "schedule_options": ["decay_type=sqrt"]},
            "'decay_type': .*did you mean '1-sqrt'",
        ),
    ],
)
def test_unknown_names_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Recipe(**given)


def test_a_polynomial_ends_below_every_rate() -> None:
    recipe = Recipe(schedule="polynomial", schedule_options=["lr_end=0.01"], warmup=2)
    with pytest.raises(UserError, match=r"lr_end is 0\.01, and must be below every learning rate"):
        recipe.rate(2, 10, 0.005)
