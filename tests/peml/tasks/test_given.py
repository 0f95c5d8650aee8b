"""Tasks that are given from Python: what becomes of their values."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peml.tasks.given import write_task
from peml.tasks.spec import read_spec


def test_numbers_and_texts_of_numpy_are_values_like_others(tmp_path: Path) -> None:
    task = {
        "name": "t",
        "source": {"train": "a.jsonl", "validation": "b.jsonl"},
        "gamma": np.float64(0.5),
        "choices": (np.str_("no"), np.str_("yes")),
        "label_map": {np.str_("n"): np.int64(0), "y": 1},
        "train_limit": np.int64(5),
    }
    spec = read_spec(write_task(task, tmp_path))
    assert (spec.gamma, spec.choices, spec.train_limit) == (0.5, ("no", "yes"), 5)
    assert spec.label_map == {"n": 0, "y": 1}
