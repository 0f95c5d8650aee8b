"""A small study, and a trial of it carried out in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefixnas.experiments.study import Study
from tests.prefixnas.experiments.nni.trials import run

EXPERIMENT = {
    "name": "parts",
    "base": {"strategy": "fixed", "steps": 2, "eval_every": 1},
    "hyperparameters": {
        "learning_rate": {"loguniform": [1e-3, 1e-2]},
        "prefix_length": {"int": [5, 9]},
        "lora_rank": {"choice": [8, 16]},
    },
    "trials": 3,
}


def carry_out(study: Study, values: dict[str, Any], report: Callable[[int, float], None]) -> None:
    run(values, report, study.trial_folder(values["trial"]))
