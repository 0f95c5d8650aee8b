"""Tables on tiny models, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def small(bench: Path, **more: Any) -> dict[str, Any]:
    """Return a table of two rows on the tiny Llama."""
    return {
        "title": "Two rows",
        "common": {
            "model": str(bench / "llama"),
            "steps": 6,
            "prefix_length": 3,
            "lora_rank": 2,
            "batch_size": 4,
            "checkpoint_every": 2,
        },
        "tasks": [str(bench / "mood"), str(bench / "order")],
        "seeds": [0, 1],
        "rates": [1, 2],
        "trial_steps": 4,
        "against": ["LoRA"],
        "rows": {"LoRA": {}, "PEML": {"space": "mlp", "strategy": "fixed"}},
        "paper": {
            "model": "a large model",
            "columns": ["mood", "average"],
            "rows": {"LoRA": [0.9, 0.8], "PEML": ["~1", None]},
        },
        **more,
    }


def write(path: Path, table: dict[str, Any]) -> Path:
    """Write a table's file."""
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    return path
