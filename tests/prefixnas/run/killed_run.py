"""A small search that kills its own process, as `kill -9` would, after a number of events."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from prefixnas import Budget, Recipe, Run, load_space, search
from prefixnas.run.events import Event
from prefixnas.run.strategy import STRATEGIES, Strategy
from prefixnas.testing import ToyObjective

STRATEGY: dict[str, dict[str, Any]] = {
    "darts": {"prune_below": 0.24, "relaxation": "gumbel"},
    "random": {"trials": 3},
}


def build(name: str) -> Strategy:
    return STRATEGIES.get(name)(**STRATEGY[name])


def run(folder: Path, name: str, kill_after: int, resume: bool) -> None:
    """Search; send SIGKILL to this process after `kill_after` events (never, if negative)."""
    left = kill_after

    def on_event(event: Event) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    started = Run(
        folder,
        load_space("default"),
        ToyObjective(),
        Budget(14, 8),
        seed=5,
        checkpoint_every=4,
        on_event=on_event,
        resume=resume,
    )
    search(started, build(name), Recipe(warmup=2, eval_every=3))


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == "resume")
