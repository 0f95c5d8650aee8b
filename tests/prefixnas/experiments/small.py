"""A small experiment on the tabular benchmark, whose trials take a second."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from prefixnas.experiments.experiment import load_experiment
from prefixnas.experiments.study import Study

SMALL: dict[str, Any] = {
    "name": "small",
    "base": {
        "objective": "tabular",
        "space": "tabular",
        "strategy": "tpe",
        "steps": 60,
        "eval_every": 5,
        "checkpoint_every": 4,
    },
    "hyperparameters": {
        "startup": {"int": [1, 10]},
        "trials": {"int": [2, 6]},
        "clip": {"loguniform": [0.1, 1.0]},
        "warmup": {"choice": [1, {2: {"decay": {"uniform": [0.1, 0.9]}}}]},
    },
    "trials": 6,
    "sampler": "random",
}


TOY = {"objective": "tabular", "space": "tabular", "checkpoint_every": 4}
"""The base of a search on the benchmark, without the rest."""


def small(path: Path, **changes: Any) -> Path:
    """Write the experiment with other keys, and with `base__KEY` in its base; None takes away."""
    data = copy.deepcopy(SMALL)
    for name, value in changes.items():
        inner, _, key = name.rpartition("__")
        part = data[inner] if inner else data
        if value is None:
            part.pop(key, None)
        else:
            part[key] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def open_small(folder: Path, **changes: object) -> Study:
    return Study.open(load_experiment(small(folder / "small.yaml", **changes)), folder / "study")


def ignore(epoch: int, score: float) -> None:
    """Take a report."""
