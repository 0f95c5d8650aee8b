"""Samplers of Optuna, asked anew for each trial."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import optuna
import pytest

from prefixnas.experiments.samplers import make_sampler

GRID = {"grid": {"search_space": {"a": [1, 2, 3], "b": [1, 2, 3]}}}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "named", [GRID, {"partial-fixed": {"fixed_params": {}, "base_sampler": GRID}}]
)
def test_a_grid_is_walked_point_by_point(named: dict[str, Any], seed: int) -> None:
    study = optuna.create_study(sampler=make_sampler(named, seed, "study.yaml"))
    visited = []
    for _ in range(9):
        trial = study.ask()
        visited.append((trial.suggest_int("a", 1, 3), trial.suggest_int("b", 1, 3)))
        with suppress(RuntimeError):  # grid search ends `optimize` with the last point
            study.tell(trial, 0.0)
    assert len(set(visited)) == 9
